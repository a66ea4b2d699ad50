"""HODLR matrices from samples: from a function of indices, and from products with a linear
operator.

Both see only part of the matrix, so they measure what they missed and say so: they return
`BuildInfo` beside the matrix, and with `tol=` a worse one is refused.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from hodlr.build import check_rank_or_tol
from hodlr.cross import (
    Crosses,
    Entries,
    block_starts,
    find_crosses,
    interpolate,
    masked_entries,
    pick,
)
from hodlr.exponentials import check_finite
from hodlr.lowrank import (
    frobenius,
    in_turn,
    parts_of_products,
    rank_for,
    require_concrete,
    truncate_products,
)
from hodlr.matrix import HODLR
from hodlr.tree import Tree

# Random entries of every block among which a search for crosses starts.
_PROBES = 64


class BuildInfo(NamedTuple):
    """What a sampled construction measured on probes that it had not used.

    `error`: relative error; for entries an estimate of ‖A - H‖/‖A‖ in the Frobenius norm, for
    products with random vectors the ratio of norms. `max_error`: largest absolute error among the
    probes. `ranks`: rank of each level, root first.
    """

    error: Array
    max_error: Array
    ranks: tuple[int, ...]


# A function of indices


def from_entries(
    entries: Entries,
    n: int,
    *,
    rank: int | None = None,
    tol: float | None = None,
    leaf_size: int = 64,
    key: PRNGKeyArray,
    n_checks: int = 2000,
) -> tuple[HODLR, BuildInfo]:
    """HODLR form of A[i, j] = entries(i, j) by cross approximation (see `hodlr.cross`); O(n·
    (leaf_size + rank² log n)) operations.

    entries: a jax function of two integer index arrays that broadcast. The result is compared with
    `n_checks` random entries of every level; `BuildInfo` holds what was measured. tol: the ranks
    that bring the measured error ‖A - H‖/‖A‖ to tol (neither rank nor tol: to round-off), else
    ValueError; outside jit only, and compiled anew for every call. rank: fixed, under every
    transformation. Error: cross approximation has no guarantee for a block with few entries that
    matter; those escape random checks with probability (1 - share)^n_checks.
    """
    tree = Tree.of(n, leaf_size)
    try:
        dtype = jax.eval_shape(entries, *(jax.ShapeDtypeStruct((1,), jnp.int32),) * 2).dtype
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            "entries(i, j) must be a jax function of two integer index arrays, but turns them into "
            "numpy arrays; write it with jax.numpy, and index jax arrays (jnp.asarray(points)[i])."
        ) from error
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"entries(i, j) must return a floating-point or complex array, but returned {dtype}."
        )
    limit = check_rank_or_tol("from_entries", rank, tol, jnp.zeros((), dtype))
    if rank is not None:
        search_key, check_key = jax.random.split(key)
        probes = jax.random.uniform(search_key, (2, max(_PROBES, 4 * rank)))
        factors = []
        for level in range(tree.depth):
            most = min(rank, tree.half(level))
            crosses = find_crosses(entries, tree, level, most, 0.0, probes)
            before = factors[-1][1] if factors else None
            u, v = interpolate(entries, tree, level, crosses, after=before)
            shape = (2**level, 2, tree.half(level), most)
            factors.append((u.reshape(shape), v.reshape(shape)[:, ::-1]))
        leaves = _leaves(entries, tree)
        matrix = HODLR(leaves, tuple(u for u, _ in factors), tuple(v for _, v in factors), tree)
        fractions = jax.random.uniform(check_key, (3, n_checks))
    else:
        assert limit is not None  # exactly one of rank and tol is given
        require_concrete("from_entries", key)
        # Drawn by numpy: nothing to compile.
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        matrix = _within(entries, tree, limit, rng, n_checks)
        fractions = rng.uniform(size=(3, n_checks))
    check_finite("the entries given to from_entries", *jax.tree.leaves(matrix))

    def measure(matrix: HODLR, fractions: Array) -> tuple[Array, Array]:
        worst = jnp.zeros((), jnp.finfo(dtype).dtype)
        total, missed = [matrix.leaves], [worst]
        for level in range(tree.depth):
            sample = _sample(entries, tree, level, fractions)
            error = _missed(sample, matrix.rows[level], matrix.cols[level][:, ::-1])
            missed.append(sample.root_weight * error)
            total.append(sample.root_weight * jnp.abs(sample.value))
            worst = jnp.maximum(worst, jnp.max(error))
        size = frobenius(*total)
        return frobenius(*missed) / jnp.where(size > 0, size, 1), worst

    error, worst = jax.jit(measure)(matrix, fractions)
    if limit is not None and not float(error) <= max(limit, _floor(dtype)):
        raise ValueError(_refusal(float(error), limit))
    return matrix, BuildInfo(error, worst, matrix.ranks)


def _leaves(entries: Entries, tree: Tree) -> Array:
    site = jnp.arange(tree.padded).reshape(tree.n_leaves, tree.leaf_size)
    return masked_entries(entries, tree.n, site[:, :, None], site[:, None, :])


def _within(
    entries: Entries, tree: Tree, tol: float, rng: np.random.Generator, n_checks: int
) -> HODLR:
    """Every level to its share of half the tolerance; truncation takes the other half."""

    def prepare(fractions: Array):
        leaves = _leaves(entries, tree)
        samples = [_sample(entries, tree, level, fractions) for level in range(tree.depth)]
        return leaves, samples, [frobenius(leaves), *map(_norm, samples)]

    leaves, samples, norms = jax.jit(prepare)(rng.uniform(size=(3, n_checks)))
    require_concrete("from_entries", norms[0])
    check_finite("the entries given to from_entries", *norms)
    counts = [_count(tree, level) for level in range(tree.depth)]
    total = float(np.sum(np.asarray(norms, float) ** 2))
    rows, cols = [], []
    for level, (sample, count) in enumerate(zip(samples, counts, strict=True)):
        share = 0.5 * tol * math.sqrt(total / (tree.depth * count))
        rms = float(norms[1 + level]) / math.sqrt(count)
        allowed = max(share, _floor(leaves.dtype) * rms)
        crosses = _level_within(entries, tree, level, sample, share, allowed, rng)
        u, v, values = _truncatable(crosses.left, crosses.right)
        keep = rank_for(values, share**2 * count, "from_entries")
        rows.append(u[..., :keep])
        cols.append(v[..., :keep])
    return HODLR(leaves, tuple(rows), tuple(cols), tree)


def _level_within(entries, tree, level, sample, threshold, allowed, rng) -> Crosses:
    """Crosses of one level with a root-mean-square error of at most `allowed` on the sample."""
    s, most, error = tree.half(level), min(32, tree.half(level)), math.inf
    root_count = math.sqrt(_count(tree, level))
    # A miss is looked for again from other probes, more of them, and then reported.
    for attempt in range(4):
        if s * s > 64 * _PROBES:
            probes = rng.uniform(size=(2, 4**attempt * _PROBES))
        else:  # all entries, as many as the last attempt has: what is left may be a single one
            probes = (np.indices((s, s)).reshape(2, -1) + 0.5) / s
        while True:

            def build(sample, probes, most=most):
                crosses = find_crosses(entries, tree, level, most, threshold, probes)
                error = _missed(sample, crosses.left, crosses.right)
                return crosses, frobenius(sample.root_weight * error) / root_count

            crosses, error = jax.jit(build)(sample, probes)
            if bool(crosses.finished) or most == s:
                break
            most = min(2 * most, s)
        if float(error) <= allowed:
            return crosses
    size = float(_norm(sample)) / root_count
    raise ValueError(_refusal(float(error) / size, allowed / size, f" at level {level}"))


@jax.jit
def _truncatable(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """Rows and cols of a level as singular vectors, to be cut off at any rank, and the singular
    values (blocks, most)."""
    parts = parts_of_products(left, right)
    shape = (left.shape[0] // 2, 2, left.shape[1], -1)
    u = (parts.left * parts.values[:, None, :]).reshape(shape)
    return u, jnp.conj(parts.right).reshape(shape)[:, ::-1], parts.values


def _refusal(error: float, tol: float, where: str = "") -> str:
    return (
        f"cross approximation missed: relative error {error:.1e}{where}, more than {tol:.1e}; use "
        "a larger tol or leaf_size, or from_dense for a matrix without low-rank blocks. Where the "
        "entries are those of a kernel at points, sort the points first: neighbours must be near "
        "in index."
    )


def _floor(dtype) -> float:
    """Relative round-off of a sum of crosses."""
    return 50 * float(jnp.finfo(dtype).eps)


class _Sample(NamedTuple):
    """Random entries of the blocks of one level. The squares of `root_weight` are the numbers of
    entries that each stands for."""

    block: Array
    i: Array
    j: Array
    value: Array
    root_weight: Array


def _count(tree: Tree, level: int) -> int:
    """Entries in the off-diagonal blocks of a level, those in the padding (zeros) included."""
    return 2 ** (level + 1) * tree.half(level) ** 2


def _norm(sample: _Sample) -> Array:
    """Estimate of the Frobenius norm of the level."""
    return frobenius(sample.root_weight * jnp.abs(sample.value))


def _sample(entries: Entries, tree: Tree, level: int, fractions: Array) -> _Sample:
    """At fractions (3, size) of the corners of all blocks, of the distance from a corner, and of
    the entries at that distance.

    Half of the entries are spread evenly over the distances 0, 1, 2-3, 4-7, …: a kernel of short
    range lives at corners of the blocks, and is met by even chances only there."""
    s, (row0, col0) = tree.half(level), block_starts(tree, level)
    size, middle = fractions.shape[1], -(-s // 2)
    edges = np.unique(np.minimum(np.append(0, 2 ** np.arange(s.bit_length() + 1)), middle))
    areas = np.diff(edges**2)
    chances = 0.5 * areas / areas.sum() + 0.5 / len(areas)
    shell = np.searchsorted(np.cumsum(chances), (np.arange(size) + 0.5) / size)
    shell = np.minimum(shell, len(areas) - 1)
    represented = _count(tree, level) * areas / areas.sum()
    weight = represented[shell] / np.bincount(shell, minlength=len(areas))[shell]
    corner = pick(fractions[0], 4 * row0.shape[0])
    first, last = edges[shell], edges[shell + 1]
    first_area, area = (jnp.asarray(a, fractions.dtype) for a in (first**2, last**2 - first**2))
    distance = jnp.sqrt(first_area + fractions[1] * area).astype(corner.dtype)
    distance = jnp.clip(distance, first, last - 1)
    rim = 2 * distance + 1
    along = jnp.minimum((fractions[2] * rim.astype(fractions.dtype)).astype(rim.dtype), rim - 1)
    i, j = jnp.minimum(along, distance), jnp.minimum(2 * distance - along, distance)
    i = jnp.where(corner % 2 == 1, s - 1 - i, i)
    j = jnp.where(corner // 2 % 2 == 1, s - 1 - j, j)
    block = corner // 4
    value = masked_entries(entries, tree.n, row0[block] + i, col0[block] + j)
    root_weight = jnp.asarray(np.sqrt(weight), jnp.finfo(value.dtype).dtype)
    return _Sample(block, i, j, value, root_weight)


def _missed(sample: _Sample, left: Array, right: Array) -> Array:
    """Absolute errors (size,) of the products left · rightᵀ of all blocks."""
    left, right = (f.reshape(-1, *f.shape[-2:]) for f in (left, right))
    product = jnp.sum(left[sample.block, sample.i] * right[sample.block, sample.j], axis=-1)
    return jnp.abs(sample.value - product)


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
            (image,) = in_turn(left[0] if left else None, image)
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
    check_finite("the products of the operator given to from_operator", *jax.tree.leaves(matrix))
    test = jax.random.normal(jax.random.fold_in(key, tree.depth), (n, n_checks), dtype)
    exact = jax.vmap(operator.mv, in_axes=1, out_axes=1)(test)
    missed = jnp.abs(exact - matrix @ test)
    return matrix, BuildInfo(frobenius(missed) / frobenius(exact), jnp.max(missed), matrix.ranks)


def _levels(known: HODLR, count: int, x: Array) -> Array:
    """The product of the first `count` levels alone with padded columns."""
    total = jnp.zeros_like(x)
    for level in range(count):
        total = total + known.apply_level(level, x)
    return total
