"""Options that the benchmarks share."""

import typer


def checked_sizes(sizes: str, mixer: str) -> list[int]:
    """The numbers of sites in ``--sizes``; refuses wrong ones and mixers that do not exist."""
    try:
        numbers = [int(size) for size in sizes.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--sizes takes numbers like 64,128, got {sizes!r}") from None
    if min(numbers) < 1 or mixer not in ("s4d", "real"):
        raise typer.BadParameter(
            f"--sizes are at least 1 and --mixer is s4d or real, got {sizes} and {mixer}"
        )
    return numbers
