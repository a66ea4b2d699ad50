"""The same trainings from many seeds: none may diverge or stall."""

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import typer
from rich.table import Table

from dyson import NonFiniteError
from dyson.app.bench.report import Report
from dyson.app.estimates import compare, evaluate, final_key, plain_numbers
from dyson.app.problem import build
from dyson.app.settings import Settings

# Settings beside the defaults of `dyson train`: a critical and two long-range Ising chains, a chain
# in a sector, and one whose signs the network has to learn.
SYSTEMS: dict[str, dict[str, Any]] = {
    "critical": {"n_sites": 32},
    "ferromagnet": {"n_sites": 32, "coupling": -2.0, "exponent": 3.0, "kac": True},
    "antiferromagnet": {"n_sites": 32, "coupling": 4.75, "exponent": 2.5, "kac": True},
    "heisenberg": {"n_sites": 20, "hamiltonian": "heisenberg"},
    "signs": {
        "n_sites": 12,
        "hamiltonian": "j1j2",
        "j2": 0.4,
        "marshall": False,
        "complex_head": True,
    },
}
SEEDS, STEPS = 20, 100
QUICK_SEEDS, QUICK_STEPS = 1, 40
# Every training has to end below its energy at this step.
EARLY = 20
# Batches of samples for the energy after training.
BATCHES = 8


class Row(NamedTuple):
    """One training; energies are per site."""

    system: str
    seed: int
    steps: int
    early: float | None
    """The energy at step ``EARLY``."""
    early_error: float | None
    energy: float | None
    """Of fresh samples after the last step."""
    error: float | None
    v_score: float | None
    relative_error: float | None
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it neither diverged nor stalled: its energy fell, or had no way left to fall."""
        if self.early is None or self.early_error is None:
            return False
        if self.energy is None or self.error is None:
            return False
        return self.energy < self.early + 3 * math.hypot(self.early_error, self.error)


def trainings(system: str, settings: Settings, seeds: Sequence[int]) -> Iterator[Row]:
    """The training of `dyson train --seed` for every seed, by programs that are compiled once.

    A training that meets a value that is not finite ends there and has no energy.
    """
    problem = build(settings)
    for seed in seeds:
        start, early, known = time.perf_counter(), {}, {}
        state = build(dataclasses.replace(settings, seed=seed)).initial_state()
        try:
            for step in range(1, settings.steps + 1):
                state, info = problem.vmc.step(state)
                if step == EARLY:
                    early = compare(problem, plain_numbers(info))
            known = evaluate(problem, state, batches=BATCHES, key=final_key(seed, state.step))
        except NonFiniteError:
            pass
        yield Row(
            system=system,
            seed=seed,
            steps=int(state.step),
            early=early.get("energy_per_site"),
            early_error=early.get("error_per_site"),
            energy=known.get("energy_per_site"),
            error=known.get("error_per_site"),
            v_score=known.get("v_score"),
            relative_error=known.get("relative_error"),
            seconds=round(time.perf_counter() - start, 2),
        )


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"Trainings that end below their energy at step {EARLY}")
    for heading in ("system", "good", "seeds", "V-score, median", "worst", "relative error, worst"):
        table.add_column(heading, justify="right")
    for system in dict.fromkeys(row.system for row in rows):
        here = [row for row in rows if row.system == system]
        scores = [np.inf if row.v_score is None else row.v_score for row in here]
        errors = [np.inf if r.relative_error is None else abs(r.relative_error) for r in here]
        figures = (f"{x:.1e}" for x in (np.median(scores), max(scores), max(errors)))
        table.add_row(system, str(sum(row.good for row in here)), str(len(here)), *figures)
    return table


def command(
    systems: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(SYSTEMS),
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"Trainings of each, {SEEDS} if not given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=EARLY + 1, help=f"Training steps, {STEPS} if not given.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Fewer seeds and steps where these are not given.")
    ] = False,
) -> int:
    """The same trainings from many seeds: whether any diverges or stalls.

    Every training prints one line of JSON when it is done; the exit status is 1 where one of them
    was not good.
    """
    names = systems.split(",")
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise typer.BadParameter(f"--systems are {', '.join(SYSTEMS)}, got {unknown[0]!r}")
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    steps = steps or (QUICK_STEPS if quick else STEPS)
    rows: list[Row] = []
    with Report("seeds") as report:
        for name in names:
            report.doing(f"compiling {name}")
            settings = Settings(**SYSTEMS[name], steps=steps)
            for row in trainings(name, settings, range(seeds)):
                rows.append(row)
                report.add(row._asdict() | {"good": row.good})
                report.doing(f"{len(rows)} of {len(names) * seeds} done: {name}")
            jax.clear_caches()
        report.show(_table(rows))
    return 0 if all(row.good for row in rows) else 1
