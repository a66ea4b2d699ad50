"""The local-update protocol for DysonNet and its projections."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.abacus.routes import Route, route_of
from dyson.networks import DysonNet, Network, Projection, unprojected
from dyson.networks.head import log_cosh
from dyson.spins import flip
from dyson.updates.protocol import LocalUpdates, Proposal, parameter_bytes


class ProjectedReference(eqx.Module):
    """References of all images of a projected network, stacked, and the projected amplitude."""

    images: Any
    log_psi: Inexact[Array, ""]


class Abacus(LocalUpdates):
    """Exact ratios from a cached reference: Theorem 1 of arXiv:2603.11189.

    ``propose`` touches the window of the move only, O(features^2), for any size of the chain;
    ``single_flips`` shares one reference among all flips.

    Works for :class:`DysonNet` of every depth and for projections of one (which keep one reference
    per image).  The flipped sites must lie among ``span`` neighbouring sites; a move that does not
    fit the tokens of these gives NaN rather than a wrong ratio.  With ``span=None`` they may lie
    anywhere, but are one or two.

    Up to depth 2 the cache is a :class:`Reference` with link tensors, for deeper networks
    :class:`Surroundings`, windows within what surrounds them; for pairs of flips at any distance
    :class:`Pairs`, two windows and the segments between them; on chains that windows would cover,
    :class:`Whole`, the configuration alone.  ``init`` costs O(n), for pairs O(n log n).
    """

    takes_any_flips: ClassVar[bool] = False
    rebuilds: ClassVar[bool] = True
    span: int | None = eqx.field(static=True, default=1)
    tables: Any = None  # of the network it is bound to

    def bind(self, model: Network) -> "Abacus":
        network, route = self._route(model)
        return Abacus(self.span, route.tables(network))

    def init(self, model: Network, spins: Int8[Array, " n_sites"]) -> Any:
        network, route = self._route(model)
        tables = self._tables(network, route)
        build = lambda image: route.reference(network, tables, image)  # noqa: E731
        if isinstance(model, Projection):
            # one after the other: the links of one image fill the processor's cache
            images = jax.lax.map(build, model.images(spins))
            return ProjectedReference(images, model.combine(images.log_psi))
        return build(spins)

    def propose(self, model: Network, cache: Any, sites: Int[Array, " flips"]) -> Proposal:
        return Proposal(sites, self.log_ratio(model, cache, self.theta_change(model, cache, sites)))

    def theta_change(
        self, model: Network, cache: Any, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " *images_hidden"]:
        """What a move adds to the arguments of the head: (hidden,), or (images, hidden) for a
        projected network.

        Exact for one move.  Changes of several moves of the same reference may be added before
        :meth:`log_ratio`: that neglects how one flip screens the waves of the next, which is small
        for moves far apart (the screened typewriter of arXiv:2603.11189).
        """
        network, route = self._route(model)
        tables = self._tables(network, route)
        change = lambda image, sites: route.change(network, tables, image, sites)  # noqa: E731
        if isinstance(model, Projection):
            return jax.vmap(change)(cache.images, model.image_sites(sites))
        return change(cache, sites)

    def log_ratio(
        self, model: Network, cache: Any, change: Inexact[Array, " *images_hidden"]
    ) -> Inexact[Array, ""]:
        """log psi minus that of the reference, from the change of theta; O(hidden)."""
        if not isinstance(model, Projection):
            return _log_ratio(cache, change)
        # Referring the terms to the projected amplitude first avoids the cancellation of two
        # large logarithms.
        ratios = jax.vmap(_log_ratio)(cache.images, change)
        return model.combine(cache.images.log_psi - cache.log_psi + ratios)

    def commit(self, model: Network, cache: Any, proposal: Proposal) -> Any:
        return self.init(model, flip(self.spins(cache), proposal.sites))

    def log_psi(self, cache: Any) -> Inexact[Array, ""]:
        return cache.log_psi

    def spins(self, cache: Any) -> Int8[Array, " n_sites"]:
        return cache.images.spins[0] if isinstance(cache, ProjectedReference) else cache.spins

    def single_flips(self, model: Network, cache: Any) -> Inexact[Array, " n_sites"]:
        network, route = self._route(model)
        tables = self._tables(network, route)
        changes = lambda image: route.changes(network, tables, image)  # noqa: E731
        ratio = lambda change: self.log_ratio(model, cache, change)  # noqa: E731
        if not isinstance(model, Projection):
            return jax.vmap(ratio)(changes(cache))
        sites = jnp.arange(model.n_sites, dtype=jnp.int32)[:, None]
        moved = jax.vmap(model.image_sites)(sites)[..., 0].T
        by_image = jax.vmap(lambda image, order: changes(image)[order])(cache.images, moved)
        return jax.vmap(ratio, in_axes=1)(by_image)

    def bytes_per_sample(self, model: Network) -> int:
        network, route = self._route(model)
        numbers = route.numbers_per_token(network) * network.n_tokens
        if isinstance(model, Projection):
            numbers *= model.n_images
        return numbers * parameter_bytes(network)

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether exact local updates are built for this network."""
        return isinstance(unprojected(model), DysonNet)

    def pays(self, model: Network) -> bool:
        """Whether the flips of all sites cost less than as many forward passes.

        A reference and its flips cost the same per token at any size, forward passes grow with the
        chain: both are counted in multiply-adds, with constants that reproduce the crossings
        measured on one core within a factor of about two.  With 16 features and one mode they are
        less than 50 sites at depth 2, at depth 3 100 with complex and 75 with real modes; pairs at
        any distance pay beyond 250 sites at depth 2.
        """
        network, route = self._route(model)
        return route.pays(network)

    def _route(self, model: Network) -> tuple[DysonNet, Route]:
        network = unprojected(model)
        if not isinstance(network, DysonNet):
            raise TypeError(
                f"Abacus: expected a DysonNet or a projection of one, got {type(network).__name__};"
                " use dyson.Recompute() for other networks"
            )
        if self.span is not None and self.span < 1:
            raise ValueError(
                f"Abacus: expected span >= 1, or None for pairs at any distance, got {self.span}"
            )
        if self.span is None:
            return network, route_of(network, None)
        # the tokens that hold so many neighbouring sites wherever the first of these lies, as it
        # does somewhere else in every translated image
        return network, route_of(network, 1 + -(-(self.span - 1) // network.token_size))

    def _tables(self, network: DysonNet, route: Route) -> Any:
        return route.tables(network) if self.tables is None else self.tables


def _log_ratio(reference: Any, change: Inexact[Array, " hidden"]) -> Inexact[Array, ""]:
    theta = reference.theta + change
    return jnp.sum(log_cosh(theta) - log_cosh(reference.theta))
