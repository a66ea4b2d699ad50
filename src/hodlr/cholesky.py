"""Cholesky factorisation, chunk by chunk, of positive definite matrices in chunks.

A = L Lᴴ has the waves of A itself: with Lc lower triangular, below the diagonal

    L[c, c'] = E[c] Φ[c-1] ⋯ Φ[c'+1] G[c']                   c > c'

and with S = Σ (waves that cross into the chunk) (the same)ᴴ, an r×r matrix,

    Lc Lcᴴ = blocks - E S Eᴴ                  the Schur complement of the chunk
    G = (Lᵀ - Φ S Eᴴ) Lc⁻ᴴ                    (here L is `leave`)
    S⁺ = Φ S Φᴴ + G Gᴴ

which is block Cholesky, operation for operation: sums of squares go into S, and what is subtracted
is what dense Cholesky subtracts (Foreman-Mackey et al., Astron. J. 154, 220, 2017, for single
sites). So the error is that of dense Cholesky. O(n·(b + r)²) operations and O(n·(b + r)) numbers.

A chunk that is not positive definite makes NaN of all that follows.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike

from hodlr.chunks import Chunks, Waves, run, transposed
from hodlr.elimination import logabs
from hodlr.exponentials import promote
from hodlr.factor import AbstractFactorisation, check_columns
from hodlr.halves import lower_half
from hodlr.lasting import Lasting
from hodlr.lowrank import adjoint, pairwise_sum

# Chunks of this many sites: fewer, and calls of LAPACK cost more than they do; more, and kernels
# are asked at more lags. The likelihood of 10⁵ irregular points with its gradient takes 0.24 s in
# chunks of 8 and 16, 0.36 s of 32.
_SMALLEST = 16


class Triangle(NamedTuple):
    """Of every chunk: its diagonal block of L (T, b, b), the waves G (T, r, b) it sends, and the
    state S (T, r, r) before it."""

    blocks: Array
    sent: Array
    state: Array


@jax.jit
def factor(chunks: Chunks) -> Triangle:
    """Of a Hermitian positive definite matrix; only the lower triangle is read."""
    r = chunks.lower.enter.shape[-1]

    def step(state: Array, chunk):
        blocks, (enter, leave, through) = chunk
        crossing = state @ adjoint(enter)
        triangle = lax.linalg.cholesky(blocks - enter @ crossing, symmetrize_input=False)
        sent = _right_solve(triangle, leave.T - through @ crossing)
        after = through @ state @ adjoint(through) + sent @ adjoint(sent)
        return after, Triangle(triangle, sent, state)

    start = jnp.zeros((r, r), chunks.blocks.dtype)
    return lax.scan(step, start, (chunks.blocks, chunks.lower))[1]


def _right_solve(triangle: Array, rows: Array) -> Array:
    """rows · L⁻ᴴ."""
    return lax.linalg.triangular_solve(
        triangle, rows, left_side=False, lower=True, transpose_a=True, conjugate_a=True
    )


def _half_solve(chunks: Chunks, triangle: Triangle, b: Array) -> Array:
    """L⁻¹ b for columns chunk by chunk (T, b, k)."""

    def step(wave: Array, site):
        blocks, sent, enter, through, b = site
        z = lax.linalg.triangular_solve(blocks, b - enter @ wave, left_side=True, lower=True)
        return through @ wave + sent @ z, z

    sites = (triangle.blocks, triangle.sent, chunks.lower.enter, chunks.lower.through, b)
    return lax.scan(step, _no_wave(chunks, b), sites)[1]


def _half_product(chunks: Chunks, triangle: Triangle, z: Array) -> Array:
    """L z for columns chunk by chunk (T, b, k)."""
    waves = run(chunks.lower.through, triangle.sent @ z)
    return jnp.tril(triangle.blocks) @ z + chunks.lower.enter @ waves


def _adjoint_half_solve(chunks: Chunks, triangle: Triangle, z: Array) -> Array:
    """L⁻ᴴ z for columns chunk by chunk (T, b, k)."""

    def step(wave: Array, site):
        blocks, sent, enter, through, z = site
        x = lax.linalg.triangular_solve(
            blocks, z - adjoint(sent) @ wave,
            left_side=True, lower=True, transpose_a=True, conjugate_a=True,
        )  # fmt: skip
        return adjoint(through) @ wave + adjoint(enter) @ x, x

    sites = (triangle.blocks, triangle.sent, chunks.lower.enter, chunks.lower.through, z)
    return lax.scan(step, _no_wave(chunks, z), sites, reverse=True)[1]


def _no_wave(chunks: Chunks, x: Array) -> Array:
    return jnp.zeros((chunks.lower.enter.shape[-1], x.shape[-1]), x.dtype)


# Derivatives. `triangle` is a function of the chunks, held constant in what follows: its
# derivatives are taken only where nothing simpler is known.


def _of_the_chunks(function):
    """function(working, triangle, b), with derivatives in the chunks as if it factorised them."""

    @Lasting
    def wrapped(chunks: Chunks, working: Chunks, triangle: Triangle, b: Array) -> Array:
        return function(working, triangle, b)

    @wrapped.derivative
    def _(value, primals, tangents):
        chunks, _, _, b = primals

        def whole(chunks: Chunks, b: Array) -> Array:
            return function(chunks, factor(chunks), b)

        return jax.jvp(whole, (chunks, b), (tangents[0], tangents[3]))[1]

    return wrapped


half_solve, half_product = map(_of_the_chunks, (_half_solve, _half_product))


# The same where waves say nearly the same: what cancels between them then never arises.


@Lasting
def redundant_half_solve(chunks: Chunks, working: Chunks, triangle: Triangle, b: Array) -> Array:
    return _half_solve(working, triangle, b)


@redundant_half_solve.derivative
def _(z, primals, tangents):
    chunks, working, triangle, _ = primals
    turned = lower_half(chunks, working, triangle, z, tangents[0])
    return _half_solve(working, triangle, tangents[3]) - turned


@Lasting
def redundant_half_product(chunks: Chunks, working: Chunks, triangle: Triangle, z: Array) -> Array:
    return _half_product(working, triangle, z)


@redundant_half_product.derivative
def _(_, primals, tangents):
    chunks, working, triangle, z = primals
    turned = lower_half(chunks, working, triangle, z, tangents[0])
    return _half_product(working, triangle, tangents[3] + turned)


def _log_determinant(chunks: Chunks, triangle: Triangle) -> Array:
    """log det A, differentiable in the chunks."""
    pivots = jnp.real(jnp.diagonal(triangle.blocks, axis1=-2, axis2=-1))
    return 2 * pairwise_sum(jnp.log(pivots))


log_determinant = Lasting(_log_determinant)
# Where waves say nearly the same, derivatives by elimination (see `Chunks.observed`).
redundant_log_determinant = Lasting(_log_determinant)


@log_determinant.derivative
def _(value, primals, tangents):
    derivatives = slopes(*primals)
    moved = (tangents[0].blocks, tangents[0].lower)
    products = jax.tree.map(lambda a, d: pairwise_sum(jnp.real(a * d)), derivatives, moved)
    return jax.tree.reduce(jnp.add, products)


@redundant_log_determinant.derivative
def _(value, primals, tangents):
    return jax.jvp(logabs, (primals[0],), (tangents[0],))[1]


def _slopes(chunks: Chunks, triangle: Triangle) -> tuple[Array, Waves]:
    """The derivatives of log det A with respect to the numbers of its lower triangle.

    With Γ = G Lc⁻¹ and what the chunks from c on answer to a change of the state before them,
    tr(P dS), the derivatives with respect to blocks and to what leaves are near/2 (twice below the
    diagonal) and 2 pull,

        pull = P Γ,     near = D⁻¹ - Γᴴ pull,     D = Lc Lcᴴ,

    and those with respect to (Φ, E) are 2 Y S, where

        Y = [[P, -pull], [-pullᴴ, -near]] [Φ; E],     P⁻ = [Φ; E]ᴴ Y.

    P⁻ is made of the same numbers as are returned, although that cancels: what their rounding adds
    to the derivative along a smooth change of all entries then cancels too.
    """
    state, (enter, _, through) = triangle.state, chunks.lower
    r = state.shape[-1]
    inverse, gain = inverses(triangle)
    outgoing = jnp.concatenate([through, enter], axis=-2)

    def symmetric(a: Array) -> Array:
        return (a + adjoint(a)) / 2

    def step(answer: Array, site):
        inverse, gain, outgoing = site
        pull = answer @ gain
        near = symmetric(adjoint(inverse) @ inverse - adjoint(gain) @ pull)
        middle = jnp.block([[answer, -pull], [-adjoint(pull), -near]])
        turned = middle @ outgoing
        return symmetric(adjoint(outgoing) @ turned), (pull, near, turned)

    sites = (inverse, gain, outgoing)
    pull, near, turned = lax.scan(step, jnp.zeros_like(state[0]), sites, reverse=True)[1]
    onward = jnp.conj(turned @ state)
    identity = jnp.eye(near.shape[-1], dtype=near.dtype)
    middle = jnp.diagonal(near, axis1=-2, axis2=-1)[..., None] * identity
    below = 2 * jnp.tril(transposed(near), -1)
    waves = Waves(2 * onward[:, r:], 2 * adjoint(pull), 2 * onward[:, :r])
    return below + middle, waves


def inverses(triangle: Triangle) -> tuple[Array, Array]:
    """Lc⁻¹ and Γ = G Lc⁻¹ of every chunk."""
    blocks = triangle.blocks
    identity = jnp.broadcast_to(jnp.eye(blocks.shape[-1], dtype=blocks.dtype), blocks.shape)
    # One call, for two that run side by side may wait for each other (see `hodlr.blocks`). Row by
    # row: it is Lc⁻¹ Lc that must be close to 1, for the inverse meets columns of the matrix.
    inverse = lax.linalg.triangular_solve(blocks, identity, left_side=False, lower=True)
    return inverse, triangle.sent @ inverse


def answers(chunks: Chunks, triangle: Triangle) -> tuple[Array, Array, Array]:
    """Lc⁻¹, Γ and P of every chunk (see `_slopes`), P as a sum of terms of one sign: with
    K = Φ - Γ E, P⁻ = Kᴴ P K - Eᴴ D⁻¹ E."""
    enter, _, through = chunks.lower
    inverse, gain = inverses(triangle)
    seen, loop = inverse @ enter, through - gain @ enter

    def step(answer: Array, site):
        loop, sources = site
        return adjoint(loop) @ answer @ loop - sources, answer

    sources = adjoint(seen) @ seen
    start = jnp.zeros_like(triangle.state[0])
    return inverse, gain, lax.scan(step, start, (loop, sources), reverse=True)[1]


slopes = Lasting(_slopes)


@slopes.derivative
def _(value, primals, tangents):
    return jax.jvp(lambda c: _slopes(c, factor(c)), (primals[0],), (tangents[0],))[1]


def first_bad_pivot(chunks: Chunks, triangle: Triangle) -> tuple[int, float] | None:
    """Site and value of the first pivot that is not positive, or None. On the host, for known
    values."""
    good = np.isfinite(np.asarray(triangle.blocks)).all(axis=(-1, -2))
    if good.all():
        return None
    bad = int(np.argmin(good))
    enter, _, through = (np.asarray(a) for a in chunks.lower)
    state = np.zeros(through.shape[1:], through.dtype)
    for phi, sent in zip(through[:bad], np.asarray(triangle.sent)[:bad], strict=True):
        state = phi @ state @ phi.conj().T + sent @ sent.conj().T
    schur = np.asarray(chunks.blocks[bad]) - enter[bad] @ state @ enter[bad].conj().T
    size = schur.shape[0]
    for i in range(size):
        pivot = float(schur[i, i].real)
        if not pivot > 0 or i == size - 1:
            return bad * size + i, pivot
        column = schur[i:, i] / np.sqrt(pivot)
        schur[i:, i:] -= np.outer(column, column.conj())
    return None


class CholeskyFactorisation(AbstractFactorisation):
    """A = L Lᴴ for a positive definite matrix that comes in chunks (see `hodlr.chunks`).

    `working`: the same chunks, constant, in the coordinates of `triangle`."""

    matrix: Any
    chunks: Chunks
    working: Chunks
    triangle: Triangle

    @classmethod
    def of(cls, matrix: Any) -> "CholeskyFactorisation":
        chunks = matrix.chunks(_SMALLEST).from_lower()
        working = lax.stop_gradient(chunks)
        if matrix.redundant_waves:
            working = working.observed()
        return cls(matrix, chunks, working, factor(working))

    def _solve(self, b: Array) -> Array:
        constant, triangle = self.working, self.triangle

        def both(_, b: Array) -> Array:
            return _adjoint_half_solve(constant, triangle, _half_solve(constant, triangle, b))

        def conjugate(_, b: Array) -> Array:
            return jnp.conj(both(_, jnp.conj(b)))

        columns = self.chunks.split(b)
        x = lax.custom_linear_solve(self.chunks.product, columns, both, conjugate)
        return x.reshape(-1, b.shape[-1])[: b.shape[0]]

    def half_solve(self, b: ArrayLike) -> Array:
        """L⁻¹ b for b (n,) or (n, k): ‖L⁻¹ b‖² = bᴴ A⁻¹ b, at half the price of `solve`."""
        redundant = self.matrix.redundant_waves
        return self._of_any(redundant_half_solve if redundant else half_solve, b)

    def half_product(self, z: ArrayLike) -> Array:
        """L z for z (n,) or (n, k): of covariance A where z has that of the identity."""
        redundant = self.matrix.redundant_waves
        return self._of_any(redundant_half_product if redundant else half_product, z)

    def _slogdet(self) -> tuple[Array, Array]:
        redundant = self.matrix.redundant_waves
        of_chunks = redundant_log_determinant if redundant else log_determinant
        value = of_chunks(self.chunks, self.triangle)
        beyond = self.chunks.padded - self.matrix.shape[0]
        return jnp.ones((), self.matrix.dtype), value - beyond * jnp.log(self.chunks.size())

    def _of_any(self, function, x: ArrayLike) -> Array:
        x, _ = promote(x, jnp.zeros((), self.matrix.dtype))
        if jnp.iscomplexobj(x) and not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            return lax.complex(self._of_any(function, x.real), self._of_any(function, x.imag))
        working = check_columns(x, self.matrix.shape[0]).astype(self.matrix.dtype)
        columns = self.chunks.split(working)
        y = function(self.chunks, self.working, self.triangle, columns)
        return y.reshape(-1, columns.shape[-1])[: x.shape[0]].reshape(x.shape).astype(x.dtype)
