"""Measurements of speed and accuracy, run by hand: `dyson bench`.

Each prints its measurements as lines of JSON (:mod:`dyson.app.bench.report`).
"""

import typer

from dyson.app.bench import (
    accuracy,
    chains,
    everything,
    interval_exponent,
    local_energy,
    proposal,
    seeds,
    throughput,
    time_to_accuracy,
    training_time,
)

app = typer.Typer(
    no_args_is_help=True, help="Measure the speed and the accuracy of the library on this machine."
)
app.command("local-energy")(local_energy.command)
app.command("proposal")(proposal.command)
app.command("throughput")(throughput.command)
app.command("interval-exponent")(interval_exponent.command)
app.command("training-time")(training_time.command)
app.command("time-to-accuracy")(time_to_accuracy.command)
app.command("accuracy")(accuracy.command)
app.command("chains")(chains.command)
app.command("seeds")(seeds.command)
app.command("all")(everything.command)
