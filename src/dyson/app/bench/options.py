"""Options that the benchmarks share."""

import math

import typer

from dyson.app.settings import MOST_SITES


def checked_sizes(sizes: str, mixer: str = "s4d") -> list[int]:
    """Whole numbers like those in ``--sizes``; refuses wrong ones and mixers that do not exist."""
    try:
        numbers = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--sizes takes numbers like 64,128, got {sizes!r}") from None
    if min(numbers) < 1 or max(numbers) > MOST_SITES or mixer not in ("s4d", "real"):
        raise typer.BadParameter(
            f"--sizes are from 1 to {MOST_SITES} and --mixer is s4d or real, got "
            f"{sizes[:80]} and {mixer}"
        )
    return numbers


def checked_numbers(values: str) -> list[float]:
    """Finite numbers separated by commas."""
    try:
        numbers = [float(value) for value in values.split(",")]
    except ValueError:
        raise typer.BadParameter(f"expected numbers like 0.5,1.5, got {values!r}") from None
    if not all(map(math.isfinite, numbers)):
        raise typer.BadParameter(f"expected finite numbers, got {values}")
    return numbers
