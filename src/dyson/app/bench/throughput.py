"""Flips per refresh of the screened typewriter on trained networks, as Fig. 5 of
arXiv:2603.11189."""

from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import typer
from rich.table import Table

from dyson import VMC, DysonNet, Ising, SpinFlip, Sweep, spring
from dyson.app.bench.networks import Subject
from dyson.app.bench.options import Scale, checked_numbers, checked_sizes
from dyson.app.bench.report import Report
from dyson.app.bench.screened import CHAINS, Screened, measured
from dyson.app.plotting import by_size

SCALE = Scale("32,64", "32,64,128,256", "64,128,256,512,1024,2048")
COUPLINGS, QUICK_COUPLINGS = "-0.7,-1.4,-2.1", "-1.4"
STEPS, QUICK_STEPS = 40, 20


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


def ideal(n_sites: int, interval: int) -> float:
    """Flips of a refresh if no proposal disturbed another and half of them were accepted."""
    return n_sites / (2 * interval)


def _table(rows: dict[float, list[Screened]], exponent: float, interval: int) -> Table:
    table = Table(title=f"Screened typewriter: α = {exponent:g}, intervals of {interval} sites")
    headings = "J", "sites", "flips per refresh", "N/2W", "accepted", "frozen", "mismatch"
    for heading in headings:
        table.add_column(heading, justify="right")
    for coupling, here in rows.items():
        for row in here:
            table.add_row(
                f"{coupling:g}", str(row.n_sites), f"{row.flips:.2f}",
                f"{ideal(row.n_sites, interval):g}", f"{100 * row.accepted:.1f} %",
                f"{100 * row.frozen:.2f} %", f"{100 * row.mismatch:.3f} %",
            )  # fmt: skip
    return table


def command(
    sizes: Annotated[str | None, typer.Option(help=SCALE.help)] = None,
    exponent: Annotated[float, typer.Option(help="Decay of the couplings.")] = 1.5,
    couplings: Annotated[
        str | None, typer.Option(help=f"Couplings J with the Kac factor; {COUPLINGS}.")
    ] = None,
    interval: Annotated[int, typer.Option(min=1, help="Sites per interval, all sizes.")] = 4,
    steps: Annotated[
        int | None, typer.Option(min=0, help=f"Training of a network, {STEPS} if not given.")
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="Fewer sizes, couplings and steps where these are not given.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "throughput.png"
    ),
) -> int:
    """Accepted flips per refresh of the screened typewriter against the size, trained networks.

    Every measurement prints one line of JSON.
    """
    numbers = checked_sizes(sizes) if sizes else SCALE.here(quick=quick)
    strengths = checked_numbers(couplings or (QUICK_COUPLINGS if quick else COUPLINGS))
    if steps is None:
        steps = QUICK_STEPS if quick else STEPS
    rows: dict[float, list[Screened]] = {coupling: [] for coupling in strengths}
    with Report("throughput") as report:
        # sizes outermost: each is compiled once for all couplings
        for n_sites in numbers:
            for coupling in strengths:
                report.doing(f"training and measuring J = {coupling:g} on {n_sites} sites")
                hamiltonian = Ising(n_sites, coupling=coupling, exponent=exponent, kac=True)
                row = measured(trained(hamiltonian, steps), interval)
                rows[coupling].append(row)
                system = {"coupling": coupling, "exponent": exponent, "steps": steps}
                report.add(system | row._asdict())
            # each program holds memory mappings, of which a process has 65530
            jax.clear_caches()
        curves = {
            f"J = {coupling:g}": [(r.n_sites, r.flips, r.flips_low, r.flips_high) for r in here]
            for coupling, here in rows.items()
        }
        axes = by_size(curves, label="accepted flips per refresh")
        line = [ideal(n_sites, interval) for n_sites in numbers]
        axes.plot(numbers, line, "k--", label="N / 2W")
        axes.legend(fontsize="small")
        report.show(_table(rows, exponent, interval), axes.figure, output)
    return 0
