"""Pairs of flips at any distance: two windows, and the segments between and around them.

Segments of all ranges of cores come from a disjoint sparse table: for every level the products that
start, or end, in the middle of aligned blocks of 2^level pieces.  Any range is two entries of one
level, so a table of O(count log count) segments answers every pair in O(1).  These are the
off-diagonal blocks of a HODLR matrix, as scatterers: a block of the table couples all windows in
its left half with all in its right half through the waves that cross the middle, and this holds for
the product of any number of layers (Proposition 3 and Theorem 1 of arXiv:2603.11189).
"""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Inexact, Int, Int8

from dyson import scattering as env
from dyson.abacus import surroundings
from dyson.abacus.bound import NetworkUpdates, changes_one_by_one, check_pair
from dyson.abacus.costs import activations, segment
from dyson.abacus.surroundings import OfWindows, Sides, Windows
from dyson.networks import DysonNet
from dyson.networks.head import from_parts

# Tokens of a core at least: windows are short, the table of segments is long.
SHORTEST = 8


class Tables(eqx.Module):
    """What the mixers do along windows, stacked over the lengths that occur.

    one: along one core, two cores, or one and the last, in the slots of two.
    other: along nothing, a core, or the last one.
    """

    around: surroundings.Tables
    one: tuple[env.Transfer, ...]
    other: tuple[env.Transfer, ...]


class Pairs(OfWindows):
    """The cache of one reference configuration.

    before: all to the left of every window, without and with the head of the first piece taken
      away, (2 * count, ..).   behind: all to the right, (count, ..).
    ranges: the table, by level and core; its last entry is no segment.
    """

    windows: Windows
    before: env.Segment
    behind: env.Segment
    ranges: env.Segment


def pair_partition(n_tokens: int, half: int, *, periodic: bool) -> env.Partition | None:
    """None for chains that two windows of two cores nearly cover."""
    parts = env.partition_of(n_tokens, half, 1, periodic=periodic, shortest=SHORTEST)
    return parts if parts is not None and parts.count >= 4 else None


def tables_of(model: DysonNet, parts: env.Partition) -> Tables:
    around = surroundings.tables_of(model, parts)
    medium, core, margin, last = around.medium, parts.core, parts.margin, parts.last

    def stacked(lengths: list[int], slots: int) -> tuple[env.Transfer, ...]:
        each = env.open_transfers(medium, lengths, slots)
        return jax.tree.map(lambda *x: jnp.stack(x), *each)

    return Tables(
        around,
        stacked([core + margin, 2 * core + margin, core + last + margin], 2 * core + margin),
        stacked([0, core + margin, last + margin], core + margin),
    )


def pairs_of(model: DysonNet, spins: Int8[Array, " n_sites"], tables: Tables) -> Pairs:
    """As :func:`surroundings.surroundings_of`, and O(count log count) joins of segments."""
    windows = surroundings.windows_of(model, spins, tables.around)
    sides = surroundings.sides_of(tables.around, windows.tokens.sites)
    nothing = env.no_segment(tables.around.medium, 1).silent
    before = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), sides.before, sides.beheaded)
    return Pairs(windows, before, sides.behind, _ranges(sides, nothing))


