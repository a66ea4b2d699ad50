"""The ladder of a run: the chain lengths that its state grows through, and the steps on each.

A state trained on a short chain is one on a longer chain (:meth:`dyson.VMC.grown`), and steps on
the short one cost less.  What it cannot learn there are correlations beyond its length; the steps
on the longer chains are for those.

Written ``32:80,64:20``: 80 steps on 32 sites, then 20 on 64, all others on the sites of the run.
"""

import re
from typing import NamedTuple

AUTO, OFF = "auto", "off"

# Where a ladder starts by itself, and from which length on it is worth it.
START, WORTH = 32, 128
# Each rung is so many times longer than the one before.
RATIO = 2
# Steps on the first rung, and on each of the others, where no number is given; an automatic ladder
# leaves as many as the last for the chain itself.
FIRST_STEPS, NEXT_STEPS, LAST_STEPS = 80, 20, 10


class Rung(NamedTuple):
    n_sites: int
    steps: int


def ladder(text: str, n_sites: int, token_size: int, steps: int) -> tuple[Rung, ...]:
    """The rungs before the chain of ``n_sites``, on which the rest of the ``steps`` is taken.

    ValueError with what was expected.
    """
    if text == OFF:
        return ()
    if text == AUTO:
        return _automatic(n_sites, steps)
    rungs = tuple(_rung(part, first=number == 0) for number, part in enumerate(text.split(",")))
    sizes = [rung.n_sites for rung in rungs] + [n_sites]
    if any(small >= large for small, large in zip(sizes, sizes[1:], strict=False)):
        raise ValueError(f"must name lengths that grow up to {n_sites} sites, got {text}")
    if any(size % token_size for size in sizes):
        raise ValueError(f"must name multiples of {token_size} sites, one token, got {text}")
    taken = sum(rung.steps for rung in rungs)
    if taken >= steps:
        raise ValueError(
            f"takes {taken} steps with {text}, which leaves none of {steps} for {n_sites} sites"
        )
    return rungs


def written(rungs: tuple[Rung, ...]) -> str:
    """The rungs as :func:`ladder` reads them."""
    return ",".join(f"{rung.n_sites}:{rung.steps}" for rung in rungs) or OFF


def _rung(text: str, *, first: bool) -> Rung:
    found = re.fullmatch(r"([1-9][0-9]{0,6})(?::([1-9][0-9]{0,8}))?", text.strip())
    if found is None:
        raise ValueError(
            f"must be {AUTO}, {OFF}, or lengths with their steps like 32:80,64:20, "
            f"got {text[:40]!r}"
        )
    size, steps = found.groups()
    return Rung(int(size), int(steps or (FIRST_STEPS if first else NEXT_STEPS)))


def _automatic(n_sites: int, steps: int) -> tuple[Rung, ...]:
    """From 32 sites up by doubling, as far as steps are left for the chain itself.

    These lengths are multiples of every token.
    """
    if n_sites < WORTH:
        return ()
    rungs, size, left = [], START, steps - LAST_STEPS
    while size < n_sites and left >= (wanted := NEXT_STEPS if rungs else FIRST_STEPS):
        rungs.append(Rung(size, wanted))
        size, left = RATIO * size, left - wanted
    return tuple(rungs)
