"""What is known of one setting beside its default, and the check of its value."""

import dataclasses
import math
import reprlib
from typing import Any


class SettingsError(ValueError):
    """A setting is outside its range. The message is one sentence."""


@dataclasses.dataclass(frozen=True)
class Option:
    """What is known of one setting beside its type and default."""

    help: str
    group: str
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    limit: int | None = None
    """More than any run needs, and as much as can still be refused for what it would cost."""
    choices: tuple[Any, ...] | None = None
    flags: str | None = None
    may_be_infinite: bool = False

    def range(self) -> str | None:
        """The accepted values in words."""
        if self.choices is not None:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.minimum is not None and self.maximum is not None:
            return f"from {_plain(self.minimum)} to {_plain(self.maximum)}"
        if self.minimum is not None:
            return f"at least {_plain(self.minimum)}"
        if self.above is not None:
            return f"greater than {_plain(self.above)}"
        return None


def flag_of(name: str) -> str:
    """The option of the command line for a setting."""
    return "--" + name.replace("_", "-")


def checked(name: str, value: Any, kind: type, option: Option) -> Any:
    """The value of a setting, whole numbers as floats where these are wanted; `SettingsError`
    where it is of another type or outside its range."""
    shown = reprlib.repr(value)
    if kind is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:
            value = math.inf if value > 0 else -math.inf
    if type(value) is not kind:
        raise SettingsError(f"{flag_of(name)} must be of type {kind.__name__}, got {shown}")
    if option.choices is not None:
        inside = value in option.choices
    else:
        inside = (
            (option.minimum is None or value >= option.minimum)
            and (option.above is None or value > option.above)
            and (option.maximum is None or value <= option.maximum)
        )
    shown = shown.strip("'") if kind is str else shown
    if not inside:
        raise SettingsError(f"{flag_of(name)} must be {option.range()}, got {shown}")
    if option.limit is not None and value > option.limit:
        raise SettingsError(f"{flag_of(name)} must be at most {option.limit}, got {shown}")
    if kind is float and not math.isfinite(value) and not option.may_be_infinite:
        raise SettingsError(f"{flag_of(name)} must be a finite number, got {shown}")
    return value


def _plain(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"
