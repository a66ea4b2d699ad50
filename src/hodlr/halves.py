"""The derivative of a Cholesky factor in chunks, applied to columns.

With A = L Lᴴ,  dL = L tril(M) for M = L⁻¹ dA L⁻ᴴ, half of its diagonal taken. Row by row of chunks,
this is what the chunks before do to the tangents: with W the waves that arrive when A<⁻¹ is applied
to what came before (W⁺ = [K W, Γ] for Γ = G Lc⁻¹, K = Φ' - Γ E', in the coordinates E', Φ' of the
factor), with f and df the waves of A and dA in their own, and a column z = L⁻¹ b,

    U = f Wᴴ,   V = df Wᴴ,   Z = W dA Wᴴ,     u = f A<⁻¹ b<,   v = df A<⁻¹ b<,   s = W dA A<⁻¹ b<.

All are as large as what they stand for, also where waves say nearly the same and the moments f A<⁻¹
fᴴ would be large and cancel. Linear in the tangents, O(n·(b + r)²).
"""

from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from hodlr.chunks import Chunks
from hodlr.lasting import Lasting
from hodlr.lowrank import adjoint


def lower_half(chunks: Chunks, working: Chunks, triangle: Any, z: Array, moved: Chunks) -> Array:
    """tril(M) z, with half of the diagonal, for columns z chunk by chunk (T, b, k) and the tangents
    `moved` of `chunks`; `working` and `triangle` as in `CholeskyFactorisation`."""
    k = z.shape[-1]
    r, own = chunks.lower.enter.shape[-1], working.lower.enter.shape[-1]

    def step(carry, site):
        v_w, z_w, v, s = carry
        known, blocks, z, dblocks, (denter, dleave, dthrough) = site
        (enter, through, seen, gain, loop), (u_w, u, left, x, back) = known
        reads = denter @ u_w + enter @ v_w
        crossing = reads @ adjoint(seen)
        schur = dblocks - crossing - adjoint(crossing) + seen @ z_w @ adjoint(seen)
        here = _solve(blocks, adjoint(_solve(blocks, schur)))
        half = jnp.tril(here, -1) + jnp.diag(jnp.diagonal(here)) / 2
        y = _solve(blocks, denter @ u + enter @ v - seen @ s) + half @ z
        rest = v - v_w @ back
        inner = denter @ left + enter @ rest + dblocks @ x
        mixed = loop @ adjoint(reads) @ adjoint(gain)
        following = (
            (dthrough @ u_w + through @ v_w) @ adjoint(loop) + dleave.T @ adjoint(gain),
            loop @ z_w @ adjoint(loop) + mixed + adjoint(mixed) + gain @ dblocks @ adjoint(gain),
            dthrough @ left + through @ rest + dleave.T @ x,
            loop @ (s - z_w @ back + adjoint(reads) @ x) + gain @ inner,
        )
        return following, y

    shapes = ((r, own), (own, own), (r, k), (own, k))
    start = tuple(jnp.zeros(shape, z.dtype) for shape in shapes)
    known = before(chunks, working, triangle, z)
    sites = (known, triangle.blocks, z, moved.blocks, moved.lower)
    return lax.scan(step, start, sites)[1]


def _solve(lower: Array, b: Array) -> Array:
    return lax.linalg.triangular_solve(lower, b, left_side=True, lower=True)


@Lasting
def before(chunks: Chunks, working: Chunks, triangle: Any, z: Array) -> Any:
    """What does not depend on tangents, of every chunk: (E, Φ, E', Γ, K) and (U, u, u - U E'ᴴ x, x,
    E'ᴴ x), with x = Lc⁻ᴴ z."""
    enter, leave, through = chunks.lower
    seen = working.lower.enter
    gain = lax.linalg.triangular_solve(triangle.blocks, triangle.sent, left_side=False, lower=True)
    loop = working.lower.through - gain @ seen

    def step(carry, site):
        u_w, u = carry
        blocks, z, leave, through, seen, gain, loop = site
        x = lax.linalg.triangular_solve(
            blocks, z, left_side=True, lower=True, transpose_a=True, conjugate_a=True
        )
        back = adjoint(seen) @ x
        left = u - u_w @ back
        following = (
            through @ u_w @ adjoint(loop) + leave.T @ adjoint(gain),
            through @ left + leave.T @ x,
        )
        return following, (u_w, u, left, x, back)

    start = jnp.zeros((enter.shape[-1], seen.shape[-1]), z.dtype)
    start = (start, jnp.zeros((enter.shape[-1], z.shape[-1]), z.dtype))
    sites = (triangle.blocks, z, leave, through, seen, gain, loop)
    return (enter, through, seen, gain, loop), lax.scan(step, start, sites)[1]


@before.derivative
def _(value, primals, tangents):
    raise NotImplementedError(
        "half_solve and half_product of a HODLR matrix have first derivatives only; use solve and "
        "logdet, or a Covariance or an ExponentialToeplitz, for second ones."
    )
