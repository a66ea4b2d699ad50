"""Scaling of the screened typewriter: its throughput and its best interval, as Figs. 4 and 5 of
arXiv:2603.11189."""

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from dyson import VMC, DysonNet, Ising, SpinFlip, Sweep, Typewriter, spring
from dyson.app.bench.networks import Subject, largest_ratio, settled, with_ratios
from dyson.app.bench.options import checked_numbers, checked_sizes
from dyson.app.plotting import typewriter_scaling
from dyson.checkpoint import atomic_write
from dyson.mixers.diagonal import SLOWEST
from dyson.networks import Network
from dyson.samplers import TypewriterInfo
from dyson.spins import random_spins
from hodlr import fit_power_law

CHAINS = 8
# Samples until the chains have settled and the table of errors is full, and samples measured.
SETTLE, MEASURED = 24, 16
# Fraction of flips that networks with power-law tails accept: beyond it some of them have ordered
# phases, in which nothing moves.
ACCEPTED = 0.4
# Exponentials of the kernels with power-law tails, enough for 1e-3 at all exponents and sizes.
MODES = 12


class Throughput(NamedTuple):
    """Of one network and interval, means over chains and samples."""

    n_sites: int
    interval: int
    accepted: float  # flips per refresh
    acceptance: float
    frozen: float
    mismatch: float


def measured(subject: Subject, interval: int) -> Throughput:
    """Follow the chains from the given configurations."""
    hamiltonian, model, spins = subject
    sampler = Typewriter(hamiltonian, CHAINS, interval=interval, chains_at_once=CHAINS)
    info = _follow(sampler, model, spins)
    accepted = jnp.sum(info.throughput * info.refreshes) / jnp.sum(info.refreshes)
    others = (jnp.mean(x) for x in (info.acceptance, info.frozen, info.mismatch))
    return Throughput(hamiltonian.n_sites, interval, float(accepted), *map(float, others))


@eqx.filter_jit
def _follow(sampler: Typewriter, model: Network, spins: jax.Array) -> TypewriterInfo:
    state = sampler.init(jax.random.key(0), model)
    state = eqx.tree_at(lambda s: s.spins, state, spins)
    keys = jax.random.split(jax.random.key(1), SETTLE + MEASURED)
    step = lambda state, key: sampler.sample(key, model, state)
    info = jax.lax.scan(step, state, keys)[1]
    return jax.tree.map(lambda x: x[SETTLE:].astype(float), info)


def trained(hamiltonian: Ising, steps: int) -> Subject:
    """A small network after some steps of natural gradient, and its configurations."""
    n_sites = hamiltonian.n_sites
    model = SpinFlip(
        DysonNet(n_sites, features=8, mixer="real", dtype=jnp.float32, key=jax.random.key(0))
    )
    sampler = Sweep(hamiltonian, 4 * CHAINS, chains_at_once=4 * CHAINS)
    vmc = VMC(hamiltonian, sampler, spring(0.05))
    state = vmc.init(jax.random.key(1), model)
    for _ in range(steps):
        state, _ = vmc.step(state)
    return Subject(hamiltonian, state.model, state.sampler.spins[:CHAINS])


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


def _report(console: Console, network: str, rows: list[Throughput]) -> None:
    """What was measured so far; a bench of half an hour should not keep it to itself."""
    for row in rows:
        console.print(
            f"{network}, {row.n_sites} sites, intervals of {row.interval}: "
            f"{row.accepted:.2f} flips per refresh, mismatch {100 * row.mismatch:.3f} %"
        )
    # programs of other sizes are not needed again, and each holds memory mappings, of which a
    # process has 65530
    jax.clear_caches()


def best_interval(rows: list[Throughput]) -> float:
    """The interval of largest throughput; a parabola through the best and its neighbours in
    logarithms places it between those measured."""
    best = max(range(len(rows)), key=lambda i: rows[i].accepted)
    x = np.log([row.interval for row in rows])
    y = np.log([max(row.accepted, 1e-3) for row in rows])
    if 0 < best < len(rows) - 1:
        near = slice(best - 1, best + 2)
        curvature, slope, _ = np.polyfit(x[near], y[near], 2)
        if curvature < 0:
            return float(np.exp(-slope / (2 * curvature)))
    return float(rows[best].interval)


def beta(exponent: float) -> float:
    """The paper's exponent of the best interval."""
    return (3 - exponent) / 3 if exponent < 1 else 2 / (2 + exponent)


