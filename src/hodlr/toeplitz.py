"""Toeplitz and circulant products, and the matrix of a two-sided sum of exponentials.

    A[i, j] = lower(i - j)  below the diagonal,   upper(j - i)  above it,   diagonal  on it

On a ring every entry also sums over all images of the chain. Costs below are for x of shape (n,).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from hodlr.chunks import Chunks, Waves
from hodlr.exponentials import (
    SumOfExponentials,
    check_finite,
    integer_power,
    promote,
    ring_closure,
    smooth_length,
)
from hodlr.structured import AbstractStructured

# Below this size a dense product beats two transforms and their overhead. Much above, building the
# matrices costs more than it saves when kernels are many, and most of all in reverse mode.
_DENSE_SIZE = 32
# Rows of one dense block in the chunked scan: the block product then costs about as much as the
# modes.
_CHUNK = 64


def _product_lengths(n: int, column: Array, x: Array) -> None:
    if column.shape != (n,):
        raise ValueError(
            f"a Toeplitz column and row need one shape (n,), but got {column.shape} for n = {n}."
        )
    if x.ndim not in (1, 2) or x.shape[0] != n:
        raise ValueError(
            f"x must have shape ({n},) or ({n}, k) to match the matrix, but got {x.shape}."
        )


def _fft_product(kernel: Array, length: int, n: int, x: Array) -> Array:
    """First n entries of the circular convolution of a kernel of `length` with x (n,) or (n, k),
    padded."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        forward, backward = jnp.fft.fft, jnp.fft.ifft
    else:
        forward, backward = jnp.fft.rfft, jnp.fft.irfft
    # Transforms run along the last axis, where XLA needs no transposed copy.
    product = forward(kernel, length) * forward(x.T, length)
    return backward(product, length)[..., :n].T


def _array_of(column: Array, row: Array) -> Array:
    """T as an array (n, n). One period of its diagonals, repeated with a row length one short of
    the period, shifts by one from row to row: no gather, which XLA runs entry by entry."""
    n = column.shape[0]
    period = jnp.concatenate([column[:1], row[1:], column[:0:-1]])
    stride = max(2 * n - 2, 1)
    return jnp.tile(period, n)[: n * stride].reshape(n, stride)[:, :n]


def toeplitz_matvec(column: ArrayLike, row: ArrayLike, x: ArrayLike) -> Array:
    """T @ x for T[i, j] = column[i - j] (i ≥ j), row[j - i] (i < j); row[0] is ignored.

    column, row: (n,); x: (n,) or (n, k); real or complex. O(n log n) by a padded transform of
    smooth length for every n, prime or not (dense below 32, where that is faster). The error is
    about eps·‖T‖·‖x‖. Linear in both the kernel and x; batch further axes with `jax.vmap`.
    """
    column, row, x = promote(column, row, x)
    n = column.shape[0]
    _product_lengths(n, column, x)
    _product_lengths(n, row, x)
    if n <= _DENSE_SIZE:
        return _array_of(column, row) @ x
    length = smooth_length(2 * n - 1)
    gap = jnp.zeros(length - 2 * n + 1, column.dtype)
    return _fft_product(jnp.concatenate([column, gap, row[:0:-1]]), length, n, x)


def circulant_matvec(column: ArrayLike, x: ArrayLike) -> Array:
    """C @ x for C[i, j] = column[(i - j) mod n]; column: (n,), x: (n,) or (n, k), real or complex.

    O(n log n) for every n: one transform of length n where n is smooth and even, else as a padded
    Toeplitz product, so that odd and prime rings cost no more than a factor of about two.
    """
    column, x = promote(column, x)
    n = column.shape[0]
    _product_lengths(n, column, x)
    if n > _DENSE_SIZE and smooth_length(n) == n:
        return _fft_product(column, n, n, x)
    return toeplitz_matvec(column, jnp.roll(column[::-1], 1), x)


