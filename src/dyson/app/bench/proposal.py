"""Time per proposed flip and per accepted one, as Fig. 3c of arXiv:2603.11189."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.table import Table

from dyson import CachedTheta, DysonNet, Ising, Metropolis, Recompute, Sampler, Sweep, Typewriter
from dyson.app.bench.networks import Subject, largest_ratio, settled, with_ratios
from dyson.app.bench.options import Scale, checked_mixer, checked_sizes
from dyson.app.bench.report import Report
from dyson.app.bench.timing import compiled_in, curves_of, run_times, spread_of, use_one_core
from dyson.app.plotting import by_size
from dyson.app.problem import build
from dyson.app.run import RunDirectory
from dyson.baselines import RBM, ViT
from dyson.networks import Network
from dyson.samplers import Flips
from dyson.spins import random_spins

SCALE = Scale("64,256", "128,256,512,1000,4000", "64,128,256,512,1000,2000,4000")
# Samples of the typewriter until it has learned its errors.
LEARN = 8
# Fraction of flips that correlated networks accept at least.
ACCEPTED = 0.2
PATCH = 4
# Runs of a sampler, and chains that are followed by forward passes, one after the other.
REPEATS, FORWARD = 5, 3


class Row(NamedTuple):
    """One way on one chain: microseconds per proposal, the median, the fastest and the slowest of
    several runs; per accepted flip; the fraction accepted; and seconds to compile."""

    way: str
    n_sites: int
    chains: int
    us: float
    us_low: float
    us_high: float
    us_per_flip: float
    accepted: float
    compile: float


def random_subject(
    n_sites: int, *, mixer: str, periodic: bool, chains: int, correlated: bool
) -> Subject:
    """16 features, depth 2, kernel 3, 8 outputs, float32, single flips."""
    hamiltonian = Ising(n_sites, longitudinal=0.1, periodic=periodic)  # no global flips
    model = DysonNet(
        n_sites,
        mixer=mixer,  # pyright: ignore[reportArgumentType]
        periodic=periodic,
        dtype=jnp.float32,
        key=jax.random.key(0),
    )
    subject = Subject(hamiltonian, model, random_spins(jax.random.key(1), (chains, n_sites)))
    if not correlated:
        return subject
    return with_ratios(subject, largest_ratio(subject, acceptance=ACCEPTED))


def trained_subject(directory: Path, chains: int) -> Subject:
    """The network in a run directory, from the configurations where its training stopped."""
    run = RunDirectory.open(directory)
    problem = build(run.settings.on(run.saved_sites()))
    state = run.load_state(problem.state_shapes)
    spins = state.sampler.spins
    pick = jnp.arange(chains) % spins.shape[0]
    return Subject(problem.hamiltonian, state.model, spins[pick])


def timed(way: str, sampler: Sampler, model: Network, groups: jax.Array, *, learn: int = 0) -> Row:
    """Samples of chains from the given configurations (groups, chains, n_sites), one group after
    the other; a single one several times."""
    _, chains, n_sites = groups.shape
    state = sampler.init(jax.random.key(1), model)
    states = [eqx.tree_at(lambda s: s.spins, state, spins) for spins in groups]
    key = jax.random.key(2)
    compile_seconds, compiled = compiled_in(sampler.sample, key, model, states[0])
    for learn_key in jax.random.split(jax.random.key(3), learn):
        states = [compiled(learn_key, model, state)[0] for state in states]
    seconds, accepted = [], []
    for state in states:
        repeats = 1 if len(states) > 1 else REPEATS
        seconds += run_times(compiled, key, model, state, repeats=repeats)
        accepted.append(jnp.mean(compiled(key, model, state)[1].acceptance))
    us = spread_of(seconds).times(1e6 / (chains * n_sites))
    fraction = float(np.mean(accepted))
    per_flip = us.median / max(fraction, 1e-9)
    return Row(way, n_sites, chains, *us, per_flip, fraction, compile_seconds)


def dysonnet(subject: Subject, *, interval: int | None) -> Iterator[Row]:
    """All samplers on one network, single flips."""
    hamiltonian, model, _ = subject
    spins, _ = settled(subject)
    n_sites, chains = hamiltonian.n_sites, spins.shape[0]
    sweep = Sweep(hamiltonian, chains, chains_at_once=chains)
    yield timed("exact sweep", sweep, model, spins[None])
    screened = Typewriter(hamiltonian, chains, interval=interval, chains_at_once=chains)
    yield timed("typewriter", screened, model, spins[None], learn=LEARN)
    # one chain after the other: side by side forward passes leave the processor's cache
    alone = Metropolis(hamiltonian, 1, moves=Flips(n_sites), updates=Recompute())
    yield timed("forward passes", alone, model, spins[:FORWARD, None])


def baselines(subject: Subject) -> Iterator[Row]:
    """An RBM with a hidden unit per site, whose theta is kept, and forward passes of a ViT of as
    many features and layers, on a chain of whole patches; random networks."""
    hamiltonian, _, spins = subject
    n_sites, chains = hamiltonian.n_sites, spins.shape[0]
    machine = RBM(n_sites, dtype=jnp.float32, key=jax.random.key(0))
    cached = Metropolis(hamiltonian, chains, moves=Flips(n_sites), updates=CachedTheta())
    yield timed("RBM", cached, machine, spins[None])
    padded = -(-n_sites // PATCH) * PATCH
    transformer = ViT(padded, patch=PATCH, dtype=jnp.float32, key=jax.random.key(0))
    alone = Metropolis(Ising(padded), 1, moves=Flips(padded), updates=Recompute())
    some = random_spins(jax.random.key(1), (FORWARD, 1, padded))
    yield timed("ViT", alone, transformer, some)._replace(n_sites=n_sites)


def _table(rows: list[Row]) -> Table:
    table = Table(title="Microseconds on one core, float32")
    for heading in ("sites", "way", "per proposal", "accepted", "per flip", "compile / s"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row.n_sites), row.way, f"{row.us:.3g}", f"{100 * row.accepted:.0f} %",
            f"{row.us_per_flip:.3g}", f"{row.compile:.1f}",
        )  # fmt: skip
    return table


def command(
    sizes: Annotated[str | None, typer.Option(help=SCALE.help)] = None,
    mixer: Annotated[str, typer.Option(help="s4d or real.")] = "s4d",
    periodic: Annotated[bool, typer.Option("--periodic/--open", help="Ring or chain.")] = True,
    chains: Annotated[int, typer.Option(min=1, help="Chains side by side.")] = 8,
    interval: Annotated[
        int | None, typer.Option(min=1, help="Sites per interval of the typewriter.")
    ] = None,
    correlated: Annotated[
        bool, typer.Option(help="A network whose spins are strongly correlated.")
    ] = False,
    run: Annotated[
        list[Path] | None, typer.Option(help="Trained networks, by run directory, not random.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Fewer sizes where these are not given.")] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "proposal.png"
    ),
) -> int:
    """A proposed flip on one core: exact sweep, screened typewriter, forward passes, an RBM, a ViT.

    Every measurement prints one line of JSON.
    """
    given, mixer = sizes and checked_sizes(sizes), checked_mixer(mixer)
    use_one_core()
    items = run or given or SCALE.here(quick=quick)
    rows: list[Row] = []
    with Report("proposal") as report:
        for item in items:
            report.doing(f"{item}" if run else f"{item} sites")
            if isinstance(item, Path):
                found = dysonnet(trained_subject(item, chains), interval=interval)
            else:
                options = {"mixer": mixer, "periodic": periodic, "chains": chains}
                subject = random_subject(item, correlated=correlated, **options)
                found = chain(dysonnet(subject, interval=interval), baselines(subject))
            for row in found:
                rows.append(row)
                report.add(row._asdict())
            jax.clear_caches()
        axes = by_size(curves_of(rows), label="microseconds per proposal")
        report.show(_table(rows), axes.figure, output)
    return 0
