"""The best interval of the screened typewriter against the size, as Fig. 4 of arXiv:2603.11189."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.table import Table

from dyson import DysonNet, Ising
from dyson.app.bench.networks import Subject, largest_ratio, settled, with_ratios
from dyson.app.bench.options import Scale, checked_numbers, checked_sizes
from dyson.app.bench.report import Report
from dyson.app.bench.screened import CHAINS, Screened, measured
from dyson.app.plotting import interval_exponents
from dyson.mixers.diagonal import SLOWEST
from dyson.spins import random_spins
from hodlr import fit_power_law

SCALE = Scale("32,64", "32,64,128,256", "64,128,256,512,1024,2048")
TAILS, QUICK_TAILS = "0.75,1.5,3", "1.5"
INTERVALS, QUICK_INTERVALS = "1,2,4,8,16,32", "1,4,16"
# Fraction of flips that the networks accept: beyond it some of them have ordered phases, in which
# nothing moves.
ACCEPTED = 0.4
# Exponentials of the kernels, enough for 1e-3 at all exponents and sizes.
MODES = 12


def with_tails(n_sites: int, exponent: float) -> Subject:
    """A random network that propagates by 1/r^exponent.

    No training: the theory of the best interval assumes nothing but the tails of the kernels.
    """
    kernel, _ = fit_power_law(exponent, n_sites, tol=1e-3)
    weights, poles = np.zeros(MODES), np.zeros(MODES)
    weights[: kernel.weights.size], poles[: kernel.poles.size] = kernel.weights, kernel.poles
    model = DysonNet(
        n_sites, features=8, modes=MODES, mixer="real", dtype=jnp.float32, key=jax.random.key(0)
    )
    signs = jax.random.rademacher(jax.random.key(1), (model.depth, model.features, 1)).astype(float)

    # the mixer keeps its poles below 1 - SLOWEST
    raw = np.arctanh(np.minimum(poles / (1 - SLOWEST), 1 - 1e-6))

    def mixer(old: Any, sign: jax.Array) -> Any:
        new = (jnp.broadcast_to(raw, old.weights.shape), jnp.asarray(weights) * sign)
        new = tuple(x.astype(jnp.float32) for x in new)
        return eqx.tree_at(lambda m: (m.raw_poles, m.weights), old, new)

    mixers = [mixer(block.mixer, sign) for block, sign in zip(model.blocks, signs, strict=True)]
    model = eqx.tree_at(lambda m: [block.mixer for block in m.blocks], model, mixers)
    hamiltonian = Ising(n_sites, longitudinal=0.1)  # no global flips
    return Subject(hamiltonian, model, random_spins(jax.random.key(3), (CHAINS, n_sites)))


def best_interval(rows: Sequence[Screened]) -> float:
    """The interval of most flips per refresh; a parabola through the best and its neighbours in
    logarithms places it between those measured."""
    best = max(range(len(rows)), key=lambda i: rows[i].flips)
    x = np.log([row.interval for row in rows])
    y = np.log([max(row.flips, 1e-3) for row in rows])
    if 0 < best < len(rows) - 1:
        near = slice(best - 1, best + 2)
        curvature, slope, _ = np.polyfit(x[near], y[near], 2)
        if curvature < 0:
            return float(np.exp(-slope / (2 * curvature)))
    return float(rows[best].interval)


def beta(exponent: float) -> float:
    """The paper's exponent of the best interval."""
    return (3 - exponent) / 3 if exponent < 1 else 2 / (2 + exponent)


def _table(numbers: Sequence[int], best: dict[float, list[float]], growth: dict) -> Table:
    table = Table(title="Best interval against the size")
    for heading in ("tails α", *map(str, numbers), "exponent", "β of the paper"):
        table.add_column(heading, justify="right")
    for decay, widths in best.items():
        shown = (f"{width:.1f}" for width in widths)
        table.add_row(f"{decay:g}", *shown, f"{growth[decay]:.2f}", f"{beta(decay):.2f}")
    return table


def command(
    sizes: Annotated[str | None, typer.Option(help=SCALE.help)] = None,
    tails: Annotated[
        str | None, typer.Option(help=f"Decays α of the kernels; {TAILS} if not given.")
    ] = None,
    intervals: Annotated[
        str | None, typer.Option(help=f"To choose the best from; {INTERVALS} if not given.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer of each where these are not given.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "interval-exponent.png"
    ),
) -> int:
    """The best interval of the screened typewriter against the size, networks with power-law tails.

    Every measurement prints one line of JSON, and every tail one more with its exponent.
    """
    numbers = checked_sizes(sizes) if sizes else SCALE.here(quick=quick)
    choices = checked_sizes(intervals or (QUICK_INTERVALS if quick else INTERVALS))
    decays = checked_numbers(tails or (QUICK_TAILS if quick else TAILS))
    if len(numbers) < 2:
        raise typer.BadParameter(f"--sizes: an exponent needs at least two numbers, got {sizes}")
    best: dict[float, list[float]] = {}
    growth: dict[float, float] = {}
    with Report("interval-exponent") as report:
        for decay in decays:
            # networks of one strength: what the longest chain bears
            ratio = largest_ratio(with_tails(max(numbers), decay), acceptance=ACCEPTED)
            for n_sites in numbers:
                report.doing(f"tails of {decay:g} on {n_sites} sites")
                subject = with_ratios(with_tails(n_sites, decay), ratio)
                subject = subject._replace(spins=settled(subject)[0])
                sensible = [width for width in choices if 2 * width <= n_sites]
                rows = [measured(subject, width) for width in sensible]
                for row in rows:
                    report.add({"tails": decay} | row._asdict())
                best.setdefault(decay, []).append(best_interval(rows))
                # each program holds memory mappings, of which a process has 65530
                jax.clear_caches()
            growth[decay] = float(np.polyfit(np.log(numbers), np.log(best[decay]), 1)[0])
            found = {"best": best[decay], "growth": growth[decay], "theory": beta(decay)}
            report.add({"tails": decay, "sizes": numbers} | found)
        axes = interval_exponents(growth, theory=beta)
        report.show(_table(numbers, best, growth), axes.figure, output)
    return 0