class ExponentialToeplitz(AbstractStructured):
    """The n×n matrix of a two-sided sum of exponentials, on an open chain or on a ring.

    With r = |i - j| ≥ 1:  A[i, j] = lower(r) for i > j and upper(r) for i < j, A[i, i] = diagonal.
    For `periodic=True` every entry sums over all images of the chain: with u = (i - j) mod n and
    v = (j - i) mod n,

        A[i, j] = Σ w λᵘ/(1 - λⁿ) + Σ w' μᵛ/(1 - μⁿ)            i ≠ j
        A[i, i] = diagonal + Σ w λⁿ/(1 - λⁿ) + Σ w' μⁿ/(1 - μⁿ)

    for the modes (w, λ) of `lower` and (w', μ) of `upper`. `diagonal` is a number or has shape (n,)
    (a different noise at every point, say). Storage O(modes). `A @ x`, sums, scalings, `A.T`,
    `A.conj()`.

    Example: `ExponentialToeplitz(3, SumOfExponentials([1.0], [0.5]), SumOfExponentials([2.0],
    [0.5]), 4.0)` is

        [[4.  , 1.  , 0.5 ],
         [0.5 , 4.  , 1.  ],
         [0.25, 0.5 , 4.  ]]
    """

    lower: SumOfExponentials
    upper: SumOfExponentials
    diagonal: Array
    n: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    def __init__(
        self,
        n: int,
        lower: SumOfExponentials,
        upper: SumOfExponentials,
        diagonal: ArrayLike,
        periodic: bool = False,
    ):
        if not isinstance(n, int) or n < 1:
            raise ValueError(f"ExponentialToeplitz needs an integer size n >= 1, but got {n!r}.")
        if not isinstance(lower, SumOfExponentials) or not isinstance(upper, SumOfExponentials):
            raise TypeError(
                "lower and upper must be SumOfExponentials, but got "
                f"{type(lower).__name__} and {type(upper).__name__}; write "
                "SumOfExponentials(weights, poles)."
            )
        wl, pl, wu, pu, diagonal = promote(
            lower.weights, lower.poles, upper.weights, upper.poles, diagonal
        )
        if diagonal.shape not in ((), (n,)):
            raise ValueError(
                f"diagonal must be a number or have shape ({n},), but got {diagonal.shape}."
            )
        check_finite("the diagonal of an ExponentialToeplitz", diagonal)
        self.lower, self.upper = SumOfExponentials(wl, pl), SumOfExponentials(wu, pu)
        self.diagonal, self.n, self.periodic = diagonal, n, bool(periodic)
        if periodic:
            for poles in (pl, pu):
                ring_closure(poles, n)  # refuses what cannot be closed

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n, self.n)

    @property
    def redundant_waves(self) -> bool:
        return False  # one for each mode

    @property
    def dtype(self):
        return self.diagonal.dtype

    @property
    def modes(self) -> tuple[int, int]:
        """Numbers of modes below and above the diagonal."""
        return self.lower.modes, self.upper.modes

    # Entries

    def _entries(self, i: Array, j: Array) -> Array:
        """O(modes) each."""
        diagonal = self.diagonal if self.diagonal.ndim == 0 else self.diagonal[i]
        on_diagonal = jnp.where(i == j, diagonal, 0)
        if self.periodic:
            # The lag of an entry with itself is one full turn, n, not 0.
            down, up = (i - j - 1) % self.n + 1, (j - i - 1) % self.n + 1
            return on_diagonal + self.lower.periodic(self.n)(down) + self.upper.periodic(self.n)(up)
        lag = jnp.abs(i - j)
        below, above = self.lower(lag), self.upper(lag)
        return on_diagonal + jnp.where(i > j, below, 0) + jnp.where(i < j, above, 0)

    def _dense(self) -> Array:
        return _array_of(*self._lag_column()) + jnp.diag(jnp.broadcast_to(self.diagonal, (self.n,)))

    def _lag_column(self) -> tuple[Array, Array]:
        """First column and first row without `diagonal`; their zeroth entries add up to the images'
        share."""
        lags = jnp.arange(1, self.n)
        if self.periodic:
            below, above = self.lower.periodic(self.n), self.upper.periodic(self.n)
            column = below(lags) + above(self.n - lags)
            row = above(lags) + below(self.n - lags)
            turn = jnp.asarray([self.n])
            zero = below(turn) + above(turn)
        else:
            column, row, zero = self.lower(lags), self.upper(lags), jnp.zeros(1, self.dtype)
        return jnp.concatenate([zero, column]), jnp.concatenate([jnp.zeros_like(zero), row])

    def chunks(self, smallest: int) -> Chunks:
        """At least as many sites as modes one way: every mode is a wave, and the way round a ring
        another."""
        n, lower, upper = self.n, self.lower, self.upper
        if self.periodic:
            lower, upper = lower.periodic(n), upper.periodic(n)
        waves = max(lower.modes, upper.modes) * (1 + self.periodic)
        size = min(n, max(smallest, 2 ** max(waves - 1, 0).bit_length()))
        count = -(-n // size)
        zero = jnp.zeros((), self.dtype)
        bare = ExponentialToeplitz(n, self.lower, self.upper, zero, self.periodic)
        site = jnp.arange(size)
        noise = jnp.pad(jnp.broadcast_to(self.diagonal, (n,)), (0, count * size - n))
        noise = noise.reshape(count, size, 1) * jnp.eye(size, dtype=self.dtype)
        blocks = bare.entries(site[:, None], site) + noise

        def both(direct: SumOfExponentials, wrapped: SumOfExponentials) -> Waves:
            waves = _along(direct, count, size)
            if self.periodic:
                around = _around(wrapped, count, size, n)
                waves = Waves(
                    jnp.concatenate([waves.enter, around.enter], axis=-1),
                    jnp.concatenate([waves.leave, around.leave], axis=-1),
                    jax.vmap(jax.scipy.linalg.block_diag)(waves.through, around.through),
                )
            return waves

        return Chunks.of(blocks, both(lower, upper), both(upper, lower), n)

    # Products with vectors

    def _times_diagonal(self, x: Array) -> Array:
        return (
            self.diagonal * x
            if x.ndim == 1 or self.diagonal.ndim == 0
            else self.diagonal[:, None] * x
        )

    def matvec_fft(self, x: ArrayLike) -> Array:
        """A @ x by the fast Fourier transform: O(n·modes) for the kernel and O(n log n) for each
        column of x."""
        x, diagonal = promote(x, self.diagonal)
        column, row = (c.astype(x.dtype) for c in self._lag_column())
        product = circulant_matvec(column, x) if self.periodic else toeplitz_matvec(column, row, x)
        return product + eqx.tree_at(lambda a: a.diagonal, self, diagonal)._times_diagonal(x)

    def matvec_scan(self, x: ArrayLike) -> Array:
        """A @ x in O(n·(modes + 64)) by running each mode along the chain in blocks of 64 sites.

        Inside a block the product is dense; between blocks mode m carries Σ_{j < p} w λ^(p - j)
        x_j, one number, over the boundary p. Every factor is ≤ 1 in modulus, so the error is local:
        about eps times |A| |x| entry by entry, also where the transform would lose small outputs
        beside large ones.
        """
        x, diagonal = promote(x, self.diagonal)
        matrix = x.reshape(self.n, -1)
        down = _running_sum(self.lower, matrix, self.periodic)
        up = _running_sum(self.upper, matrix[::-1], self.periodic)[::-1]
        local = eqx.tree_at(lambda a: a.diagonal, self, diagonal)._times_diagonal(matrix)
        return (local + down + up).reshape(x.shape)

    def _columns_product(self, x: Array) -> Array:
        """By the chunked scan where its n·(128 + 4·modes) multiply-adds (four times as many for
        complex modes) cost less than the padded transforms' 20·n·log₂(2n), else by FFT."""
        per_site = 4 * (self.lower.modes + self.upper.modes) + 2 * _CHUNK
        if jnp.issubdtype(self.dtype, jnp.complexfloating):
            per_site *= 4
        if _DENSE_SIZE < self.n and per_site < 20 * math.log2(2 * self.n):
            return self.matvec_scan(x)
        return self.matvec_fft(x)

    # Algebra

    @property
    def T(self) -> "ExponentialToeplitz":
        """The transpose: `lower` and `upper` change places."""
        return ExponentialToeplitz(self.n, self.upper, self.lower, self.diagonal, self.periodic)

    def conj(self) -> "ExponentialToeplitz":
        return ExponentialToeplitz(
            self.n, self.lower.conj(), self.upper.conj(), jnp.conj(self.diagonal), self.periodic
        )

    def _scaled(self, factor: Any) -> "ExponentialToeplitz":
        diagonal, scale = promote(self.diagonal, factor)
        return ExponentialToeplitz(
            self.n, self.lower * factor, self.upper * factor, diagonal * scale, self.periodic
        )

    def plus_diagonal(self, d: Array) -> "ExponentialToeplitz":
        diagonal = self.diagonal.astype(d.dtype) + d
        return ExponentialToeplitz(self.n, self.lower, self.upper, diagonal, self.periodic)


def _running_sum(kernel: SumOfExponentials, x: Array, periodic: bool) -> Array:
    """y_i = Σ_{j < i} k(i - j) x_j, and on a ring the sum over all images too; x and y (n,
    columns)."""
    n, columns = x.shape
    if kernel.modes == 0:
        return jnp.zeros_like(x)
    chunks = -(-n // _CHUNK)
    poles, weights, x = promote(kernel.poles, kernel.weights, x)
    blocks = jnp.pad(x, ((0, chunks * _CHUNK - n), (0, 0))).reshape(chunks, _CHUNK, columns)
    sites = jnp.arange(_CHUNK)
    lag = sites[:, None] - sites[None, :]
    lag_weights = jnp.tensordot(integer_power(poles, jnp.arange(_CHUNK)[:, None]), weights, axes=1)
    inside = jnp.einsum(
        "ij,bjk->bik", jnp.where(lag > 0, lag_weights[jnp.maximum(lag, 0)], 0), blocks
    )
    # What a block sends over its right end, Σ_j w λ^(end - j) x_j, and what arrives at its left
    # end.
    sent = jnp.einsum(
        "jm,bjk->bmk", weights * integer_power(poles, _CHUNK - sites[:, None]), blocks
    )
    through = integer_power(poles, jnp.asarray(_CHUNK))[:, None]

    def cross(arriving: Array, sending: Array) -> tuple[Array, Array]:
        return through * arriving + sending, arriving

    _, arriving = jax.lax.scan(cross, jnp.zeros_like(sent[0]), sent)
    if periodic:
        # Arriving at site 0 after one turn; counted from the last real site, not from the end of
        # the padding.
        rest = n - (chunks - 1) * _CHUNK
        last = jnp.where(sites < rest, rest - sites, 0)[:, None]
        one_turn = integer_power(poles, jnp.asarray(rest))[:, None] * arriving[-1] + jnp.einsum(
            "jm,jk->mk", weights * integer_power(poles, last), blocks[-1]
        )
        closed = one_turn / ring_closure(poles, n)[:, None]
        starts = jnp.arange(chunks)[:, None] * _CHUNK
        arriving = arriving + integer_power(poles, starts)[:, :, None] * closed[None]
    outside = jnp.einsum("im,bmk->bik", integer_power(poles, sites[:, None]), arriving)
    return (inside + outside).reshape(chunks * _CHUNK, columns)[:n]


# Waves, for `ExponentialToeplitz.chunks`


def _along(kernel: SumOfExponentials, count: int, size: int) -> Waves:
    """λ^(i - j) from site to site, in `count` chunks of `size`. A kernel without modes gets one of
    weight zero."""
    if kernel.modes == 0:
        kernel = SumOfExponentials(jnp.zeros(1, kernel.dtype), jnp.zeros(1, kernel.dtype))
    site, modes = jnp.arange(size)[:, None], kernel.modes
    enter = integer_power(kernel.poles, site)
    leave = kernel.weights * integer_power(kernel.poles, size - site)
    through = jnp.diag(integer_power(kernel.poles, jnp.asarray(size)))
    return Waves(
        jnp.broadcast_to(enter, (count, size, modes)),
        jnp.broadcast_to(leave, (count, size, modes)),
        jnp.broadcast_to(through, (count, modes, modes)),
    )


def _around(kernel: SumOfExponentials, count: int, size: int, n: int) -> Waves:
    """μ^(n - i) μ^j, from site j back around the ring to a later site i."""
    site, modes = jnp.arange(count * size)[:, None], kernel.modes
    shape = (count, size, modes)
    enter = integer_power(kernel.poles, jnp.maximum(n - site, 0))
    leave = kernel.weights * integer_power(kernel.poles, site)
    through = jnp.broadcast_to(jnp.eye(modes, dtype=kernel.dtype), (count, modes, modes))
    return Waves(enter.reshape(shape), leave.reshape(shape), through)
