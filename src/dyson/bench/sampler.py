"""Time per proposal of the samplers: exact sweep by environments against full forward passes."""

import json
from typing import Annotated, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import typer
from rich.console import Console
from rich.table import Table

from dyson import DysonNet, Ising, Metropolis, Sampler, Sweep
from dyson.bench.options import checked_sizes
from dyson.bench.timing import compile_and_time, use_one_core


class Row(NamedTuple):
    """Microseconds per proposal and per accepted flip, and seconds to compile the sweep."""

    n_sites: int
    sweep: float
    metropolis: float
    speedup: float
    sweep_per_flip: float
    metropolis_per_flip: float
    compile: float


def measure(n_sites: int, *, mixer: str, periodic: bool, chains: int, correlated: bool) -> Row:
    """One size: 16 features, depth 2, kernel 3, 8 outputs, float32, single flips."""
    hamiltonian = Ising(n_sites, longitudinal=0.1, periodic=periodic)  # no global flips
    model = DysonNet(
        n_sites, mixer=mixer, periodic=periodic, dtype=jnp.float32, key=jax.random.key(0)  # pyright: ignore[reportArgumentType]
    )
    if correlated:  # log psi of random configurations spreads by sqrt(n_sites) / 4
        weight = model.head.weight * (2.5 * n_sites**0.5)
        model = eqx.tree_at(lambda m: m.head.weight, model, weight)

    def timed(sampler: Sampler) -> tuple[float, float, float]:
        state = sampler.init(jax.random.key(1), model)
        key = jax.random.key(2)
        compile_seconds, seconds = compile_and_time(sampler.sample, key, model, state, repeats=3)
        _, info = eqx.filter_jit(sampler.sample)(key, model, state)
        per_proposal = 1e6 * seconds / (n_sites * sampler.n_chains)
        return compile_seconds, per_proposal, per_proposal / float(jnp.mean(info.acceptance))

    compile_seconds, sweep, sweep_flip = timed(Sweep(hamiltonian, chains))
    _, metropolis, metropolis_flip = timed(Metropolis(hamiltonian, 1))
    return Row(
        n_sites, sweep, metropolis, metropolis / sweep, sweep_flip, metropolis_flip,
        compile_seconds,
    )


def command(
    sizes: Annotated[str, typer.Option(help="Numbers of sites, separated by commas.")] = (
        "128,256,512,1000,4000"
    ),
    mixer: Annotated[str, typer.Option(help="s4d or real.")] = "s4d",
    periodic: Annotated[bool, typer.Option("--periodic/--open", help="Ring or chain.")] = True,
    chains: Annotated[int, typer.Option(min=1, help="Chains of the sweep.")] = 8,
    correlated: Annotated[bool, typer.Option(help="A network with large ratios.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> int:
    """Sampling on one core, float32: exact sweep, and Metropolis by full forward passes."""
    numbers = checked_sizes(sizes, mixer)
    use_one_core()
    table = Table(title="Microseconds per proposal, one core, float32")
    for heading in ("sites", "sweep", "Metropolis", "ratio", "sweep / accepted flip",
                    "Metropolis / accepted flip", "compile / s"):
        table.add_column(heading, justify="right")
    rows = []
    console = Console(stderr=True)
    with console.status("measuring") as status:
        for n_sites in numbers:
            status.update(f"measuring {n_sites} sites")
            row = measure(
                n_sites, mixer=mixer, periodic=periodic, chains=chains, correlated=correlated
            )
            rows.append(row._asdict())
            table.add_row(str(n_sites), *(f"{value:.1f}" for value in row[1:]))
    if as_json:
        print(json.dumps(rows))
    else:
        Console().print(table)
    return 0
