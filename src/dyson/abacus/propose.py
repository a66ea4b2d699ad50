"""The local-update protocol for DysonNet and its projections."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.abacus.links import CHUNK, LinkTables, link_inputs
from dyson.abacus.reference import (
    Reference,
    build_reference,
    chain_of,
    link_bandwidths,
    tables_of,
)
from dyson.abacus.scatter import scatter
from dyson.abacus.windows import EveryToken, OneMove
from dyson.networks import DysonNet, SpinFlip
from dyson.networks.head import log_cosh
from dyson.spins import flip
from dyson.updates.protocol import LocalUpdates, Proposal, parameter_bytes


class ProjectedReference(eqx.Module):
    """References of all images of a projected network, stacked, and the projected amplitude."""

    images: Reference
    log_psi: Inexact[Array, ""]


class Abacus(LocalUpdates):
    """Exact ratios from a cached reference: Theorem 1 of arXiv:2603.11189.

    ``init`` costs O(n log n); ``propose`` touches the window of the move only, O(features^2), for
    any size of the chain; ``single_flips`` shares one reference among all flips.

    Works for :class:`DysonNet` of every depth and for :class:`SpinFlip` around it (which keeps one
    reference per image).  The flipped sites must lie in ``span`` neighbouring tokens; a move
    that does not fit gives NaN rather than a wrong ratio.
    """

    takes_any_flips: ClassVar[bool] = False
    span: int = eqx.field(static=True, default=1)
    tables: LinkTables | None = None  # of the network it is bound to

    def bind(self, model: DysonNet | SpinFlip) -> "Abacus":
        return Abacus(self.span, tables_of(self._network(model), self.span))

    def init(self, model: DysonNet | SpinFlip, spins: Int8[Array, " n_sites"]) -> Any:
        network = self._network(model)
        tables = tables_of(network, self.span) if self.tables is None else self.tables
        build = lambda image: build_reference(network, image, self.span, tables)  # noqa: E731
        if isinstance(model, SpinFlip):
            # one after the other: the links of one image fill the processor's cache
            images = jax.lax.map(build, model.images(spins))
            return ProjectedReference(images, model.combine(images.log_psi))
        return build(spins)

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
            ratios = lambda image: _every_flip(network, image)  # noqa: E731
            return jax.vmap(self._combined, in_axes=(None, None, 1))(
                model, cache, jax.vmap(ratios)(cache.images)
            )
        return _every_flip(network, cache)

    def bytes_per_sample(self, model: DysonNet | SpinFlip) -> int:
        network = self._network(model)
        images = 2 if isinstance(model, SpinFlip) else 1
        widths = link_bandwidths(network, self.span)
        offsets = sum(2 * width + 1 for width in widths.values())
        parts, hidden, features = network.head.weight.shape
        # links and what they are made of; readouts and their transforms; activations
        numbers = 4 * offsets * features**2
        if network.depth == 2:
            inputs = link_inputs(network.blocks, max(widths.values()))
            numbers += 2 * features**2 * inputs // CHUNK
        if network.depth > 2:
            # four complex numbers per pair of modes: two directions, and products of transfers
            modes = network.blocks[0].mixer.exponentials().weights.shape[1]
            numbers += 48 * len(widths) * (features * modes) ** 2
        numbers += 4 * network.depth * parts * hidden * features + 100 * network.depth * features
        return images * numbers * network.n_tokens * parameter_bytes(network)

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether exact local updates are built for this network."""
        network = getattr(model, "network", model)
        return isinstance(network, DysonNet)

    def pays(self, model: Any) -> bool:
        """Whether the flips of all sites cost less than as many forward passes.

        The links cost the same per token at any size, forward passes grow with the chain: both are
        counted in multiply-adds, with constants that reproduce the crossings measured on one core
        within a factor of about two.  With 16 features and one mode they are less than 50 sites
        at depth 2; at depth 3 4000 with complex modes and 500 with real ones.
        """
        network = self._network(model)
        if network.depth == 1:
            return True
        widths = link_bandwidths(network, self.span)
        forward = 2 * network.depth * network.features**2 * network.n_tokens
        if network.depth == 2:
            width = max(widths.values())
            inputs = link_inputs(network.blocks, width)
            return (2 * width + 1) * network.features**2 * inputs < 8 * forward
        weights = network.blocks[0].mixer.exponentials().weights
        is_complex = jnp.iscomplexobj(weights)
        waves = weights.size * (2 if is_complex else 1)
        steps = 4 * max(widths.values()) + 2
        products = steps * len(widths) * waves**2 * network.features * (4 if is_complex else 2)
        return products < forward

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
        self, network: DysonNet, reference: Reference, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " hidden"]:
        """Flip the given sites: base token, new embeddings on the span, scattering."""
        chain, size = chain_of(network), network.token_size
        padding = sites < 0
        tokens = jnp.where(padding, sites[0], sites) // size
        apart = (tokens - tokens[:, None]) % chain.n_tokens  # [base, token]
        reaches = jnp.max(apart, axis=1)
        base = tokens[jnp.argmin(reaches)]
        offsets = sorted({chain.offset(o) for o in range(self.span)})
        view = OneMove(chain, base)
        phi, h = {}, {}
        for o in offsets:
            token = (base + o) % chain.n_tokens
            here = token * size + jnp.arange(size, dtype=sites.dtype)
            flips = jnp.sum((here[:, None] == sites) & ~padding, axis=1) % 2
            spins = jax.lax.dynamic_slice_in_dim(reference.spins, token * size, size)
            pattern = network.patterns(spins)
            moved = network.patterns(jnp.where(flips == 1, -spins, spins))
            phi[o], h[o] = _embedding_change(network, pattern, moved)
            if not chain.periodic:
                phi[o], h[o] = (jnp.where(view.exists(o), x, 0) for x in (phi[o], h[o]))
        change = scatter(network, reference, view, phi, h)[..., 0]
        fits = jnp.min(reaches) < self.span
        if not chain.periodic:
            fits = (jnp.max(tokens) - jnp.min(tokens)) < self.span
        return network.head.combine(jnp.where(fits, change, jnp.nan))


def _every_flip(network: DysonNet, reference: Reference) -> Inexact[Array, " n_sites"]:
    """Log-ratios of every single flip, all tokens side by side, the spins of a token in turn."""
    patterns = network.patterns(reference.spins)
    view = EveryToken(chain_of(network))
    bits = 2 ** jnp.arange(network.token_size - 1, -1, -1, dtype=patterns.dtype)

    def flips_of(bit: Array) -> Array:
        phi, h = _embedding_change(network, patterns, patterns ^ bit)
        change = scatter(network, reference, view, {0: phi}, {0: h})
        ratio = lambda parts: _log_ratio(network, reference, network.head.combine(parts))  # noqa: E731
        return jax.vmap(ratio, in_axes=-1)(change)

    if network.token_size == 1:
        return flips_of(bits[0])
    return jax.lax.map(flips_of, bits).T.reshape(-1)


def _embedding_change(network: DysonNet, before: Array, after: Array) -> tuple[Array, Array]:
    (phi0, h0), (phi1, h1) = network.embed(before), network.embed(after)
    return phi1 - phi0, h1 - h0


def _log_ratio(network: DysonNet, reference: Reference, change: Array) -> Inexact[Array, ""]:
    theta = reference.theta + change
    return jnp.sum(log_cosh(theta) - log_cosh(reference.theta))
