"""Solutions with batches of small square blocks.

Only the LU factors come from LAPACK: two batched triangular solves that jaxlib runs side by side on
the CPU wait for each other's threads and may never return (seen with jaxlib 0.10.2).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array


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
