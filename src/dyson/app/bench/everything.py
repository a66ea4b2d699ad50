"""All benchmarks, one after the other, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

# Those that draw, and those that do not.
DRAWN = (
    "local-energy",
    "proposal",
    "throughput",
    "interval-exponent",
    "training-time",
    "accuracy",
    "time-to-accuracy",
)
PRINTED = ("chains", "seeds")
RECORDS = "records.jsonl"


def command(
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Where records and pictures go.")
    ] = Path("bench"),
    quick: Annotated[bool, typer.Option(help="Small sizes: some twenty minutes.")] = False,
) -> int:
    """Every benchmark: the measurements of all in one file of JSON lines, and their pictures.

    The exit status is 1 where one of them failed or a training of `seeds` was not good.
    """
    directory.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    failed = []
    with open(directory / RECORDS, "x") as records:
        for name in (*DRAWN, *PRINTED):
            console.rule(name)
            arguments = ["--quick"] if quick else []
            if name in DRAWN:
                arguments += ["--output", os.fspath(directory / f"{name}.png")]
            # each pins itself to cores and compiles anew, which a process does once
            command = [sys.executable, "-m", "dyson_command", "bench", name, *arguments]
            if subprocess.run(command, stdout=records, check=False).returncode:
                failed.append(name)
    if failed:
        console.print(f"failed: {', '.join(failed)}")
    console.print(str(directory))
    return 1 if failed else 0
