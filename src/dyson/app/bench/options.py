"""Options that the benchmarks share."""

import math
from typing import NamedTuple

import jax
import typer

from dyson.app.settings import MOST_SITES


class Scale(NamedTuple):
    """Numbers of sites where none are given: with --quick, on a processor, and on an accelerator,
    where they are the paper's."""

    quick: str
    processor: str
    accelerator: str

    def here(self, *, quick: bool) -> list[int]:
        """On this machine, whose devices are looked for now."""
        if quick:
            return checked_sizes(self.quick)
        on_processor = jax.default_backend() == "cpu"
        return checked_sizes(self.processor if on_processor else self.accelerator)

    @property
    def help(self) -> str:
        """Of the option."""
        return f"Numbers of sites, separated by commas; {self.processor} on a processor."


def checked_sizes(sizes: str) -> list[int]:
    """Whole numbers like those in ``--sizes`` in ascending order; refuses wrong ones."""
    try:
        numbers = sorted({int(size) for size in sizes.split(",")})
    except ValueError:
        raise typer.BadParameter(f"--sizes takes numbers like 64,128, got {sizes!r}") from None
    if min(numbers) < 1 or max(numbers) > MOST_SITES:
        raise typer.BadParameter(f"--sizes are from 1 to {MOST_SITES}, got {sizes[:80]}")
    return numbers


def checked_mixer(mixer: str) -> str:
    """A mixer that the benchmarks have."""
    if mixer not in ("s4d", "real"):
        raise typer.BadParameter(f"--mixer is s4d or real, got {mixer[:80]!r}")
    return mixer


def checked_numbers(values: str) -> list[float]:
    """Finite numbers separated by commas."""
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected numbers like 0.5,1.5, got {values!r}") from None
    if not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"expected finite numbers, got {values}")
    return numbers
