"""HODLR matrices from samples: from a function of indices, and from products with a linear
operator.

Both see only part of the matrix, so they measure what they missed and say so: they return
`BuildInfo` beside the matrix, and with `tol=` a worse one is refused.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, PRNGKeyArray

from hodlr.blocks import solve_blocks
from hodlr.build import check_rank_or_tol, truncate_levels
from hodlr.exponentials import check_finite
from hodlr.lowrank import parts_of_products, truncate_products
from hodlr.matrix import HODLR
from hodlr.tree import Tree


class BuildInfo(NamedTuple):
    """What a sampled construction measured.

    `error`: relative root-mean-square error on fresh random probes (entries, or products with
    vectors). `max_error`: largest absolute error among them. `ranks`: rank of each level, root
    first.
    """

    error: Array
    max_error: Array
    ranks: tuple[int, ...]


# A function of indices


def from_entries(
    entries: Callable[[Array, Array], Array],
    n: int,
    *,
    rank: int | None = None,
    tol: float | None = None,
    leaf_size: int = 64,
    key: PRNGKeyArray,
    n_checks: int = 2000,
) -> tuple[HODLR, BuildInfo]:
    """HODLR form of A[i, j] = entries(i, j) by cross approximation; O(n·(leaf_size + rank² log n))
    operations.

    entries: a jax function of two integer index arrays that broadcast. Each block is interpolated
    on `rank` of its rows and columns, chosen one after another where the error is largest: among
    random entries first, then along that row and column. The result is then compared with
    `n_checks` fresh random entries of every level; `BuildInfo` holds what was measured. tol: ranks
    are doubled until the measured relative error of every level is ≤ tol, else ValueError; the
    result is truncated back at tol. Outside jit only. rank: fixed, under every transformation.
    Error: cross approximation has no guarantee for a block with few entries that matter; those
    escape random checks with probability (1 - share)^n_checks.
    """
    tree = Tree.of(n, leaf_size)
    dtype = jax.eval_shape(entries, *(jax.ShapeDtypeStruct((1,), jnp.int32),) * 2).dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"entries(i, j) must return a floating-point or complex array, but returned {dtype}."
        )
    limit = check_rank_or_tol("from_entries", rank, tol, jnp.zeros((), dtype))
    b = tree.leaf_size
    start = jnp.arange(tree.n_leaves)[:, None, None] * b
    leaves = _masked_entries(
        entries, n, start + jnp.arange(b)[:, None], start + jnp.arange(b)[None, :]
    )
    check_finite("the entries given to from_entries", leaves)
    rows, cols, errors, sizes, worst = [], [], [], [], []
    for level in range(tree.depth):
        s = tree.half(level)
        level_key, check_key = jax.random.split(jax.random.fold_in(key, level))
        trial = min(rank if rank is not None else 8, s)
        while True:
            left, right, missed, size = _crossed(
                entries, tree, level, trial, level_key, check_key, n_checks
            )
            if limit is None:
                break
            error = float(jnp.sqrt(jnp.sum(missed**2) / jnp.maximum(jnp.sum(size**2), 1e-300)))
            if not math.isfinite(error):
                raise ValueError("entries(i, j) must be finite, but gave NaN or infinity.")
            if error <= max(limit, 50 * float(jnp.finfo(dtype).eps)):
                break
            if trial == s:
                raise ValueError(
                    f"cross approximation missed: relative error {error:.2e} > tol = {limit:.1e} "
                    f"at level {level} with "
                    f"full rank {s}; use a larger tol, or from_dense for a matrix without "
                    "low-rank blocks."
                )
            trial = min(2 * trial, s)
        rows.append(left)
        cols.append(right[:, ::-1])
        errors.append(jnp.sum(missed**2))
        sizes.append(jnp.sum(size**2))
        worst.append(jnp.max(missed))
    matrix = HODLR(leaves, tuple(rows), tuple(cols), tree)
    if limit is not None and tree.depth:
        matrix = truncate_levels(matrix, None, limit, "from_entries")[0]
    total = sum(sizes, jnp.zeros((), jnp.finfo(dtype).dtype))
    error = jnp.sqrt(sum(errors, jnp.zeros_like(total)) / jnp.where(total > 0, total, 1))
    largest = jnp.max(jnp.stack(worst)) if worst else jnp.zeros_like(total)
    return matrix, BuildInfo(error, largest, matrix.ranks)


def _crossed(entries, tree, level, rank, level_key, check_key, n_checks):
    """Factors of one level, and the errors and sizes of fresh entries; compiled as one piece."""

    def build(level_key, check_key):
        left, right = _cross_level(entries, tree, level, rank, level_key)
        return left, right, *_missed(entries, tree, level, left, right, check_key, n_checks)

    return jax.jit(build)(level_key, check_key)


def _masked_entries(entries: Callable, n: int, i: Array, j: Array) -> Array:
    """entries(i, j) with zeros in the padding, where the function is evaluated at valid indices
    instead."""
    value = entries(jnp.minimum(i, n - 1), jnp.minimum(j, n - 1))
    return jnp.where((i < n) & (j < n), value, 0)


def _starts(tree: Tree, level: int) -> tuple[Array, Array]:
    """First row and first column of the two blocks of every node, each (2**level, 2)."""
    s = tree.half(level)
    first = jnp.arange(2**level)[:, None] * 2 * s + jnp.asarray([0, s])
    return first, first[:, ::-1]


def _cross_level(entries: Callable, tree: Tree, level: int, rank: int, key) -> tuple[Array, Array]:
    n, s = tree.n, tree.half(level)
    row0, col0 = _starts(tree, level)
    keys = jax.random.split(key, 2 ** (level + 1)).reshape(2**level, 2)

    def one(i0: Array, j0: Array, block_key) -> tuple[Array, Array]:
        def block(i: Array, j: Array) -> Array:
            return _masked_entries(entries, n, i0 + i, j0 + j)

        return _cross(block, s, rank, block_key)

    return jax.vmap(jax.vmap(one))(row0, col0, keys)


def _cross(block: Callable, s: int, rank: int, key) -> tuple[Array, Array]:
    """Rows (s, rank) and cols (s, rank) of one s×s block by cross approximation with rook
    pivots."""
    sites = jnp.arange(s)
    probes_i, probes_j = jax.random.randint(key, (2, max(64, 4 * rank)), 0, s)
    probe_values = jax.lax.stop_gradient(block(probes_i, probes_j))

    def add_pivot(step: Array, state):
        left, right, pivots_i, pivots_j, used = state
        probe_error = probe_values - jnp.sum(left[probes_i] * right[probes_j], axis=-1)
        i = probes_i[jnp.argmax(jnp.abs(probe_error))]
        for _ in range(2):
            row = jax.lax.stop_gradient(block(i, sites)) - right @ left[i]
            j = jnp.argmax(jnp.abs(row))
            column = jax.lax.stop_gradient(block(sites, j)) - left @ right[j]
            i = jnp.argmax(jnp.abs(column))
        row = jax.lax.stop_gradient(block(i, sites)) - right @ left[i]
        pivot = row[j]
        scale = jnp.maximum(
            scale_floor, jnp.max(jnp.abs(left), initial=0.0) * jnp.max(jnp.abs(right), initial=0.0)
        )
        useful = jnp.abs(pivot) > 4 * jnp.finfo(pivot.dtype).eps * scale
        column = jnp.where(useful, column / jnp.where(useful, pivot, 1), 0)
        row = jnp.where(useful, row, 0)
        return (
            left.at[:, step].set(column),
            right.at[:, step].set(row),
            pivots_i.at[step].set(i),
            pivots_j.at[step].set(j),
            used.at[step].set(useful),
        )

    scale_floor = jnp.finfo(probe_values.dtype).tiny
    zeros = jnp.zeros((s, rank), probe_values.dtype)
    nowhere = jnp.zeros(rank, sites.dtype)
    state = (zeros, zeros, nowhere, nowhere, jnp.zeros(rank, bool))
    _, _, pivots_i, pivots_j, used = jax.lax.fori_loop(0, rank, add_pivot, state)
    # The same cross as a function of the entries alone, which is what derivatives need.
    columns = jnp.where(used, block(sites[:, None], pivots_j[None, :]), 0)
    rows = jnp.where(used[:, None], block(pivots_i[:, None], sites[None, :]), 0)
    identity = jnp.eye(rank, dtype=columns.dtype)
    core = jnp.where(
        used[:, None] & used[None, :], block(pivots_i[:, None], pivots_j[None, :]), identity
    )
    return columns, solve_blocks(core, rows).T


def _missed(entries, tree, level, left, right, key, n_checks) -> tuple[Array, Array]:
    """Absolute errors and absolute values of random entries of one level's blocks."""
    s, n = tree.half(level), tree.n
    row0, col0 = _starts(tree, level)
    node, i, j, side = jax.random.randint(
        key, (4, n_checks), 0, jnp.asarray([[2**level], [s], [s], [2]])
    )
    exact = _masked_entries(entries, n, row0[node, side] + i, col0[node, side] + j)
    approximate = jnp.sum(left[node, side, i] * right[node, side, j], axis=-1)
    return jnp.abs(exact - approximate), jnp.abs(exact)


