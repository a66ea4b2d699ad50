"""Networks side by side on the long-range Ising ring, as Fig. 2 of arXiv:2603.11189."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from matplotlib.figure import Figure
from rich.table import Table

from dyson import (
    VMC,
    CachedTheta,
    DysonNet,
    Ising,
    Metropolis,
    NonFiniteError,
    Recompute,
    SpinFlip,
    exact,
    minsr,
)
from dyson.app.bench.options import checked_numbers
from dyson.app.bench.report import Report
from dyson.app.plotting import Sweep, accuracy
from dyson.baselines import SymmetricRBM, ViT
from dyson.networks import Network
from dyson.vmc.statistics import v_score

# The lines of the paper's figure cross here; couplings have the Kac factor, the field is 1.
COUPLING, EXPONENT = 4.75, 4.0
COUPLINGS, EXPONENTS = "-5,-2,-1,1,2,4.75", "1.5,2.5,4,6"
# Fewer of them, of sites, steps and seeds, with --quick.
QUICK_COUPLINGS, QUICK_EXPONENTS = "-5,-1", "4"
SITES, STEPS, SEEDS = 32, 120, 3
QUICK_SITES, QUICK_STEPS, QUICK_SEEDS = 16, 30, 1

CHAINS, CHAIN_LENGTH = 128, 4
# Samples of each chain for the energy after training.
MEASURED = 16
# Sites up to which exact energies take seconds.
MOST_EXACT = 16


class Row(NamedTuple):
    """One network, trained; the energy is per site, of fresh samples."""

    network: str
    coupling: float
    exponent: float
    seed: int
    parameters: int
    steps: int
    energy: float
    error: float
    v_score: float
    exact: float | None
    seconds: float


def dysonnet(n_sites: int, key: jax.Array) -> Network:
    """As it comes."""
    return DysonNet(n_sites, dtype=jnp.float32, key=key)


def vit(n_sites: int, key: jax.Array) -> Network:
    """Of as many features and blocks, with the largest patches that fit."""
    patch = math.gcd(n_sites, 4)
    return ViT(n_sites, patch=patch, dtype=jnp.float32, key=key)


def rbm(n_sites: int, key: jax.Array) -> Network:
    """Translation invariant, as a DysonNet is."""
    return SymmetricRBM(n_sites, density=8, dtype=jnp.float32, key=key)


NETWORKS: dict[str, Callable[[int, jax.Array], Network]] = {
    "DysonNet": dysonnet,
    "ViT": vit,
    "RBM": rbm,
}


def trained(
    name: str,
    hamiltonian: Ising,
    point: tuple[float, float],
    optimiser: optax.GradientTransformation,
    *,
    steps: int,
    seed: int,
    known: float | None,
) -> Row:
    """The same samples, steps and moves for every network, in its even sector; a training that
    meets a value that is not finite ends there."""
    start = time.perf_counter()
    n_sites = hamiltonian.n_sites
    network_key, chain_key = jax.random.split(jax.random.key(seed))
    model = SpinFlip(NETWORKS[name](n_sites, network_key))
    # of these ratios the moves do not depend: they only cost less
    updates = CachedTheta() if name == "RBM" else Recompute()
    sampler = Metropolis(hamiltonian, CHAINS, updates=updates)
    vmc = VMC(hamiltonian, sampler, optimiser, chain_length=CHAIN_LENGTH)
    state = vmc.init(chain_key, model)
    try:
        for _ in range(steps):
            state, _ = vmc.step(state)
    except NonFiniteError as error:
        state = error.state
    _, measurement = vmc.sample(state, MEASURED)
    estimate = measurement.estimate()
    energy = jnp.real(estimate.mean)
    score = v_score(n_sites, energy, estimate.variance, jnp.zeros_like(energy))
    arrays = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    return Row(
        name,
        *point,
        seed,
        sum(x.size for x in arrays),
        int(state.step),
        float(energy) / n_sites,
        float(estimate.error) / n_sites,
        float(score),
        None if known is None else known / n_sites,
        time.perf_counter() - start,
    )


def known_energy(hamiltonian: Ising) -> float | None:
    """The exact one of the even sector, where it takes seconds."""
    if hamiltonian.n_sites > MOST_EXACT:
        return None
    return exact.ground_energy(hamiltonian, parity=1)


def _sweep(rows: Sequence[Row], label: str, points: Sequence[tuple[float, float]]) -> Sweep:
    """Energies and V-scores (points, seeds) of every network along one line of the figure."""

    def along(name: str, field: str) -> np.ndarray:
        chosen = [
            [getattr(r, field) for r in rows if r.network == name and (r.coupling, r.exponent) == p]
            for p in points
        ]
        return np.array(chosen)

    axis = 0 if label == "J" else 1
    return Sweep(
        label,
        [point[axis] for point in points],
        {name: along(name, "energy") for name in NETWORKS},
        {name: along(name, "v_score") for name in NETWORKS},
    )


def _table(rows: Sequence[Row], points: Sequence[tuple[float, float]]) -> Table:
    """Medians over the seeds."""
    table = Table(title="Long-range Ising ring with Kac factor: medians over the seeds")
    for heading in ("J", "α", "network", "E/N", "error", "V-score", "exact E/N"):
        table.add_column(heading, justify="right")
    for coupling, exponent in points:
        for name in NETWORKS:
            point = name, coupling, exponent
            here = [r for r in rows if (r.network, r.coupling, r.exponent) == point]
            energy, error, score = np.median([(r.energy, r.error, r.v_score) for r in here], axis=0)
            known = "" if here[0].exact is None else f"{here[0].exact:.6f}"
            # fmt: off
            table.add_row(
                f"{coupling:g}", f"{exponent:g}", name,
                f"{energy:.6f}", f"{error:.1e}", f"{score:.1e}", known,
            )
            # fmt: on
    return table


def command(
    n_sites: Annotated[
        int | None,
        typer.Option(min=2, max=1000, help=f"Sites of the ring, {SITES} if not given."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help=f"Training steps, {STEPS} if not given.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help=f"Trainings of each network, {SEEDS} if not given.")
    ] = None,
    couplings: Annotated[
        str | None, typer.Option(help=f"Couplings J at α = {EXPONENT:g}; {COUPLINGS}.")
    ] = None,
    exponents: Annotated[
        str | None, typer.Option(help=f"Decays α at J = {COUPLING:g}; {EXPONENTS}.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Fewer points, sites, steps and seeds where these are not given.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "accuracy.png"
    ),
) -> int:
    """DysonNet, ViT and RBM side by side: energies and V-scores on the long-range Ising ring.

    Every training prints one line of JSON when it is done.  The paper's figure takes
    --n-sites 150 --steps 400.
    """
    n_sites = n_sites or (QUICK_SITES if quick else SITES)
    steps = steps or (QUICK_STEPS if quick else STEPS)
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    strengths = checked_numbers(couplings or (QUICK_COUPLINGS if quick else COUPLINGS))
    decays = checked_numbers(exponents or (QUICK_EXPONENTS if quick else EXPONENTS))
    if min(decays) <= 0:
        raise typer.BadParameter(f"--exponents: expected positive numbers, got {decays}")
    by_coupling = [(coupling, EXPONENT) for coupling in strengths]
    by_exponent = [(COUPLING, decay) for decay in decays]
    points = list(dict.fromkeys(by_coupling + by_exponent))
    optimiser, rows = minsr(), []
    with Report("accuracy") as report:
        # networks outermost: each is compiled once for all points and seeds
        for name in NETWORKS:
            for coupling, exponent in points:
                hamiltonian = Ising(n_sites, coupling=coupling, exponent=exponent, kac=True)
                known = known_energy(hamiltonian)
                for seed in range(seeds):
                    done = f"{len(rows)} of {len(NETWORKS) * len(points) * seeds} done"
                    report.doing(f"{done}: {name}, J = {coupling:g}, α = {exponent:g}")
                    point = coupling, exponent
                    how = {"steps": steps, "seed": seed, "known": known}
                    rows.append(trained(name, hamiltonian, point, optimiser, **how))
                    report.add({"n_sites": n_sites} | rows[-1]._asdict())
            jax.clear_caches()
        figure = Figure(figsize=(9, 7), layout="constrained")
        sweeps = _sweep(rows, "J", by_coupling), _sweep(rows, "α", by_exponent)
        accuracy(sweeps, reference="DysonNet", figure=figure)
        report.show(_table(rows, points), figure, output)
    return 0
