"""The local stream of all chains: at the start of a sweep, and on a window after a flip.

A flip of token t changes the sources c of layer l on the tokens within l q and the gates D within
(l - 1) q, with q the reach of the local convolution: ``half_window`` tokens on either side in all.
Beyond the ends of an open chain the window sees the vacuum, in which everything is zero.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int8

from dyson.networks import DysonNet
from dyson.scattering.medium import Medium
from dyson.scattering.segment import Site

# Per layer one array (features, tokens, chains); (tokens, features, chains) for a whole chain.
Activations = tuple[Float[Array, "features tokens *chains"], ...]


class LocalFeatures(eqx.Module):
    """The current local activations of some tokens.

    embedded: h^(0).   phi: input of each layer's local stream.   inputs, convolved: of its
    convolution.   drives: c + offset.   gates: D.
    """

    embedded: Float[Array, "features tokens *chains"]
    phi: Activations
    inputs: Activations
    convolved: Activations
    drives: Activations
    gates: Activations

    @property
    def sites(self) -> Site:
        """What segments and windows need of it."""
        return Site(self.embedded, self.drives, self.gates)


def half_window(model: DysonNet) -> int:
    """Tokens on either side of a flip whose local features change."""
    return sum(block.reach for block in model.blocks)


def local_features(
    model: DysonNet,
    medium: Medium,
    patterns: Int[Array, "tokens chains"],
    first: Int[Array, " chains"] | None = None,
) -> LocalFeatures:
    """All tokens of all chains, (tokens, features, chains); O(features^2) per token.

    ``first``: the token of the ring with which each row begins, the first one if not given.
    """
    over_chains = lambda f: jax.vmap(f, in_axes=-1, out_axes=-1)
    phi, h = over_chains(model.embed_anywhere)(patterns)
    places = model.embed_sites
    if places is not None:
        starts = jnp.zeros_like(patterns[0]) if first is None else first
        roll = lambda start: jnp.roll(places, -start, axis=1)
        phi = phi + jax.vmap(roll, out_axes=-1)(starts)
    layers = []
    for block, layer in zip(model.blocks, medium.layers, strict=True):
        local = over_chains(block.local)(phi)
        drive = local.sources + layer.offset[:, None, None]
        layers.append((phi, local.inputs, local.convolved, drive, local.gates))
        phi = phi + local.sources
    features = LocalFeatures(h, *(tuple(arrays) for arrays in zip(*layers, strict=True)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), features)


class Move(NamedTuple):
    """A move in a window: the tokens that it reaches, from ``first`` on, before and after it.

    pattern, moved: patterns of the tokens that it flips.
    """

    first: Int[Array, ""]
    before: LocalFeatures
    after: LocalFeatures
    pattern: Int[Array, "span batch"]
    moved: Int[Array, "span batch"]

    @property
    def change(self) -> Site:
        """Of the local features."""
        return jax.tree.map(lambda a, b: a - b, self.after.sites, self.before.sites)

    def put(self, x: Any, values: Any) -> Any:
        """Arrays over the window with the tokens that the move reaches replaced."""
        replace = jax.lax.dynamic_update_slice_in_dim
        return jax.tree.map(lambda x, new: replace(x, new, self.first, 1), x, values)


def move_within(
    model: DysonNet,
    medium: Medium,
    tokens: LocalFeatures,
    patterns: Int[Array, "tokens batch"],
    first: Int[Array, ""],
    masks: Int[Array, "span 1"],
    position: Int[Array, " #batch"],
) -> Move:
    """Flip bits ``masks`` of neighbouring tokens of a window, the first of them ``half_window``
    behind ``first``, which is token ``position`` of the chain; O(span features^2)."""
    half, span = half_window(model), masks.shape[0]
    width = 2 * half + span
    cut = lambda x: jax.lax.dynamic_slice_in_dim(x, first, width, 1)
    before = jax.tree.map(cut, tokens)
    pattern = jax.lax.dynamic_slice_in_dim(patterns, first + half, span)
    exists = None
    if not model.periodic:
        here = position + np.arange(width, dtype=np.int32)[:, None]
        exists = (here >= 0) & (here < model.n_tokens)
    after = flipped(model, medium, before, (pattern, pattern ^ masks), exists)
    return Move(first, before, after, pattern, pattern ^ masks)


def flipped(
    model: DysonNet,
    medium: Medium,
    window: LocalFeatures,
    patterns: tuple[Int[Array, "moved chains"], Int[Array, "moved chains"]],
    exists: Bool[Array, " width #chains"] | None,
) -> LocalFeatures:
    """The window after the tokens in its middle have changed their patterns, given before and
    after; O(window * features^2).

    ``half_window`` tokens lie on either side of them.  ``exists`` tells tokens from vacuum on an
    open chain; None where all are tokens.
    """
    start, moved = half_window(model), slice(half_window(model), -half_window(model) or None)
    # by their difference, in which what phi owes to the place of a token drops out
    (old_phi, _), (phi, h) = (
        [x.reshape(-1, *of_tokens.shape) for x in model.embed_anywhere(of_tokens.reshape(-1))]
        for of_tokens in patterns
    )
    change = _only(exists, phi - old_phi, moved)
    new_phi, new_inputs, new_convolved, new_drives, new_gates = [], [], [], [], []
    for index, (block, layer) in enumerate(zip(model.blocks, medium.layers, strict=True)):
        here = slice(start, start + change.shape[1])
        phi = window.phi[index][:, here] + change
        inputs, gates = (
            _only(exists, x.reshape(-1, *phi.shape[1:]), here)
            for x in block.split(phi.reshape(phi.shape[0], -1))
        )
        difference = inputs - window.inputs[index][:, here]
        start -= block.reach
        there = slice(start, start + change.shape[1] + 2 * block.reach)
        convolved = window.convolved[index][:, there] + _convolve(block.taps, difference)
        drive = jax.nn.silu(convolved) + layer.offset[:, None, None]
        drive = _only(exists, drive, there)
        new_phi.append(_replaced(window.phi[index], here, phi))
        new_inputs.append(_replaced(window.inputs[index], here, inputs))
        new_gates.append(_replaced(window.gates[index], here, gates))
        new_convolved.append(_replaced(window.convolved[index], there, convolved))
        new_drives.append(_replaced(window.drives[index], there, drive))
        change = jnp.pad(change, ((0, 0), (block.reach, block.reach), (0, 0)))
        change = change + drive - window.drives[index][:, there]
    embedded = _only(exists, h, moved)
    return LocalFeatures(
        _replaced(window.embedded, moved, embedded),
        *map(tuple, (new_phi, new_inputs, new_convolved, new_drives, new_gates)),
    )


def _convolve(taps: Array, x: Array) -> Array:
    """Every output that the inputs (features, tokens, chains) reach."""
    width = taps.shape[1]
    padded = jnp.pad(x, ((0, 0), (width - 1, width - 1), (0, 0)))
    length = x.shape[1] + width - 1
    terms = (taps[:, tap, None, None] * padded[:, tap : tap + length] for tap in range(width))
    return functools.reduce(jnp.add, terms)


def _replaced(x: Array, where: slice, values: Array) -> Array:
    end = where.start + values.shape[1]
    return jnp.concatenate([x[:, : where.start], values, x[:, end:]], axis=1)


def _only(exists: Array | None, x: Array, where: slice) -> Array:
    return x if exists is None else jnp.where(exists[None, where], x, 0)


def token_patterns(
    model: DysonNet, spins: Int8[Array, "chains n_sites"]
) -> Int[Array, "tokens chains"]:
    """Patterns of all chains with the chains as the last axis."""
    return jax.vmap(model.patterns, out_axes=-1)(spins)
