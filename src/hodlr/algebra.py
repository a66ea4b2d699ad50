"""Algebra of hierarchical matrices: sums, products, Hadamard products, updates, compression, norms.

Every function takes `HODLR` or `ExponentialToeplitz` operands in any mixture, of one size, and
promotes their dtypes. Nothing is assumed about symmetry: the product of two symmetric matrices is
not symmetric.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from hodlr.build import check_rank_or_tol, from_exponentials, truncate_levels
from hodlr.exponentials import check_finite, promote
from hodlr.lowrank import adjoint, frobenius, unit
from hodlr.matrix import HODLR, same_tree
from hodlr.structured import AbstractStructured, check_structured, combine, pairs
from hodlr.toeplitz import ExponentialToeplitz

# Any type may be meant: what two of them make is in the table of `hodlr.structured`.
Structured = AbstractStructured


class CompressInfo(NamedTuple):
    """`error`: Frobenius norm of what was cut off. It is exact, since the blocks of all levels are
    disjoint."""

    error: Array
    ranks: tuple[int, ...]


@functools.singledispatch
def as_hodlr(A: Any, like: Any = None) -> HODLR:
    """The operand as HODLR, with the leaves of `like` where that is one."""
    check_structured("hodlr", A)
    raise TypeError(
        f"hodlr knows no HODLR form of a {type(A).__name__}: build it from its entries, "
        "hodlr.from_entries(A.entries, n, tol=..., key=...). Covariances at the same times add by "
        "their kernels, Covariance(times, k + k', noise)."
    )


@as_hodlr.register
def _(A: HODLR, like: Any = None) -> HODLR:
    return A


@as_hodlr.register
def _(A: ExponentialToeplitz, like: Any = None) -> HODLR:
    return from_exponentials(A, leaf_size=like.tree.leaf_size if isinstance(like, HODLR) else 64)


def _pair(A: Structured, B: Structured, verb: str) -> tuple[HODLR, HODLR]:
    return same_tree(as_hodlr(A, B), as_hodlr(B, A), verb)


def add(A: Structured, B: Structured) -> Structured:
    """A + B. Two exponential matrices with one boundary condition stay exponential; else the ranks
    add."""
    return combine("add", A, B)


@pairs("add", AbstractStructured, AbstractStructured)
def _add(A: Structured, B: Structured) -> Structured:
    return combine("add", *_pair(A, B, "add"))


@pairs("add", ExponentialToeplitz, ExponentialToeplitz)
def _add_exponentials(A: ExponentialToeplitz, B: ExponentialToeplitz) -> Structured:
    if A.periodic != B.periodic:
        return _add(A, B)
    d, e = promote(A.diagonal, B.diagonal)
    return ExponentialToeplitz(A.n, A.lower + B.lower, A.upper + B.upper, d + e, A.periodic)


def subtract(A: Structured, B: Structured) -> Structured:
    """A - B, as for `add`."""
    return add(A, -B)


def matmul(
    A: Structured, B: Structured, *, rank: int | None = None, tol: float | None = None
) -> HODLR:
    """The product A @ B; O(n·r²·log² n).

    On level l the block between a node c and its sibling c' is A[c,c] B[c,c'] + A[c,c'] B[c',c'],
    of rank r + r', plus the products of the off-diagonal blocks of all levels above. Neither rank
    nor tol: exact, the ranks are these sums (never more than the size of the block). With rank= or
    tol=: truncated afterwards as by `compress`.
    """
    return combine("matmul", A, B, rank=rank, tol=tol)


@pairs("matmul", AbstractStructured, AbstractStructured)
def _matmul(
    A: Structured, B: Structured, *, rank: int | None = None, tol: float | None = None
) -> HODLR:
    a, b = _pair(A, B, "multiply")
    if rank is not None or tol is not None:
        tol = check_rank_or_tol("matmul", rank, tol, a.leaves)
    tree = a.tree
    a, b = a.unshared(), b.unshared()
    b_transposed = b.T
    above_rows = jnp.zeros((tree.padded, 0), a.dtype)
    above_cols = above_rows
    rows, cols = [], []
    for level in range(tree.depth):
        shape = (2**level, 2, tree.half(level))
        a_rows, b_cols = a.rows[level], b.cols[level]
        left = a.apply(_flat(b.rows[level]), level + 1)
        right = b_transposed.apply(_flat(a.cols[level]), level + 1)
        level_rows = jnp.concatenate([left, _flat(a_rows), above_rows], axis=-1)
        level_cols = jnp.concatenate([_flat(b_cols), right, above_cols], axis=-1)
        u, v = _cap(level_rows.reshape(*shape, -1), level_cols.reshape(*shape, -1))
        rows.append(u)
        cols.append(v)
        # What goes to the sibling and comes back adds to the diagonal blocks of this level's
        # children.
        back = (jnp.swapaxes(a.cols[level], -1, -2) @ b.rows[level])[:, ::-1]
        if a_rows.shape[-1] <= b_cols.shape[-1]:
            b_cols = b_cols @ jnp.swapaxes(back, -1, -2)
        else:
            a_rows = a_rows @ back
        above_rows = jnp.concatenate([above_rows, _flat(a_rows)], axis=-1)
        above_cols = jnp.concatenate([above_cols, _flat(b_cols)], axis=-1)
    shape = (tree.n_leaves, tree.leaf_size, -1)
    shape = (*shape[:2], above_rows.shape[-1])
    leaves = a.leaves @ b.leaves + above_rows.reshape(shape) @ jnp.swapaxes(
        above_cols.reshape(shape), -1, -2
    )
    product = HODLR(leaves, tuple(rows), tuple(cols), tree)
    if rank is None and tol is None:
        return product
    return truncate_levels(product, rank, tol, "matmul")[0]


def _flat(factor: Array) -> Array:
    return factor.reshape(-1, factor.shape[-1])


def _cap(rows: Array, cols: Array) -> tuple[Array, Array]:
    """Factors of at most the size s of the block: block · identity where the rank exceeds it."""
    s = rows.shape[-2]
    if rows.shape[-1] <= s:
        return rows, cols
    block = rows @ jnp.swapaxes(cols[:, ::-1], -1, -2)
    return block, jnp.broadcast_to(jnp.eye(s, dtype=rows.dtype), block.shape)


def hadamard(A: Structured, B: Structured) -> Structured:
    """The entrywise product; the ranks multiply. Two open exponential matrices stay exponential."""
    return combine("hadamard", A, B)


@pairs("hadamard", ExponentialToeplitz, ExponentialToeplitz)
def _hadamard_exponentials(A: ExponentialToeplitz, B: ExponentialToeplitz) -> Structured:
    if A.periodic or B.periodic:
        return _hadamard(A, B)
    d, e = promote(A.diagonal, B.diagonal)
    return ExponentialToeplitz(A.n, A.lower * B.lower, A.upper * B.upper, d * e)


@pairs("hadamard", AbstractStructured, AbstractStructured)
def _hadamard(A: Structured, B: Structured) -> HODLR:
    a, b = _pair(A, B, "multiply")

    def rowwise(u: Array, v: Array) -> Array:
        product = u[..., :, None] * v[..., None, :]
        return product.reshape(*product.shape[:-2], -1)

    rows = [rowwise(u, v) for u, v in zip(a.rows, b.rows, strict=True)]
    cols = [rowwise(u, v) for u, v in zip(a.cols, b.cols, strict=True)]
    capped = [_cap(u, v) for u, v in zip(rows, cols, strict=True)]
    return HODLR(
        a.leaves * b.leaves, tuple(u for u, _ in capped), tuple(v for _, v in capped), a.tree
    )


def compress(
    A: Structured, *, rank: int | None = None, tol: float | None = None
) -> tuple[HODLR, CompressInfo]:
    """The same matrix with smaller ranks, and the error; O(n·r²·log n).

    rank: for every level, under every transformation. tol: the smallest ranks with Frobenius error
    ≤ tol·‖A‖, outside jit. Differentiable (see `hodlr.lowrank`).
    """
    a = as_hodlr(A)
    tol = check_rank_or_tol("compress", rank, tol, a.leaves)
    compressed, lost = truncate_levels(a, rank, tol, "compress")
    return compressed, CompressInfo(lost, compressed.ranks)


def scale(A: Structured, left: ArrayLike, right: ArrayLike) -> HODLR:
    """diag(left) · A · diag(right) for vectors (n,); the ranks stay."""
    left, right, like = promote(left, right, jnp.zeros((), A.dtype))
    check_finite("the vectors given to scale", left, right)
    a = as_hodlr(A).unshared().astype(like.dtype)
    tree = a.tree
    for name, vector in (("left", left), ("right", right)):
        if vector.shape != (tree.n,):
            raise ValueError(f"scale needs {name} of shape ({tree.n},), but got {vector.shape}.")
    pad = (0, tree.padded - tree.n)
    left, right = jnp.pad(left, pad), jnp.pad(right, pad)
    leaf = (tree.n_leaves, tree.leaf_size)
    leaves = left.reshape(*leaf, 1) * a.leaves * right.reshape(leaf[0], 1, leaf[1])

    def at(level: int, vector: Array) -> Array:
        return vector.reshape(2**level, 2, -1, 1)

    rows = tuple(at(level, left) * u for level, u in enumerate(a.rows))
    cols = tuple(at(level, right) * v for level, v in enumerate(a.cols))
    return HODLR(leaves, rows, cols, tree)


def low_rank_update(A: Structured, U: ArrayLike, V: ArrayLike) -> HODLR:
    """A + U Vᵀ for U, V (n, k), without conjugation; every rank grows by k. O(n·k·log n)."""
    U, V, like = promote(U, V, jnp.zeros((), A.dtype))
    check_finite("the factors of a low-rank update", U, V)
    a = as_hodlr(A).unshared().astype(like.dtype)
    tree = a.tree
    if U.ndim != 2 or U.shape != V.shape or U.shape[0] != tree.n:
        raise ValueError(
            f"U and V must both have shape ({tree.n}, k), but got {U.shape} and {V.shape}."
        )
    pad = ((0, tree.padded - tree.n), (0, 0))
    U, V = jnp.pad(U, pad), jnp.pad(V, pad)
    levels = [(2**level, 2, tree.half(level), U.shape[1]) for level in range(tree.depth)]
    leaf = (tree.n_leaves, tree.leaf_size, U.shape[1])
    leaves = a.leaves + U.reshape(leaf) @ jnp.swapaxes(V.reshape(leaf), -1, -2)
    rows = tuple(
        jnp.concatenate([u, U.reshape(s)], -1) for u, s in zip(a.rows, levels, strict=True)
    )
    cols = tuple(
        jnp.concatenate([v, V.reshape(s)], -1) for v, s in zip(a.cols, levels, strict=True)
    )
    return HODLR(leaves, rows, cols, tree)


def add_diagonal(A: Structured, d: ArrayLike) -> Structured:
    """A + diag(d) for a number or a vector (n,); of the same type as A. O(n·leaf_size) at most."""
    check_structured("add_diagonal", A)
    d, like = promote(d, jnp.zeros((), A.dtype))
    check_finite("the vector given to add_diagonal", d)
    if d.shape not in ((), (A.shape[0],)):
        raise ValueError(
            f"add_diagonal needs a number or shape ({A.shape[0]},), but got {d.shape}."
        )
    return A.plus_diagonal(d.astype(like.dtype))


def frobenius_norm(A: Structured) -> Array:
    """‖A‖ exactly; O(n·r²)."""
    a = as_hodlr(A).unshared()
    norms = [frobenius(a.leaves)]
    for u, v in zip(a.rows, a.cols, strict=True):
        # ‖U Vᵀ‖² = Σ_ab (Uᴴ U)_ab (Vᴴ V)_ab, small Gram matrices of factors of size one.
        left, right = (jax.lax.stop_gradient(jnp.max(jnp.abs(f), initial=0)) for f in (u, v))
        left, right = (jnp.where(size > 0, size, 1) for size in (left, right))
        u, v = u / left.astype(u.dtype), v / right.astype(v.dtype)
        square = jnp.sum(jnp.real((adjoint(u) @ u) * (adjoint(v) @ v)[:, ::-1]))
        norms.append(left * right * jnp.sqrt(jnp.maximum(square, 0)))
    return frobenius(*norms)


def norm_estimate(A: Structured, *, iterations: int = 10) -> Array:
    """A lower bound of the spectral norm by power iteration on Aᴴ A; a few per cent low where the
    spectrum is dense at the top. O(iterations) products."""
    # A fixed start without structure: the estimate is reproducible and needs no key.
    x = jnp.asarray(np.cos(np.arange(A.shape[0]) ** 2 % 1009), A.dtype)
    adjoint = A.H

    def step(_, state):
        x, _ = state
        y = A @ unit(x)
        return adjoint @ unit(y), frobenius(y)

    real = jnp.finfo(A.dtype).dtype
    return jax.lax.fori_loop(0, iterations, step, (x, jnp.zeros((), real)))[1]
