"""The local-update protocol for DysonNet and its projections."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.abacus import pairs, surroundings
from dyson.abacus.links import CHUNK, link_inputs
from dyson.abacus.pairs import Pairs
from dyson.abacus.partition import Partition, partition_of
from dyson.abacus.reference import (
    Reference,
    ReferenceTables,
    build_reference,
    chain_of,
    link_bandwidths,
    reference_tables,
)
from dyson.abacus.scatter import scatter
from dyson.abacus.surroundings import Surroundings
from dyson.abacus.windows import EveryToken, OneMove
from dyson.environments import half_window
from dyson.networks import DysonNet, SpinFlip
from dyson.networks.head import log_cosh
from dyson.spins import flip
from dyson.updates.protocol import LocalUpdates, Proposal, parameter_bytes


class Whole(eqx.Module):
    """The cache where one window would cover the chain: moves take a forward pass."""

    spins: Int8[Array, " n_sites"]
    theta: Inexact[Array, " hidden"]
    log_psi: Inexact[Array, ""]


# One per route; its name tells which was taken.
Cache = Reference | Surroundings | Pairs | Whole
Tables = ReferenceTables | surroundings.Tables | pairs.Tables


class ProjectedReference(eqx.Module):
    """References of all images of a projected network, stacked, and the projected amplitude."""

    images: Cache
    log_psi: Inexact[Array, ""]


class Abacus(LocalUpdates):
    """Exact ratios from a cached reference: Theorem 1 of arXiv:2603.11189.

    ``propose`` touches the window of the move only, O(features^2), for any size of the chain;
    ``single_flips`` shares one reference among all flips.

    Works for :class:`DysonNet` of every depth and for :class:`SpinFlip` around it (which keeps one
    reference per image).  The flipped sites must lie in ``span`` neighbouring tokens; a move
    that does not fit gives NaN rather than a wrong ratio.  With ``span=None`` they may lie
    anywhere, but are one or two.

    Up to depth 2 the cache is a :class:`Reference` with link tensors, for deeper networks
    :class:`Surroundings`, windows within what surrounds them; for pairs of flips at any distance
    :class:`Pairs`, two windows and the segments between them; on chains that windows would cover,
    :class:`Whole`, the configuration alone.  ``init`` costs O(n), for pairs O(n log n).
    """

    takes_any_flips: ClassVar[bool] = False
    span: int | None = eqx.field(static=True, default=1)
    tables: Tables | None = None  # of the network it is bound to

    def bind(self, model: DysonNet | SpinFlip) -> "Abacus":
        return Abacus(self.span, self._tables_of(self._network(model)))

    def _tables_of(self, network: DysonNet) -> Tables | None:
        parts = self._partition(network)
        if self.span is None:
            return None if parts is None else pairs.tables_of(network, parts)
        if network.depth <= 2:
            return reference_tables(network, self.span)
        return None if parts is None else surroundings.tables_of(network, parts)

    def _partition(self, network: DysonNet) -> Partition | None:
        """Into windows; None for networks with links and for chains that windows would cover."""
        half, periodic = half_window(network), network.periodic
        if self.span is None:
            return pairs.pair_partition(network.n_tokens, half, periodic=periodic)
        if network.depth <= 2:
            return None
        return partition_of(network.n_tokens, half, self.span, periodic=periodic)

    def init(self, model: DysonNet | SpinFlip, spins: Int8[Array, " n_sites"]) -> Any:
        network = self._network(model)
        tables = self._tables_of(network) if self.tables is None else self.tables
        build = lambda image: self._reference(network, image, tables)  # noqa: E731
        if isinstance(model, SpinFlip):
            # one after the other: the links of one image fill the processor's cache
            images = jax.lax.map(build, model.images(spins))
            return ProjectedReference(images, model.combine(images.log_psi))
        return build(spins)

    def _reference(
        self,
        network: DysonNet,
        spins: Int8[Array, " n_sites"],
        tables: Tables | None,
    ) -> Cache:
        if isinstance(tables, pairs.Tables):
            return pairs.pairs_of(network, spins, tables)
        if isinstance(tables, surroundings.Tables):
            return surroundings.surroundings_of(network, spins, tables)
        if isinstance(tables, ReferenceTables):
            return build_reference(network, spins, tables)
        theta = network.theta(spins)
        return Whole(spins, theta, network.head.log_amplitude(theta))

    def propose(
        self, model: DysonNet | SpinFlip, cache: Any, sites: Int[Array, " flips"]
    ) -> Proposal:
        return Proposal(sites, self.log_ratio(model, cache, self.theta_change(model, cache, sites)))

    def theta_change(
        self, model: DysonNet | SpinFlip, cache: Any, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " *images_hidden"]:
        """What a move adds to the arguments of the head: (hidden,), or (images, hidden) for a
        projected network.

        Exact for one move.  Changes of several moves of the same reference may be added before
        :meth:`log_ratio`: that neglects how one flip screens the waves of the next, which is small
        for moves far apart (the screened typewriter of arXiv:2603.11189).
        """
        network = self._network(model)
        if isinstance(model, SpinFlip):
            change = lambda image: self._move_change(network, image, sites)  # noqa: E731
            return jax.vmap(change)(cache.images)
        return self._move_change(network, cache, sites)

    def log_ratio(
        self, model: DysonNet | SpinFlip, cache: Any, change: Inexact[Array, " *images_hidden"]
    ) -> Inexact[Array, ""]:
        """log psi minus that of the reference, from the change of theta; O(hidden)."""
        network = self._network(model)
        if isinstance(model, SpinFlip):
            ratio = lambda image, image_change: _log_ratio(network, image, image_change)  # noqa: E731
            return self._combined(model, cache, jax.vmap(ratio)(cache.images, change))
        return _log_ratio(network, cache, change)

    def commit(self, model: DysonNet | SpinFlip, cache: Any, proposal: Proposal) -> Any:
        return self.init(model, flip(self.spins(cache), proposal.sites))

    def log_psi(self, cache: Any) -> Inexact[Array, ""]:
        return cache.log_psi

    def spins(self, cache: Any) -> Int8[Array, " n_sites"]:
        return cache.images.spins[0] if isinstance(cache, ProjectedReference) else cache.spins

    def single_flips(
        self, model: DysonNet | SpinFlip, cache: Any
    ) -> Inexact[Array, " n_sites"]:
        network = self._network(model)
        if isinstance(model, SpinFlip):
            ratios = lambda image: self._every_flip(network, image)  # noqa: E731
            return jax.vmap(self._combined, in_axes=(None, None, 1))(
                model, cache, jax.vmap(ratios)(cache.images)
            )
        return self._every_flip(network, cache)

    def bytes_per_sample(self, model: DysonNet | SpinFlip) -> int:
        network = self._network(model)
        images = 2 if isinstance(model, SpinFlip) else 1
        widths = link_bandwidths(network, self.span)
        offsets = sum(2 * width + 1 for width in widths.values())
        parts, hidden, features = network.head.weight.shape
        parts_of = self._partition(network)
        # links and what they are made of; readouts; activations
        numbers = 4 * offsets * features**2
        if network.depth == 2:
            inputs = link_inputs(network.blocks, max(widths.values()))
            numbers += 2 * features**2 * inputs // CHUNK
        elif parts_of is not None:
            # about eight segments per window, in the making or kept
            waves, pairs, _ = _waves_of(network)
            numbers = 8 * (4 * pairs * waves**2 + 4 * hidden * waves) // parts_of.core
        numbers += 4 * network.depth * parts * hidden * features + 100 * network.depth * features
        return images * numbers * network.n_tokens * parameter_bytes(network)

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether exact local updates are built for this network."""
        network = getattr(model, "network", model)
        return isinstance(network, DysonNet)

    def pays(self, model: Any) -> bool:
        """Whether the flips of all sites cost less than as many forward passes.

        A reference and its flips cost the same per token at any size, forward passes grow with the
        chain: both are counted in multiply-adds, with constants that reproduce the crossings
        measured on one core within a factor of about two.  With 16 features and one mode they are
        less than 50 sites at depth 2, at depth 3 80 with complex and 50 with real modes.
        """
        network = self._network(model)
        if network.depth == 1:
            return True
        features = network.features
        forward = 4 * network.depth * features**2 * network.n_tokens
        if network.depth == 2:
            width = max(link_bandwidths(network, self.span).values())
            inputs = link_inputs(network.blocks, width)
            return (2 * width + 1) * features**2 * inputs < 4 * forward
        parts = self._partition(network)
        if parts is None:
            return False
        waves, pairs, triples = _waves_of(network)
        joins = (48 * triples * waves**3 + 100 * pairs * waves**2) // parts.core
        flips = network.depth * parts.window * features * (2 * features + parts.window)
        return joins + 2 * flips < forward

    def _network(self, model: DysonNet | SpinFlip) -> DysonNet:
        network = model.network if isinstance(model, SpinFlip) else model
        if not isinstance(network, DysonNet):
            raise TypeError(
                f"Abacus: expected a DysonNet or SpinFlip(DysonNet), got {type(network).__name__}; "
                "use dyson.Recompute() for other networks"
            )
        if self.span < 1:
            raise ValueError(f"Abacus: expected span >= 1, got {self.span}")
        return network

    def _combined(
        self, model: SpinFlip, cache: ProjectedReference, log_ratios: Inexact[Array, " images"]
    ) -> Inexact[Array, ""]:
        # Referring the terms to the projected amplitude first avoids the cancellation of two
        # large logarithms.
        terms = cache.images.log_psi - cache.log_psi + log_ratios
        return model.combine(terms)

    def _move_change(
        self, network: DysonNet, reference: Cache, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " hidden"]:
        """Find the base token of a move and which spins of its span are flipped, then evaluate."""
        if self.span is None and sites.shape[0] > 2:
            raise ValueError(
                "Abacus: with span=None a move is one or two flips at any distance, got an array "
                f"of {sites.shape[0]} sites; write Abacus(span=k) for more flips in k tokens"
            )
        if isinstance(reference, Pairs):
            tables = self._window_tables(network)
            assert isinstance(tables, pairs.Tables)
            return network.head.combine(pairs.pair_change(network, tables, reference, sites))
        fits, base = self._fits(network, sites)
        if isinstance(reference, Whole):
            change = network.theta(flip(reference.spins, sites)) - reference.theta
            return jnp.where(fits, change, jnp.nan)
        size = network.token_size
        token = (base + jnp.arange(self.span, dtype=sites.dtype)) % network.n_tokens
        here = token[:, None] * size + jnp.arange(size, dtype=sites.dtype)
        flips = jnp.sum((here[..., None] == sites) & (sites >= 0), axis=2, dtype=sites.dtype) % 2
        masks = flips @ (2 ** jnp.arange(size - 1, -1, -1, dtype=sites.dtype))
        if isinstance(reference, Surroundings):
            tables = self._window_tables(network)
            assert isinstance(tables, surroundings.Tables)
            change = surroundings.one_move(network, tables, reference, base, masks)
        else:
            change = _one_move(network, reference, base, masks)
        return network.head.combine(jnp.where(fits, change, jnp.nan))

    def _fits(self, network: DysonNet, sites: Int[Array, " flips"]) -> tuple[Array, Array]:
        """Whether the sites lie in ``span`` neighbouring tokens, and the first of these tokens."""
        chain = chain_of(network)
        tokens = jnp.where(sites < 0, sites[0], sites) // network.token_size
        apart = (tokens - tokens[:, None]) % chain.n_tokens  # [base, token]
        reaches = jnp.max(apart, axis=1)
        base = tokens[jnp.argmin(reaches)]
        if chain.periodic:
            return jnp.min(reaches) < self.span, base
        return (jnp.max(tokens) - jnp.min(tokens)) < self.span, jnp.min(tokens)

    def _window_tables(self, network: DysonNet) -> Tables | None:
        return self._tables_of(network) if self.tables is None else self.tables

    def _every_flip(
        self, network: DysonNet, reference: Cache
    ) -> Inexact[Array, " n_sites"]:
        """Log-ratios of all single flips: all tokens side by side, the spins of a token in turn."""
        if isinstance(reference, Whole):
            sites = jnp.arange(network.n_sites, dtype=jnp.int32)[:, None]
            flipped = jax.vmap(lambda move: network.theta(flip(reference.spins, move)))(sites)
            return jax.vmap(lambda x: _log_ratio(network, reference, x - reference.theta))(flipped)
        bits = 2 ** jnp.arange(network.token_size - 1, -1, -1, dtype=jnp.int32)
        if isinstance(reference, Surroundings):
            tables = self._window_tables(network)
            changes = lambda bit: surroundings.every_flip(network, tables, reference, bit)  # noqa: E731
        else:
            changes = lambda bit: _flips_by_links(network, reference, bit)  # noqa: E731

        def flips_of(bit: Array) -> Array:
            ratio = lambda parts: _log_ratio(network, reference, network.head.combine(parts))  # noqa: E731
            return jax.vmap(ratio)(changes(bit))

        if network.token_size == 1:
            return flips_of(bits[0])
        return jax.lax.map(flips_of, bits).T.reshape(-1)


