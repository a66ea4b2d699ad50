"""Samples that reach the nodes of a state: importance sampling of a blurred |psi|^2.

Markov chains sample |psi|^2, so they never visit a node.  What psi does there they cannot tell: a
state with signs can gain weight on configurations that it should not hold, or fail to cross a zero
that it has to, while samples and V-score look perfect.  So a sample of a state with signs is moved
on, with probability ``blur``, by one of the C entries of its row of H, each as likely (an entry
that vanishes leaves it where it is); and with the small probability ``FRESH`` = e it gives way to
a configuration drawn afresh, of its sector if H has sectors.  As H connects both ways, the sample
then follows

    q(s) = (1 - e) d(s) |psi(s)|^2 + e <|psi|^2>,      d(s) = 1 + blur (A(s) - c(s)) / C,

A(s) = sum_s' |psi(s') / psi(s)|^2 over the c(s) configurations s' that s is connected to, and
<|psi|^2> the mean over all configurations.  The local energy needs the ratios anyway, so d is known
for nothing, and the mean is what makes the weights |psi|^2 / q of all samples one on average.  A
weight is at most 1 / ((1 - e) (1 - blur)), near 1 where psi is smooth, and vanishes on nodes as
local energies and derivatives of log psi diverge.

Fresh configurations tell what lies apart, across configurations of no amplitude, while it is still
small.  On chains longer than ``dyson.samplers.base.FRESH_UP_TO`` none is drawn, e = 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int8

from dyson.hamiltonians import Hamiltonian, Row
from dyson.networks import Network
from dyson.samplers.base import FRESH_UP_TO
from dyson.spins import flip, random_spins

# Share of configurations drawn afresh among blurred samples.
FRESH = 1 / 8

# Of the search for the mean of |psi|^2: how far beyond the samples, in its logarithm, and how long.
MARGIN, HALVINGS = 40.0, 60


class Blurred(NamedTuple):
    """A sample that may have been moved, Re log psi there, and whether it was led to where psi is
    zero.  There neither ratios nor derivatives mean anything: the sample stays, and its weight is
    zero."""

    spins: Int8[Array, " n_sites"]
    log_psi: Float[Array, ""]
    at_zero: Bool[Array, ""]


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
) -> Blurred:
    """The sample, moved on with probability ``blur`` or replaced; neither where that is zero."""
    rows = hamiltonian.rows(sample)
    width = max(row.sites.shape[1] for row in rows)
    padded = [
        jnp.pad(row.sites, ((0, 0), (0, width - row.sites.shape[1])), constant_values=-1)
        for row in rows
    ]
    sites = jnp.concatenate(padded)
    connected = jnp.concatenate([row.elements != 0 for row in rows])
    which_key, whether_key, fresh_key = jax.random.split(key, 3)
    which = jax.random.randint(which_key, (), 0, sites.shape[0])
    chances = jax.random.uniform(whether_key, (2,))
    moves = (chances[0] < blur) & connected[which]
    moved = flip(sample, jnp.where(moves, sites[which], -1))
    if sample.shape[0] <= FRESH_UP_TO:
        if hamiltonian.conserves_magnetisation:
            fresh = jax.random.permutation(fresh_key, sample)
        else:
            fresh = random_spins(fresh_key, sample.shape[0])
        moved = jnp.where(chances[1] < share_drawn_afresh(blur, sample.shape[0]), fresh, moved)
    before, after = jnp.real(model(sample)), jnp.real(model(moved))
    at_zero = jnp.isneginf(after)
    return Blurred(jnp.where(at_zero, sample, moved), jnp.where(at_zero, before, after), at_zero)


def density(
    blur: Float[Array, ""] | float, rows: Sequence[Row], ratios: Sequence[Inexact[Array, " c"]]
) -> Float[Array, ""]:
    """d of a sample from its row of H and the ratios of the amplitudes there."""
    wide = jnp.zeros(()).dtype
    entries = sum(row.elements.size for row in rows)
    excess = jnp.zeros((), wide)
    for row, r in zip(rows, ratios, strict=True):
        arriving = jnp.abs(r).astype(wide) ** 2
        excess += jnp.sum(jnp.where(row.elements != 0, arriving - 1, 0))
    # squares of ratios may overflow where nothing is blurred
    return jnp.where(jnp.asarray(blur) > 0, 1 + blur / entries * excess, 1)


def weights(
    fresh: Float[Array, ""],
    densities: Float[Array, " *samples"],
    log_psi: Float[Array, " *samples"],
    at_zero: Bool[Array, " *samples"],
) -> Float[Array, " *samples"]:
    """|psi|^2 / q of all samples together, of which a share ``fresh`` is drawn afresh, from what is
    known of each."""
    double = 2 * log_psi.astype(densities.dtype)

    def given(level: Float[Array, ""]) -> Float[Array, " *samples"]:
        # where none is drawn afresh, the exponential may overflow for nothing
        drawn = jnp.where(fresh > 0, fresh * jnp.exp(level - double), 0)
        return jnp.where(at_zero, 0, 1 / ((1 - fresh) * densities + drawn))

    def halved(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        too_low = jnp.mean(given(middle)) > 1
        return jnp.where(too_low, middle, low), jnp.where(too_low, high, middle)

    # the logarithm of the mean of |psi|^2; beyond these ends it makes no difference, or all of it
    known = jnp.where(jnp.isfinite(double), double, 0)
    ends = jnp.min(known) - MARGIN, jnp.max(known) + MARGIN
    return given(jax.lax.fori_loop(0, HALVINGS, halved, ends)[0])


def share_drawn_afresh(blur: Float[Array, ""] | float, n_sites: int) -> Float[Array, ""]:
    """e: of samples that are blurred, on chains short enough."""
    return jnp.where(jnp.asarray(blur) > 0, FRESH if n_sites <= FRESH_UP_TO else 0.0, 0.0)
