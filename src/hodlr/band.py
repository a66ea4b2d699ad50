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

import jax
import jax.numpy as jnp
from jax import lax

from hodlr.exponentials import SumOfExponentials, promote
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
    G2, m, G1 = _operands(G2, m, G1)
    if G2.periodic:
        raise ValueError(
            "product_cores: expected open operators, got periodic=True; "
            "use product_band, which closes the ring"
        )
    left = _running_sum(_outer(G2.lower, G1.upper), m)
    right = _running_sum(_outer(G2.upper, G1.lower), m[::-1])[::-1]
    return left, right


def product_band(
    G2: ExponentialToeplitz, m: jax.Array, G1: ExponentialToeplitz, bandwidth: int
) -> jax.Array:
    """The band ``|i - j| <= bandwidth`` of ``P = G2 @ diag(m) @ G1``; differentiable.

    Arguments: two operators of the same size ``n`` and boundary, ``m`` of shape ``(n,)``.

    Returns shape ``(n, 2 * bandwidth + 1)`` with ``band[i, bandwidth + d] = P[i, i + d]``.  Entries
    that fall outside an open matrix are zero; on a ring the column index is taken modulo ``n``.

    Cost: open chain O(n * (modes2 * modes1 + bandwidth) * bandwidth) by the recursion for the
    cores; ring O(n log n * bandwidth) by one circular convolution per diagonal.
    """
    G2, m, G1 = _operands(G2, m, G1)
    if bandwidth < 0:
        raise ValueError(f"product_band: expected bandwidth >= 0, got {bandwidth}")
    if G2.periodic:
        band = toeplitz_product_band(_lags(G2), m, _lags(G1), bandwidth, periodic=True)
    else:
        band = _open_band(G2, m, G1, bandwidth)
    # A diagonal of its own at every site is no part of a kernel: expand the product in it.
    offsets = jnp.arange(-bandwidth, bandwidth + 1)
    rows = jnp.arange(G2.n)[:, None]
    columns = (rows + offsets) % G2.n
    inside = G2.periodic | ((rows + offsets >= 0) & (rows + offsets < G2.n))
    d2, d1 = (jnp.broadcast_to(G.diagonal, (G.n,)) for G in (G2, G1))
    left = (d2 * m)[:, None] * G1.entries(rows, columns)
    right = G2.entries(rows, columns) * (m * d1)[columns]
    both = jnp.where(rows == columns, (d2 * m * d1)[:, None], 0)
    return band + jnp.where(inside, left + right - both, 0)


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


def _operands(
    G2: ExponentialToeplitz, m: jax.Array, G1: ExponentialToeplitz
) -> tuple[ExponentialToeplitz, jax.Array, ExponentialToeplitz]:
    """The three factors, checked and of one dtype."""
    if G2.n != G1.n or m.shape != (G2.n,):
        raise ValueError(
            f"G2 @ diag(m) @ G1: expected equal sizes, got {G2.n}, {m.shape} and {G1.n}"
        )
    if G2.periodic != G1.periodic:
        raise ValueError("G2 @ diag(m) @ G1: expected the same boundary on both sides")
    dtype = promote(G2.diagonal, m, G1.diagonal)[0].dtype
    return jax.tree.map(lambda x: x.astype(dtype), (G2, m, G1))


def _outer(first: SumOfExponentials, second: SumOfExponentials) -> jax.Array:
    return first.poles[:, None] * second.poles


def _running_sum(decay: jax.Array, m: jax.Array) -> jax.Array:
    """``S_t = decay * (S_{t-1} + m[t-1])`` for every t, S_0 = 0: shape (n, *decay.shape)."""

    def step(carry, m_t):
        return decay * (carry + m_t), carry

    return lax.scan(step, jnp.zeros_like(decay), m)[1]


def _weighted(first: SumOfExponentials, a: int, second: SumOfExponentials, b: int) -> jax.Array:
    return (first.weights * first.poles**a)[:, None] * (second.weights * second.poles**b)


def _lags(G: ExponentialToeplitz, reach: int = 0) -> jax.Array:
    """Kernel of ``G`` without its diagonal: lags 0..n-1 on a ring, -reach..reach on a chain."""
    if G.periodic:
        kernel = G.entries(jnp.arange(G.n), jnp.zeros(G.n, int))
        return kernel.at[0].add(-jnp.reshape(G.diagonal, (-1,))[0])
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
