"""An exact typewriter sweep whose proposals cost the same on every chain length."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int, Int8

from dyson import environments as env
from dyson.hamiltonians import Hamiltonian
from dyson.networks import DysonNet, Network, SpinFlip
from dyson.samplers.base import (
    Sampler,
    SamplerInfo,
    SamplerState,
    global_flip,
    in_groups,
    log_uniforms,
)
from dyson.spins import flip

# Tokens whose environments are in memory at a time: at depth 2, with complex poles and eight
# chains, 160 kB each.
BLOCK = 16


@final
class Sweep(Sampler):
    """``sweeps`` typewriter sweeps between two samples: every site in turn, left to right.

    Between the environments of the part already visited and of the part still to come only a
    window of tokens is evaluated, so a proposal costs O(features^2) on any chain, **accepted moves
    included**, and the ratios are exact: the same uniforms give the same chain as full forward
    passes.  Works for :class:`DysonNet` of any depth and :class:`SpinFlip` around it.

    On a ring each sweep starts at a random token, and the ``half_window`` tokens on either side of
    that start, whose windows would wrap around it, are left out of this sweep.  Networks of another
    kind, and rings smaller than the window, are swept with full forward passes.

    One more proposal per sample flips all spins when the Hamiltonian commutes with that.  Single
    flips sample every magnetisation, also where the Hamiltonian conserves it.

    Arguments:
      hamiltonian: gives the number of sites and the symmetry.
      n_chains: independent chains.   sweeps: sweeps between samples.
      chains_at_once: chains that share a pass; the environments of a pass are kept in memory,
        n_tokens * chains_at_once times the numbers of a :class:`dyson.environments.Segment`.
    """

    n_sites: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
    sweeps: int = eqx.field(static=True)
    chains_at_once: int = eqx.field(static=True)
    global_flips: bool = eqx.field(static=True)

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        n_chains: int,
        *,
        sweeps: int = 1,
        chains_at_once: int = 8,
    ):
        counts = {"n_chains": n_chains, "sweeps": sweeps, "chains_at_once": chains_at_once}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"Sweep: expected {name} >= 1, got {value}")
        self.n_sites = hamiltonian.n_sites
        self.n_chains = n_chains
        self.sweeps = sweeps
        self.chains_at_once = chains_at_once
        self.global_flips = hamiltonian.spin_flip_symmetric

    def sample_chains(
        self, keys: jax.Array, model: Network, state: SamplerState
    ) -> tuple[SamplerState, SamplerInfo]:
        together = lambda keys, state: self._together(keys, model, state.spins)  # noqa: E731
        return in_groups(together, keys, state, self.chains_at_once)

    def _together(
        self, keys: jax.Array, model: Network, spins: Int8[Array, "chains n_sites"]
    ) -> tuple[SamplerState, SamplerInfo]:
        """One sample of a group of chains side by side."""
        keys = jax.vmap(lambda key: jax.random.split(key, 1 + self.sweeps))(keys)
        if self.global_flips:
            flips = jax.vmap(global_flip, in_axes=(0, None, 0))
            spins = flips(keys[:, 0], model, spins)

        def sweep(spins: Array, keys: Array) -> tuple[Array, Array]:
            origin_keys, uniform_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
            uniforms = jax.vmap(lambda key: log_uniforms(key, self.n_sites))(uniform_keys)
            if not has_environments(model):
                swept = jax.vmap(forward_sweep, in_axes=(None, 0, 0))(model, spins, uniforms)
                return swept[0], jnp.mean(swept[1], axis=1)
            origins = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.n_sites))(
                origin_keys
            )
            return _rotated_sweep(model, spins, uniforms, origins)

        spins, acceptance = jax.lax.scan(sweep, spins, jnp.moveaxis(keys[:, 1:], 1, 0))
        return SamplerState(spins), SamplerInfo(jnp.mean(acceptance, axis=0))


def has_environments(model: Network) -> bool:
    """Whether sweeps of this network can use environments: decided by its type and size."""
    network = getattr(model, "network", model)
    if not isinstance(network, DysonNet) or not isinstance(model, DysonNet | SpinFlip):
        return False
    return not network.periodic or network.n_tokens > 2 * env.half_window(network)


def visited_sites(model: Network) -> slice:
    """The sites, in order, that one pass from the first to the last token visits."""
    if not has_environments(model):
        return slice(0, model.n_sites)
    network = _network(model)
    if not network.periodic:
        return slice(0, network.n_sites)
    left_out = env.half_window(network) * network.token_size
    return slice(left_out, network.n_sites - left_out)


def forward_sweep(
    model: Network,
    spins: Int8[Array, " n_sites"],
    log_uniforms: Float[Array, " visited"],
    visited: slice | None = None,
) -> tuple[Int8[Array, " n_sites"], Bool[Array, " visited"], Inexact[Array, " visited"]]:
    """One sweep of one chain by full forward passes: the definition of the environment sweep.

    Returns the configuration, which moves were accepted, and log psi after each proposal.
    """
    sites = jnp.arange(model.n_sites, dtype=jnp.int32)[visited or slice(None)]

    def propose(carry: tuple[Array, Array], move: tuple[Array, Array]) -> Any:
        spins, log_psi = carry
        site, log_uniform = move
        moved = flip(spins, site[None])
        new = model(moved)
        accept = log_uniform < 2 * jnp.real(new - log_psi).astype(log_uniform.dtype)
        carry = jnp.where(accept, moved, spins), jnp.where(accept, new, log_psi)
        return carry, (accept, carry[1])

    (spins, _), (accepted, values) = jax.lax.scan(
        propose, (spins, model(spins)), (sites, log_uniforms)
    )
    return spins, accepted, values


def environment_sweep(
    model: DysonNet | SpinFlip,
    spins: Int8[Array, "chains n_sites"],
    log_uniforms: Float[Array, "chains visited"],
) -> tuple[
    Int8[Array, "chains n_sites"], Bool[Array, "visited chains"], Inexact[Array, "visited chains"]
]:
    """One sweep of all chains over the :func:`visited_sites`, in O(n_tokens).

    Suffix environments are built from right to left.  Then, from left to right: evaluate the flip
    between prefix (already updated), window and suffix (still old), accept or reject, and absorb
    the token that leaves the window with its final features.

    Environments of all positions would have to come back from memory, which takes longer than to
    build them: only those at the ends of blocks of ``BLOCK`` tokens are kept, and the others built
    again block by block.

    The images of a projected network are further chains, decided together.
    Returns the same as :func:`forward_sweep`.
    """
    network = _network(model)
    n_chains = spins.shape[0]
    half = env.half_window(network)
    medium = env.Medium(network)
    log_psi = jax.vmap(model)(spins)
    images = spins[None]
    if isinstance(model, SpinFlip):
        images = jax.vmap(model.images, out_axes=1)(spins)
    patterns = env.token_patterns(network, images.reshape(-1, network.n_sites))
    features = env.local_features(network, medium, patterns)
    tokens = features.embedded.shape[0]

    first = visited_sites(model).start // network.token_size
    targets = tokens - 2 * half
    n_blocks = -(-targets // BLOCK)
    size = -(-targets // n_blocks)
    filling = n_blocks * size - targets  # positions beyond the end, where nothing happens

    def in_blocks(x: Array) -> Array:
        padded = jnp.pad(x, ((0, filling),) + ((0, 0),) * (x.ndim - 1))
        return padded.reshape(n_blocks, size, *x.shape[1:])

    def unless_beyond(index: Array, new: Any, old: Any) -> Any:
        if not filling:
            return new
        return jax.tree.map(lambda n, o: jnp.where(index < first + targets, n, o), new, old)

    def absorb_behind(suffix: env.Segment, position: Any) -> env.Segment:
        index, entering, *_ = position
        return unless_beyond(index, env.absorb(medium, suffix, entering.sites), suffix)

    def absorb_block(suffix: env.Segment, block: Any) -> tuple[env.Segment, env.Segment]:
        absorb = lambda suffix, position: (absorb_behind(suffix, position), None)  # noqa: E731
        return jax.lax.scan(absorb, suffix, block, reverse=True)[0], suffix

    empty = env.empty_segment(medium, patterns.shape[1], periodic=network.periodic)
    uniforms = log_uniforms.T.reshape(targets, network.token_size, n_chains)
    bits = 2 ** jnp.arange(network.token_size - 1, -1, -1, dtype=patterns.dtype)

    def amplitude(prefix: env.Segment, window: env.LocalFeatures, suffix: env.Segment) -> Array:
        outputs = env.outputs_between(medium, prefix, window.sites, suffix, network.n_tokens)
        terms = env.log_psi(network, outputs).reshape(-1, n_chains)
        if isinstance(model, SpinFlip):
            return jax.vmap(model.combine, in_axes=1)(terms)
        return terms[0]

    def visit(carry: Any, position: Any) -> Any:
        prefix, window, log_psi = carry
        (index, entering, pattern, log_uniforms), suffix = position
        window = jax.tree.map(
            lambda old, new: jnp.concatenate([old, new[:, None]], axis=1), window, entering
        )
        exists = None
        if not network.periodic:
            around = index + jnp.arange(-half, half + 1, dtype=index.dtype)
            exists = (around >= 0) & (around < network.n_tokens)

        def propose(carry: Any, move: tuple[Array, Array]) -> Any:
            window, pattern, log_psi = carry
            bit, log_uniform = move
            moved_pattern = pattern ^ bit
            moved = env.flipped(network, medium, window, moved_pattern, exists)
            new = amplitude(prefix, moved, suffix)
            accept = log_uniform < 2 * jnp.real(new - log_psi).astype(log_uniform.dtype)
            everywhere = jnp.tile(accept, patterns.shape[1] // n_chains)
            keep = lambda new, old: jnp.where(everywhere, new, old)  # noqa: E731
            carry = (
                jax.tree.map(keep, moved, window),
                keep(moved_pattern, pattern),
                jnp.where(accept, new, log_psi),
            )
            return carry, (accept, carry[2])

        (window, pattern, log_psi), moves = jax.lax.scan(
            propose, (window, pattern, log_psi), (bits, log_uniforms)
        )
        leaving = jax.tree.map(lambda x: x[:, 0], window.sites)
        prefix = env.absorb(medium, prefix, leaving)
        window = jax.tree.map(lambda x: x[:, 1:], window)
        return (prefix, window, log_psi), (pattern[:n_chains], *moves)

    def visit_block(carry: Any, block: Any) -> Any:
        positions, suffix = block
        absorb = lambda suffix, position: (absorb_behind(suffix, position), suffix)  # noqa: E731
        _, suffixes = jax.lax.scan(absorb, suffix, positions, reverse=True)
        return jax.lax.scan(visit, carry, (positions, suffixes))

    window = jax.tree.map(lambda x: jnp.moveaxis(x[: 2 * half], 0, 1), features)
    entering = jax.tree.map(lambda x: x[2 * half :], features)
    here = slice(first, first + targets)
    indices = first + jnp.arange(n_blocks * size, dtype=jnp.int32)
    positions = (
        indices.reshape(n_blocks, size),
        *jax.tree.map(in_blocks, (entering, patterns[here], uniforms)),
    )
    _, suffixes = jax.lax.scan(absorb_block, empty, positions, reverse=True)
    _, moves = jax.lax.scan(visit_block, (empty, window, log_psi), (positions, suffixes))
    new_patterns, accepted, values = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:])[:targets], moves
    )
    moved = patterns[:, :n_chains].at[here].set(new_patterns)
    return (
        _spins_of(moved, bits),
        accepted.reshape(-1, n_chains),
        values.reshape(-1, n_chains),
    )


def _network(model: Network) -> DysonNet:
    network = model.network if isinstance(model, SpinFlip) else model
    if not isinstance(network, DysonNet):
        raise TypeError(
            "environment_sweep: expected a DysonNet or SpinFlip around one, got "
            f"{type(network).__name__}; write forward_sweep for other networks"
        )
    return network


def _spins_of(patterns: Int[Array, "tokens chains"], bits: Array) -> Int8[Array, "chains n_sites"]:
    down = (patterns[:, None] & bits[:, None]) != 0
    return jnp.where(down, -1, 1).astype(jnp.int8).reshape(-1, patterns.shape[1]).T


def _rotated_sweep(
    model: Any, spins: Array, log_uniforms: Array, origins: Array
) -> tuple[Array, Array]:
    """A sweep that starts at the token of site ``origins`` on a ring; the fraction accepted."""
    network = _network(model)
    shift = origins // network.token_size * network.token_size if network.periodic else 0 * origins
    spins = jax.vmap(jnp.roll)(spins, -shift)
    visited = log_uniforms[:, visited_sites(model)]
    spins, accepted, _ = environment_sweep(model, spins, visited)
    return jax.vmap(jnp.roll)(spins, shift), jnp.mean(accepted, axis=0)
