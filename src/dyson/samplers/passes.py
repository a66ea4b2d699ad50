"""One typewriter pass over the chain: by full forward passes, and exactly in O(1) per proposal."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Int8

from dyson import scattering as env
from dyson.networks import DysonNet, Network, SpinFlip, unprojected
from dyson.samplers.base import accepts
from dyson.spins import flip

# Tokens per block and root of the features from which on environments cost less.
CROSSING = 6.5

# Tokens visited between two joins of segments.  Fewer: more joins; more: larger windows.
BLOCK = 16


class Plan(NamedTuple):
    """Which moves a pass proposes at every token that it visits, in order.

    masks: (moves, tokens) spins to flip, as bits of the patterns of the token and those behind it.
    """

    masks: np.ndarray
    targets: int
    first: int

    @property
    def span(self) -> int:
        return self.masks.shape[1]


def has_environments(model: Network, distances: tuple[int, ...] = ()) -> bool:
    """Whether passes over this network can use environments: decided by its type and size."""
    network = model.network if isinstance(model, SpinFlip) else model
    if not isinstance(network, DysonNet):
        return False
    return not network.periodic or _plan(network, distances).targets > 0


def environments_pay(model: Network, distances: tuple[int, ...] = ()) -> bool:
    """Whether a pass by environments costs less than one by forward passes.

    The time of a proposal by environments does not grow with the chain, but faster with the
    features than that of a forward pass (side by side, as a sweep makes them).  The rule goes
    through three networks: on one core, with 8 features and 1 block, 16 and 2, 32 and 2, the two
    met at about 25, 50 and 75 tokens.
    """
    if not has_environments(model, distances):
        return False
    network = swept_network(model)
    return network.n_tokens >= CROSSING * network.depth * network.features**0.5


def _plan(network: DysonNet, distances: tuple[int, ...]) -> Plan:
    size, half = network.token_size, env.half_window(network)
    moves = [(s, s + d) for s in range(size) for d in distances] or [(s,) for s in range(size)]
    span = 1 + max(site for move in moves for site in move) // size
    masks = np.zeros((len(moves), span), np.int32)
    for mask, move in zip(masks, moves, strict=True):
        for site in move:
            mask[site // size] += 1 << (size - 1 - site % size)
    if not network.periodic:
        return Plan(masks, network.n_tokens, 0)
    return Plan(masks, network.n_tokens - 2 * half - (span - 1), half)


def proposals(
    model: Network, distances: tuple[int, ...] = (), *, around: bool = False
) -> Int[np.ndarray, "proposals flips"]:
    """The sites that each proposal of a pass would flip.

    Single flips, or exchanges of spins the given ``distances`` apart, site after site.  By
    environments a ring is passed from end to end as if it were cut, so moves whose windows lie
    across the cut are left out, unless it is to go all ``around``.  On an open chain a partner
    beyond the end is -1: no move.
    """
    n, first, last = model.n_sites, 0, model.n_sites
    periodic = getattr(unprojected(model), "periodic", True)
    if has_environments(model, distances) and not around:
        network = swept_network(model)
        plan = _plan(network, distances)
        first = plan.first * network.token_size
        last = first + plan.targets * network.token_size
    sites = np.arange(first, last, dtype=np.int32)
    if not distances:
        return sites[:, None]
    partners = sites[:, None] + np.array(distances, np.int32)
    partners = partners % n if periodic else np.where(partners < n, partners, -1)
    return np.stack([np.repeat(sites, len(distances)), partners.reshape(-1)], axis=1)


def forward_pass(
    model: Network,
    spins: Int8[Array, " n_sites"],
    uniforms: Float[Array, " proposals"],
    distances: tuple[int, ...] = (),
    *,
    around: bool = False,
) -> tuple[Int8[Array, " n_sites"], Bool[Array, " proposals"], Inexact[Array, " proposals"]]:
    """A pass of one chain by full forward passes: the definition of :func:`environment_pass`, or
    on a ring, where that leaves moves out, all ``around``.

    Exchanges of equal spins are no moves.  Returns the configuration, which moves were accepted,
    and log psi after each proposal.
    """

    def propose(carry: tuple[Array, Array], move: tuple[Array, Array]) -> Any:
        spins, log_psi = carry
        sites, uniform = move
        moved = flip(spins, sites)
        new = model(moved)
        accept = accepts(uniform, new - log_psi)
        if distances:
            accept &= (sites[1] >= 0) & (spins[sites[0]] != spins[sites[1]])
        carry = jnp.where(accept, moved, spins), jnp.where(accept, new, log_psi)
        return carry, (accept, carry[1])

    moves = jnp.asarray(proposals(model, distances, around=around))
    (spins, _), (accepted, values) = jax.lax.scan(
        propose, (spins, model(spins)), (moves, uniforms)
    )
    return spins, accepted, values


def environment_pass(
    model: DysonNet | SpinFlip,
    spins: Int8[Array, "chains n_sites"],
    uniforms: Float[Array, "chains proposals"],
    distances: tuple[int, ...] = (),
) -> tuple[
    Int8[Array, "chains n_sites"],
    Bool[Array, "proposals chains"],
    Inexact[Array, "proposals chains"],
]:
    """A pass of all chains over the :func:`proposals`, in O(n_tokens).

    The chain is cut into blocks.  Suffixes, all behind a block, are built from right to left.
    Then, from left to right: what surrounds the window of a block, its suffix and the prefix of
    what was visited, is joined once; every move is evaluated in the window, accepted or rejected,
    and followed exactly; and the block, as it is then, joins the prefix.

    The images of a projected network are further chains, decided together.
    Returns the same as :func:`forward_pass`.
    """
    network = swept_network(model)
    medium, half, plan = env.Medium(network), env.half_window(network), _plan(network, distances)
    n_chains, size = spins.shape[0], network.token_size
    images = spins[None]
    if isinstance(model, SpinFlip):
        images = jax.vmap(model.images, out_axes=1)(spins)
    patterns = env.token_patterns(network, images.reshape(-1, network.n_sites))
    batch, margin = patterns.shape[1], 2 * half + plan.span - 1

    n_blocks = -(-plan.targets // BLOCK)
    block = -(-plan.targets // n_blocks)
    n_blocks = -(-plan.targets // block)
    last = plan.targets - (n_blocks - 1) * block
    vacuum = 0 if network.periodic else half
    behind = n_blocks * block + margin - vacuum - network.n_tokens

    def framed(x: Array) -> Array:
        """With vacuum around, as long as all blocks and the margins."""
        return jnp.pad(x, ((vacuum, behind),) + ((0, 0),) * (x.ndim - 1))

    def split(x: Array) -> tuple[Array, Array]:
        """The margin before the blocks, and the tokens that enter with each of them."""
        rest = x[margin:].reshape(n_blocks, block, *x.shape[1:])
        return x[:margin], rest

    tokens = jax.tree.map(framed, env.local_features(network, medium, patterns))
    edge = jax.tree.map(lambda x: jnp.moveaxis(split(x)[0], 0, 1), tokens)
    entering = jax.tree.map(lambda x: jnp.moveaxis(split(x)[1], 1, 2), tokens)
    edge_patterns, entering_patterns = split(framed(patterns))
    uniforms = uniforms.T.reshape(plan.targets, -1, n_chains)
    filling = ((0, n_blocks * block - plan.targets), (0, 0), (0, 0))
    uniforms = jnp.pad(uniforms, filling, constant_values=jnp.inf)
    uniforms = uniforms.reshape(n_blocks, -1, n_chains)
    steps = jnp.repeat(jnp.arange(block, dtype=jnp.int32), len(plan.masks))
    masks = jnp.tile(jnp.asarray(plan.masks), (block, 1))

    stretch, short = env.open_transfers(medium, [block, last], block)
    window, short_window = env.window_transfers(
        medium, [block + margin, last + margin], block + margin
    )

    def fitting(index: Array, usual: Any, for_last: Any) -> Any:
        if last == block:
            return usual
        is_last = index == n_blocks - 1
        return jax.tree.map(lambda a, b: jnp.where(is_last, b, a), usual, for_last)

    def absorb(suffix: env.Segment, item: Any) -> tuple[env.Segment, env.Segment]:
        index, tokens = item
        piece = env.segment_of(medium, fitting(index, stretch, short), tokens.sites)
        return env.join(piece, suffix), suffix

    indices = jnp.arange(n_blocks, dtype=jnp.int32)
    nothing = env.no_segment(medium, batch)
    _, suffixes = jax.lax.scan(absorb, nothing, (indices, entering), reverse=True)

    def amplitude(outputs: Array) -> Array:
        terms = env.log_psi(network, outputs).reshape(-1, n_chains)
        if isinstance(model, SpinFlip):
            return jax.vmap(model.combine, in_axes=1)(terms)
        return terms[0]

    def visit(carry: Any, item: Any) -> Any:
        prefix, edge, edge_patterns = carry
        index, entering, entering_patterns, uniforms, suffix = item
        tokens = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), edge, entering)
        patterns = jnp.concatenate([edge_patterns, entering_patterns])
        exterior = env.join(suffix, prefix)
        transfers = fitting(index, window, short_window)
        mixed, outputs = env.settled(medium, transfers, exterior, tokens.sites)

        def propose(carry: Any, proposal: tuple[Array, Array, Array]) -> Any:
            tokens, patterns, mixed, outputs, log_psi = carry
            step, mask, uniform = proposal
            position = index * block + step - vacuum
            move = env.move_within(
                network, medium, tokens, patterns, step, mask[:, None], position
            )
            here = env.Window(transfers, tokens.gates, mixed, exterior)
            changes, gain = env.changed(medium, here, move.change, step)
            new = amplitude(outputs + gain)
            accept = accepts(uniform, new - log_psi)
            if distances:
                both = jax.lax.population_count(move.pattern & mask[:, None])
                accept &= (jnp.sum(both, axis=0) == 1)[:n_chains]
                if not network.periodic:
                    partner = position + half + np.arange(plan.span, dtype=np.int32)
                    accept &= jnp.all((partner < network.n_tokens) | (mask == 0))
            everywhere = jnp.tile(accept, batch // n_chains)
            keep = lambda new, old: jnp.where(everywhere, new, old)  # noqa: E731
            tokens = move.put(tokens, jax.tree.map(keep, move.after, move.before))
            patterns = jax.lax.dynamic_update_slice_in_dim(
                patterns, keep(move.moved, move.pattern), step + half, 0
            )
            mixed = jax.tree.map(lambda m, c: m + keep(c, jnp.zeros_like(c)), mixed, changes)
            outputs = keep(outputs + gain, outputs)
            log_psi = jnp.where(accept, new, log_psi)
            return (tokens, patterns, mixed, outputs, log_psi), (accept, log_psi)

        start = tokens, patterns, mixed, outputs, amplitude(outputs)
        (tokens, patterns, *_), moves = jax.lax.scan(propose, start, (steps, masks, uniforms))
        visited = jax.tree.map(lambda x: x[:, :block], tokens.sites)
        prefix = env.join(prefix, env.segment_of(medium, stretch, visited))
        edge = jax.tree.map(lambda x: x[:, block:], tokens)
        return (prefix, edge, patterns[block:]), (patterns[:block], *moves)

    start = env.no_segment(medium, batch, outside=not network.periodic), edge, edge_patterns
    items = indices, entering, entering_patterns, uniforms, suffixes
    (_, _, rest), (visited, accepted, values) = jax.lax.scan(visit, start, items)
    moved = jnp.concatenate([visited.reshape(-1, batch), rest])
    moved = moved[vacuum : vacuum + network.n_tokens, :n_chains]
    done = plan.targets * len(plan.masks)
    return (
        _spins_of(moved, size),
        accepted.reshape(-1, n_chains)[:done],
        values.reshape(-1, n_chains)[:done],
    )


def swept_network(model: Network) -> DysonNet:
    """The network whose tokens a pass visits."""
    network = model.network if isinstance(model, SpinFlip) else model
    if not isinstance(network, DysonNet):
        raise TypeError(
            "environment_pass: expected a DysonNet or SpinFlip around one, got "
            f"{type(network).__name__}; write forward_pass for other networks"
        )
    return network


def _spins_of(patterns: Int[Array, "tokens chains"], size: int) -> Int8[Array, "chains n_sites"]:
    bits = 2 ** jnp.arange(size - 1, -1, -1, dtype=patterns.dtype)
    down = (patterns[:, None] & bits[:, None]) != 0
    return jnp.where(down, -1, 1).astype(jnp.int8).reshape(-1, patterns.shape[1]).T
