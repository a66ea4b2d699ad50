"""Measurements of speed and accuracy, run by hand: `dyson bench`."""

import typer

from dyson.app.bench import (
    accuracy,
    local_energy,
    sampler,
    seeds,
    time_to_accuracy,
    training_time,
    typewriter,
)

app = typer.Typer(
    no_args_is_help=True, help="Measure the speed and the accuracy of the library on this machine."
)
app.command("local-energy")(local_energy.command)
app.command("sampler")(sampler.command)
app.command("typewriter")(typewriter.command)
app.command("accuracy")(accuracy.command)
app.command("seeds")(seeds.command)
app.command("training-time")(training_time.command)
app.command("time-to-accuracy")(time_to_accuracy.command)
