"""Options of the command line: those of the settings, from their table, and those that commands
share."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, get_type_hints

import typer

from dyson.app.settings import Settings, flag_of, option_of

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


def settings_options(names: Sequence[str], *, optional: bool = False) -> Callable:
    """Give a command one option per setting, from the table in `dyson.app.settings`.

    With `optional`, an option that is not given is None instead of the default of the setting.
    """
    kinds = get_type_hints(Settings)
    options = []
    for name in names:
        option = option_of(name)
        flag = option.flags or flag_of(name)
        accepted = option.range()
        options.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if optional else getattr(Settings, name),
                annotation=Annotated[
                    kinds[name] | None if optional else kinds[name],
                    typer.Option(
                        flag,
                        help=option.help + (f" ({accepted})" if accepted else ""),
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
