"""What every benchmark tells: each measurement as a line of JSON, then a table and a picture."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure, SubFigure
from rich.console import Console
from rich.table import Table

from dyson import __version__
from dyson.checkpoint import atomic_write


def record(bench: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A measurement with the name of its benchmark, the machine and the versions.

    JSON knows no NaN and no infinity: such a value becomes None.
    """
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }
    return {
        "bench": bench,
        **finite,
        "device": jax.devices()[0].device_kind,
        "cores": _cores(),
        "dyson": __version__,
        "jax": jax.__version__,
    }


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Report:
    """Of one benchmark.  Measurements go to standard output as they are made; what is being
    measured, the table and the name of the picture to standard error."""

    def __init__(self, bench: str):
        self.bench = bench
        self._console = Console(stderr=True)
        self._status = self._console.status(bench)

    def __enter__(self) -> "Report":
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def doing(self, text: str) -> None:
        """Show what takes time now."""
        self._status.update(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text)

    def add(self, values: Mapping[str, Any]) -> None:
        """Print a measurement."""
        print(json.dumps(record(self.bench, values), allow_nan=False), flush=True)

    def show(
        self, table: Table, figure: Figure | SubFigure | None = None, file: Path | None = None
    ) -> None:
        """The results at a glance, and the picture in a file."""
        if isinstance(figure, Figure) and file is not None:
            with atomic_write(file) as stream:
                figure.savefig(stream, format="png", dpi=150)
        self._console.print(table)
        if file is not None:
            self._console.print(str(file))