def _ranges(sides: Sides, nothing: env.Segment) -> env.Segment:
    """Entry (level, i): the pieces from core i to the end of the left half of its block of
    2^level cores, the first without its head; or, for i in the right half, from the start of that
    half to i.  Level 0: the piece i alone without its head."""
    body, whole = sides.pieces.body, sides.pieces.whole
    count = whole.excited[0].shape[0]
    cores = np.arange(count)

    def level(carry: tuple[env.Segment, env.Segment], item: tuple[Array, ...]):
        """Aligned blocks of cores grow twofold; ``ending[i]`` are those of a block up to i,
        ``starting[i]`` those of it from i on."""
        ending, starting = carry
        in_right, middle, end, has_sibling = item
        entry = _where(in_right, ending, starting)
        take = lambda tree, index: jax.tree.map(lambda x: x[index], tree)
        left = _where(in_right, take(ending, middle), starting)
        right = _where(in_right, ending, take(ending, end))
        joined = jax.vmap(env.join)(left, right)
        ending = _where(in_right, joined, ending)
        starting = _where(in_right | ~has_sibling, starting, joined)
        return (ending, starting), entry

    steps = []
    for half in (2**k for k in range((count - 1).bit_length())):
        block = cores // half
        in_right = block % 2 == 1
        sibling = (block + 1) * half
        end = np.minimum(sibling + half, count) - 1
        steps.append((in_right, np.maximum(block * half - 1, 0), end, sibling < count))
    items = tuple(jnp.asarray(np.stack(x)) for x in zip(*steps, strict=True))
    _, entries = jax.lax.scan(level, (whole, body), items)
    return jax.tree.map(
        lambda single, table, none: jnp.concatenate(
            [single, table.reshape(-1, *table.shape[2:]), none[None]]
        ),
        body, entries, nothing,
    )  # fmt: skip


def _where(mask: Bool[Array, " count"], one: env.Segment, other: env.Segment) -> env.Segment:
    return jax.tree.map(
        lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b), one, other
    )


@final
class PairUpdates(NetworkUpdates):
    """One or two flips anywhere: two windows and the segments between and around them."""

    network: DysonNet
    tables: Tables

    def __init__(self, network: DysonNet, parts: env.Partition):
        self.network = network
        self.tables = tables_of(network, parts)

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> Pairs:
        return pairs_of(self.network, spins, self.tables)

    def change(self, cache: Pairs, sites: Int[Array, " flips"]) -> Inexact[Array, " hidden"]:
        check_pair(sites)
        return from_parts(_pair_change(self.network, self.tables, cache, sites))

    def changes(self, cache: Pairs) -> Inexact[Array, "n_sites hidden"]:
        return changes_one_by_one(self, cache)

    def numbers_per_token(self) -> int:
        parts = self.tables.around.parts
        levels = 4 + parts.count.bit_length()
        return levels * segment(self.network) // parts.core + activations(self.network)


