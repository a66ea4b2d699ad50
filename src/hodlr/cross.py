"""Cross approximation of the off-diagonal blocks of one level, from some of their entries.

A block M is replaced by M[:, J] M[I, J]⁻¹ M[I, :] with as many rows I and columns J as its rank.
They are found one after another, each cross through a large entry of what the ones before have
missed (Bebendorf, Numer. Math. 86, 565, 2000). No such search is certain, so the result must be
compared with other entries afterwards; `hodlr.from_entries` does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hodlr.blocks import solve_blocks
from hodlr.lowrank import in_turn
from hodlr.tree import Tree

Entries = Callable[[Array, Array], Array]
# A pivot is the largest entry of its row and of its column after this many walks along both.
_WALKS = 3
# Distances from the ends of rows and columns (2, 4·size²): every entry of the four corners, which
# take turns.
_CORNER = np.repeat(np.indices((12, 12)).reshape(2, -1), 4, axis=1)


class Crosses(NamedTuple):
    """Crosses of all 2**(level + 1) blocks of a level, sorted as (node, side): M ≈ left · rightᵀ.

    left, right: (blocks, s, most). rows, columns: the pivots (blocks, most), of which `used`
    (blocks, most) says how many count. `finished`: no block has stopped for want of room.
    """

    left: Array
    right: Array
    rows: Array
    columns: Array
    used: Array
    finished: Array


def masked_entries(entries: Entries, n: int, i: Array, j: Array) -> Array:
    """entries(i, j) with zeros in the padding, where the function is evaluated at valid indices
    instead."""
    value = entries(jnp.minimum(i, n - 1), jnp.minimum(j, n - 1))
    return jnp.where((i < n) & (j < n), value, 0)


def block_starts(tree: Tree, level: int) -> tuple[Array, Array]:
    """First row and first column of the blocks of a level, each (2**(level + 1),)."""
    s = tree.half(level)
    first = jnp.arange(2**level)[:, None] * 2 * s + jnp.asarray([0, s])
    return first.reshape(-1), first[:, ::-1].reshape(-1)


def pick(fractions: Array, size: int) -> Array:
    """Fractions of [0, 1) as indices below `size`. Drawing integers compiles far more slowly."""
    return jnp.minimum((fractions * size).astype(jnp.arange(0).dtype), size - 1)


def find_crosses(
    entries: Entries,
    tree: Tree,
    level: int,
    most: int,
    threshold: Array | float,
    probes: Array,
) -> Crosses:
    """Crosses for every block until no pivot exceeds `threshold` or round-off, `most` at most.

    The search starts from the worst of a set of entries: random ones, at the fractions `probes`
    (2, count) of the sides of every block and again crowded towards its corners, a grid of rows
    and columns that crowds towards the ends, and all of the corners themselves. What is near in
    index (or around a ring) meets there; a kernel that is singular there, or lives nowhere else, is
    missed by random probes alone. O(n·most) entries and O(n·most²) operations; constant under
    differentiation.
    """
    n, s = tree.n, tree.half(level)
    row0, col0 = block_starts(tree, level)
    sites = jnp.arange(s)

    def value(i: Array, j: Array) -> Array:
        return jax.lax.stop_gradient(masked_entries(entries, n, i, j))

    probe_i, probe_j = jax.vmap(lambda i0, j0: _probed(probes, n, s, i0, j0))(row0, col0)
    missed = value(row0[:, None] + probe_i, col0[:, None] + probe_j)
    real = jnp.finfo(missed.dtype)

    def walk(i0: Array, j0: Array, left: Array, right: Array, i: Array):
        """From row i to the pivot (i, j), and its row and column of what is missed."""

        # Sums of products: chains of batched matrix-vector products compile slowly.
        def along(_, carry):
            i = carry[0]
            row = value(i0 + i, j0 + sites) - jnp.sum(right * left[i], axis=-1)
            j = jnp.argmax(jnp.abs(row))
            column = value(i0 + sites, j0 + j) - jnp.sum(left * right[j], axis=-1)
            return jnp.argmax(jnp.abs(column)), i, j, row, column

        nothing = jnp.zeros(s, missed.dtype)
        return jax.lax.fori_loop(0, _WALKS, along, (i, i, i, nothing, nothing))[1:]

    def add(i0, j0, probe_i, probe_j, missed, left, right, largest, alive):
        worst = jnp.argmax(jnp.abs(missed))
        i, j, row, column = walk(i0, j0, left, right, probe_i[worst])
        pivot = row[j]
        largest = jnp.maximum(largest, jnp.abs(pivot))
        alive &= jnp.abs(pivot) > jnp.maximum(threshold, 4 * real.eps * largest)
        column = jnp.where(alive, column / jnp.where(alive, pivot, 1), 0)
        row = jnp.where(alive, row, 0)
        return i, j, column, row, missed - column[probe_i] * row[probe_j], largest, alive

    def more(state) -> Array:
        return (state[0] < most) & jnp.any(state[-1])

    def step(state):
        count, crosses, missed, largest, alive = state
        i, j, column, row, missed, largest, alive = jax.vmap(add)(
            row0, col0, probe_i, probe_j, missed, crosses.left, crosses.right, largest, alive
        )
        crosses = Crosses(
            crosses.left.at[:, :, count].set(column),
            crosses.right.at[:, :, count].set(row),
            crosses.rows.at[:, count].set(i),
            crosses.columns.at[:, count].set(j),
            crosses.used.at[:, count].set(alive),
            ~jnp.any(alive),
        )
        return count + 1, crosses, missed, largest, alive

    blocks = row0.shape[0]
    factor = jnp.zeros((blocks, s, most), missed.dtype)
    nowhere = jnp.zeros((blocks, most), sites.dtype)
    unused = jnp.zeros((blocks, most), bool)
    crosses = Crosses(factor, factor, nowhere, nowhere, unused, jnp.asarray(False))
    largest = jnp.full(blocks, real.tiny, real.dtype)
    state = (0, crosses, missed, largest, jnp.ones(blocks, bool))
    return jax.lax.while_loop(more, step, state)[1]


def _probed(probes: Array, n: int, s: int, i0: Array, j0: Array) -> tuple[Array, Array]:
    """Rows and columns, counted from (i0, j0), where a block of side s is looked at first."""
    rows, columns = (jnp.clip(n - start, 1, s) for start in (i0, j0))
    grid = jnp.meshgrid(_crowded(s, rows), _crowded(s, columns))
    random = pick(probes, s)
    i = [random[0], grid[0].reshape(-1)]
    j = [random[1], grid[1].reshape(-1)]
    for corner in (_towards_corners(probes, s), jnp.asarray(_CORNER)):
        turn = np.arange(corner.shape[1])
        i.append(_from_ends(corner[0], turn % 2 == 1, rows))
        j.append(_from_ends(corner[1], turn // 2 % 2 == 1, columns))
    return jnp.concatenate(i), jnp.concatenate(j)


def _crowded(s: int, valid: Array) -> Array:
    """Indices 0, 1, 2, 4, … of a range of `valid` ≤ s from either end."""
    steps = np.append(0, 2 ** np.arange(max(1, s.bit_length())))
    steps = jnp.asarray(np.minimum(steps, s - 1))
    return jnp.concatenate([jnp.minimum(steps, valid - 1), jnp.maximum(valid - 1 - steps, 0)])


def _towards_corners(fractions: Array, s: int) -> Array:
    """Distances from the ends of a range of s, as many between 1 and 2 as between s/2 and s."""
    return jnp.minimum(((s + 1.0) ** fractions).astype(jnp.arange(0).dtype) - 1, s - 1)


def _from_ends(distance: Array, far: np.ndarray, valid: Array) -> Array:
    """Indices at a distance from the first, or where `far` from the last, of `valid`."""
    distance = jnp.minimum(distance, valid - 1)
    return jnp.where(far, valid - 1 - distance, distance)


def interpolate(
    entries: Entries, tree: Tree, level: int, crosses: Crosses, *, after: Array | None = None
) -> tuple[Array, Array]:
    """Rows and columns (blocks, s, most) of the same crosses as functions of the entries alone,
    which is what derivatives need; to be had `after` those of another level (see
    `hodlr.lowrank.in_turn`)."""
    n, sites = tree.n, jnp.arange(tree.half(level))
    row0, col0 = block_starts(tree, level)

    def one(i0: Array, j0: Array, i: Array, j: Array, used: Array) -> tuple[Array, Array]:
        def block(i: Array, j: Array) -> Array:
            return masked_entries(entries, n, i0 + i[:, None], j0 + j[None, :])

        columns = jnp.where(used, block(sites, j), 0)
        rows = jnp.where(used[:, None], block(i, sites), 0)
        identity = jnp.eye(used.shape[0], dtype=columns.dtype)
        core = jnp.where(used[:, None] & used[None, :], block(i, j), identity)
        return columns, solve_blocks(*in_turn(after, core, rows)).T

    return jax.vmap(one)(row0, col0, crosses.rows, crosses.columns, crosses.used)
