"""A table of one-dimensional chains: what `dyson train` reaches on each."""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import typer
from rich.table import Table

from dyson import NonFiniteError
from dyson.app.bench.report import Report
from dyson.app.estimates import evaluate, final_key
from dyson.app.problem import build
from dyson.app.program import train
from dyson.app.settings import Settings

STEPS, QUICK_STEPS, QUICK_SITES = 150, 30, 16
# Of the estimate after a training: the relative error bar that is aimed at, and batches at most.
UNTIL, BATCHES, QUICK_BATCHES = 1e-6, 128, 8


class Family(NamedTuple):
    """Chains that differ in their length alone; ``options`` are those of `dyson train`."""

    name: str
    options: dict[str, Any]
    sizes: tuple[int, ...]


def _long_range(exponent: float, coupling: float) -> Family:
    options = {"exponent": exponent, "coupling": coupling, "kac": True}
    return Family(f"Ising, α = {exponent:g}, J = {coupling:g} / Kac", options, (20, 128))


def _j1j2(j2: float) -> Family:
    options = {"hamiltonian": "j1j2", "j2": j2, "complex_head": True}
    return Family(f"J1-J2, {j2:g}", options, (20, 32, 100))


def _dipoles(coupling: float) -> Family:
    options = {"hamiltonian": "xxz", "anisotropy": 0.0, "exponent": 3.0, "coupling": coupling}
    return Family(f"dipolar XY, J = {coupling:g}", options, (16,))


FAMILIES = (
    Family("Ising, critical", {}, (32, 64, 128, 256, 1000)),
    Family("Ising, ordered, h = 0.5", {"field": 0.5}, (32, 64, 128, 256, 1000)),
    *(_long_range(*point) for point in ((1.5, -1.4), (1.5, 1.4), (3.0, -2.0), (3.0, 2.0))),
    *(_long_range(*point) for point in ((6.0, -5.0), (6.0, 5.0))),
    Family("Heisenberg", {"hamiltonian": "heisenberg"}, (20, 32, 100, 200)),
    *(_j1j2(j2) for j2 in (0.2, 0.4, 0.5)),
    *(_dipoles(coupling) for coupling in (1.0, -1.0)),
)

# Energies per site that no exact method here reaches: (name, sites), value, what found it.
PUBLISHED = {
    ("J1-J2, 0.4", 100): (-0.38038931, "DMRG"),
}

# Relative errors and V-scores by others: D. Wu et al., arXiv:2302.04919, and its collection.
ANCHORS: dict[tuple[str, int], tuple[float | None, float]] = {
    ("Ising, critical", 32): (6.0e-7, 3.9e-6),
    ("Ising, ordered, h = 0.5", 32): (1.2e-6, 9.7e-6),
    ("Heisenberg", 20): (1.0e-6, 8.4e-7),
    ("Heisenberg", 100): (None, 1.6e-4),
    ("Heisenberg", 200): (1.6e-4, 9.5e-4),
    ("J1-J2, 0.2", 100): (None, 1.8e-3),
    ("J1-J2, 0.4", 100): (1.0e-3, 2.8e-3),
}


class Row(NamedTuple):
    """One training; energies are per site, of fresh samples.  ``samples`` are those of its steps on
    all chain lengths, ``seconds`` those of its steps and compilation."""

    chain: str
    n_sites: int
    seed: int
    steps: int
    samples: int
    seconds: float
    energy: float | None
    error: float | None
    v_score: float | None
    known: float | None
    relative_error: float | None
    relative_error_bar: float | None
    anchor_relative_error: float | None
    anchor_v_score: float | None