def _waves_of(network: DysonNet) -> tuple[int, int, int]:
    """Real waves of a layer in one direction; pairs and triples of layers."""
    weights = network.blocks[0].mixer.exponentials().weights
    waves, depth = weights.size * (2 if jnp.iscomplexobj(weights) else 1), network.depth
    return waves, depth * (depth - 1) // 2, depth * (depth - 1) * (depth - 2) // 6


def _one_move(
    network: DysonNet, reference: Reference, base: Array, masks: Int[Array, " span"]
) -> Inexact[Array, "parts hidden"]:
    """By links: new embeddings on the span, and their scattering."""
    chain, size = chain_of(network), network.token_size
    view = OneMove(chain, base)
    phi, h = {}, {}
    # a ring shorter than the span meets its tokens several times
    for o in sorted({chain.offset(o) for o in range(masks.shape[0])}):
        token = (base + o) % chain.n_tokens
        spins = jax.lax.dynamic_slice_in_dim(reference.spins, token * size, size)
        pattern = network.patterns(spins)
        mask = masks[o % chain.n_tokens if chain.periodic else o]
        phi[o], h[o] = _embedding_change(network, pattern, pattern ^ mask)
        if not chain.periodic:
            phi[o], h[o] = (jnp.where(view.exists(o), x, 0) for x in (phi[o], h[o]))
    return scatter(network, reference, view, phi, h)[..., 0]


def _flips_by_links(
    network: DysonNet, reference: Reference, bit: Array
) -> Inexact[Array, "tokens parts hidden"]:
    patterns = network.patterns(reference.spins)
    phi, h = _embedding_change(network, patterns, patterns ^ bit.astype(patterns.dtype))
    view = EveryToken(chain_of(network))
    return jnp.moveaxis(scatter(network, reference, view, {0: phi}, {0: h}), -1, 0)


def _embedding_change(network: DysonNet, before: Array, after: Array) -> tuple[Array, Array]:
    (phi0, h0), (phi1, h1) = network.embed(before), network.embed(after)
    return phi1 - phi0, h1 - h0


def _log_ratio(network: DysonNet, reference: Cache, change: Array) -> Inexact[Array, ""]:
    theta = reference.theta + change
    return jnp.sum(log_cosh(theta) - log_cosh(reference.theta))
