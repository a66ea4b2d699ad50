"""Time per connected element of the local energy: ABACUS, the full forward pass, and a ViT."""

import json
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import typer
from rich.console import Console
from rich.table import Table

from dyson import Abacus, DysonNet, Ising, LocalUpdates, Recompute, local_energies
from dyson.app.bench.options import checked_sizes
from dyson.app.bench.timing import compile_and_time, use_one_core
from dyson.baselines import ViT
from dyson.spins import random_spins

# Forward passes of the transformer timed side by side: few, each holds tokens^2 scores per head.
VIT_FLIPS = 4


class Row(NamedTuple):
    """Microseconds per connected element, and seconds to compile."""

    n_sites: int
    abacus: float
    forward: float
    speedup: float
    vit: float
    vit_speedup: float
    three_blocks: float
    compile: float


def measure(n_sites: int, *, mixer: str, samples: int) -> Row:
    """One size: 16 features, depth 2, kernel 3, 8 outputs, float32, one flip per element; and the
    same with three blocks.

    The transformer has as many features and layers and patches of four spins; its chain is rounded
    up to a multiple of four.
    """
    hamiltonian = Ising(n_sites)
    options = {"mixer": mixer, "dtype": jnp.float32, "key": jax.random.key(0)}
    model, deeper = (DysonNet(n_sites, depth=depth, **options) for depth in (2, 3))
    spins = random_spins(jax.random.key(1), (samples, n_sites))

    def per_element(
        model: DysonNet, updates: LocalUpdates, batch: jax.Array
    ) -> tuple[float, float]:
        compile_seconds, seconds = compile_and_time(
            lambda model, batch: local_energies(hamiltonian, model, batch, updates=updates),
            model,
            batch,
        )
        return compile_seconds, 1e6 * seconds / batch.size

    compile_seconds, abacus = per_element(model, Abacus(), spins)
    _, forward = per_element(model, Recompute(), spins[:1])
    _, three_blocks = per_element(deeper, Abacus(), spins[:16])
    padded = -(-n_sites // 4) * 4
    _, vit = compile_and_time(
        # forward passes of a few flips at once; all of them cost n_sites times as much
        lambda model, batch: jax.vmap(model)(batch),
        ViT(padded, dtype=jnp.float32, key=jax.random.key(2)),  # pyright: ignore[reportArgumentType]
        random_spins(jax.random.key(3), (VIT_FLIPS, padded)),
    )
    vit *= 1e6 / VIT_FLIPS
    return Row(
        n_sites,
        abacus,
        forward,
        forward / abacus,
        vit,
        vit / abacus,
        three_blocks,
        compile_seconds,
    )


def command(
    sizes: Annotated[str, typer.Option(help="Numbers of sites, separated by commas.")] = (
        "64,128,256,512,1000,1009"
    ),
    mixer: Annotated[str, typer.Option(help="s4d or real.")] = "s4d",
    samples: Annotated[int, typer.Option(min=1, help="Samples per measurement.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> int:
    """Local energy per connected element on one core, float32: ABACUS, forward passes, a ViT."""
    numbers = checked_sizes(sizes, mixer)
    use_one_core()
    table = Table(title="Microseconds per connected element, one core, float32")
    for heading in (
        "sites",
        "ABACUS",
        "full forward",
        "ratio",
        "ViT",
        "ratio",
        "3 blocks",
        "compile / s",
    ):
        table.add_column(heading, justify="right")
    rows = []
    console = Console(stderr=True)
    with console.status("measuring") as status:
        for n_sites in numbers:
            status.update(f"measuring {n_sites} sites")
            row = measure(n_sites, mixer=mixer, samples=samples)
            rows.append(row._asdict())
            table.add_row(
                str(n_sites),
                f"{row.abacus:.2f}",
                f"{row.forward:.1f}",
                f"{row.speedup:.1f}",
                f"{row.vit:.0f}",
                f"{row.vit_speedup:.0f}",
                f"{row.three_blocks:.1f}",
                f"{row.compile:.1f}",
            )
    if as_json:
        print(json.dumps(rows))
    else:
        Console().print(table)
    return 0
