"""Measurements of speed, run by hand: `dyson bench`."""

import typer

app = typer.Typer(no_args_is_help=True, help="Measure the speed of the library on this machine.")
