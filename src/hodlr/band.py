"""Bands of products ``G2 @ diag(m) @ G1`` of Toeplitz matrices, without forming the product.

The product of two exponential kernels is no longer Toeplitz, but its off-diagonal blocks keep a
small rank: ``rank(G2) + rank(G1)``.  Entry ``(i, j)`` splits into the sites ``k`` left of both
indices, between them, and right of both,

    P[i, j] = sum_{k < min} + sum_{min <= k <= max} + sum_{k > max}  G2[i, k] m[k] G1[k, j],

and the two outer sums factor: with ``t = min(i, j)``

    sum_{k < t} G2[i, k] m[k] G1[k, j]
        = sum_{p, q} w_p w_q  x_p^(i-t) y_q^(j-t)  L_t[p, q],
    L_t[p, q] = x_p y_q (L_{t-1}[p, q] + m[t-1]),

where ``x``, ``y`` are the poles of ``G2.lower`` and ``G1.upper``.  ``L_t`` (and its mirror image
``R_t``) are the *cores* of the off-diagonal blocks of ``P``; every power that occurs has a
non-negative exponent, so nothing overflows when a pole is small or close to the unit circle.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hodlr.exponentials import SumOfExponentials, promote
from hodlr.quasiseparable import band, generators, multiply
from hodlr.toeplitz import ExponentialToeplitz, circulant_matvec, toeplitz_matvec

__all__ = ["product_band", "product_cores", "toeplitz_product_band"]


def product_cores(
    G2: ExponentialToeplitz, m: jax.Array, G1: ExponentialToeplitz
) -> tuple[jax.Array, jax.Array]:
    """Cores of the off-diagonal blocks of ``G2 @ diag(m) @ G1`` on an open chain.

    Arguments: operators of size ``n`` with ``periodic=False``; ``m`` of shape ``(n,)``.

    Returns ``(left, right)`` of shapes ``(n, modes of G2.lower, modes of G1.upper)`` and
    ``(n, modes of G2.upper, modes of G1.lower)``: ``left[t] = sum_{k<t} x^(t-k) y^(t-k) m[k]``
    (outer product over the two sets of poles), ``right[t] = sum_{k>t} x^(k-t) y^(k-t) m[k]``.

    Cost O(n * modes2 * modes1): two elementwise recursions.
    """
    (G2, G1), (m,) = _operands(G2, m, G1)
    if G2.periodic:
        raise ValueError(
            "product_cores: expected open operators, got periodic=True; "
            "use product_band, which closes the ring"
        )
    left = _running_sum(_outer(G2.lower, G1.upper), m)
    right = _running_sum(_outer(G2.upper, G1.lower), m[::-1])[::-1]
    return left, right


def product_band(*factors: Any, bandwidth: int | None = None) -> jax.Array:
    """The band ``|i - j| <= bandwidth`` of ``G2 @ diag(m) @ G1``, or of a longer product.

    Arguments: ``product_band(G2, m, G1, bandwidth)``, ``product_band(G3, m2, G2, m1, G1,
    bandwidth)`` and so on (``bandwidth`` by name too): operators of one size ``n`` and boundary,
    with weights of shape ``(n,)`` between them. Differentiable in all of them.

    Returns shape ``(n, 2 * bandwidth + 1)`` with ``band[i, bandwidth + d] = P[i, i + d]``.  Entries
    that fall outside an open matrix are zero; on a ring the column index is taken modulo ``n``.

    Cost: O(n * (modes2 * modes1 + bandwidth) * bandwidth) for two operators on an open chain, by
    the recursion for the cores; O(n * modes * (modes + bandwidth)) with the modes of all operators
    together for rings and longer products (see `hodlr.quasiseparable`).  Error about eps times
    the product of the absolute values.
    """
    if bandwidth is None:
        *factors, bandwidth = factors  # pyright: ignore[reportAssignmentType]
    operators, weights = _operands(*factors)
    assert isinstance(bandwidth, int)
    if bandwidth < 0:
        raise ValueError(f"product_band: expected bandwidth >= 0, got {bandwidth}")
    if len(operators) == 2 and not operators[0].periodic:
        return _two_open(operators[0], weights[0], operators[1], bandwidth)
    product = generators(operators[0])
    for m, G in zip(weights, operators[1:], strict=True):
        product = multiply(product, generators(G).scale_rows(m))
    return band(product, bandwidth, operators[0].periodic)


def _two_open(
    G2: ExponentialToeplitz, m: jax.Array, G1: ExponentialToeplitz, bandwidth: int
) -> jax.Array:
    """The band for two operators on an open chain."""
    open_band = _open_band(G2, m, G1, bandwidth)
    # A diagonal of its own at every site is no part of a kernel: expand the product in it.
    rows = jnp.arange(G2.n)[:, None]
    columns = rows + jnp.arange(-bandwidth, bandwidth + 1)
    inside = (columns >= 0) & (columns < G2.n)
    columns = columns % G2.n
    d2, d1 = (jnp.broadcast_to(G.diagonal, (G.n,)) for G in (G2, G1))
    left = (d2 * m)[:, None] * G1.entries(rows, columns)
    right = G2.entries(rows, columns) * (m * d1)[columns]
    both = jnp.where(rows == columns, (d2 * m * d1)[:, None], 0)
    return open_band + jnp.where(inside, left + right - both, 0)


def _open_band(
    G2: ExponentialToeplitz, m: jax.Array, G1: ExponentialToeplitz, bandwidth: int
) -> jax.Array:
    """The band for two operators without their diagonals, on an open chain."""
    n = G2.n
    left, right = product_cores(G2, m, G1)
    g2, g1 = _lags(G2, bandwidth), _lags(G1, bandwidth)
    diagonals = []
    for d in range(-bandwidth, bandwidth + 1):
        below, above = max(-d, 0), max(d, 0)  # i = t + below, j = t + above, t = min(i, j)
        outer_left = _weighted(G2.lower, below, G1.upper, above)
        outer_right = _weighted(G2.upper, above, G1.lower, below)
        # indexed by t: sites left of t, right of t + |d|, and the |d| + 1 sites between
        total = jnp.sum(left * outer_left, (-2, -1))
        total = total + jnp.sum(_shift(right, abs(d)) * outer_right, (-2, -1))
        for s in range(abs(d) + 1):
            total = total + _lag(g2, below - s) * _shift(m, s) * _lag(g1, s - above)
        inside = jnp.arange(n) < n - abs(d)
        diagonals.append(_shift(jnp.where(inside, total, 0), -below))
    return jnp.stack(diagonals, axis=-1)


def toeplitz_product_band(
    g2: jax.Array, m: jax.Array, g1: jax.Array, bandwidth: int, *, periodic: bool
) -> jax.Array:
    """The same band for *any* two Toeplitz kernels, by one FFT per diagonal.

    Diagonal ``d`` of the product is a convolution of ``m`` with the fixed kernel
    ``r -> g2(r) g1(-r-d)``, so its transform is shared by every ``m`` (``vmap`` over ``m``
    computes it once).

    Arguments: on a ring ``g2, g1`` of shape ``(n,)`` hold lags ``0..n-1``; on an open chain they
    have shape ``(2n-1,)`` and hold lags ``-(n-1)..n-1``.  ``m`` has shape ``(n,)``.

    Returns shape ``(n, 2 * bandwidth + 1)`` as :func:`product_band`.  Cost O(n log n * bandwidth).
    """
    n = m.shape[-1]
    expected = n if periodic else 2 * n - 1
    if g2.shape != (expected,) or g1.shape != (expected,):
        raise ValueError(
            f"toeplitz_product_band: expected kernels of shape {(expected,)} for n={n}, "
            f"periodic={periodic}, got {g2.shape} and {g1.shape}"
        )
    offsets = jnp.arange(-bandwidth, bandwidth + 1)
    if periodic:
        lags = jnp.arange(n)
        kernels = g2 * g1[(-lags - offsets[:, None]) % n]
        return jax.vmap(circulant_matvec, in_axes=(0, None), out_axes=1)(kernels, m)
    lags = jnp.arange(-(n - 1), n)
    partner = -lags - offsets[:, None]
    kernels = g2 * jnp.where(abs(partner) < n, g1[jnp.clip(partner + n - 1, 0, 2 * n - 2)], 0)
    band = jax.vmap(toeplitz_matvec, in_axes=(0, 0, None), out_axes=1)(
        kernels[:, n - 1 :], kernels[:, n - 1 :: -1], m
    )
    column = jnp.arange(n)[:, None] + offsets
    return jnp.where((column >= 0) & (column < n), band, 0)


def _operands(*factors: Any) -> tuple[list[ExponentialToeplitz], list[jax.Array]]:
    """The operators and the weights between them, checked and of one dtype."""
    operators, weights = list(factors[0::2]), list(factors[1::2])
    if len(factors) % 2 == 0 or not all(isinstance(G, ExponentialToeplitz) for G in operators):
        raise TypeError(
            "expected operators with weights between them, as in G2, m, G1, got "
            f"{[type(f).__name__ for f in factors]}"
        )
    sizes = [f.n if isinstance(f, ExponentialToeplitz) else jnp.shape(f) for f in factors]
    n = operators[0].n
    if any(size not in (n, (n,)) for size in sizes):
        listed = ", ".join(map(str, sizes[:-1])) + f" and {sizes[-1]}"
        raise ValueError(f"G2 @ diag(m) @ G1: expected equal sizes, got {listed}")
    if len({G.periodic for G in operators}) > 1:
        raise ValueError("G2 @ diag(m) @ G1: expected the same boundary on both sides")
    dtype = promote(*(G.diagonal for G in operators), *weights)[0].dtype
    return jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), (operators, weights))


def _outer(first: SumOfExponentials, second: SumOfExponentials) -> jax.Array:
    return first.poles[:, None] * second.poles


def _running_sum(decay: jax.Array, m: jax.Array) -> jax.Array:
    """``S_t = decay * (S_{t-1} + m[t-1])`` for every t, S_0 = 0: shape (n, *decay.shape)."""

    def step(carry, m_t):
        return decay * (carry + m_t), carry

    return lax.scan(step, jnp.zeros_like(decay), m)[1]


def _weighted(first: SumOfExponentials, a: int, second: SumOfExponentials, b: int) -> jax.Array:
    return (first.weights * first.poles**a)[:, None] * (second.weights * second.poles**b)


def _lags(G: ExponentialToeplitz, reach: int) -> jax.Array:
    """Kernel of ``G`` without its diagonal on the lags -reach..reach of a chain."""
    r = jnp.arange(1, reach + 1)
    below, above = G.lower(r), G.upper(r)
    return jnp.concatenate([above[::-1], jnp.zeros(1, below.dtype), below])


def _lag(kernel: jax.Array, r: int) -> jax.Array:
    return kernel[kernel.shape[0] // 2 + r]


def _shift(x: jax.Array, s: int) -> jax.Array:
    """``x[t + s]``, zero beyond either end."""
    n = x.shape[0]
    s = max(min(s, n), -n)
    zeros = jnp.zeros((abs(s), *x.shape[1:]), x.dtype)
    return jnp.concatenate([x[s:], zeros]) if s >= 0 else jnp.concatenate([zeros, x[:s]])