def _pair_change(
    model: DysonNet, tables: Tables, cache: Pairs, sites: Int[Array, " flips"]
) -> Inexact[Array, "parts hidden"]:
    """Change of theta when one or two sites are flipped; -1 stands for no site.

    The first window has room for two cores: two flips in the same core or in neighbouring ones are
    both in it, and the other window is of length zero.

    O(core^2 features + core features^2) and one application of the maps of four segments.
    """
    around, parts, size = tables.around, tables.around.parts, model.token_size
    core, margin, count = parts.core, parts.margin, parts.count
    present = sites >= 0
    sites = jnp.where(present, sites, jnp.max(sites))
    flips = present.astype(sites.dtype) << (size - 1 - sites % size)
    tokens = sites // size
    first, second = jnp.min(tokens) // core, jnp.max(tokens) // core
    wraps = (first == 0) & (second == (count - 1 if parts.periodic else -1))
    near = (second - first <= 1) | wraps
    # a window of two cores begins with the last but one at most, unless it wraps
    start = jnp.where(wraps, second, jnp.where(near, jnp.minimum(first, count - 2), first))
    end = jnp.where(near, (start + 1) % count, second)

    one_core = jnp.where(start == count - 1, parts.last, core)
    slots = np.arange(2 * core + margin, dtype=np.int32)
    in_first = slots < one_core
    # two cores are the slots of the first and, behind it, the window of the next one
    slot = jnp.where(in_first | ~near, slots, slots - one_core)
    which = jnp.where(in_first | ~near, start, end)
    has_last = (start == count - 1) | (end == count - 1)
    length = jnp.where(near, jnp.where(has_last, 2, 1), 0)
    one = _stretch(
        model, tables, cache, tables.one, length, slot, which,
        jnp.where(tokens // core == start, tokens - start * core, tokens - end * core + one_core),
        jnp.where(near | (tokens // core == start), flips, 0),
    )  # fmt: skip
    slots = jnp.asarray(slots[: core + margin])
    length = jnp.where(near, 0, jnp.where(end == count - 1, 2, 1))
    other = _stretch(
        model, tables, cache, tables.other, length, slots, jnp.broadcast_to(end, slots.shape),
        tokens - end * core, jnp.where(~near & (tokens // core == end), flips, 0),
    )  # fmt: skip

    # the pieces between the two windows, or those between the ends of a window that wraps
    low, high = jnp.where(wraps, 1, first + 1), jnp.where(wraps, count - 2, second - 1)
    level = 32 - jax.lax.clz(low ^ high)
    none = cache.ranges.excited[0].shape[0] - 1
    between = wraps | ~near
    left = jnp.where(between, level * count + low, none)
    right = jnp.where(between & (level > 0), level * count + high, none)
    pick = lambda tree, index: jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tree
    )
    beheaded = jnp.where(end == (count - 1 if parts.periodic else -1), count, 0)
    nothing = env.no_segment(around.medium, 1).silent
    unless_wrapping = lambda x: jax.tree.map(lambda a, b: jnp.where(wraps, b, a), x, nothing)
    before = unless_wrapping(pick(cache.before, start + beheaded))
    behind = unless_wrapping(pick(cache.behind, end))
    middle = pick(cache.ranges, left), pick(cache.ranges, right)
    closing = tuple(mixer.closing for mixer in around.mixers)
    elements = [before, one, *middle, other, behind]
    gain = env.changed_in_sequence(around.medium, elements, closing)
    return gain.reshape(model.head.bias.shape)


def _stretch(
    model: DysonNet,
    tables: Tables,
    cache: Pairs,
    transfers: tuple[env.Transfer, ...],
    length: Int[Array, ""],
    slot: Int[Array, " slots"],
    which: Int[Array, " slots"],
    targets: Int[Array, " flips"],
    flips: Int[Array, " flips"],
) -> env.Stretch:
    """A window that takes its tokens from slots of the windows of the reference.

    ``flips`` are bits of the patterns of the tokens at ``targets``, counted from the first core.
    """
    parts = tables.around.parts
    half, n_slots = parts.half, slot.shape[0]
    position = which * parts.core + slot - half
    exists = slot < jnp.where(which == parts.count - 1, parts.last, parts.core) + parts.margin
    if not parts.periodic:
        exists &= (position >= 0) & (position < parts.n_tokens)
    index = jnp.minimum(slot, parts.window - 1) * parts.count + which
    take = lambda x: jnp.where(exists, x.reshape(*x.shape[:-2], -1)[..., index], 0)[..., None]
    tokens, mixed = jax.tree.map(take, (cache.windows.tokens, cache.windows.mixed))
    cores = jnp.arange(n_slots - 2 * half, dtype=targets.dtype)
    hits = cores[:, None] == targets
    masks = jnp.bitwise_xor.reduce(jnp.where(hits, flips, 0), axis=1)
    patterns = take(cache.windows.patterns)[half : n_slots - half]
    patterns = patterns, patterns ^ masks[:, None]
    after = env.flipped(model, tables.around.medium, tokens, patterns, exists[:, None])
    # nothing changes far from a flip but by rounding
    apart = jnp.abs(jnp.arange(n_slots, dtype=targets.dtype)[:, None] - half - targets)
    reached = jnp.any((apart <= half) & (flips != 0), axis=1)[:, None]
    change = jax.tree.map(lambda a, b: jnp.where(reached, a - b, 0), after.sites, tokens.sites)
    transfers = jax.tree.map(
        lambda x: jax.lax.dynamic_index_in_dim(x, length, keepdims=False), transfers
    )
    return env.Stretch(transfers, tokens.gates, mixed, change)
