"""Building HODLR matrices from an array and, exactly, from sums of exponentials."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from hodlr.exponentials import SumOfExponentials, check_finite, integer_power
from hodlr.lowrank import (
    frobenius,
    in_turn,
    parts_of_blocks,
    parts_of_products,
    rank_for,
    require_concrete,
    truncate_blocks,
    truncate_products,
)
from hodlr.matrix import HODLR
from hodlr.toeplitz import ExponentialToeplitz
from hodlr.tree import Tree


def from_dense(
    A: ArrayLike, *, rank: int | None = None, tol: float | None = None, leaf_size: int = 64
) -> HODLR:
    """HODLR form of a square array (n, n) by truncated singular value decompositions; O(n³).

    rank: the same for all levels (for jit, vmap and grad). tol: the smallest ranks with Frobenius
    error ≤ tol·‖A‖; needs known values. Neither: tol at round-off. Differentiable (see
    `hodlr.lowrank`).
    """
    A = jnp.asarray(A)
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.shape[0] < 1:
        raise ValueError(f"from_dense needs a square array (n, n), but got shape {A.shape}.")
    if not jnp.issubdtype(A.dtype, jnp.inexact):
        A = A.astype(jnp.zeros(()).dtype)
    check_finite("the array given to from_dense", A)
    tol = check_rank_or_tol("from_dense", rank, tol, A)
    tree = Tree.of(A.shape[0], leaf_size)
    rest = tree.padded - tree.n
    A = jnp.pad(A, ((0, rest), (0, rest)))
    budget = None if tol is None else _budget(tol, float(frobenius(A)), tree.depth)
    rows, cols = [], []
    for level in range(tree.depth):
        s = tree.half(level)
        blocks = A.reshape(2**level, 2, s, 2**level, 2, s)
        node = np.arange(2**level)
        off = jnp.stack([blocks[node, 0, :, node, 1], blocks[node, 1, :, node, 0]], axis=1)
        (off,) = in_turn(cols[-1] if cols else None, off)
        parts = parts_of_blocks(off)
        if rank is not None:
            keep = min(rank, s)
        else:
            assert budget is not None  # exactly one of rank and tol is given
            keep = rank_for(parts.values, budget, "from_dense")
        left, right = truncate_blocks(off, parts, keep)
        rows.append(left)
        cols.append(right[:, ::-1])
    leaf = np.arange(tree.n_leaves)
    b = tree.leaf_size
    leaves = A.reshape(tree.n_leaves, b, tree.n_leaves, b)[leaf, :, leaf, :]
    return HODLR(leaves, tuple(rows), tuple(cols), tree)


def check_rank_or_tol(
    verb: str, rank: int | None, tol: float | None, values: Array
) -> float | None:
    """Validate rank= and tol=; the tolerance to use, or None where a rank is given."""
    if rank is not None and tol is not None:
        raise ValueError(f"{verb} takes rank= or tol=, not both.")
    if rank is not None:
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f"{verb} needs an integer rank >= 1, but got {rank!r}.")
        return None
    require_concrete(verb, values)
    if tol is not None and not 0 < tol < 1:
        raise ValueError(f"{verb} needs a relative tolerance 0 < tol < 1, but got {tol!r}.")
    return 10 * float(jnp.finfo(values.dtype).eps) if tol is None else float(tol)


def _budget(tol: float, norm: float, depth: int) -> float:
    """Share of one level of the squared Frobenius error."""
    return (tol * norm) ** 2 / max(depth, 1)


def from_exponentials(A: ExponentialToeplitz, *, leaf_size: int = 64) -> HODLR:
    """Exact HODLR form of an exponential matrix: rank max(modes), or the sum of both modes on a
    ring.

    With the boundary p of a block, λ^(i-j) = λ^(i-p) λ^(p-j), all powers ≤ 1 in modulus
    (Proposition 3 of arXiv:2603.11189). The factors are the same for all nodes of a level and are
    stored once: O(n·modes) numbers altogether, O(n·modes) operations.
    """
    return _from_exponentials(A, Tree.of(A.n, leaf_size))


@functools.partial(jax.jit, static_argnums=1)  # one program, as below
def _from_exponentials(A: ExponentialToeplitz, tree: Tree) -> HODLR:
    n = A.n
    lower, upper = A.lower, A.upper
    if A.periodic:
        lower, upper = lower.periodic(n), upper.periodic(n)
    rows, cols = [], []
    for level in range(tree.depth):
        s = tree.half(level)
        site = jnp.arange(s)
        far = jnp.maximum(n - s - site, 0)
        # Direct term: lower block from the modes below the diagonal, upper block from those above.
        second, first = [_powers(lower, site)], [_powers(upper, s - site)]
        from_first, from_second = [_weighted(lower, s - site)], [_weighted(upper, site)]
        if A.periodic:
            # The way round the ring: n + i - j for the upper block and n - i + j for the lower one.
            first.append(_powers(lower, site))
            from_second.append(_weighted(lower, far))
            second.append(_powers(upper, far))
            from_first.append(_weighted(upper, site))
        rows.append(_halves(first, second))
        cols.append(_halves(from_first, from_second))
    return HODLR(_exponential_leaves(A, tree), tuple(rows), tuple(cols), tree)


def _powers(kernel: SumOfExponentials, exponents: Array) -> Array:
    return integer_power(kernel.poles, exponents[:, None])


def _weighted(kernel: SumOfExponentials, exponents: Array) -> Array:
    return kernel.weights * _powers(kernel, exponents)


def _halves(first: list[Array], second: list[Array]) -> Array:
    """One shared array (1, 2, s, rank) for both halves, with zero columns where one has fewer
    modes."""
    a, b = jnp.concatenate(first, axis=-1), jnp.concatenate(second, axis=-1)
    rank = max(a.shape[-1], b.shape[-1], 1)
    return jnp.stack([jnp.pad(f, ((0, 0), (0, rank - f.shape[-1]))) for f in (a, b)])[None]


def _exponential_leaves(A: ExponentialToeplitz, tree: Tree) -> Array:
    site = jnp.arange(tree.leaf_size)
    if A.diagonal.ndim == 0:
        return A.entries(site[:, None], site[None, :])[None]
    offset = ExponentialToeplitz(A.n, A.lower, A.upper, jnp.zeros((), A.dtype), A.periodic)
    noise = jnp.pad(A.diagonal, (0, tree.padded - tree.n)).reshape(tree.n_leaves, tree.leaf_size)
    return offset.entries(site[:, None], site[None, :]) + jax.vmap(jnp.diag)(noise)


# Truncation

# One program each: outside jit, where tol= belongs, their operations would be compiled one by one.
_parts = jax.jit(parts_of_products)
_truncate = jax.jit(truncate_products, static_argnums=3)


def truncate_levels(
    H: HODLR, rank: int | None, tol: float | None, verb: str
) -> tuple[HODLR, Array]:
    """Every level at the given rank, or at the smallest rank for tol·‖H‖; and the Frobenius
    error."""
    a = H.unshared()
    parts = []
    for u, v in zip(a.rows, a.cols, strict=True):
        before = parts[-1].values if parts else (a.rows, a.cols)
        parts.append(_parts(*in_turn(before, u, v[:, ::-1])))
    lost = [jnp.zeros((), jnp.finfo(H.dtype).dtype)]
    budget = 0.0
    if tol is not None:
        require_concrete(verb, H.leaves)
        norm = frobenius(a.leaves, *(p.values for p in parts))
        budget = _budget(tol, float(norm), H.tree.depth)
    rows, cols = [], []
    before = parts[-1].values if parts else None
    for u, v, part in zip(a.rows, a.cols, parts, strict=True):
        size = part.values.shape[-1]
        keep = min(rank, size) if rank is not None else rank_for(part.values, budget, verb)
        if rank is not None and keep == size == u.shape[-1]:
            rows.append(u)
            cols.append(v)
            continue
        left, before = _truncate(*in_turn(before, u, v[:, ::-1]), part, keep)
        rows.append(left)
        cols.append(before[:, ::-1])
        lost.append(part.values[..., keep:])
    return HODLR(a.leaves, tuple(rows), tuple(cols), H.tree), frobenius(*lost)
