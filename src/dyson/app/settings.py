"""The settings of a training run: one table of options with their help, ranges and defaults.

The command line takes its options from this table and a run directory stores it, so a value is
checked in one place wherever it comes from.
"""

import dataclasses
import itertools
import math
import reprlib
from typing import Any, get_type_hints

from dyson.app import ladder as ladders

MOST_SITES = 1_000_000

# Settings that do not shape the state, so that a resumed run may change them.
CHANGEABLE = (
    "steps",
    "chain_length",
    "sweeps",
    "learning_rate",
    "trust_region",
    "shift",
    "shift_floor",
    "checkpoint_every",
)


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


def _setting(default: Any, help: str, group: str, **limits: Any) -> Any:
    return dataclasses.field(
        default=default, metadata={"option": Option(help=help, group=group, **limits)}
    )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that determines a training run, bit for bit. Raises `SettingsError`."""

    n_sites: int = _setting(64, "Sites of the chain.", "Chain", minimum=1, limit=MOST_SITES)
    coupling: float = _setting(
        -1.0, "Ising coupling J of H = -h Σ X + J Σ Z Z / r^α; negative is ferromagnetic.", "Chain"
    )
    exponent: float = _setting(
        math.inf,
        "Decay α of the coupling with the distance; inf couples nearest neighbours only.",
        "Chain",
        above=0,
        may_be_infinite=True,
    )
    field: float = _setting(1.0, "Transverse field h.", "Chain")
    longitudinal: float = _setting(0.0, "Longitudinal field g in -g Σ Z.", "Chain")
    periodic: bool = _setting(True, "A ring or an open chain.", "Chain", flags="--periodic/--open")
    kac: bool = _setting(
        False, "Divide the coupling by the Kac factor, 1 plus the sum of all r^-α.", "Chain"
    )

    features: int = _setting(16, "Channels per token.", "Network", minimum=1, limit=100_000)
    depth: int = _setting(2, "Number of blocks.", "Network", minimum=1, limit=1_000)
    modes: int = _setting(
        1, "Exponentials per channel of a mixer.", "Network", minimum=1, limit=10_000
    )
    kernel_size: int = _setting(
        3, "Width of the local convolution in tokens, odd.", "Network", minimum=1, limit=100_001
    )
    hidden: int = _setting(
        8, "Outputs of the head before log-cosh.", "Network", minimum=1, limit=1_000_000
    )
    token_size: int = _setting(
        1, "Spins per token; divides the number of sites.", "Network", choices=(1, 2, 4)
    )
    mixer: str = _setting(
        "s4d",
        "Damped oscillations, real poles, a HiPPO state space or power laws.",
        "Network",
        choices=("s4d", "real", "s4", "power_law"),
    )
    complex_head: bool = _setting(False, "Complex log ψ, for states with signs.", "Network")
    project: bool = _setting(
        True,
        "Project on the even spin-flip sector where the chain has the symmetry.",
        "Network",
        flags="--project/--no-project",
    )
    precision: int = _setting(
        32, "Bits of the network's floating-point numbers.", "Network", choices=(32, 64)
    )

    steps: int = _setting(150, "Optimisation steps.", "Training", minimum=1, limit=1_000_000_000)
    grow: str = _setting(
        ladders.AUTO,
        "Shorter chains to train on before, with the steps on each, as 32:80,64:20; auto, or off.",
        "Training",
    )
    seed: int = _setting(0, "Seed of all random numbers.", "Training", minimum=0, maximum=2**32 - 1)
    sampler: str = _setting(
        "sweep",
        "Exact sweeps along the chain, by windows or forward passes, whichever costs less; "
        "or Metropolis at random sites.",
        "Training",
        choices=("sweep", "metropolis"),
    )
    chains: int = _setting(128, "Markov chains.", "Training", minimum=2, limit=100_000_000)
    chain_length: int = _setting(
        4, "Samples of each chain per step.", "Training", minimum=1, limit=100_000_000
    )
    sweeps: int = _setting(
        1, "Sweeps between two samples of a chain.", "Training", minimum=1, limit=1_000_000
    )
    learning_rate: float = _setting(
        0.2,
        "Factor on the natural-gradient step for 80 steps, or 20 on the last chain of --grow; then "
        "it falls like 1/t.",
        "Training",
        above=0,
    )
    trust_region: float = _setting(
        0.1,
        "Longest step in the metric of the state; longer ones are shortened.",
        "Training",
        above=0,
    )
    shift: float = _setting(
        1e-2,
        "Diagonal shift of the metric at the start; falls tenfold every 40 steps.",
        "Training",
        above=0,
    )
    shift_floor: float = _setting(1e-4, "Smallest diagonal shift.", "Training", above=0)
    checkpoint_every: int = _setting(
        10,
        "Steps between checkpoints, which a killed run repeats at most.",
        "Training",
        minimum=1,
        limit=1_000_000_000,
    )

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = _checked(name, getattr(self, name), kind, option_of(name))
            object.__setattr__(self, name, value)
        if self.kernel_size % 2 == 0:
            raise SettingsError(f"{flag_of('kernel_size')} must be odd, got {self.kernel_size}")
        if self.n_sites % self.token_size:
            raise SettingsError(
                f"{flag_of('n_sites')} must be a multiple of {flag_of('token_size')}, "
                f"got {self.n_sites} sites in tokens of {self.token_size}"
            )
        # written out, so that a run keeps its ladder whatever becomes of the automatic one
        object.__setattr__(self, "grow", ladders.written(self.ladder))

    @property
    def ladder(self) -> tuple[ladders.Rung, ...]:
        """The shorter chains that come before that of ``n_sites``."""
        try:
            return ladders.ladder(self.grow, self.n_sites, self.token_size, self.steps)
        except ValueError as error:
            raise SettingsError(f"{flag_of('grow')} {error}") from error

    @property
    def sizes(self) -> tuple[int, ...]:
        """The chains of the run in their order."""
        return (*(rung.n_sites for rung in self.ladder), self.n_sites)

    def sites_at(self, step: int) -> int:
        """The chain on which a step is taken."""
        ends = itertools.accumulate(rung.steps for rung in self.ladder)
        return self.sizes[sum(step > end for end in ends)]

    def on(self, n_sites: int) -> "Settings":
        """The settings of one chain of the run, with those that come before it."""
        number = self.sizes.index(n_sites)
        before = ladders.written(self.ladder[:number])
        return dataclasses.replace(self, n_sites=n_sites, grow=before)

    def to_json(self) -> dict[str, Any]:
        """Plain values; infinity, which JSON does not know, becomes the string "inf"."""
        return {
            name: "inf" if value == math.inf else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Any) -> "Settings":
        """The inverse of `to_json`. Every setting has to be there, and nothing else."""
        if not isinstance(values, dict):
            raise SettingsError("the settings are not a table of names and values")
        names = {field.name for field in dataclasses.fields(cls)}
        for problem, odd in [
            ("unknown", values.keys() - names),
            ("missing", names - values.keys()),
        ]:
            if odd:
                raise SettingsError(f"{problem} setting {', '.join(sorted(odd))[:300]}")
        decoded: dict[str, Any] = {k: math.inf if v == "inf" else v for k, v in values.items()}
        return cls(**decoded)


def option_of(name: str) -> Option:
    """The `Option` of a setting."""
    return Settings.__dataclass_fields__[name].metadata["option"]


def flag_of(name: str) -> str:
    """The option of the command line for a setting."""
    return "--" + name.replace("_", "-")


def _checked(name: str, value: Any, kind: type, option: Option) -> Any:
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
