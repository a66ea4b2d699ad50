"""A typewriter pass that is exact in O(1) per proposal, accepted moves included.

The chain is cut into blocks.  Suffixes, all behind a block, are built from right to left.  Then,
from left to right: what surrounds the window of a block, its suffix and the prefix of what was
visited, is joined once; every move is evaluated in the window, accepted or rejected, and followed
exactly; and the block, as it is then, joins the prefix.  No reference grows old.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Int8

from dyson import scattering as env
from dyson.networks import DysonNet, SpinFlip
from dyson.samplers.base import accepts
from dyson.samplers.passes import Plan, plan_of, swept_network

# Tokens visited between two joins of segments.  Fewer: more joins; more: larger windows.
BLOCK = 16


class Blocks(NamedTuple):
    """How the tokens of a pass are cut: ``count`` blocks of ``size`` tokens, the last of ``last``.

    margin: tokens of a window beside its block, half of them or more before it.   vacuum: slots
    before an open chain; behind: slots after the last token.
    """

    plan: Plan
    count: int
    size: int
    last: int
    margin: int
    vacuum: int
    behind: int

    @staticmethod
    def of(network: DysonNet, plan: Plan) -> "Blocks":
        half = env.half_window(network)
        size = -(-plan.targets // -(-plan.targets // BLOCK))
        count = -(-plan.targets // size)
        margin, vacuum = 2 * half + plan.span - 1, 0 if network.periodic else half
        behind = count * size + margin - vacuum - network.n_tokens
        return Blocks(plan, count, size, plan.targets - (count - 1) * size, margin, vacuum, behind)

    def split(self, x: Array) -> tuple[Array, Array]:
        """Of arrays over tokens, with vacuum around: the margin before the blocks, and the tokens
        that enter with each of them."""
        framed = jnp.pad(x, ((self.vacuum, self.behind),) + ((0, 0),) * (x.ndim - 1))
        rest = framed[self.margin :].reshape(self.count, self.size, *x.shape[1:])
        return framed[: self.margin], rest

    def uniforms(self, uniforms: Float[Array, "chains proposals"]) -> Array:
        """(blocks, proposals of a block, chains); what is proposed beyond the last is refused."""
        by_token = uniforms.T.reshape(self.plan.targets, -1, uniforms.shape[0])
        filling = ((0, self.count * self.size - self.plan.targets), (0, 0), (0, 0))
        filled = jnp.pad(by_token, filling, constant_values=jnp.inf)
        return filled.reshape(self.count, -1, uniforms.shape[0])


class Transfers(NamedTuple):
    """Along a block that becomes a segment, and along its window; ``last`` ones are shorter."""

    stretch: tuple[env.Transfer, ...]
    last_stretch: tuple[env.Transfer, ...]
    window: tuple[env.Transfer, ...]
    last_window: tuple[env.Transfer, ...]

    @staticmethod
    def of(medium: env.Medium, blocks: Blocks) -> "Transfers":
        lengths, margin = [blocks.size, blocks.last], blocks.margin
        windows = [length + margin for length in lengths]
        return Transfers(
            *env.open_transfers(medium, lengths, blocks.size),
            *env.window_transfers(medium, windows, blocks.size + margin),
        )


class Window(NamedTuple):
    """The window of a block while it is visited; log psi and the pooled outputs of the chain."""

    tokens: env.LocalFeatures
    patterns: Int[Array, "tokens batch"]
    mixed: tuple[Array, ...]
    outputs: Array
    log_psi: Inexact[Array, " chains"]


class Pass(NamedTuple):
    """What stays the same all along a pass.  The images of a projected network are further chains
    of the batch, decided together."""

    model: DysonNet | SpinFlip
    network: DysonNet
    medium: env.Medium
    blocks: Blocks
    transfers: Transfers
    n_chains: int
    exchanges: bool

    def fitting(self, index: Array, usual: Any, for_last: Any) -> Any:
        """Of the block ``index``."""
        if self.blocks.last == self.blocks.size:
            return usual
        is_last = index == self.blocks.count - 1
        return jax.tree.map(lambda a, b: jnp.where(is_last, b, a), usual, for_last)

    def amplitude(self, outputs: Array) -> Inexact[Array, " chains"]:
        """log psi from the pooled outputs."""
        terms = env.log_psi(self.network, outputs).reshape(-1, self.n_chains)
        if isinstance(self.model, SpinFlip):
            return jax.vmap(self.model.combine, in_axes=1)(terms)
        return terms[0]

    def suffixes(self, entering: env.LocalFeatures) -> env.Segment:
        """All that lies behind every block, stacked."""

        def absorb(suffix: env.Segment, item: Any) -> tuple[env.Segment, env.Segment]:
            index, tokens = item
            along = self.fitting(index, self.transfers.stretch, self.transfers.last_stretch)
            return env.join(env.segment_of(self.medium, along, tokens.sites), suffix), suffix

        indices = jnp.arange(self.blocks.count, dtype=jnp.int32)
        nothing = env.no_segment(self.medium, entering.embedded.shape[-1])
        return jax.lax.scan(absorb, nothing, (indices, entering), reverse=True)[1]

    def visit(self, carry: Any, item: Any) -> Any:
        """One block: from the prefix and the tokens at its edge to those of the next block."""
        prefix, edge, edge_patterns = carry
        index, entering, entering_patterns, uniforms, suffix = item
        tokens = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), edge, entering)
        exterior = env.join(suffix, prefix)
        along = self.fitting(index, self.transfers.window, self.transfers.last_window)
        mixed, outputs = env.settled(self.medium, along, exterior, tokens.sites)
        patterns = jnp.concatenate([edge_patterns, entering_patterns])
        window = Window(tokens, patterns, mixed, outputs, self.amplitude(outputs))

        def propose(window: Window, proposal: tuple[Array, Array, Array]) -> Any:
            return self.propose(window, along, exterior, index, *proposal)

        size, masks = self.blocks.size, self.blocks.plan.masks
        steps = jnp.repeat(jnp.arange(size, dtype=jnp.int32), len(masks))
        moves = steps, jnp.tile(jnp.asarray(masks), (size, 1)), uniforms
        window, (accepted, values) = jax.lax.scan(propose, window, moves)
        visited = jax.tree.map(lambda x: x[:, :size], window.tokens.sites)
        prefix = env.join(prefix, env.segment_of(self.medium, self.transfers.stretch, visited))
        edge = jax.tree.map(lambda x: x[:, size:], window.tokens)
        done = window.patterns[:size], accepted, values
        return (prefix, edge, window.patterns[size:]), done

    def propose(
        self,
        window: Window,
        along: tuple[env.Transfer, ...],
        exterior: env.Segment,
        index: Array,
        step: Array,
        mask: Array,
        uniform: Array,
    ) -> tuple[Window, tuple[Array, Array]]:
        """One move of all chains, with whether it was accepted, and log psi."""
        position = index * self.blocks.size + step - self.blocks.vacuum
        move = env.move_within(
            self.network, self.medium, window.tokens, window.patterns, step, mask[:, None], position
        )
        here = env.Window(along, window.tokens.gates, window.mixed, exterior)
        changes, gain = env.changed(self.medium, here, move.change, step)
        new = self.amplitude(window.outputs + gain)
        accept = accepts(uniform, new - window.log_psi)
        if self.exchanges:
            accept &= self.exchanged(move, mask, position)
        everywhere = jnp.tile(accept, window.patterns.shape[1] // self.n_chains)
        keep = lambda new, old: jnp.where(everywhere, new, old)
        after = Window(
            move.put(window.tokens, jax.tree.map(keep, move.after, move.before)),
            jax.lax.dynamic_update_slice_in_dim(
                window.patterns,
                keep(move.moved, move.pattern),
                step + env.half_window(self.network),
                0,
            ),
            jax.tree.map(lambda m, c: m + keep(c, jnp.zeros_like(c)), window.mixed, changes),
            keep(window.outputs + gain, window.outputs),
            jnp.where(accept, new, window.log_psi),
        )
        return after, (accept, after.log_psi)

    def exchanged(self, move: env.Move, mask: Array, position: Array) -> Bool[Array, " chains"]:
        """Whether a move of two spins exchanges different ones, both on the chain."""
        both = jax.lax.population_count(move.pattern & mask[:, None])
        different = (jnp.sum(both, axis=0) == 1)[: self.n_chains]
        if self.network.periodic:
            return different
        partner = position + env.half_window(self.network)
        partner = partner + np.arange(self.blocks.plan.span, dtype=np.int32)
        return different & jnp.all((partner < self.network.n_tokens) | (mask == 0))


def environment_pass(
    model: DysonNet | SpinFlip,
    spins: Int8[Array, "chains n_sites"],
    uniforms: Float[Array, "chains proposals"],
    distances: tuple[int, ...] = (),
    first: Int[Array, " chains"] | None = None,
) -> tuple[
    Int8[Array, "chains n_sites"],
    Bool[Array, "proposals chains"],
    Inexact[Array, "proposals chains"],
]:
    """A pass of all chains over :func:`dyson.samplers.passes.proposals`, in O(n_tokens).

    ``first``: the token of the ring with which the spins of each chain begin, for networks that
    know where their tokens are; the first one if not given.
    Returns the same as :func:`dyson.samplers.passes.forward_pass` of every chain.
    """
    network, n_chains = swept_network(model), spins.shape[0]
    blocks, medium = Blocks.of(network, plan_of(network, distances)), env.Medium(network)
    transfers = Transfers.of(medium, blocks)
    this = Pass(model, network, medium, blocks, transfers, n_chains, bool(distances))
    images = spins[None]
    if isinstance(model, SpinFlip):
        images = jax.vmap(model.images, out_axes=1)(spins)
    patterns = env.token_patterns(network, images.reshape(-1, network.n_sites))
    batch = patterns.shape[1]

    starts = None if first is None else jnp.tile(first, batch // n_chains)
    tokens = env.local_features(network, medium, patterns, starts)
    edge = jax.tree.map(lambda x: jnp.moveaxis(blocks.split(x)[0], 0, 1), tokens)
    entering = jax.tree.map(lambda x: jnp.moveaxis(blocks.split(x)[1], 1, 2), tokens)
    edge_patterns, entering_patterns = blocks.split(patterns)

    indices = jnp.arange(blocks.count, dtype=jnp.int32)
    start = env.no_segment(medium, batch, outside=not network.periodic), edge, edge_patterns
    items = indices, entering, entering_patterns, blocks.uniforms(uniforms), this.suffixes(entering)
    (_, _, rest), (visited, accepted, values) = jax.lax.scan(this.visit, start, items)
    moved = jnp.concatenate([visited.reshape(-1, batch), rest])
    moved = moved[blocks.vacuum : blocks.vacuum + network.n_tokens, :n_chains]
    done = blocks.plan.targets * len(blocks.plan.masks)
    return (
        _spins_of(moved, network.token_size),
        accepted.reshape(-1, n_chains)[:done],
        values.reshape(-1, n_chains)[:done],
    )


def _spins_of(patterns: Int[Array, "tokens chains"], size: int) -> Int8[Array, "chains n_sites"]:
    bits = 2 ** jnp.arange(size - 1, -1, -1, dtype=patterns.dtype)
    down = (patterns[:, None] & bits[:, None]) != 0
    return jnp.where(down, -1, 1).astype(jnp.int8).reshape(-1, patterns.shape[1]).T
