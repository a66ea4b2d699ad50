"""The HODLR matrix: dense leaves on the diagonal and low-rank blocks beside it, level by level."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hodlr.chunks import Chunks, Waves
from hodlr.exponentials import promote
from hodlr.lowrank import pairwise_sum
from hodlr.structured import AbstractStructured, pairs
from hodlr.tree import Tree


class HODLR(AbstractStructured):
    """An n×n matrix whose off-diagonal blocks have low rank at every level of a binary partition.

    A node of level l with halves "first" and "second" of s = tree.half(l) indices holds

        A[first, second] = rows[l][node, 0] @ cols[l][node, 1].T
        A[second, first] = rows[l][node, 1] @ cols[l][node, 0].T

    leaves: (n_leaves, b, b).  rows, cols: one array (2**l, 2, s, rank_l) for each level, root
    first. An array that is the same for all nodes of a level is stored once, with a leading axis of
    1 (this is how sums of exponentials take O(n·modes) in all). Entries in the padding, beyond n,
    are unspecified.

    Storage O(n·(b + Σ ranks)), `H @ x` costs as much per column. Make one with `from_dense`,
    `from_exponentials`, `from_entries` or `from_operator`.
    """

    leaves: Array
    rows: tuple[Array, ...]
    cols: tuple[Array, ...]
    tree: Tree = eqx.field(static=True)

    @property
    def n(self) -> int:
        return self.tree.n

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n, self.n)

    @property
    def redundant_waves(self) -> bool:
        return True  # those of the ranks of each level

    @property
    def dtype(self):
        return self.leaves.dtype

    @property
    def ranks(self) -> tuple[int, ...]:
        """Rank of the off-diagonal blocks of each level, root first."""
        return tuple(r.shape[-1] for r in self.rows)

    def astype(self, dtype) -> "HODLR":
        def cast(a):
            return a.astype(dtype)

        return HODLR(
            cast(self.leaves), tuple(map(cast, self.rows)), tuple(map(cast, self.cols)), self.tree
        )

    def unshared(self) -> "HODLR":
        """The same matrix with one array per node throughout and zeros in the padding."""
        tree = self.tree
        inside = np.arange(tree.padded) < tree.n
        leaf = inside.reshape(tree.n_leaves, tree.leaf_size)
        leaves = jnp.where(leaf[:, :, None] & leaf[:, None, :], self.leaves, 0)

        def clear(level: int, a: Array) -> Array:
            return jnp.where(inside.reshape(2**level, 2, -1, 1), a, 0)

        rows = tuple(clear(level, a) for level, a in enumerate(self.rows))
        cols = tuple(clear(level, a) for level, a in enumerate(self.cols))
        return HODLR(leaves, rows, cols, tree)

    # Products with vectors

    def _columns_product(self, x: Array) -> Array:
        """O(n·(leaf_size + Σ ranks)) per column."""
        columns = jnp.pad(as_columns(x), ((0, self.tree.padded - self.n), (0, 0)))
        return from_columns(self.astype(x.dtype).apply(columns)[: self.n], x)

    def apply(self, x: Array, first_level: int = 0) -> Array:
        """The product with padded columns (padded, k), leaving out the blocks of the levels before
        `first_level`."""
        columns = x.shape[-1]
        y = _product(
            self.leaves, x.reshape(self.tree.n_leaves, self.tree.leaf_size, columns)
        ).reshape(x.shape)
        for level in range(first_level, self.tree.depth):
            y = y + self.apply_level(level, x)
        return y

    def apply_level(self, level: int, x: Array) -> Array:
        """The product of the off-diagonal blocks of one level with padded columns (padded, k)."""
        halves = x.reshape(2**level, 2, self.tree.half(level), x.shape[-1])
        inner = _product(jnp.swapaxes(self.cols[level], -1, -2), halves)
        return _product(self.rows[level], inner[:, ::-1]).reshape(x.shape)

    def _dense(self) -> Array:
        """O(n²·rank)."""
        return self._nodes(0)[0, : self.tree.n, : self.tree.n]

    def _nodes(self, top: int) -> Array:
        """The diagonal blocks of the nodes of level `top`, dense."""
        tree = self.tree
        blocks = jnp.broadcast_to(self.leaves, (tree.n_leaves, *self.leaves.shape[1:]))
        for level in reversed(range(top, tree.depth)):
            s = tree.half(level)
            off = self.rows[level] @ jnp.swapaxes(self.cols[level][:, ::-1], -1, -2)
            off = jnp.broadcast_to(off, (2**level, 2, s, s))
            halves = blocks.reshape(2**level, 2, s, s)
            above = jnp.concatenate([halves[:, 0], off[:, 0]], axis=-1)
            below = jnp.concatenate([off[:, 1], halves[:, 1]], axis=-1)
            blocks = jnp.concatenate([above, below], axis=-2)
        return blocks

    def chunks(self, smallest: int) -> Chunks:
        """Whole nodes of one level; the rank of every level above it makes as many waves, which run
        through the first half of a node into the second."""
        tree = self.tree
        top = tree.depth
        while top > 0 and tree.padded >> top < max(smallest, sum(self.ranks[:top]) // 2):
            top -= 1
        if top == 0:  # one chunk has nobody to send to: a wave of zeros
            nothing = jnp.zeros((1, tree.padded, 1), self.dtype)
            silent = Waves(nothing, nothing, jnp.zeros((1, 1, 1), self.dtype))
            return Chunks.of(self._nodes(0), silent, silent, tree.n)
        inside = []
        for level in range(top):
            last = np.arange(1, 2**top + 1) % 2 ** (top - level) == 0
            inside.append(np.repeat(~last[:, None], self.ranks[level], axis=1))
        onward = np.concatenate(inside, axis=1)
        through = jnp.asarray(onward[:, :, None] * np.eye(onward.shape[1]), self.dtype)

        def waves(enter, leave) -> Waves:
            halves = [
                (_half(e, level, 1, top), _half(f, level, 0, top))
                for level, (e, f) in enumerate(zip(enter[:top], leave[:top], strict=True))
            ]
            enter, leave = (jnp.concatenate(h, axis=-1) for h in zip(*halves, strict=True))
            return Waves(enter, leave, through)

        lower, upper = waves(self.rows, self.cols), waves(self.cols, self.rows)
        return Chunks.of(self._nodes(top), lower, upper, tree.n)

    def _entries(self, i: Array, j: Array) -> Array:
        """O(Σ ranks) each."""
        size = self.tree.leaf_size

        def at(array: Array, node: Array, *rest: Array) -> Array:
            return array[(node if array.shape[0] > 1 else jnp.zeros_like(node), *rest)]

        value = jnp.where(i // size == j // size, at(self.leaves, i // size, i % size, j % size), 0)
        for level in range(self.tree.depth):
            s = self.tree.half(level)
            side_i, side_j = i // s % 2, j // s % 2
            apart = (i // (2 * s) == j // (2 * s)) & (side_i != side_j)
            left = at(self.rows[level], i // (2 * s), side_i, i % s)
            right = at(self.cols[level], j // (2 * s), side_j, j % s)
            value = value + jnp.where(apart, jnp.sum(left * right, axis=-1), 0)
        return value

    def diagonal(self) -> Array:
        """The diagonal (n,)."""
        diagonals = jnp.diagonal(self.leaves, axis1=-2, axis2=-1)
        return jnp.broadcast_to(diagonals, (self.tree.n_leaves, self.tree.leaf_size)).reshape(-1)[
            : self.tree.n
        ]

    def plus_diagonal(self, d: Array) -> "HODLR":
        a, tree = self.astype(d.dtype), self.tree
        if d.ndim == 0:
            leaves = a.leaves + d * jnp.eye(tree.leaf_size, dtype=d.dtype)
        else:
            vectors = jnp.pad(d, (0, tree.padded - tree.n)).reshape(tree.n_leaves, tree.leaf_size)
            leaves = a.leaves + jax.vmap(jnp.diag)(vectors)
        return HODLR(leaves, a.rows, a.cols, tree)

    def trace(self) -> Array:
        return pairwise_sum(self.diagonal())

    # Algebra

    @property
    def T(self) -> "HODLR":
        """The transpose: rows and columns change places."""
        return HODLR(jnp.swapaxes(self.leaves, -1, -2), self.cols, self.rows, self.tree)

    def conj(self) -> "HODLR":
        rows, cols = tuple(map(jnp.conj, self.rows)), tuple(map(jnp.conj, self.cols))
        return HODLR(jnp.conj(self.leaves), rows, cols, self.tree)

    def _scaled(self, factor: Any) -> "HODLR":
        like, scale = promote(jnp.zeros((), self.dtype), factor)
        a = self.astype(like.dtype)
        return HODLR(a.leaves * scale, tuple(r * scale for r in a.rows), a.cols, a.tree)


@pairs("add", HODLR, HODLR)
def _add(A: HODLR, B: HODLR) -> HODLR:
    """The sum; the ranks add (see `compress`)."""
    a, b = same_tree(A, B, "add")
    rows = tuple(_join(*pair) for pair in zip(a.rows, b.rows, strict=True))
    cols = tuple(_join(*pair) for pair in zip(a.cols, b.cols, strict=True))
    return HODLR(a.leaves + b.leaves, rows, cols, a.tree)


def as_columns(x: Array) -> Array:
    """x (n,) or (n, k) as columns (n, k), at least two of them.

    XLA takes minutes to compile chains of batched matrix-vector products for the CPU, and less than
    a second for products with two columns, which run as fast: a single column gets one of zeros.
    """
    columns = x.reshape(x.shape[0], -1)
    return jnp.pad(columns, ((0, 0), (0, 1))) if columns.shape[1] == 1 else columns


def from_columns(columns: Array, like: Array) -> Array:
    """Back from `as_columns` to the shape of the array it was given."""
    return columns[:, : like.shape[1] if like.ndim == 2 else 1].reshape(like.shape)


def same_tree(a: HODLR, b: HODLR, verb: str) -> tuple[HODLR, HODLR]:
    """Both matrices in their common dtype, or an error where their partitions differ."""
    if a.tree != b.tree:
        raise ValueError(
            f"cannot {verb} matrices with leaves of {a.tree.leaf_size} and {b.tree.leaf_size} "
            "indices; "
            "build both with the same leaf_size."
        )
    dtype = np.promote_types(a.dtype, b.dtype)
    return a.astype(dtype), b.astype(dtype)


def _half(factor: Array, level: int, side: int, top: int) -> Array:
    """One half's factors (2**level, 2, s, rank) in chunks (2**top, s', rank), zeros elsewhere."""
    nodes, _, s, rank = factor.shape
    here = jnp.where(np.arange(2)[:, None, None] == side, factor, 0)
    here = jnp.broadcast_to(here, (2**level, 2, s, rank))
    return here.reshape(2**top, -1, rank)


def _product(blocks: Array, x: Array) -> Array:
    """blocks @ x over the leading axis of nodes; blocks shared by all nodes are applied without
    copying them."""
    if blocks.shape[0] == 1 and x.shape[0] > 1:
        return jnp.einsum("...ij,p...jk->p...ik", blocks[0], x)
    return blocks @ x


def _join(a: Array, b: Array) -> Array:
    """Factors side by side; shared ones stay shared where both are."""
    nodes = max(a.shape[0], b.shape[0])
    return jnp.concatenate([jnp.broadcast_to(c, (nodes, *c.shape[1:])) for c in (a, b)], axis=-1)
