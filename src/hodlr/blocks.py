"""Inverses and determinants of batches of small square blocks.

Only the LU factors come from LAPACK. Their triangles are inverted here: two batched
triangular solves that jaxlib runs side by side on the CPU wait for each other's threads and may
never return (seen with jaxlib 0.10.2), and products with an inverse are faster than short solves.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

# Triangles up to this size are inverted without products: larger ones compile slowly that way.
_WRITTEN_OUT = 8


@jax.custom_jvp
def invert(blocks: Array) -> tuple[Array, Array, Array]:
    """(A⁻¹, sign, log|det A|) of every block A of blocks (…, s, s), in O(s³) each.

    LU with partial pivoting. The inverse of a singular block is not finite, its determinant is
    (0, -inf). The error is that of a solve, about eps·cond(A), but the residual of a product with
    an inverse may be as large too: refine where it matters. Derivatives of every order are
    products: dA⁻¹ = -A⁻¹ dA A⁻¹ and d log det A = tr(A⁻¹ dA).
    """
    lu, swaps, permutation = jax.lax.linalg.lu(blocks)
    size = blocks.shape[-1]
    identity = jnp.eye(size, dtype=blocks.dtype)
    below = jnp.tril(lu, -1) + identity
    # Backwards U is lower too. Not transposed: products with transposes are slow in XLA.
    lower, upper = _lower_inverse(jnp.stack([below, lu[..., ::-1, ::-1]]))
    inverse = upper[..., ::-1, ::-1] @ (lower @ identity[permutation])
    pivots = jnp.diagonal(lu, axis1=-2, axis2=-1)
    moduli = jnp.abs(pivots)
    zero = moduli == 0
    phases = jnp.where(zero, 0, pivots / jnp.where(zero, 1, moduli).astype(pivots.dtype))
    moved = jnp.sum(swaps != jnp.arange(size, dtype=swaps.dtype), axis=-1)
    flips = (1 - 2 * (moved % 2)).astype(blocks.dtype)
    return inverse, jnp.prod(phases, axis=-1) * flips, jnp.sum(jnp.log(moduli), axis=-1)


@invert.defjvp
def _invert_jvp(primals, tangents):
    inverse, sign, logabs = invert(*primals)
    (change,) = tangents
    slope = jnp.sum(jnp.swapaxes(inverse, -1, -2) * change, axis=(-2, -1))
    turn = (
        sign * jax.lax.complex(jnp.zeros_like(slope.imag), slope.imag)
        if jnp.issubdtype(slope.dtype, jnp.complexfloating)
        else jnp.zeros_like(sign)
    )
    return (inverse, sign, logabs), (-inverse @ change @ inverse, turn, jnp.real(slope))


def solve_blocks(blocks: Array, b: Array) -> Array:
    """A⁻¹ b for every block A of blocks (…, s, s) and columns b (…, s, k), by substitution: the
    residual is small also where A is nearly singular. O(s²·(s + k)) each."""
    lu, _, permutation = jax.lax.linalg.lu(jax.lax.stop_gradient(blocks))
    below = jnp.tril(lu, -1) + jnp.eye(lu.shape[-1], dtype=lu.dtype)
    columns = permutation[..., None]

    def backward(upper: Array, b: Array) -> Array:
        return _substitute(upper[..., ::-1, ::-1], b[..., ::-1, :])[..., ::-1, :]

    def solve(_, b: Array) -> Array:
        permuted = jnp.take_along_axis(b, columns, axis=-2)
        return backward(lu, _substitute(below, permuted))

    def solve_transposed(_, b: Array) -> Array:
        lower, upper = jnp.swapaxes(lu, -1, -2), jnp.swapaxes(below, -1, -2)
        permuted = backward(upper, _substitute(lower, b))
        return jnp.take_along_axis(permuted, jnp.argsort(columns, axis=-2), axis=-2)

    return jax.lax.custom_linear_solve(lambda x: blocks @ x, b, solve, solve_transposed)


def _lower_inverse(lower: Array) -> Array:
    """L⁻¹ for lower triangles (…, s, s), what stands above them ignored: by halves, and
    [L₁, 0; C, L₂]⁻¹ = [L₁⁻¹, 0; -L₂⁻¹ C L₁⁻¹, L₂⁻¹], as stable as substitution. Batched products
    are what XLA runs fastest; small triangles are written out, row by row, into one loop over all
    of them."""
    size = lower.shape[-1]
    identity = jnp.eye(size, dtype=lower.dtype)
    if size <= _WRITTEN_OUT:
        rows: list[Array] = []
        for i in range(size):
            row = identity[i]
            for j, known in enumerate(rows):
                row = row - lower[..., i, j, None] * known
            rows.append(row / lower[..., i, i, None])
        return jnp.stack(rows, axis=-2)
    half = size // 2
    first, second = lower[..., :half, :half], lower[..., half:, half:]
    if size % 2:  # a row and column of the identity make both halves one batch
        first = jnp.pad(first, [(0, 0)] * (lower.ndim - 2) + [(0, 1), (0, 1)])
        first = first.at[..., half, half].set(1)
    first, second = _lower_inverse(jnp.stack([first, second]))
    first = first[..., :half, :half]
    coupling = -second @ (lower[..., half:, :half] @ first)
    above = jnp.concatenate([first, jnp.zeros_like(jnp.swapaxes(coupling, -1, -2))], axis=-1)
    return jnp.concatenate([above, jnp.concatenate([coupling, second], axis=-1)], axis=-2)


def _substitute(lower: Array, b: Array) -> Array:
    """L⁻¹ b for lower triangles (…, s, s), what stands above them ignored, and b (…, s, k), by
    forward substitution, one row of all of them at a time: xᵢ = (bᵢ - Σ_{j < i} Lᵢⱼ xⱼ)/Lᵢᵢ. A
    loop, because it compiles in no time."""

    def step(i: Array, x: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(lower, i, -2, keepdims=False)
        right = jax.lax.dynamic_index_in_dim(b, i, -2, keepdims=False)
        # x is zero from row i on.
        known = jnp.sum(row[..., :, None] * x, axis=-2)
        new = (right - known) / jax.lax.dynamic_index_in_dim(row, i, -1)
        return jax.lax.dynamic_update_index_in_dim(x, new, i, -2)

    return jax.lax.fori_loop(0, lower.shape[-1], step, jnp.zeros_like(b))
