"""Time per connected element of the local energy, as Fig. 3b of arXiv:2603.11189."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import typer
from rich.table import Table

from dyson import (
    Abacus,
    CachedTheta,
    DysonNet,
    Ising,
    LocalUpdates,
    Recompute,
    local_energies,
)
from dyson.app.bench.options import Scale, checked_mixer, checked_sizes
from dyson.app.bench.report import Report
from dyson.app.bench.timing import compiled_in, curves_of, run_times, spread_of, use_one_core
from dyson.app.plotting import by_size
from dyson.baselines import RBM, ViT
from dyson.spins import random_spins

SCALE = Scale("64,256,1000", "64,128,256,512,1000,1009", "64,128,256,512,1000,2000,4000")
SAMPLES, QUICK_SAMPLES = 64, 16
# Three blocks cost several times as much, and forward passes as much as the chain is long.
FEWER_SAMPLES = 16
# Forward passes of the transformer timed side by side: few, each holds tokens^2 scores per head.
VIT_FLIPS = 4
PATCH = 4


class Row(NamedTuple):
    """One way on one chain: microseconds per connected element, the median, the fastest and the
    slowest of several runs, and seconds to compile."""

    way: str
    n_sites: int
    samples: int
    us: float
    us_low: float
    us_high: float
    compile: float


def _energies(updates: LocalUpdates) -> Callable[[Any, jax.Array], jax.Array]:
    return lambda model, spins: local_energies(Ising(spins.shape[1]), model, spins, updates=updates)


def _row(way: str, function: Callable, model: Any, spins: jax.Array, elements: int) -> Row:
    compile_seconds, compiled = compiled_in(function, model, spins)
    us = spread_of(run_times(compiled, model, spins)).times(1e6 / elements)
    samples, n_sites = spins.shape
    return Row(way, n_sites, samples, *us, compile_seconds)


def dysonnet(
    updates: LocalUpdates, *, depth: int = 2, most: int | None = None
) -> Callable[[str, int, str, int], Row]:
    """16 features, kernel 3, 8 outputs, float32, one flip per element."""

    def measure(way: str, n_sites: int, mixer: str, samples: int) -> Row:
        options = {"mixer": mixer, "dtype": jnp.float32, "key": jax.random.key(0)}
        model = DysonNet(n_sites, depth=depth, **options)
        spins = random_spins(jax.random.key(1), (min(samples, most or samples), n_sites))
        return _row(way, _energies(updates), model, spins, spins.size)

    return measure


def rbm(way: str, n_sites: int, mixer: str, samples: int) -> Row:
    """A hidden unit per site, theta kept."""
    del mixer
    model = RBM(n_sites, dtype=jnp.float32, key=jax.random.key(0))
    spins = random_spins(jax.random.key(1), (samples, n_sites))
    return _row(way, _energies(CachedTheta()), model, spins, spins.size)


def vit(way: str, n_sites: int, mixer: str, samples: int) -> Row:
    """As many features and layers, patches of four spins; its chain is rounded up to whole ones.

    Forward passes of a few flips at once are timed: all of them cost n_sites times as much.
    """
    del mixer, samples
    padded = -(-n_sites // PATCH) * PATCH
    model = ViT(padded, patch=PATCH, dtype=jnp.float32, key=jax.random.key(2))
    spins = random_spins(jax.random.key(3), (VIT_FLIPS, padded))
    row = _row(way, lambda model, spins: jax.vmap(model)(spins), model, spins, VIT_FLIPS)
    return row._replace(n_sites=n_sites, samples=1)


WAYS: dict[str, Callable[[str, int, str, int], Row]] = {
    "DysonNet": dysonnet(Abacus()),
    "DysonNet, three blocks": dysonnet(Abacus(), depth=3, most=FEWER_SAMPLES),
    "DysonNet, forward passes": dysonnet(Recompute(), most=1),
    "RBM": rbm,
    "ViT": vit,
}


def table_of(rows: list[Row]) -> Table:
    """One column per way."""
    table = Table(title="Microseconds per connected element, one core, float32")
    for heading in ("sites", *WAYS, "compile / s"):
        table.add_column(heading, justify="right")
    for n_sites in dict.fromkeys(row.n_sites for row in rows):
        here = {row.way: row for row in rows if row.n_sites == n_sites}
        times = (f"{here[way].us:.3g}" if way in here else "" for way in WAYS)
        compile_seconds = next(iter(here.values())).compile
        table.add_row(str(n_sites), *times, f"{compile_seconds:.1f}")
    return table


def command(
    sizes: Annotated[str | None, typer.Option(help=SCALE.help)] = None,
    mixer: Annotated[str, typer.Option(help="s4d or real.")] = "s4d",
    samples: Annotated[
        int | None, typer.Option(min=1, help=f"Samples of a measurement, {SAMPLES} if not given.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Fewer sizes and samples where these are not given.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "local-energy.png"
    ),
) -> int:
    """Local energy per connected element on one core: ABACUS, forward passes, an RBM, a ViT.

    Every measurement prints one line of JSON.
    """
    given, mixer = sizes and checked_sizes(sizes), checked_mixer(mixer)
    use_one_core()
    numbers = given or SCALE.here(quick=quick)
    samples = samples or (QUICK_SAMPLES if quick else SAMPLES)
    rows: list[Row] = []
    with Report("local-energy") as report:
        for n_sites in numbers:
            for way, measure in WAYS.items():
                report.doing(f"{way}, {n_sites} sites")
                rows.append(measure(way, n_sites, mixer, samples))
                report.add(rows[-1]._asdict())
            jax.clear_caches()
        axes = by_size(curves_of(rows), label="microseconds per connected element")
        report.show(table_of(rows), axes.figure, output)
    return 0
