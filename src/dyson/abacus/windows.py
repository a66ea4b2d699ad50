"""Updates of every depth: windows of tokens within what surrounds them.

A move changes the tokens of a window; the change is followed exactly in the window, layer by layer,
and its waves out of and back into the window.

Source: Theorem 1 of arXiv:2603.11189, in terms of waves instead of link tensors.
"""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int, Int8

from dyson import scattering as env
from dyson.abacus.bound import NetworkUpdates, changes_of_all_tokens, place
from dyson.abacus.costs import activations, segment
from dyson.abacus.surroundings import Surroundings, Tables, at, surroundings_of, tables_of
from dyson.networks import DysonNet
from dyson.networks.head import from_parts

# Windows whose flips are evaluated side by side: on the CPU, what fits its caches.
WINDOWS_AT_ONCE = {"cpu": 64, "gpu": 1024, "tpu": 1024}


@final
class WindowUpdates(NetworkUpdates):
    """Moves of ``tables.parts.span`` neighbouring tokens, at every depth."""

    network: DysonNet
    tables: Tables

    def __init__(self, network: DysonNet, parts: env.Partition):
        self.network = network
        self.tables = tables_of(network, parts)

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> Surroundings:
        return surroundings_of(self.network, spins, self.tables)

    def change(self, cache: Surroundings, sites: Int[Array, " flips"]) -> Inexact[Array, " hidden"]:
        fits, base, masks = place(self.network, self.tables.parts.span, sites)
        change = _one_move(self.network, self.tables, cache, base, masks)
        return from_parts(jnp.where(fits, change, jnp.nan))

    def changes(self, cache: Surroundings) -> Inexact[Array, "n_sites hidden"]:
        def flips_of(bit: Int[Array, ""]) -> Inexact[Array, "n_tokens hidden"]:
            flips = _every_flip(self.network, self.tables, cache, bit)
            return jax.vmap(from_parts)(flips)

        return changes_of_all_tokens(self.network, flips_of)

    def numbers_per_token(self) -> int:
        # about eight segments per window, in the making or kept
        return 8 * segment(self.network) // self.tables.parts.core + activations(self.network)


def _every_flip(
    model: DysonNet, tables: Tables, cache: Surroundings, bit: Array
) -> Inexact[Array, "tokens parts hidden"]:
    """Changes of theta of the flips of one spin of every token.

    Per flip O(window^2 features + window features^2) and one application of the maps of an
    exterior.
    """
    parts, count = tables.parts, tables.parts.count
    full = count if parts.last == parts.core else count - 1
    groups = -(-full // WINDOWS_AT_ONCE.get(jax.default_backend(), WINDOWS_AT_ONCE["cpu"]))
    at_once = -(-full // groups)
    indices = np.minimum(np.arange(groups * at_once), full - 1).reshape(groups, at_once)
    of = lambda which, transfers: _flips(model, tables, cache, bit, which, transfers)
    gains = jax.lax.map(lambda which: of(which, tables.window), jnp.asarray(indices, jnp.int32))
    gains = jnp.moveaxis(gains, 1, 3).reshape(-1, parts.core, gains.shape[1])[:full]
    if full < count:
        last = of(jnp.array([count - 1], jnp.int32), tables.last_window)
        gains = jnp.concatenate([gains, jnp.moveaxis(last, 0, 2)])
    flat = gains.reshape(-1, gains.shape[2])[: parts.n_tokens]
    return flat.reshape(-1, *model.head.bias.shape)


def _flips(
    model: DysonNet,
    tables: Tables,
    cache: Surroundings,
    bit: Array,
    which: Int[Array, " windows"],
    transfers: tuple[env.Transfer, ...],
) -> Inexact[Array, "outputs windows core"]:
    """In all slots of the cores of some windows of the same length."""
    parts = tables.parts
    tokens, patterns = at(which, (cache.windows.tokens, cache.windows.patterns))

    def change(slot: Array) -> env.Site:
        position = which * parts.core + slot - parts.half
        mask = bit[None, None].astype(patterns.dtype)
        move = env.move_within(model, tables.medium, tokens, patterns, slot, mask, position)
        return move.change

    slots = jnp.arange(parts.core, dtype=jnp.int32)
    window = _window(cache, which, transfers)
    return env.changed_by_each(tables.medium, window, jax.lax.map(change, slots), slots)


def _one_move(
    model: DysonNet,
    tables: Tables,
    cache: Surroundings,
    base: Int[Array, ""],
    masks: Int[Array, " span"],
) -> Inexact[Array, "parts hidden"]:
    """Change of theta when the tokens from ``base`` on have bits of their patterns flipped.

    O(window features^2) and one application of the maps of an exterior.
    """
    parts = tables.parts
    which, slot = base // parts.core, base % parts.core
    tokens, patterns = at(which[None], (cache.windows.tokens, cache.windows.patterns))
    position = base - parts.half
    move = env.move_within(model, tables.medium, tokens, patterns, slot, masks[:, None], position)
    transfers = jax.tree.map(
        lambda a, b: jnp.where(which == parts.count - 1, b, a), tables.window, tables.last_window
    )
    window = _window(cache, which[None], transfers)
    _, gain = env.changed(tables.medium, window, move.change, slot)
    return gain.reshape(model.head.bias.shape)


def _window(
    cache: Surroundings, which: Int[Array, " windows"], transfers: tuple[env.Transfer, ...]
) -> env.Window:
    """Some windows side by side, all of the same length."""
    gates, mixed = at(which, (cache.windows.tokens.gates, cache.windows.mixed))
    return env.Window(transfers, gates, mixed, at(which, cache.exterior, axis=0))
