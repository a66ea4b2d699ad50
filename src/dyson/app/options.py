"""Options of the command line: those of the settings, from their table, and those that commands
share."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from dyson.app.choices import CHOICES, HOLDER, defaults, everything_takes, expected, takers
from dyson.app.ranges import flag_of
from dyson.app.settings import Settings, kinds, option_of

# What `dyson evaluate` draws, and what it draws at most where an error bar is asked for.
BATCHES, BATCHES_UNTIL = 64, 10_000
_MOST_BATCHES = 10**7


def named(text: str) -> Path:
    """A file or directory. An empty name would be the current directory, which nobody asked for."""
    if not text:
        raise typer.BadParameter("the name is empty")
    return Path(text)


JsonFlag = Annotated[bool, typer.Option("--json", help="Print the final record as JSON.")]
ExistingRun = Annotated[
    Path,
    typer.Argument(help="Directory of an existing run.", parser=named),
]
Batches = Annotated[
    int,
    typer.Option(
        min=1, max=_MOST_BATCHES, help="Sweeps of all chains that the final estimate averages."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of settings, or a run whose settings are taken; options override it.",
        parser=named,
    ),
]
MostBatches = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=_MOST_BATCHES,
        help="Sweeps of all chains that the estimate averages "
        f"(default: {BATCHES}; with --until at most {BATCHES_UNTIL}).",
    ),
]
Until = Annotated[
    float | None,
    typer.Option(help="Sample until the error bar divided by |energy| is at most this."),
]
Sites = Annotated[
    int | None,
    typer.Option(help="Evaluate the state grown to a chain of so many sites."),
]


def settings_options(names: Sequence[str], *, with_defaults: bool = True) -> Callable:
    """Give a command one option per setting, from the table in `dyson.app.settings`.

    An option that is not given is None; what that means is in its help, `with_defaults`.
    """
    options = []
    for name in names:
        option, kind, flag = option_of(name), kinds()[name], flag_of(name)
        if kind is bool:
            flag = option.flags or f"{flag}/--no-{flag[2:]}"
        options.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    kind | None,
                    typer.Option(
                        flag,
                        help=option.help + _in_brackets(name, with_default=with_defaults),
                        rich_help_panel=option.group,
                    ),
                ],
            )
        )

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=own + options)  # pyright: ignore
        function.__annotations__ = {p.name: p.annotation for p in own + options}
        return function

    return decorate


def _in_brackets(name: str, *, with_default: bool) -> str:
    """What a setting may be, what takes it, and what it is by default."""
    words = [expected(name) if name in CHOICES else option_of(name).range()]
    if name not in HOLDER:
        by_default = [_shown(getattr(Settings, name))]
    else:
        found = defaults(name)
        by_default = [
            _shown(value) + ("" if len(found) == 1 else f" for {', '.join(who)}")
            for value, who in found.items()
            if value not in (None, "")
        ]
        if not everything_takes(name):
            words.insert(0, f"of {takers(name)}")
    if with_default and by_default:
        words.append(f"default: {', '.join(by_default)}")
    words = list(filter(None, words))
    return f" ({'; '.join(words)})" if words else ""


def _shown(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
