"""Orthogonal elimination, chunk by chunk: a factorisation of any matrix in chunks.

With the waves of `hodlr.chunks` as unknowns of their own, f running right and g running left,
chunk c obeys

    blocks x + E f + L' g        = b        rows
    f⁺  - Lᵀ x - Φ f             = 0        the wave f⁺ it sends right
    g⁻  - E'ᵀ x - Φ'ᵀ g          = 0        the wave g⁻ it sends left

with E, L, Φ of `lower` and E', L', Φ' of `upper`. These equations together have the determinant of
A. From the left, everything before a chunk comes down to as many equations as there are waves,

    C f + B g⁻ = d        the carry; at the first chunk, f = 0.

Put g⁻ in, and a QR factorisation of the wave sent right, rows and carry,

    [ -Φ   -Lᵀ     | 1   0     ] (f, x | f⁺, g)
    [ E    blocks  | 0   L'    ]
    [ C    B E'ᵀ   | 0   B Φ'ᵀ ]

eliminates f and x, and its last rows are the carry of the next chunk. (The carry stands last, for
where its numbers have become small they then stay small, with all of their digits: in this order
matrices whose entries fall off lose up to a hundred times less.) Nothing but reflections is
ever applied, so the whole is as backward stable as dense QR, whatever the diagonal blocks are
(Chandrasekaran, Gu, Linear Algebra Appl. 343, 107, 2002, and Eidelman, Gohberg, Integr. Equ. Oper.
Theory 27, 1997, eliminate likewise).

Costs O(n/b·(b + 2r)³) operations and O(n/b·(b + 2r)²) numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from hodlr.chunks import Chunks, Waves
from hodlr.factor import AbstractFactorisation
from hodlr.lasting import Lasting
from hodlr.lowrank import adjoint


class Eliminated(NamedTuple):
    """Of every chunk, with m = b + 2r: the reflections (T, m, m), the triangle (T, b + r, b + r),
    what it couples to (T, b + r, r + r'), and the carry (T, r, r + r') that came in. `signs`
    (T, m): the determinants of the single reflections."""

    reflections: Array
    triangle: Array
    onward: Array
    carry: Array
    signs: Array


# Chunks of this many sites: fewer, and calls of LAPACK cost more than what they do; more, and the
# squares of chunks cost more than their number saves (n = 16 384, 8 modes).
_SMALLEST = 16

Reflect = Callable[[Array], tuple[Array, Array, Array]]


def _reflect(columns: Array) -> tuple[Array, Array, Array]:
    """Q (m, m) and R (k, k) with Q [R; 0] = columns (m, k), and the determinants of the k
    reflections. Without derivatives."""
    m, k = columns.shape
    rows, tau = jnp.linalg.qr(columns, mode="raw")
    packed, rest = rows.T, m - k
    square = jnp.pad(packed, ((0, 0), (0, rest)))
    q = lax.linalg.householder_product(square, jnp.pad(tau, (0, rest)))
    # H = 1 - τ v vᴴ is unitary, so its determinant is -τ/τ̄; it is the identity where τ = 0.
    moved = tau != 0
    signs = jnp.where(moved, -tau / jnp.where(moved, jnp.conj(tau), 1), 1)
    return q, jnp.triu(packed[:k]), signs


def _reflect_smoothly(columns: Array) -> tuple[Array, Array, Array]:
    """The same with derivatives: the last m - k columns of Q are determined up to a rotation among
    themselves, which nothing depends on in the end, so they may be held to those found without."""
    rest = lax.stop_gradient(_reflect(lax.stop_gradient(columns))[0])[:, columns.shape[1] :]
    k = columns.shape[1]
    q, triangle = lax.linalg.qr(jnp.concatenate([columns, rest], axis=1), full_matrices=False)
    return q, triangle[:k, :k], jnp.ones(k, q.dtype)


def eliminate(chunks: Chunks, reflect: Reflect = _reflect) -> Eliminated:
    """Of chunks with at least one wave either way. Without derivatives: they are those of
    `log_determinant` and of solutions. With `_reflect_smoothly` there are, but the signs mean
    nothing."""
    r, s = chunks.lower.enter.shape[-1], chunks.upper.enter.shape[-1]
    dtype = chunks.blocks.dtype
    identity = jnp.eye(r, r + s, dtype=dtype)

    def step(carry: Array, chunk):
        blocks, lower, upper = chunk
        kept = r + blocks.shape[0]
        from_right = carry[:, r:]
        columns = jnp.block(
            [
                [-lower.through, -lower.leave.T],
                [lower.enter, blocks],
                [carry[:, :r], from_right @ upper.enter.T],
            ]
        )
        beyond = jnp.concatenate(
            [
                identity,
                jnp.pad(upper.leave, ((0, 0), (r, 0))),
                jnp.pad(from_right @ upper.through.T, ((0, 0), (r, 0))),
            ]
        )
        q, triangle, signs = reflect(columns)
        signs = signs.at[0].multiply((-1) ** r)  # rows: instead of carry, rows, sent
        turned = adjoint(q) @ beyond
        return turned[kept:], Eliminated(q, triangle, turned[:kept], carry, signs)

    last, done = lax.scan(step, identity, tuple(chunks))
    # Nothing is sent by the last chunk: its carry is a rotation of f = 0.
    end = jnp.linalg.det(lax.stop_gradient(last[:, :r]))
    return done._replace(signs=done.signs.at[-1, 0].multiply(end / jnp.abs(end).astype(dtype)))


def back_substitute(chunks: Chunks, done: Eliminated, b: Array) -> Array:
    """A⁻¹ b for columns chunk by chunk (T, b, k)."""
    r, columns = chunks.lower.enter.shape[-1], b.shape[-1]
    kept = done.triangle.shape[-1]

    def forward(carry: Array, site):
        q, b = site
        turned = adjoint(q) @ jnp.concatenate([jnp.zeros((r, columns), b.dtype), b, carry])
        return turned[kept:], turned[:kept]

    def backward(beyond: Array, site):
        triangle, onward, upper, right = site
        known = lax.linalg.triangular_solve(triangle, right - onward @ beyond, left_side=True)
        f, x = known[:r], known[r:]
        g = upper.enter.T @ x + upper.through.T @ beyond[r:]
        return jnp.concatenate([f, g]), x

    start = jnp.zeros((r, columns), b.dtype)
    right = lax.scan(forward, start, (done.reflections, b))[1]
    end = jnp.zeros((r + chunks.upper.enter.shape[-1], columns), b.dtype)
    sites = (done.triangle, done.onward, chunks.upper, right)
    return lax.scan(backward, end, sites, reverse=True)[1]


def sign_and_logabs(done: Eliminated) -> tuple[Array, Array]:
    """Phase and logarithm of the modulus of the determinant."""
    pivots = jnp.diagonal(done.triangle, axis1=-2, axis2=-1)
    moduli = jnp.abs(pivots)
    zero = moduli == 0
    phases = jnp.where(zero, 0, pivots / jnp.where(zero, 1, moduli).astype(pivots.dtype))
    return jnp.prod(phases) * jnp.prod(done.signs), jnp.sum(jnp.log(moduli))


@Lasting
def slopes(chunks: Chunks, done: Eliminated) -> Chunks:
    """The derivatives of log det A with respect to every number of the chunks: entries of the
    inverse of all equations together. One pass back, with a solution for each equation of a
    chunk."""
    r, s = chunks.lower.enter.shape[-1], chunks.upper.enter.shape[-1]
    kept = done.triangle.shape[-1]
    b = kept - r

    def step(beyond: Array, site):
        # beyond: how f⁺ and g answer to the carry's right side, (r + s, r).
        done, upper = site
        turned = adjoint(done.reflections)
        outside = beyond @ turned[kept:]
        inside = lax.linalg.triangular_solve(
            done.triangle, turned[:kept] - done.onward @ outside, left_side=True
        )
        f, x, g = inside[:r], inside[r:], outside[r:]
        sent, rows, carry = slice(0, r), slice(r, r + b), slice(r + b, None)
        from_right = done.carry[:, r:]
        derivatives = Chunks(
            x[:, rows].T,
            Waves(f[:, rows].T, -x[:, sent], -f[:, sent].T),
            Waves(x[:, carry] @ from_right, g[:, rows].T, g[:, carry] @ from_right),
        )
        left = upper.enter.T @ x[:, carry] + upper.through.T @ g[:, carry]
        return jnp.concatenate([f[:, carry], left]), derivatives

    end = jnp.zeros((r + s, r), chunks.blocks.dtype)
    return lax.scan(step, end, (done, chunks.upper), reverse=True)[1]


@slopes.derivative
def _(value, primals, tangents):
    # What was eliminated is a function of the chunks: its derivatives are taken here, and only
    # where second derivatives are asked for.
    def whole(chunks: Chunks) -> Chunks:
        return slopes.function(chunks, eliminate(chunks, _reflect_smoothly))

    return jax.jvp(whole, (primals[0],), (tangents[0],))[1]


@Lasting
def log_determinant(chunks: Chunks, done: Eliminated) -> tuple[Array, Array]:
    """(sign, logabs) of A, differentiable in the chunks; what was eliminated must be theirs."""
    return sign_and_logabs(done)


@log_determinant.derivative
def _(values, primals, tangents):
    sign, _ = values
    answers = slopes(*primals)
    products = jax.tree.map(lambda a, d: jnp.sum(a * d), answers, tangents[0])
    slope = jax.tree.reduce(jnp.add, products)
    if jnp.issubdtype(slope.dtype, jnp.complexfloating):
        turn = sign * lax.complex(jnp.zeros_like(slope.imag), slope.imag)
    else:
        turn = jnp.zeros_like(sign)
    return turn, jnp.real(slope)


def logabs(chunks: Chunks) -> Array:
    """log|det A| from the start."""
    chunks, scale, done = _factor(chunks)
    return log_determinant(chunks, done)[1] + chunks.padded * jnp.log(scale)


class OrthogonalFactorisation(AbstractFactorisation):
    """Any matrix that comes in chunks (see `hodlr.chunks`), by orthogonal elimination.

    `chunks` are those of the matrix over `scale`, a power of two, so that its rows are as large as
    the equations for the waves.
    """

    matrix: Any
    chunks: Chunks
    scale: Array
    done: Eliminated

    @classmethod
    def of(cls, matrix: Any) -> "OrthogonalFactorisation":
        return cls(matrix, *_factor(matrix.chunks(_SMALLEST)))

    def _solve(self, b: Array) -> Array:
        constant, done = lax.stop_gradient(self.chunks), self.done

        def forward(b: Array) -> Array:
            return back_substitute(constant, done, b)

        def backward(b: Array) -> Array:
            return jax.linear_transpose(forward, b)(b)[0]

        columns = self.chunks.split(b / self.scale.astype(b.dtype))
        x = lax.custom_linear_solve(
            self.chunks.product, columns, lambda _, b: forward(b), lambda _, b: backward(b)
        )
        return x.reshape(-1, b.shape[-1])[: b.shape[0]]

    def slogdet(self) -> tuple[Array, Array]:
        sign, logabs = log_determinant(self.chunks, self.done)
        return sign, logabs + self.matrix.shape[0] * jnp.log(self.scale)


@jax.jit
def _factor(chunks: Chunks) -> tuple[Chunks, Array, Eliminated]:
    scale = chunks.size()
    chunks = chunks.scaled(scale)
    return chunks, scale, eliminate(lax.stop_gradient(chunks))
