"""Truncation of batches of blocks to low rank, with derivatives that survive repeated singular
values.

The best rank-r approximation is written M ≈ (M V) (Uᴴ M V)⁻¹ (Uᴴ M) with the leading singular
vectors U, V held constant. Its value is the truncated singular value decomposition; its first
derivative is that of the decomposition too, P dM + dM Q - P dM Q with P = U Uᴴ and Q = V Vᴴ, up to
terms σ_{r+1}/σ_r, but without the differences of singular values that make the derivative of an SVD
infinite.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from hodlr.blocks import solve_blocks


class SingularParts(NamedTuple):
    """Singular value decompositions of a batch of blocks (…, s, s'): M = left · diag(values) ·
    rightᴴ."""

    left: Array
    values: Array
    right: Array


def adjoint(a: Array) -> Array:
    return jnp.conj(jnp.swapaxes(a, -1, -2))


@jax.jit
def frobenius(*arrays: Array) -> Array:
    """Frobenius norm of all the arrays together, where squares would overflow or vanish too."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(a), initial=0) for a in arrays]))
    largest = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    squares = [jnp.sum(jnp.abs(a / largest.astype(a.dtype)) ** 2) for a in arrays]
    return largest * jnp.sqrt(sum(squares[1:], squares[0]))


@jax.jit
def pairwise_sum(x: Array) -> Array:
    """The sum of all entries (n, …) with an error that grows like log n: on a processor `jnp.sum`
    adds the n one after the other, which costs a log determinant in single precision digits."""
    x = jnp.sum(x.reshape(x.shape[0], -1), axis=1)
    while x.shape[0] > 1:
        half = -(-x.shape[0] // 2)
        x = x[:half] + jnp.pad(x[half:], (0, 2 * half - x.shape[0]))
    return jnp.sum(x)


def unit(x: Array) -> Array:
    """x over its norm; zero stays zero."""
    size = frobenius(x)
    return x / jnp.where(size > 0, size, 1).astype(x.dtype)


def parts_of_blocks(blocks: Array) -> SingularParts:
    """Of dense blocks (…, s, s'); O(s³) each. Constant under differentiation."""
    left, values, right = jnp.linalg.svd(jax.lax.stop_gradient(blocks), full_matrices=False)
    return SingularParts(left, values, adjoint(right))


def parts_of_products(rows: Array, cols: Array) -> SingularParts:
    """Of blocks rows · colsᵀ, with rows and cols (…, s, r); O(s r²) each. Constant under
    differentiation."""
    # one batch of both, and Q before what R is for (see `in_turn`)
    q, r = jnp.linalg.qr(jax.lax.stop_gradient(jnp.stack([rows, cols])))
    (q_rows, q_cols), (r_rows, r_cols) = q, in_turn(q, r)[0]
    left, values, right = jnp.linalg.svd(r_rows @ jnp.swapaxes(r_cols, -1, -2), full_matrices=False)
    return SingularParts(q_rows @ left, values, jnp.conj(q_cols) @ adjoint(right))


def in_turn(before: PyTree[Array], *arrays: Array) -> tuple[Array, ...]:
    """The arrays, to be had only after all that stand in `before`: NaN where one of these begins
    with NaN.

    Batched LAPACK calls that do not depend on one another run side by side on the CPU and wait
    there for each other's threads: with few cores those of jaxlib 0.10.2 may never return.
    `optimization_barrier` does not keep them apart, for it is gone when the program is scheduled.
    """
    firsts = [jnp.real(a).reshape(-1)[0] for a in jax.tree.leaves(jax.lax.stop_gradient(before))]
    if not firsts:
        return arrays
    lost = jnp.any(jnp.stack([jnp.isnan(first) for first in firsts]))
    return tuple(jnp.where(lost, jnp.asarray(jnp.nan, a.dtype), a) for a in arrays)


def truncate_blocks(blocks: Array, parts: SingularParts, rank: int) -> tuple[Array, Array]:
    """Rows (…, s, rank) and cols (…, s', rank) with blocks ≈ rows · colsᵀ."""
    return _interpolate(lambda x: blocks @ x, lambda x: x @ blocks, parts, rank)


def truncate_products(
    rows: Array, cols: Array, parts: SingularParts, rank: int
) -> tuple[Array, Array]:
    """The same for blocks rows · colsᵀ that are already factored."""
    cols_t = jnp.swapaxes(cols, -1, -2)
    return _interpolate(lambda x: rows @ (cols_t @ x), lambda x: (x @ rows) @ cols_t, parts, rank)


def _interpolate(
    apply: Callable[[Array], Array],
    apply_left: Callable[[Array], Array],
    parts: SingularParts,
    rank: int,
) -> tuple[Array, Array]:
    left, values, right = parts.left[..., :rank], parts.values[..., :rank], parts.right[..., :rank]
    # Directions of zero singular value cannot be interpolated; they are projected on `left`
    # instead.
    threshold = values[..., :1] * (
        20 * jnp.finfo(left.dtype).eps * max(left.shape[-2], right.shape[-2])
    )
    kept = values > threshold
    row, column = kept[..., None], kept[..., None, :]
    images, preimages = apply(right), apply_left(adjoint(left))
    core = jnp.where(row & column, preimages @ right, jnp.eye(left.shape[-1], dtype=left.dtype))
    cross = solve_blocks(core, jnp.where(row, preimages, 0))
    rest = preimages - (adjoint(left) @ jnp.where(column, images, 0)) @ cross
    rows = jnp.where(column, images, left)
    cols_t = jnp.where(row, cross, rest)
    return rows, jnp.swapaxes(cols_t, -1, -2)


def rank_for(values: Array, budget: float, what: str) -> int:
    """Smallest common rank for a level whose discarded squared singular values stay within
    `budget`."""
    require_concrete(what, values)
    squares = np.asarray(values, np.float64).reshape(-1, values.shape[-1]) ** 2
    tails = np.append(np.cumsum(squares.sum(0)[::-1])[::-1], 0.0)
    return max(1, int(np.argmax(tails <= budget)))


def require_concrete(what: str, value: Array) -> None:
    if isinstance(value, Tracer):
        raise TypeError(
            f"{what} with tol= chooses ranks from the values and cannot run inside jit, vmap or "
            "grad; "
            "give rank= there, or build the matrix outside."
        )


def discarded(values: Array, rank: int) -> Array:
    """Sum of the squared singular values beyond `rank`, over the whole batch."""
    return jnp.sum(values[..., rank:] ** 2)