def _print_throughput(rows: list[dict], exponent: float, interval: int) -> None:
    """Of trained networks."""
    table = Table(title=f"Screened typewriter: α = {exponent:g}, intervals of {interval} sites")
    headings = "J", "sites", "flips per refresh", "N/2W", "acceptance", "frozen %", "mismatch %"
    for heading in headings:
        table.add_column(heading, justify="right")
    for r in rows:
        ideal = max(1, r["n_sites"] // (2 * interval))
        # fmt: off
        table.add_row(
            f"{r['coupling']:g}", str(r["n_sites"]), f"{r['accepted']:.2f}", str(ideal),
            f"{r['acceptance']:.3f}", f"{100 * r['frozen']:.2f}", f"{100 * r['mismatch']:.3f}",
        )
        # fmt: on
    Console().print(table)


def _print_best(
    numbers: list[int],
    rows: list[dict],
    best: dict[float, list[float]],
    slopes: dict[float, float],
) -> None:
    """Best intervals and the exponent of their growth."""
    table = Table(title="Best interval against the size")
    for heading in ("tails α", *map(str, numbers), "slope", "β of the paper", "mismatch %"):
        table.add_column(heading, justify="right")
    for decay, widths in best.items():
        wrong = np.mean([r["mismatch"] for r in rows if r["tails"] == decay])
        # fmt: off
        table.add_row(
            f"{decay:g}", *(f"{width:.1f}" for width in widths), f"{slopes[decay]:.2f}",
            f"{beta(decay):.2f}", f"{100 * wrong:.3f}",
        )
        # fmt: on
    Console().print(table)


def command(
    sizes: Annotated[str, typer.Option(help="Numbers of sites, separated by commas.")] = (
        "32,64,128,256"
    ),
    exponent: Annotated[float, typer.Option(help="Decay of the couplings.")] = 1.5,
    couplings: Annotated[str, typer.Option(help="Couplings J, with the Kac factor.")] = (
        "-0.7,-1.4,-2.1"
    ),
    interval: Annotated[int, typer.Option(min=1, help="Sites per interval, all sizes.")] = 4,
    steps: Annotated[int, typer.Option(min=0, help="Training steps of each network.")] = 40,
    tails: Annotated[str, typer.Option(help="Tails of the kernels, for the best interval.")] = (
        "0.75,1.5,3"
    ),
    intervals: Annotated[str, typer.Option(help="Intervals to choose the best from.")] = (
        "1,2,4,8,16,32"
    ),
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "typewriter.png"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> int:
    """Throughput of the screened typewriter against the size, and its best interval."""
    numbers, choices = checked_sizes(sizes), checked_sizes(intervals)
    strengths, decays = checked_numbers(couplings), checked_numbers(tails)
    if len(numbers) < 2:
        raise typer.BadParameter(f"--sizes: a slope needs at least two numbers, got {sizes}")
    console = Console(stderr=True)
    trained_rows, tail_rows = [], []
    with console.status("measuring") as status:
        for coupling in strengths:
            for n_sites in numbers:
                status.update(f"training and measuring J = {coupling:g} on {n_sites} sites")
                hamiltonian = Ising(n_sites, coupling=coupling, exponent=exponent, kac=True)
                row = measured(trained(hamiltonian, steps), interval)
                trained_rows.append({"coupling": coupling} | row._asdict())
                _report(console, f"J = {coupling:g}", [row])
        best: dict[float, list[float]] = {}
        for decay in decays:
            # networks of one strength: what the longest chain bears
            ratio = largest_ratio(with_tails(max(numbers), decay), acceptance=ACCEPTED)
            for n_sites in numbers:
                status.update(f"best interval for tails of {decay:g} on {n_sites} sites")
                subject = with_ratios(with_tails(n_sites, decay), ratio)
                subject = subject._replace(spins=settled(subject)[0])
                sensible = [width for width in choices if 2 * width <= n_sites]
                rows = [measured(subject, width) for width in sensible]
                _report(console, f"tails of {decay:g}", rows)
                tail_rows += [{"tails": decay} | row._asdict() for row in rows]
                best.setdefault(decay, []).append(best_interval(rows))
    slopes = {
        decay: float(np.polyfit(np.log(numbers), np.log(widths), 1)[0])
        for decay, widths in best.items()
    }
    figure = Figure(figsize=(9, 4), layout="constrained")
    typewriter_scaling(
        numbers,
        {
            coupling: [r["accepted"] for r in trained_rows if r["coupling"] == coupling]
            for coupling in strengths
        },
        interval=interval,
        slopes=slopes,
        theory=beta,
        figure=figure,
    )
    with atomic_write(output) as stream:
        figure.savefig(stream, format="png", dpi=150)
    if as_json:
        result = {"throughput": trained_rows, "tails": tail_rows, "best": best, "beta": slopes}
        print(json.dumps(result))
        return 0
    _print_throughput(trained_rows, exponent, interval)
    _print_best(numbers, tail_rows, best, slopes)
    print(output)
    return 0