# A linear operator


def from_operator(
    operator: lineax.AbstractLinearOperator,
    *,
    rank: int,
    key: PRNGKeyArray,
    leaf_size: int = 64,
    oversampling: int = 8,
    n_checks: int = 8,
) -> tuple[HODLR, BuildInfo]:
    """HODLR form of a square operator from its products with random vectors, level by level
    ("peeling").

    Uses 4·depth·(rank + oversampling) + leaf_size + n_checks products with the operator or its
    transpose. On every level, vectors that live on one half of all nodes at once, less what the
    levels above give, show the other half's blocks (Lin, Lu, Ying, J. Comput. Phys. 230, 4071,
    2011). Works under jit; the error is that of the best approximation times a modest factor, and
    is measured on `n_checks` new vectors.
    """
    structure = operator.in_structure()
    if (
        not isinstance(structure, jax.ShapeDtypeStruct)
        or operator.out_structure() != structure
        or structure.ndim != 1
    ):
        raise ValueError("from_operator needs an operator from one array (n,) to one array (n,).")
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"from_operator needs an integer rank >= 1, but got {rank!r}.")
    n, dtype = structure.shape[0], structure.dtype
    tree = Tree.of(n, leaf_size)
    rest = tree.padded - n
    transpose = operator.transpose()

    def products(op, x: Array) -> Array:
        y = jax.vmap(op.mv, in_axes=1, out_axes=1)(x[:n])
        return jnp.pad(y, ((0, rest), (0, 0)))

    inside = jnp.arange(tree.padded)[:, None] < n
    empty = jnp.zeros((1, tree.leaf_size, tree.leaf_size), dtype)
    known = HODLR(empty, (), (), Tree(n, tree.padded, 0))
    rows: list[Array] = []
    cols: list[Array] = []
    for level in range(tree.depth):
        s = tree.half(level)
        width = min(rank + oversampling, s)
        keys = jax.random.split(jax.random.fold_in(key, level), 2)
        known = HODLR(empty, tuple(rows), tuple(cols), tree)
        left, right = [], []
        for side in (0, 1):
            half = (jnp.arange(tree.padded)[:, None] // s % 2 == 1 - side) & inside
            probe = jnp.where(half, jax.random.normal(keys[side], (tree.padded, width), dtype), 0)
            image = products(operator, probe) - _levels(known, level, probe)
            basis, _ = jnp.linalg.qr(image.reshape(2**level, 2, s, width)[:, side])
            back = jnp.zeros((2**level, 2, s, width), dtype).at[:, side].set(jnp.conj(basis))
            back = back.reshape(tree.padded, width)
            coefficients = products(transpose, back) - _levels(known.T, level, back)
            left.append(basis)
            right.append(coefficients.reshape(2**level, 2, s, width)[:, 1 - side])
        u, v = jnp.stack(left, axis=1), jnp.stack(right, axis=1)
        u, v = truncate_products(u, v, parts_of_products(u, v), min(rank, s))
        rows.append(u)
        cols.append(v[:, ::-1])
    known = HODLR(empty, tuple(rows), tuple(cols), tree)
    b = tree.leaf_size
    probe = jnp.tile(jnp.eye(b, dtype=dtype), (tree.n_leaves, 1)) * inside.astype(dtype)
    leaves = (products(operator, probe) - _levels(known, tree.depth, probe)).reshape(
        tree.n_leaves, b, b
    )
    matrix = HODLR(leaves, tuple(rows), tuple(cols), tree)
    test = jax.random.normal(jax.random.fold_in(key, tree.depth), (n, n_checks), dtype)
    exact = jax.vmap(operator.mv, in_axes=1, out_axes=1)(test)
    missed = jnp.abs(exact - matrix @ test)
    return matrix, BuildInfo(
        jnp.linalg.norm(missed) / jnp.linalg.norm(exact), jnp.max(missed), matrix.ranks
    )


def _levels(known: HODLR, count: int, x: Array) -> Array:
    """The product of the first `count` levels alone with padded columns."""
    total = jnp.zeros_like(x)
    for level in range(count):
        total = total + known.apply_level(level, x)
    return total
