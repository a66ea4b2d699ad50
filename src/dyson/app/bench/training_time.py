"""Time of a training against the size of the chain, as Fig. 3a of arXiv:2603.11189."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.table import Table

from dyson import VMC, DysonNet, Hamiltonian, Ising, Metropolis, Recompute, SpinFlip, Sweep, minsr
from dyson.app.bench.options import Scale, checked_sizes
from dyson.app.bench.report import Report
from dyson.app.bench.timing import compile_anew
from dyson.app.plotting import by_size
from dyson.baselines import ViT
from dyson.networks import Network

SCALE = Scale("16,32", "64,128,256,512,1000", "64,128,256,512,1000")
CHAIN_LENGTH = 4
# Steps that are timed after the one that compiles.
TIMED = 3
PATCH = 4


class Row(NamedTuple):
    """One way on one chain. ``training`` is ``first`` and so many times the median ``step``: of the
    ``steps`` of a training only ``measured`` were taken."""

    way: str
    n_sites: int
    samples: int
    first: float
    step: float
    steps: int
    measured: int
    training: float


def fast(hamiltonian: Hamiltonian, chains: int) -> tuple[Network, VMC]:
    """DysonNet with exact sweeps and local updates, as ``dyson train`` takes them."""
    return _dysonnet(hamiltonian), _vmc(hamiltonian, Sweep(hamiltonian, chains), None)


def forward(hamiltonian: Hamiltonian, chains: int) -> tuple[Network, VMC]:
    """The same network by forward passes alone."""
    sampler = Metropolis(hamiltonian, chains)
    return _dysonnet(hamiltonian), _vmc(hamiltonian, sampler, Recompute())


def transformer(hamiltonian: Hamiltonian, chains: int) -> tuple[Network, VMC]:
    """A ViT of as many features and blocks."""
    key = jax.random.key(0)
    network = SpinFlip(ViT(hamiltonian.n_sites, patch=PATCH, dtype=jnp.float32, key=key))
    return network, _vmc(hamiltonian, Metropolis(hamiltonian, chains), Recompute())


WAYS: dict[str, Callable[[Hamiltonian, int], tuple[Network, VMC]]] = {
    "DysonNet": fast,
    "DysonNet, forward passes": forward,
    "ViT": transformer,
}


def _dysonnet(hamiltonian: Hamiltonian) -> Network:
    return SpinFlip(DysonNet(hamiltonian.n_sites, dtype=jnp.float32, key=jax.random.key(0)))


def _vmc(hamiltonian: Hamiltonian, sampler: Sweep | Metropolis, updates: Recompute | None) -> VMC:
    how = {"chain_length": CHAIN_LENGTH, "warm_up": 0, "updates": updates}
    return VMC(hamiltonian, sampler, minsr(), **how)


def measure(way: str, n_sites: int, *, chains: int, steps: int, timed: int = TIMED) -> Row:
    """Steps on the critical Ising ring: the first, which compiles, and the median of some more."""
    model, vmc = WAYS[way](Ising(n_sites), chains)
    state = vmc.init(jax.random.key(1), model)
    seconds = []
    for _ in range(1 + min(timed, steps - 1)):
        began = time.perf_counter()
        state, info = vmc.step(state)
        jax.block_until_ready((state, info))
        seconds.append(time.perf_counter() - began)
    first, later = seconds[0], seconds[1:] or seconds
    step = float(np.median(later))
    training = first + (steps - 1) * step
    samples = chains * CHAIN_LENGTH
    return Row(way, n_sites, samples, first, step, steps, len(seconds), training)


def exponents(rows: Sequence[Row]) -> dict[str, float]:
    """Of the growth of a step with the number of sites, over the larger half of the chains."""
    found = {}
    for way in WAYS:
        here = [row for row in rows if row.way == way]
        upper = here[len(here) // 2 - (len(here) == 2) :]
        if len(upper) > 1:
            sizes, times = np.log([(row.n_sites, row.step) for row in upper]).T
            found[way] = float(np.polyfit(sizes, times, 1)[0])
    return found


def _table(rows: Sequence[Row], growth: dict[str, float]) -> Table:
    table = Table(title=f"Seconds of {rows[0].steps} steps, counted from {rows[0].measured}")
    for heading in ("way", "sites", "first step", "step", "training", "exponent"):
        table.add_column(heading, justify="right")
    for row in rows:
        last = [r for r in rows if r.way == row.way][-1] is row
        exponent = f"{growth[row.way]:.2f}" if last and row.way in growth else ""
        shown = (f"{x:.3g}" for x in (row.first, row.step, row.training))
        table.add_row(row.way, str(row.n_sites), *shown, exponent)
    return table


def command(
    sizes: Annotated[str | None, typer.Option(help=SCALE.help)] = None,
    chains: Annotated[int, typer.Option(min=2, help="Markov chains, of four samples each.")] = 32,
    steps: Annotated[int, typer.Option(min=2, help="Steps of a whole training.")] = 150,
    patience: Annotated[
        float, typer.Option(min=0, help="Seconds of a step after which longer chains are left out.")
    ] = 30,
    quick: Annotated[bool, typer.Option(help="Shorter chains where none are given.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "training-time.png"
    ),
) -> int:
    """Time of a training against the size: DysonNet with local updates and without, and a ViT.

    Of each only a few steps are taken, and a training is counted from them.  Every measurement
    prints one line of JSON.
    """
    numbers = checked_sizes(sizes) if sizes else SCALE.here(quick=quick)
    if any(n_sites % PATCH for n_sites in numbers):
        raise typer.BadParameter(f"--sizes takes multiples of {PATCH}, the patch of the ViT")
    compile_anew()
    rows: list[Row] = []
    with Report("training-time") as report:
        for way in WAYS:
            for n_sites in numbers:
                report.doing(f"{way}, {n_sites} sites")
                row = measure(way, n_sites, chains=chains, steps=steps)
                rows.append(row)
                report.add(row._asdict())
                jax.clear_caches()
                if row.step > patience:
                    break
        growth = exponents(rows)
        curves = {
            f"{way}: N^{growth[way]:.2f}" if way in growth else way: [
                (r.n_sites, r.training) for r in rows if r.way == way
            ]
            for way in WAYS
        }
        axes = by_size(curves, label="seconds of a training")
        report.show(_table(rows, growth), axes.figure, output)
    return 0
