"""Products of exponential matrices in O(n), as quasiseparable matrices with n sets of generators.

A matrix is held by its diagonal d and by two sides; the lower one is

    A[i, j] = p_i · a_{i-1} ⋯ a_{j+1} q_j    (i > j),

and the upper one is the lower one of Aᵀ. An exponential mode has p = 1, a = λ, q = w λ; the way
round a ring is p_i = λ^(n-i), a = 1, q_j = w λ^j. In a product A B the sites left of both indices
enter through Φ and those right of both through Ψ,

    Φ_{t+1} = a_t Φ_t b_t + q_t g_t,     Ψ_{t-1} = b'_t Ψ_t a'_t + h_t p'_t,

and the transitions become [[a, q p'], [0, a']], which are kept in factors (Eidelman, Gohberg,
Integr. Equ. Oper. Theory 34, 293, 1999). All powers that occur are ≤ 1 in modulus.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from hodlr.exponentials import SumOfExponentials, integer_power
from hodlr.toeplitz import ExponentialToeplitz

# Diagonal transitions (n, r), or (first, q, p, second) for [[first, q pᵀ], [0, second]].
Transitions = Any


class Side(NamedTuple):
    """Generators of one triangle: p, q (n, r) and the transitions between them."""

    p: Array
    a: Transitions
    q: Array


class Quasiseparable(NamedTuple):
    """The diagonal (n,), the lower triangle, and the lower triangle of the transpose."""

    diagonal: Array
    lower: Side
    upper: Side

    def scale_rows(self, m: Array) -> "Quasiseparable":
        """diag(m) · A."""
        lower = self.lower._replace(p=m[:, None] * self.lower.p)
        upper = self.upper._replace(q=m[:, None] * self.upper.q)
        return Quasiseparable(m * self.diagonal, lower, upper)


def generators(A: ExponentialToeplitz) -> Quasiseparable:
    """The generators of an exponential matrix: as many as its modes, on a ring those of both
    sides."""
    n, lower, upper = A.n, A.lower, A.upper
    diagonal = jnp.broadcast_to(A.diagonal, (n,))
    if A.periodic:
        lower, upper = lower.periodic(n), upper.periodic(n)
        turn = jnp.asarray(n)
        diagonal = diagonal + lower(turn) + upper(turn)
    sides = []
    for direct, wrapped in ((lower, upper), (upper, lower)):
        side = _direct(direct, n)
        if A.periodic:
            around = _wrapped(wrapped, n)
            side = Side(*(jnp.concatenate(z, axis=1) for z in zip(side, around, strict=True)))
        sides.append(side)
    return Quasiseparable(diagonal, *sides)


def _direct(kernel: SumOfExponentials, n: int) -> Side:
    shape = (n, kernel.modes)
    first = kernel.weights * kernel.poles
    return Side(
        jnp.ones(shape, kernel.dtype),
        jnp.broadcast_to(kernel.poles, shape),
        jnp.broadcast_to(first, shape),
    )


def _wrapped(kernel: SumOfExponentials, n: int) -> Side:
    site = jnp.arange(n)[:, None]
    arriving = integer_power(kernel.poles, n - site)
    return Side(
        arriving, jnp.ones_like(arriving), kernel.weights * integer_power(kernel.poles, site)
    )


def multiply(A: Quasiseparable, B: Quasiseparable) -> Quasiseparable:
    """A B, with the generators of both; O(n·r·r')."""

    def forward(phi, site):
        a, q, b, g = site
        return _advance(a, _advance(b, phi.T).T) + q[:, None] * g, phi

    def backward(psi, site):
        b, h, a, p = site
        return _retreat(b, _retreat(a, psi.T).T) + h[:, None] * p, psi

    dtype = A.diagonal.dtype
    sites = (A.lower.a, A.lower.q, B.upper.a, B.upper.q)
    start = jnp.zeros((A.lower.q.shape[1], B.upper.q.shape[1]), dtype)
    left = lax.scan(forward, start, sites)[1]
    sites = (A.upper.a, A.upper.p, B.lower.a, B.lower.p)
    start = jnp.zeros((A.upper.p.shape[1], B.lower.p.shape[1]), dtype)
    right = lax.scan(backward, start, sites, reverse=True)[1]
    swap = jnp.swapaxes
    from_left = jnp.einsum("ti,tij,tj->t", A.lower.p, left, B.upper.p)
    from_right = jnp.einsum("ti,tij,tj->t", A.upper.q, right, B.lower.q)
    return Quasiseparable(
        A.diagonal * B.diagonal + from_left + from_right,
        _triangle(A.lower, A.diagonal, A.upper, B.lower, B.diagonal, B.upper, left, right),
        _triangle(
            B.upper, B.diagonal, B.lower, A.upper, A.diagonal, A.lower,
            swap(left, 1, 2), swap(right, 1, 2),
        ),
    )  # fmt: skip


def _triangle(a: Side, d: Array, a_up: Side, b: Side, e: Array, b_up: Side, left, right) -> Side:
    """The lower triangle of a product from both sides of its factors, Φ and Ψ."""

    def vectors(site):
        a_t, b_t, phi, psi, h, g = site
        beside = _advance(a_t, (phi @ h)[:, None])[:, 0]
        return beside, _retreat(b_t, (g @ psi)[:, None])[:, 0]

    beside, beyond = jax.vmap(vectors)((a.a, b.a, left, right, b_up.p, a_up.q))
    p = jnp.concatenate([a.p, d[:, None] * b.p + beyond], axis=1)
    q = jnp.concatenate([beside + a.q * e[:, None], b.q], axis=1)
    return Side(p, (a.a, a.q, b.p, b.a), q)


def _advance(a: Transitions, states: Array) -> Array:
    """a_t times states (r, k)."""
    if not isinstance(a, tuple):
        return a[:, None] * states
    first, q, p, second = a
    above, below = states[: q.shape[0]], states[q.shape[0] :]
    coupled = _advance(first, above) + q[:, None] * (p @ below)
    return jnp.concatenate([coupled, _advance(second, below)])


def _retreat(a: Transitions, states: Array) -> Array:
    """a_tᵀ times states (r, k)."""
    if not isinstance(a, tuple):
        return a[:, None] * states
    first, q, p, second = a
    above, below = states[: q.shape[0]], states[q.shape[0] :]
    coupled = _retreat(second, below) + p[:, None] * (q @ above)
    return jnp.concatenate([_retreat(first, above), coupled])


def band(A: Quasiseparable, bandwidth: int, periodic: bool) -> Array:
    """band[i, bandwidth + d] = A[i, i + d], the column modulo n on a ring and zero beyond the ends
    of a chain; O(n·bandwidth·r)."""
    n = A.diagonal.shape[0]
    # A band that meets itself around the ring is most of the matrix: then all of it is at hand.
    reach = max(1, bandwidth if 2 * bandwidth < n else n - 1)
    row = jnp.arange(n)[:, None]
    column = row + jnp.arange(-bandwidth, bandwidth + 1)
    inside = periodic | ((column >= 0) & (column < n))
    column = column % n
    later, earlier = jnp.maximum(row, column), jnp.minimum(row, column)
    lag = later - earlier

    def side(triangle: Side) -> Array:
        near = _recent_columns(triangle, reach)[later, jnp.clip(reach - lag, 0, reach - 1)]
        if not periodic or reach == n - 1 or n == 1:
            return near
        corner = _first_columns(triangle, reach)[later, jnp.minimum(earlier, reach - 1)]
        return jnp.where(lag <= reach, near, corner)

    entries = jnp.where(row > column, side(A.lower), side(A.upper))
    return jnp.where(inside, jnp.where(row == column, A.diagonal[row], entries), 0)


def _recent_columns(side: Side, reach: int) -> Array:
    """A[t, t - reach + c] for c = 0 … reach - 1, shape (n, reach)."""

    def step(states, site):
        p, a, q = site
        following = jnp.concatenate([_advance(a, states)[:, 1:], q[:, None]], axis=1)
        return following, p @ states

    start = jnp.zeros((side.q.shape[1], reach), side.q.dtype)
    return lax.scan(step, start, tuple(side))[1]


def _first_columns(side: Side, count: int) -> Array:
    """A[t, j] for j = 0 … count - 1 and t > j, shape (n, count)."""

    def step(states, site):
        (p, a, q), t = site
        fresh = jnp.where(jnp.arange(count) == t, q[:, None], 0)
        return _advance(a, states) + fresh, p @ states

    start = jnp.zeros((side.q.shape[1], count), side.q.dtype)
    return lax.scan(step, start, (tuple(side), jnp.arange(side.q.shape[0])))[1]
