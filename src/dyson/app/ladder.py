"""The ladder of a run: the chain lengths that its state grows through, and the steps on each.

A state trained on a short chain is one on a longer chain (:meth:`dyson.VMC.grown`), and steps on
the short one cost less.  What it cannot learn there are correlations beyond its length; the steps
on the longer chains are for those.

Written ``32:40,64:10``: 40 steps on 32 sites, then 10 on 64, all others on the sites of the run.
"""

import math
import re
from typing import NamedTuple

AUTO, OFF = "auto", "off"

# Where a ladder starts by itself, and from which length on it is worth it.
START, WORTH = 32, 64
# The longest rung above another, by itself: states of critical Ising and Heisenberg rings trained
# on 32 sites have V-scores of 4e-4 and 1.2e-3 at their first step on 256.
JUMP = 8
# Steps on the first rung, and on each of the others, where no number is given; an automatic ladder
# leaves as many as the last for the chain itself.  More would be spent on what the longer chain
# learns as well: forty reach V = 5e-5 on 32 sites of the Ising ring, 3e-4 of the Heisenberg ring.
FIRST_STEPS, NEXT_STEPS = 40, 10


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
            f"must be {AUTO}, {OFF}, or lengths with their steps like 32:40,64:10, "
            f"got {text[:40]!r}"
        )
    size, steps = found.groups()
    return Rung(int(size), int(steps or (FIRST_STEPS if first else NEXT_STEPS)))


def _automatic(n_sites: int, steps: int) -> tuple[Rung, ...]:
    """From 32 sites up by equal factors of at most ``JUMP``, where steps are left for the chain
    itself.

    These lengths are multiples of every token.
    """
    if n_sites < WORTH or steps < FIRST_STEPS + NEXT_STEPS:
        return ()
    jumps = math.ceil(math.log(n_sites / START, JUMP) - 1e-9)
    between = [START * (n_sites / START) ** (k / jumps) for k in range(1, jumps)]
    affordable = (steps - FIRST_STEPS) // NEXT_STEPS - 1
    above = [Rung(4 * round(size / 4), NEXT_STEPS) for size in between]
    return (Rung(START, FIRST_STEPS), *above[:affordable])
