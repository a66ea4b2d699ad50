"""Ratios of networks whose theta is linear in the spins: O(hidden) per flip."""

from typing import ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.baselines.rbm import LinearTheta
from dyson.networks import Network, Projection, unprojected
from dyson.networks.head import log_cosh
from dyson.spins import flip
from dyson.updates.protocol import BoundUpdates, LocalUpdates, Proposal, parameter_bytes


@final
class CachedTheta(LocalUpdates):
    """Exact ratios of :class:`dyson.baselines.RBM`, :class:`dyson.baselines.SymmetricRBM` and
    projections of them: theta is kept, and a move adds the columns of its flips.

    Any set of flips, at O(hidden) each and per image; an accepted move costs no more, so that
    ``Metropolis(hamiltonian, n_chains, updates=CachedTheta())`` never makes a forward pass but the
    first.  TypeError for other networks.
    """

    takes_any_flips: ClassVar[bool] = True
    rebuilds: ClassVar[bool] = False

    def bind(self, model: Network) -> "BoundCachedTheta":
        network = unprojected(model)
        if not isinstance(network, LinearTheta):
            raise TypeError(
                "CachedTheta: expected an RBM, a SymmetricRBM or a projection of one, got "
                f"{type(network).__name__}; write dyson.Abacus() for a DysonNet, "
                "dyson.Recompute() for other networks"
            )
        return BoundCachedTheta(model, network)


class ThetaCache(eqx.Module):
    """Every image of the reference with its theta and log psi, and the projected log psi."""

    images: Int8[Array, "images n_sites"]
    theta: Inexact[Array, "images hidden"]
    log_terms: Inexact[Array, " images"]
    log_psi: Inexact[Array, ""]


class ThetaProposal(Proposal):
    moved: ThetaCache


@final
class BoundCachedTheta(BoundUpdates):
    """Of one network; without a projection there is one image."""

    model: Network
    network: LinearTheta

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> ThetaCache:
        model = self.model
        images = model.images(spins) if isinstance(model, Projection) else spins[None]
        log_terms = jax.vmap(self.network)(images)
        theta = jax.vmap(self.network.theta)(images)
        return ThetaCache(images, theta, log_terms, self._combined(log_terms))

    @eqx.filter_jit
    def propose(self, cache: ThetaCache, sites: Int[Array, " flips"]) -> ThetaProposal:
        model = self.model
        image_sites = model.image_sites(sites) if isinstance(model, Projection) else sites[None]
        images = jax.vmap(flip)(cache.images, image_sites)
        changes, theta = jax.vmap(self._moved)(cache.images, images, cache.theta, image_sites)
        log_terms = cache.log_terms + changes
        moved = ThetaCache(images, theta, log_terms, self._combined(log_terms))
        return ThetaProposal(sites, self._ratio(cache, changes), moved)

    @eqx.filter_jit
    def commit(self, cache: ThetaCache, proposal: ThetaProposal) -> ThetaCache:
        return proposal.moved

    def log_psi(self, cache: ThetaCache) -> Inexact[Array, ""]:
        return cache.log_psi

    def spins(self, cache: ThetaCache) -> Int8[Array, " n_sites"]:
        return cache.images[0]

    @eqx.filter_jit
    def single_flips(self, cache: ThetaCache) -> Inexact[Array, " n_sites"]:
        sites = jnp.arange(self.model.n_sites, dtype=jnp.int32)[:, None]
        return jax.vmap(lambda site: self.propose(cache, site).log_ratio)(sites)

    def bytes_per_sample(self) -> int:
        images = self.model.n_images if isinstance(self.model, Projection) else 1
        hidden = jax.eval_shape(
            self.network.theta, jax.ShapeDtypeStruct((self.model.n_sites,), jnp.int8)
        )
        numbers = 4 * images * self.model.n_sites * hidden.size * self.network.bias.shape[0]
        return numbers * parameter_bytes(self.network)

    def _moved(
        self,
        before: Int8[Array, " n_sites"],
        after: Int8[Array, " n_sites"],
        theta: Inexact[Array, " hidden"],
        sites: Int[Array, " flips"],
    ) -> tuple[Inexact[Array, ""], Inexact[Array, " hidden"]]:
        """What a move adds to log psi of one image, and its new theta."""
        change = jnp.where(sites < 0, 0, (after - before)[sites]).astype(theta.dtype)
        new = theta + change @ self.network.columns(sites)
        field = jnp.sum(change * self.network.fields(sites))
        return field + jnp.sum(log_cosh(new) - log_cosh(theta)), new

    def _combined(self, log_terms: Inexact[Array, " images"]) -> Inexact[Array, ""]:
        if isinstance(self.model, Projection):
            return self.model.combine(log_terms)
        return log_terms[0]

    def _ratio(self, cache: ThetaCache, changes: Inexact[Array, " images"]) -> Inexact[Array, ""]:
        if isinstance(self.model, Projection):
            return self.model.log_ratio(cache.log_terms, changes, cache.log_psi)
        return changes[0]
