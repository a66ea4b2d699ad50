"""Time per proposal and per accepted flip of the samplers, on random and on trained networks."""

import json
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from dyson import DysonNet, Ising, Metropolis, Sampler, Sweep, Typewriter
from dyson.app.bench.networks import Subject, largest_ratio, settled, with_ratios
from dyson.app.bench.options import checked_sizes
from dyson.app.bench.timing import compiled_in, fastest_run, use_one_core
from dyson.app.problem import build
from dyson.app.run import RunDirectory
from dyson.networks import Network
from dyson.samplers import Flips, SamplerInfo, TypewriterInfo
from dyson.spins import random_spins

# Samples of the typewriter until it has learned its errors.
LEARN = 8
# Fraction of flips that correlated networks accept at least.
ACCEPTED = 0.2

LABELS = {
    "sweep": "exact sweep, us per proposal",
    "metropolis": "Metropolis, us per proposal",
    "speedup": "Metropolis / sweep",
    "sweep_per_flip": "exact sweep, us per accepted flip",
    "typewriter_per_flip": "typewriter, us per accepted flip",
    "metropolis_per_flip": "Metropolis, us per accepted flip",
    "sweep_accepted": "exact sweep, accepted / %",
    "typewriter_accepted": "typewriter, accepted / %",
    "metropolis_accepted": "Metropolis, accepted / %",
    "throughput": "typewriter, flips per refresh",
    "frozen": "typewriter, frozen / %",
    "mismatch": "typewriter, mismatch / %",
    "compile": "exact sweep, compile / s",
}


class Row(NamedTuple):
    """Microseconds per proposal and per accepted flip, what the typewriter says of itself, and
    seconds to compile the sweep."""

    n_sites: int
    sweep: float
    metropolis: float
    speedup: float
    sweep_per_flip: float
    typewriter_per_flip: float
    metropolis_per_flip: float
    sweep_accepted: float
    typewriter_accepted: float
    metropolis_accepted: float
    throughput: float
    frozen: float
    mismatch: float
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


class Timing(NamedTuple):
    """Of one sampler: microseconds, a fraction, seconds."""

    per_proposal: float
    acceptance: float
    compile: float
    info: SamplerInfo

    @property
    def per_flip(self) -> float:
        return self.per_proposal / max(self.acceptance, 1e-9)


def timed(
    sampler: Sampler, model: Network, spins: jax.Array, *, learn: int = 0, repeats: int = 3
) -> Timing:
    """One sample of all chains from the given configurations."""
    state = sampler.init(jax.random.key(1), model)
    state = eqx.tree_at(lambda s: s.spins, state, spins)
    key = jax.random.key(2)
    compile_seconds, compiled = compiled_in(sampler.sample, key, model, state)
    for learn_key in jax.random.split(jax.random.key(3), learn):
        state, _ = compiled(learn_key, model, state)
    _, info = compiled(key, model, state)
    seconds = fastest_run(compiled, key, model, state, repeats=repeats)
    per_proposal = 1e6 * seconds / spins.size
    return Timing(per_proposal, float(jnp.mean(info.acceptance)), compile_seconds, info)


def measure(subject: Subject, *, interval: int | None) -> Row:
    """All samplers on one network, single flips; Metropolis by full forward passes."""
    hamiltonian, model, _ = subject
    spins, _ = settled(subject)
    n_sites, chains = hamiltonian.n_sites, spins.shape[0]
    sweep = timed(Sweep(hamiltonian, chains, chains_at_once=chains), model, spins)
    screened = Typewriter(hamiltonian, chains, interval=interval, chains_at_once=chains)
    typewriter = timed(screened, model, spins, learn=LEARN)
    # forward passes of one chain after the other: side by side they leave the processor's cache
    alone = Metropolis(hamiltonian, 1, moves=Flips(n_sites))
    each = [timed(alone, model, chain[None], repeats=1) for chain in spins]
    metropolis = each[0]._replace(
        per_proposal=min(x.per_proposal for x in each),
        acceptance=float(np.mean([x.acceptance for x in each])),
    )
    assert isinstance(typewriter.info, TypewriterInfo)
    return Row(
        n_sites,
        sweep.per_proposal,
        metropolis.per_proposal,
        metropolis.per_proposal / sweep.per_proposal,
        sweep.per_flip,
        typewriter.per_flip,
        metropolis.per_flip,
        100 * sweep.acceptance,
        100 * typewriter.acceptance,
        100 * metropolis.acceptance,
        float(jnp.mean(typewriter.info.throughput)),
        100 * float(jnp.mean(typewriter.info.frozen)),
        100 * float(jnp.mean(typewriter.info.mismatch)),
        sweep.compile,
    )


def command(
    sizes: Annotated[str, typer.Option(help="Numbers of sites, separated by commas.")] = (
        "128,256,512,1000,4000"
    ),
    mixer: Annotated[str, typer.Option(help="s4d or real.")] = "s4d",
    periodic: Annotated[bool, typer.Option("--periodic/--open", help="Ring or chain.")] = True,
    chains: Annotated[int, typer.Option(min=1, help="Chains of sweep and typewriter.")] = 8,
    interval: Annotated[
        int | None, typer.Option(min=1, help="Sites per interval of the typewriter.")
    ] = None,
    correlated: Annotated[
        bool, typer.Option(help="A network whose spins are strongly correlated.")
    ] = False,
    run: Annotated[
        list[Path] | None, typer.Option(help="Trained networks, by run directory, not random.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> int:
    """Sampling on one core, float32: exact sweep, screened typewriter, Metropolis."""
    numbers = checked_sizes(sizes, mixer)
    use_one_core()
    rows: list[Row] = []
    console = Console(stderr=True)
    with console.status("measuring") as status:
        for item in run or numbers:
            status.update(f"measuring {item}" + ("" if run else " sites"))
            if isinstance(item, Path):
                subject = trained_subject(item, chains)
            else:
                subject = random_subject(
                    item, mixer=mixer, periodic=periodic, chains=chains, correlated=correlated
                )
            rows.append(measure(subject, interval=interval))
    if as_json:
        print(json.dumps([row._asdict() for row in rows]))
    else:
        Console().print(_table(rows))
    return 0


def _table(rows: list[Row]) -> Table:
    """One column per size: the quantities are too many for the width of a terminal."""
    table = Table(title="Samplers on one core, float32")
    table.add_column("sites")
    for row in rows:
        table.add_column(str(row.n_sites), justify="right")
    for field, label in LABELS.items():
        table.add_row(label, *(f"{getattr(row, field):.3g}" for row in rows))
    return table
