"""Samples that reach the nodes of a state: importance sampling of a blurred |psi|^2.

Markov chains sample |psi|^2, so they never visit a node.  What psi does there they cannot tell: a
state with signs can gain weight on configurations that it should not hold, or fail to cross a zero
that it has to, while samples and V-score look perfect.  So a sample of a state with signs is moved
on, with probability ``blur``, by one of the C entries of its row of H, each as likely (an entry
that vanishes leaves it where it is).  As H connects both ways, the sample then follows

    q(s) = |psi(s)|^2 (1 + blur (A(s) - c(s)) / C),      A(s) = sum_s' |psi(s') / psi(s)|^2

over the c(s) configurations s' that s is connected to.  The local energy needs the ratios anyway,
so the weight |psi|^2 / q of each sample is known for nothing; it is at most 1 / (1 - blur), near 1
where psi is smooth, and vanishes on nodes as local energies and derivatives of log psi diverge.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int8

from dyson.hamiltonians import Hamiltonian, Row
from dyson.networks import Network
from dyson.spins import flip

# An amplitude of so many times eps, beside that of the sample, is zero.
ZERO = 100.0


def can_blur(hamiltonian: Hamiltonian, model: Network, sample: Int8[Array, " n_sites"]) -> bool:
    """Whether there are nodes to reach, for a positive state has none, and entries to reach them
    by; shapes alone are looked at."""
    log_psi = jax.eval_shape(model, sample)
    rows = jax.eval_shape(hamiltonian.rows, sample)
    entries = sum(row.elements.size for row in rows)
    return bool(jnp.issubdtype(log_psi.dtype, jnp.complexfloating) and entries)


def blurred(
    key: jax.Array,
    blur: Float[Array, ""] | float,
    hamiltonian: Hamiltonian,
    model: Network,
    sample: Int8[Array, " n_sites"],
) -> tuple[Int8[Array, " n_sites"], Bool[Array, ""]]:
    """The sample, moved on with probability ``blur``; and whether that led to where psi is zero, up
    to round-off.  There neither ratios nor derivatives mean anything: the sample stays, and its
    weight, which is as small as the square of that, is zero.
    """
    rows = hamiltonian.rows(sample)
    width = max(row.sites.shape[1] for row in rows)
    padded = [
        jnp.pad(row.sites, ((0, 0), (0, width - row.sites.shape[1])), constant_values=-1)
        for row in rows
    ]
    sites = jnp.concatenate(padded)
    connected = jnp.concatenate([row.elements != 0 for row in rows])
    which_key, whether_key = jax.random.split(key)
    which = jax.random.randint(which_key, (), 0, sites.shape[0])
    moves = (jax.random.uniform(whether_key) < blur) & connected[which]
    moved = flip(sample, jnp.where(moves, sites[which], -1))
    before, after = jnp.real(model(sample)), jnp.real(model(moved))
    # what cancels but for round-off in one program may do so exactly in another
    at_zero = after - before < jnp.log(ZERO * jnp.finfo(after.dtype).eps).astype(after.dtype)
    return jnp.where(at_zero, sample, moved), at_zero


def weight(
    blur: Float[Array, ""] | float, rows: Sequence[Row], ratios: Sequence[Inexact[Array, " c"]]
) -> Float[Array, ""]:
    """|psi|^2 / q of a blurred sample from its row of H and the ratios of the amplitudes there."""
    wide = jnp.zeros(()).dtype
    entries = sum(row.elements.size for row in rows)
    excess = jnp.zeros((), wide)
    for row, r in zip(rows, ratios, strict=True):
        arriving = jnp.abs(r).astype(wide) ** 2
        excess += jnp.sum(jnp.where(row.elements != 0, arriving - 1, 0))
    # squares of ratios may overflow where nothing is blurred
    return jnp.where(jnp.asarray(blur) > 0, 1 / (1 + blur / entries * excess), 1)
