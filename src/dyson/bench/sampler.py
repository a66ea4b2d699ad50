"""Time per proposal and per accepted flip of the samplers, on random and on trained networks."""

import json
from pathlib import Path
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import typer
from rich.console import Console
from rich.table import Table

from dyson import DysonNet, Hamiltonian, Ising, Metropolis, Sampler, Sweep, Typewriter
from dyson.bench.options import checked_sizes
from dyson.bench.timing import compiled_in, fastest_run, use_one_core
from dyson.networks import Network
from dyson.run import RunDirectory
from dyson.samplers import Flips, SamplerInfo, TypewriterInfo
from dyson.spins import random_spins
from dyson.train import build, shapes

# Samples thrown away before the clock starts: chains settle and the typewriter learns its errors.
SETTLE = 8

LABELS = {
    "sweep": "exact sweep, us per proposal",
    "metropolis": "Metropolis, us per proposal",
    "speedup": "Metropolis / sweep",
    "sweep_per_flip": "exact sweep, us per accepted flip",
    "typewriter_per_flip": "typewriter, us per accepted flip",
    "metropolis_per_flip": "Metropolis, us per accepted flip",
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
    throughput: float
    frozen: float
    mismatch: float
    compile: float


class Subject(NamedTuple):
    """A network, and configurations to start from."""

    hamiltonian: Hamiltonian
    model: Network
    spins: jax.Array


def random_subject(
    n_sites: int, *, mixer: str, periodic: bool, chains: int, correlated: bool
) -> Subject:
    """16 features, depth 2, kernel 3, 8 outputs, float32, single flips."""
    hamiltonian = Ising(n_sites, longitudinal=0.1, periodic=periodic)  # no global flips
    model = DysonNet(
        n_sites, mixer=mixer, periodic=periodic, dtype=jnp.float32, key=jax.random.key(0)  # pyright: ignore[reportArgumentType]
    )
    if correlated:
        # ratios of order one at every size; with twice these weights some of the networks hold all
        # chains in one configuration, where there is nothing to compare
        weight = model.head.weight * (0.3 * n_sites**0.5)
        model = eqx.tree_at(lambda m: m.head.weight, model, weight)
    return Subject(hamiltonian, model, random_spins(jax.random.key(1), (chains, n_sites)))


def trained_subject(directory: Path, chains: int) -> Subject:
    """The network in a run directory, from the configurations where its training stopped."""
    run = RunDirectory.open(directory)
    problem = build(run.settings)
    state = run.load_state(shapes(problem))
    spins = state.sampler.spins
    pick = jnp.arange(chains) % spins.shape[0]
    return Subject(problem.hamiltonian, state.model, spins[pick])


def measure(subject: Subject, *, interval: int | None) -> Row:
    """All samplers on one network, single flips; Metropolis by full forward passes."""
    hamiltonian, model, spins = subject
    n_sites, chains = hamiltonian.n_sites, spins.shape[0]

    def timed(sampler: Sampler) -> tuple[float, float, float, SamplerInfo]:
        state = sampler.init(jax.random.key(1), model)
        state = eqx.tree_at(lambda s: s.spins, state, spins[: sampler.n_chains])
        key = jax.random.key(2)
        compile_seconds, compiled = compiled_in(sampler.sample, key, model, state)
        for settle_key in jax.random.split(jax.random.key(3), SETTLE):
            state, _ = compiled(settle_key, model, state)
        _, info = compiled(key, model, state)
        seconds = fastest_run(compiled, key, model, state, repeats=3)
        per_proposal = 1e6 * seconds / (n_sites * sampler.n_chains)
        acceptance = float(jnp.mean(info.acceptance))
        return compile_seconds, per_proposal, per_proposal / max(acceptance, 1e-9), info

    compile_seconds, sweep, sweep_flip, _ = timed(Sweep(hamiltonian, chains, chains_at_once=chains))
    typewriter = Typewriter(hamiltonian, chains, interval=interval, chains_at_once=chains)
    _, _, typewriter_flip, info = timed(typewriter)
    assert isinstance(info, TypewriterInfo)
    _, metropolis, metropolis_flip, _ = timed(Metropolis(hamiltonian, 1, moves=Flips(n_sites)))
    return Row(
        n_sites,
        sweep,
        metropolis,
        metropolis / sweep,
        sweep_flip,
        typewriter_flip,
        metropolis_flip,
        float(jnp.mean(info.throughput)),
        100 * float(jnp.mean(info.frozen)),
        100 * float(jnp.mean(info.mismatch)),
        compile_seconds,
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
    correlated: Annotated[bool, typer.Option(help="A network with large ratios.")] = False,
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
