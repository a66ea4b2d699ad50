"""Measurements of speed, run by hand: `dyson bench`."""

import typer

from dyson.bench import local_energy

app = typer.Typer(no_args_is_help=True, help="Measure the speed of the library on this machine.")
app.command("local-energy")(local_energy.command)


@app.callback()
def _several_commands() -> None:
    """Keeps the name of the command in the command line while there is only one."""
