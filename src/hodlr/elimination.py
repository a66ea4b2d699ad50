"""Elimination with pivots, chunk by chunk: a factorisation of any matrix in chunks.

With the waves of `hodlr.chunks` as unknowns of their own, f running right and g running left,
chunk c obeys

    blocks x + E f + L' g        = b        rows
    f⁺  - Lᵀ x - Φ f             = 0        the wave f⁺ it sends right
    g⁻  - E'ᵀ x - Φ'ᵀ g          = 0        the wave g⁻ it sends left

with E, L, Φ of `lower` and E', L', Φ' of `upper`. These equations together have the determinant of
A. From the left, everything before a chunk comes down to as many equations as there are waves,

    C f + B g⁻ = d        the carry; at the first chunk, f = 0.

Put g⁻ in, and a triangular factorisation of the wave sent right, rows and carry,

    [ -Φ   -Lᵀ     | 1   0     ] (f, x | f⁺, g)
    [ E    blocks  | 0   L'    ]
    [ C    B E'ᵀ   | 0   B Φ'ᵀ ]

eliminates f and x, and its last rows are the carry of the next chunk (Chandrasekaran, Gu, Linear
Algebra Appl. 343, 107, 2002, and Eidelman, Gohberg, Integr. Equ. Oper. Theory 27, 1997, eliminate
likewise, by reflections).

Gaussian elimination with row pivots does it. All rows of a chunk and all that came before may be
pivots, whatever the diagonal blocks are, and where entries fall off exponentially errors fall off
with them, while reflections spread them evenly: singular values far below all others then keep
their digits (Higham, Accuracy and Stability of Numerical Algorithms, ch. 9 and 19, on the two). Its
error is eps times the growth of elements. That is measured, and where it is not small, which takes
matrices made for it, reflections do all of it again: so the whole is as backward stable as dense
QR in any case.

Costs O(n/b·(b + 2r)³) operations and O(n/b·(b + 2r)²) numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from hodlr.chunks import Chunks, Waves
from hodlr.factor import CheckedFactorisation
from hodlr.lasting import Lasting
from hodlr.lowrank import adjoint, frobenius, pairwise_sum, unit


class Eliminated(NamedTuple):
    """Of every chunk, with m = b + 2r: the transformation (T, m, m) of its equations, the triangle
    (T, b + r, b + r) that makes of them, what it couples to (T, b + r, r + r'), and the carry
    (T, r, r + r') that came in. `signs` (T, m): factors of the inverse transformation's
    determinant. `end` (): zero, from which all passes back start, so that what may not be answered
    is held up there."""

    transformation: Array
    triangle: Array
    onward: Array
    carry: Array
    signs: Array
    end: Array


# Chunks of this many sites: fewer, and calls of LAPACK cost more than what they do; more, and the
# squares of chunks cost more than their number saves (n = 16 384, 8 modes).
_SMALLEST = 16

# Growth of up to this many times the number of equations is no reason for reflections; in random
# matrices it is about the power two thirds of that number.
_GROWTH = 8

Triangulate = Callable[[Array], tuple[Array, Array, Array]]


def _pivoted(columns: Array) -> tuple[Array, Array, Array]:
    """T (m, m) and R (k, k) with T columns = [R; 0] for columns (m, k), and factors ±1 of det T: by
    Gaussian elimination with row pivots, T = L⁻¹ P."""
    m, k = columns.shape
    packed, pivots, permutation = lax.linalg.lu(columns)
    rows = jnp.eye(m, dtype=columns.dtype)[permutation]
    above = lax.linalg.triangular_solve(
        packed[:k], rows[:k], left_side=True, lower=True, unit_diagonal=True
    )
    transformation = jnp.concatenate([above, rows[k:] - packed[k:] @ above])
    moved = pivots != jnp.arange(k, dtype=pivots.dtype)
    return transformation, jnp.triu(packed[:k]), jnp.where(moved, -1, 1).astype(columns.dtype)


def _reflected(columns: Array) -> tuple[Array, Array, Array]:
    """The same by k reflections, T = Qᴴ, and the determinants of the single ones in Q. Without
    derivatives."""
    m, k = columns.shape
    rows, tau = jnp.linalg.qr(columns, mode="raw")
    packed, rest = rows.T, m - k
    square = jnp.pad(packed, ((0, 0), (0, rest)))
    q = lax.linalg.householder_product(square, jnp.pad(tau, (0, rest)))
    # H = 1 - τ v vᴴ is unitary, so its determinant is -τ/τ̄; it is the identity where τ = 0.
    moved = tau != 0
    signs = jnp.where(moved, -tau / jnp.where(moved, jnp.conj(tau), 1), 1)
    return adjoint(q), jnp.triu(packed[:k]), signs


def _reflected_smoothly(columns: Array) -> tuple[Array, Array, Array]:
    """The same with derivatives: the last m - k columns of Q are determined up to a rotation among
    themselves, which nothing depends on in the end, so they may be held to those found without."""
    k = columns.shape[1]
    rest = adjoint(_reflected(lax.stop_gradient(columns))[0])[:, k:]
    rest = lax.stop_gradient(rest)
    q, triangle = lax.linalg.qr(jnp.concatenate([columns, rest], axis=1), full_matrices=False)
    return adjoint(q), triangle[:k, :k], jnp.ones(k, q.dtype)


def eliminate(chunks: Chunks) -> Eliminated:
    """Of chunks with at least one wave either way. Without derivatives: they are those of
    `log_determinant` and of solutions."""
    done = _eliminate(chunks, _pivoted)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(a)) for a in done[:4]]))
    grown = ~(largest <= _GROWTH * done.transformation.shape[-1])
    # A loop that runs once or not at all: a condition would copy what both of its sides return, and
    # under vmap do both.
    return lax.while_loop(
        lambda state: state[0],
        lambda state: (jnp.zeros_like(grown), _eliminate(chunks, _reflected)),
        (grown, done),
    )[1]


def _eliminate(chunks: Chunks, triangulate: Triangulate) -> Eliminated:
    """With `_reflected_smoothly` there are derivatives, but the signs mean nothing."""
    r, s = chunks.lower.enter.shape[-1], chunks.upper.enter.shape[-1]
    dtype = chunks.blocks.dtype
    identity = jnp.eye(r, r + s, dtype=dtype)
    # Nothing is sent by the last chunk. Its r zero rows then stand last, where they are left alone:
    # above, a pivot as small as what rounds would hand what is left of b to them.
    count = chunks.blocks.shape[0]
    above = jnp.asarray(r * (np.arange(count) == count - 1))

    def step(carry: Array, site):
        (blocks, lower, upper), above = site
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
        rolled, triangle, signs = triangulate(jnp.roll(columns, -above, axis=0))
        transformation = jnp.roll(rolled, above, axis=1)
        # Rows: instead of carry, rows, sent, and those of the last chunk rolled.
        odd = (r + above * kept) % 2 == 1
        signs = signs.at[0].set(jnp.where(odd, -signs[0], signs[0]))
        turned = transformation @ beyond
        return turned[kept:], (transformation, triangle, turned[:kept], carry, signs)

    done = lax.scan(step, identity, (tuple(chunks), above))[1]
    return Eliminated(*done, jnp.zeros((), dtype))


def back_substitute(chunks: Chunks, done: Eliminated, b: Array) -> Array:
    """A⁻¹ b for columns chunk by chunk (T, b, k)."""
    r, columns = chunks.lower.enter.shape[-1], b.shape[-1]
    kept = done.triangle.shape[-1]

    def forward(carry: Array, site):
        transformation, b = site
        turned = transformation @ jnp.concatenate([jnp.zeros((r, columns), b.dtype), b, carry])
        return turned[kept:], turned[:kept]

    def backward(beyond: Array, site):
        triangle, onward, upper, right = site
        known = lax.linalg.triangular_solve(triangle, right - onward @ beyond, left_side=True)
        f, x = known[:r], known[r:]
        g = upper.enter.T @ x + upper.through.T @ beyond[r:]
        return jnp.concatenate([f, g]), x

    start = jnp.zeros((r, columns), b.dtype)
    right = lax.scan(forward, start, (done.transformation, b))[1]
    end = jnp.broadcast_to(done.end, (r + chunks.upper.enter.shape[-1], columns)).astype(b.dtype)
    sites = (done.triangle, done.onward, chunks.upper, right)
    return lax.scan(backward, end, sites, reverse=True)[1]


def sign_and_logabs(done: Eliminated) -> tuple[Array, Array]:
    """Phase and logarithm of the modulus of the determinant."""
    pivots = jnp.diagonal(done.triangle, axis1=-2, axis2=-1)
    moduli = jnp.abs(pivots)
    zero = moduli == 0
    phases = jnp.where(zero, 0, pivots / jnp.where(zero, 1, moduli).astype(pivots.dtype))
    logabs = pairwise_sum(jnp.log(moduli)) + jnp.real(done.end)
    return jnp.prod(phases) * jnp.prod(done.signs), logabs


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
        turned, triangle, onward, carried, upper = site
        outside = beyond @ turned[kept:]
        inside = lax.linalg.triangular_solve(
            triangle, turned[:kept] - onward @ outside, left_side=True
        )
        f, x, g = inside[:r], inside[r:], outside[r:]
        sent, rows, carry = slice(0, r), slice(r, r + b), slice(r + b, None)
        from_right = carried[:, r:]
        derivatives = Chunks(
            x[:, rows].T,
            Waves(f[:, rows].T, -x[:, sent], -f[:, sent].T),
            Waves(x[:, carry] @ from_right, g[:, rows].T, g[:, carry] @ from_right),
        )
        left = upper.enter.T @ x[:, carry] + upper.through.T @ g[:, carry]
        return jnp.concatenate([f[:, carry], left]), derivatives

    end = jnp.broadcast_to(done.end, (r + s, r))
    sites = (done.transformation, done.triangle, done.onward, done.carry, chunks.upper)
    return lax.scan(step, end, sites, reverse=True)[1]


@slopes.derivative
def _(value, primals, tangents):
    # What was eliminated is a function of the chunks: its derivatives are taken here, and only
    # where second derivatives are asked for.
    def whole(chunks: Chunks) -> Chunks:
        return slopes.function(chunks, _eliminate(chunks, _reflected_smoothly))

    return jax.jvp(whole, (primals[0],), (tangents[0],))[1]


@Lasting
def log_determinant(chunks: Chunks, done: Eliminated) -> tuple[Array, Array]:
    """(sign, logabs) of A, differentiable in the chunks; what was eliminated must be theirs."""
    return sign_and_logabs(done)


@log_determinant.derivative
def _(values, primals, tangents):
    sign, _ = values
    answers = slopes(*primals)
    products = jax.tree.map(lambda a, d: pairwise_sum(a * d), answers, tangents[0])
    slope = jax.tree.reduce(jnp.add, products)
    if jnp.issubdtype(slope.dtype, jnp.complexfloating):
        turn = sign * lax.complex(jnp.zeros_like(slope.imag), slope.imag)
    else:
        turn = jnp.zeros_like(sign)
    return turn, jnp.real(slope)


def logabs(chunks: Chunks) -> Array:
    """log|det A| from the start."""
    chunks, scale, done, _ = _factor(chunks, _start(chunks, chunks.padded))
    return log_determinant(chunks, done)[1] + chunks.padded * jnp.log(scale)


class PivotedFactorisation(CheckedFactorisation):
    """Any matrix that comes in chunks (see `hodlr.chunks`), by elimination with pivots.

    `chunks` are those of the matrix over `scale`, a power of two, so that its rows are as large as
    the equations for the waves; `condition` is that of the matrix.
    """

    matrix: Any
    chunks: Chunks
    scale: Array
    done: Eliminated
    condition: Array

    @classmethod
    def of(cls, matrix: Any) -> "PivotedFactorisation":
        chunks = matrix.chunks(_SMALLEST)
        return cls(matrix, *_factor(chunks, _start(chunks, matrix.shape[0])))

    def _core(self) -> Array:
        return self.done.end

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

    def _slogdet(self) -> tuple[Array, Array]:
        sign, logabs = log_determinant(self.chunks, self.done)
        return sign, logabs + self.matrix.shape[0] * jnp.log(self.scale)


@jax.jit
def _factor(chunks: Chunks, start: Array) -> tuple[Chunks, Array, Eliminated, Array]:
    scale = chunks.size()
    chunks = chunks.scaled(scale)
    constant = lax.stop_gradient(chunks)
    done = eliminate(constant)
    return chunks, scale, done, _condition(constant, done, start)


def _start(chunks: Chunks, n: int) -> Array:
    """A column without structure (T, b, 1), the same each time, zero beyond n."""
    column = np.cos(np.arange(n) ** 2 % 1009)[:, None]
    return chunks.split(jnp.asarray(column, chunks.blocks.dtype))


def _condition(chunks: Chunks, done: Eliminated, start: Array) -> Array:
    """A lower bound of ‖A‖ ‖A⁻¹‖ by power iteration on each, mostly within a factor of two or so;
    three products and two solutions."""

    def forth(b: Array) -> Array:
        return back_substitute(chunks, done, b)

    def back(b: Array) -> Array:
        return jnp.conj(jax.linear_transpose(forth, b)(jnp.conj(b))[0])

    along = chunks.H.product(unit(chunks.product(unit(start))))
    norm = frobenius(chunks.product(unit(along)))
    # What A⁻¹ blows up most is most of its product with anything, so A⁻ᴴ blows that up as much.
    once = forth(unit(start))
    condition = norm * jnp.maximum(frobenius(once), frobenius(back(unit(once))))
    return jnp.where(jnp.isnan(condition), jnp.inf, condition)  # divided by zero
