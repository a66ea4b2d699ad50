"""Solution of any Toeplitz system, which Fourier transforms turn into a Cauchy-like one.

With s the n-th roots of 1 and t those of -1, the shifts Z₁ and Z₋₁ (down by one, what leaves comes
back times ±1) are diagonal in the bases F and F D, F the Fourier transform and D = diag(e^{iπj/n}).
So T = F⁻¹ C F D with

    s_i C_ij - C_ij t_j = (G B)_ij,     G (n, 2), B (2, n)     (Z₁ T - T Z₋₁ has rank 2).

What Gaussian elimination leaves of C has the same form, with other G and B, and pivoting only
permutes the s: elimination with row pivots takes O(n) operations a step, O(n²) in all, and no more
memory than G and B (Gohberg, Kailath, Olshevsky, Math. Comput. 64, 1557, 1995; that the rows of -1
below C, eliminated along, become C⁻¹, so that no triangle is kept, is due to Poloni, Numer.
Algorithms 55, 115, 2010). The inverse has that form too,

    (C⁻¹)_ji = X_j · Y_i/(s_i - t_j),     X = C⁻¹ G,     Y = C⁻ᵀ Bᵀ,

and a product with it is one of Fourier transforms, for 1/(s - t) = -½ Σ_m s^m t^(-m-1).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike

from hodlr.exponentials import check_finite, promote
from hodlr.factor import check_columns, largest_condition
from hodlr.lowrank import frobenius, unit
from hodlr.toeplitz import toeplitz_matvec

# Steps of iterative refinement, in the precision of the matrix: two where elimination lost no more
# than half of the digits.
_REFINEMENTS = 3


def solve_toeplitz(column: ArrayLike, row: ArrayLike, b: ArrayLike) -> Array:
    """x with T x = b for T[i, j] = column[i - j] (i ≥ j), row[j - i] (i < j); row[0] is ignored.

    column, row: (n,); b: (n,) or (n, k); real or complex. Any Toeplitz matrix, symmetric, definite
    or neither; where it is a sum of exponentials, `solve` takes O(n). Here O(n²) operations and
    O(n) memory, then O(n log n) for each column of b: elimination with pivots, and iterative
    refinement with `toeplitz_matvec`. Works under jit, vmap and differentiation, in all three
    arguments.

    RuntimeError where ‖b - T x‖ > 1000·eps·(‖T‖ ‖x‖ + ‖b‖), or where the condition number is above
    0.1/eps: T is singular to working precision.
    """
    column, row, b = promote(column, row, b)
    n = column.shape[0]
    if column.shape != (n,) or row.shape != (n,):
        raise ValueError(
            "solve_toeplitz needs the first column and the first row in one shape (n,), but got "
            f"{column.shape} and {row.shape}."
        )
    columns = check_columns(b, n)
    check_finite("column, row and b of solve_toeplitz", column, row, b)
    constant = lax.stop_gradient((column, row))
    parts = _inverse(*constant)
    forth, back = _refined(constant, parts, columns)
    fine = _trustworthy(constant, back, *lax.stop_gradient((forth(columns), columns)))
    # Not x is held up but what it is made of, of which derivatives are made too.
    parts = eqx.error_if(
        parts,
        ~fine,
        "hodlr.solve_toeplitz failed: the matrix is singular to working precision, or elimination "
        "lost all digits. Add to column[0].",
    )
    forth, back = _refined(constant, parts, columns)
    x = lax.custom_linear_solve(
        lambda x: toeplitz_matvec(column, row, x),
        columns,
        lambda _, b: forth(b),
        lambda _, b: back(b),
    )
    return x.reshape(b.shape)


def _refined(matrix: tuple[Array, Array], parts: tuple[Array, Array], like: Array):
    """Solutions with T and with Tᵀ, as functions of columns like `like`."""
    real = not jnp.issubdtype(like.dtype, jnp.complexfloating)

    def product(x: Array) -> Array:
        return toeplitz_matvec(*matrix, x)

    def once(b: Array) -> Array:
        x = _product_with_inverse(*parts, b)
        return jnp.real(x) if real else x

    def refine(product, once, b: Array) -> Array:
        x = once(b)
        for _ in range(_REFINEMENTS):
            x = x + once(b - product(x))
        return x

    def back(b: Array) -> Array:
        flipped, turned = (jax.linear_transpose(f, b) for f in (product, once))
        return refine(lambda x: flipped(x)[0], lambda b: turned(b)[0], b)

    return lambda b: refine(product, once, b), back


def _trustworthy(matrix: tuple[Array, Array], back, x: Array, b: Array) -> Array:
    """Whether the backward error of x is at most 1000·eps, and the condition at most 0.1/eps: as in
    `hodlr.direct.measure`."""

    def product(x: Array) -> Array:
        return toeplitz_matvec(*matrix, x)

    eps = float(jnp.finfo(x.dtype).eps)
    adjoint = jax.linear_transpose(product, x)
    norm, y = jnp.zeros((), jnp.finfo(x.dtype).dtype), x + b
    for _ in range(4):
        z = product(unit(y))
        norm, y = frobenius(z), jnp.conj(adjoint(jnp.conj(unit(z)))[0])
    bound, size = norm * frobenius(x), frobenius(b)
    onward = norm * frobenius(back(jnp.conj(unit(x))))
    residual = frobenius(b - product(x))
    exact = residual <= 1000 * eps * (bound + size)
    limit = largest_condition(x.dtype)
    return exact & (bound <= limit * size) & ((onward <= limit) | (size == 0))


def _nodes(n: int, kind: int) -> Array:
    """Angles of the roots of 1 (kind 0) and of -1 (kind 1), in units of π/n."""
    return kind - 2 * jnp.arange(n)


def _phases(angles: Array, n: int, dtype) -> Array:
    """e^{iπ·angle/n}."""
    turn = angles.astype(jnp.finfo(dtype).dtype) * (jnp.pi / n)
    return lax.complex(jnp.cos(turn), jnp.sin(turn))


def _over_differences(a: Array, b: Array, first: Array, second: Array, n: int) -> Array:
    """(a · b)/(x - y) for the nodes x, y of angles `first` and `second`, by their half angles: the
    difference of close nodes keeps its digits. 0 for x = y."""
    real = jnp.finfo(a.dtype).dtype
    half = (jnp.pi / (2 * n)) * jnp.asarray(first - second, real)
    middle = (jnp.pi / (2 * n)) * jnp.asarray(first + second, real)
    same = first == second
    sine = jnp.where(same, 1, 2 * jnp.sin(half))
    # 1/(x - y) = e^{-i·middle}/(2i sin half)
    turn = lax.complex(-jnp.sin(middle) / sine, -jnp.cos(middle) / sine)
    return jnp.where(same, 0, jnp.sum(a * b, axis=-1) * turn)


@jax.jit
def _inverse(column: Array, row: Array) -> tuple[Array, Array]:
    """X and Y (n, 2) of the inverse."""
    n = column.shape[0]
    dtype = np.promote_types(column.dtype, np.complex64)
    size = jnp.maximum(jnp.max(jnp.abs(column)), jnp.max(jnp.abs(row.at[0].set(0))))
    scale = jnp.where(size > 0, size, 1).astype(column.dtype)
    column, row = column / scale, row.at[0].set(column[0]) / scale
    first = jnp.zeros(n, column.dtype).at[0].set(1)
    wrapped = jnp.concatenate([jnp.zeros(1, column.dtype), column[1:] + row[:0:-1]])
    upper = jnp.concatenate([column[:0:-1] - row[1:], 2 * column[:1]])
    root = n**0.5
    left = jnp.fft.fft(jnp.stack([first, wrapped]).astype(dtype)).T / root
    turn = _phases(-jnp.arange(n), n, dtype)
    right = jnp.fft.ifft(jnp.stack([upper, first[::-1]]).astype(dtype) * turn).T * root
    ones, minus = _nodes(n, 0), _nodes(n, 1)
    x = _eliminate(left, right, ones, minus, left)
    # Cᵀ has the nodes in turn, and the other sign; after x, for one program at a time is enough.
    y = _eliminate(-right, left, minus, ones, right)
    return x / jnp.sqrt(scale).astype(dtype), y / jnp.sqrt(scale).astype(dtype)


def _eliminate(left: Array, right: Array, x: Array, y: Array, b: Array) -> Array:
    """C⁻¹ b for columns b (n, k) and C_ij = left_i · right_j/(x_i - y_j); n steps of O(n·k)."""
    n = left.shape[0]
    site = jnp.arange(n)

    def step(k: Array, state):
        above, below, right, b, solved, free = state
        now, angle = right[k], y[k]
        # The column, of C and of the rows of -1 below, of which the later ones are untouched.
        column = jnp.where(free, _over_differences(above, now, x, angle, n), 0)
        under = jnp.where(site < k, _over_differences(below, now, y, angle, n), 0)
        under = jnp.where(site == k, -1, under)
        p = jnp.argmax(jnp.abs(column))
        pivot, generator, known = column[p], above[p], b[p]
        across = _over_differences(generator, right, x[p], y, n) / pivot
        across = jnp.where(site > k, across, 0)
        free = free & (site != p)
        column = jnp.where(free, column, 0)[:, None] / pivot
        under = under[:, None] / pivot
        return (
            above - column * generator, below - under * generator, right - across[:, None] * now,
            b - column * known, solved - under * known, free,
        )  # fmt: skip

    start = left, jnp.zeros_like(left), right, b, jnp.zeros_like(b), jnp.ones(n, bool)
    return lax.fori_loop(0, n, step, start)[4]


def _product_with_inverse(x: Array, y: Array, b: Array) -> Array:
    """T⁻¹ b for columns b (n, k); O(n log n)."""
    n, dtype = b.shape[0], x.dtype
    turn = _phases(-jnp.arange(n), n, dtype)
    modes = jnp.fft.fft(b.T.astype(dtype))[:, None]
    sums = jnp.fft.ifft(jnp.fft.fft(modes * y.T) * turn)
    away = _phases(-_nodes(n, 1), n, dtype) * (-n / 2)
    solved = jnp.sum(x.T * sums, axis=1) * away
    return (jnp.fft.ifft(solved) * turn).T
