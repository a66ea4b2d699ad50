"""Measurements of speed, run by hand: `dyson bench`."""

import typer

from dyson.app.bench import local_energy, sampler, typewriter

app = typer.Typer(no_args_is_help=True, help="Measure the speed of the library on this machine.")
app.command("local-energy")(local_energy.command)
app.command("sampler")(sampler.command)
app.command("typewriter")(typewriter.command)