def trained(family: Family, n_sites: int, *, steps: int, seed: int, batches: int) -> Row:
    """By the defaults of `dyson train`; one that meets a value that is not finite has no energy."""
    options: dict[str, Any] = {"n_sites": n_sites, "steps": steps, "seed": seed}
    options |= family.options
    settings = Settings(**options)
    problem, found = build(settings), {}
    start = time.perf_counter()
    try:
        state = train(**options, batches=1, progress=False).state
        seconds = time.perf_counter() - start
        key = final_key(seed, state.step)
        found = evaluate(problem, state, batches=batches, until=UNTIL, key=key)
    except NonFiniteError:
        seconds = time.perf_counter() - start
    exact = problem.exact_energy
    known = PUBLISHED.get((family.name, n_sites), (None,))[0] if exact is None else exact / n_sites
    energy, error = found.get("energy_per_site"), found.get("error_per_site")
    relative = bar = None
    if known is not None and energy is not None and error is not None:
        relative, bar = (energy - known) / abs(known), error / abs(known)
    anchor = ANCHORS.get((family.name, n_sites), (None, None))
    return Row(
        chain=family.name,
        n_sites=n_sites,
        seed=seed,
        steps=steps,
        samples=steps * settings.chains * settings.chain_length,
        seconds=round(seconds, 1),
        energy=energy,
        error=error,
        v_score=found.get("v_score"),
        known=known,
        relative_error=relative,
        relative_error_bar=bar,
        anchor_relative_error=anchor[0],
        anchor_v_score=anchor[1],
    )


def chosen(names: str | None, most_sites: int) -> Iterator[tuple[Family, int]]:
    """Families whose names begin with one of those given, on their chains of at most so many
    sites."""
    wanted = [part.strip().lower() for part in names.split(",")] if names else [""]
    for family in FAMILIES:
        if any(family.name.lower().startswith(part) for part in wanted):
            yield from ((family, n_sites) for n_sites in family.sizes if n_sites <= most_sites)


def _table(rows: Sequence[Row]) -> Table:
    """Medians over the seeds."""
    table = Table(title="Chains: medians over the seeds")
    for heading in ("chain", "sites", "E/N", "relative error", "V-score", "seconds", "others"):
        table.add_column(heading, justify="right")
    for name, n_sites in dict.fromkeys((row.chain, row.n_sites) for row in rows):
        here = [row for row in rows if (row.chain, row.n_sites) == (name, n_sites)]
        fields = ("energy", "relative_error", "v_score", "seconds")
        energy, relative, score, seconds = (
            np.median([np.nan if getattr(r, f) is None else getattr(r, f) for r in here])
            for f in fields
        )
        anchor = here[0].anchor_v_score
        table.add_row(
            name, str(n_sites), f"{energy:.7f}", f"{relative:.1e}", f"{score:.1e}",
            f"{seconds:.0f}", "" if anchor is None else f"V {anchor:.1e}",
        )  # fmt: skip
    return table


def command(
    chains: Annotated[
        str | None,
        typer.Option(help="Which, by the beginnings of their names, as heisenberg,j1-j2."),
    ] = None,
    most_sites: Annotated[
        int | None, typer.Option(min=1, help="The longest chains; all if not given.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Steps of a training, {STEPS} if not given.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each.")] = 1,
    quick: Annotated[
        bool,
        typer.Option(help="Short chains, fewer steps where these are not given, fewer samples."),
    ] = False,
) -> int:
    """Energies of one-dimensional chains by `dyson train`, beside exact and published ones.

    Every training prints one line of JSON when it is done; all of them take hours.
    """
    most_sites = most_sites or (QUICK_SITES if quick else max(max(f.sizes) for f in FAMILIES))
    steps = steps or (QUICK_STEPS if quick else STEPS)
    batches = QUICK_BATCHES if quick else BATCHES
    found = list(chosen(chains, most_sites))
    if not found:
        names = ", ".join(family.name for family in FAMILIES)
        raise typer.BadParameter(f"--chains: none of {names} begins with {chains!r} and is short")
    rows: list[Row] = []
    with Report("chains") as report:
        for family, n_sites in found:
            for seed in range(seeds):
                done = f"{len(rows)} of {len(found) * seeds} done"
                report.doing(f"{done}: {family.name}, {n_sites} sites")
                rows.append(trained(family, n_sites, steps=steps, seed=seed, batches=batches))
                report.add(rows[-1]._asdict())
                jax.clear_caches()
        report.show(_table(rows))
    return 0
