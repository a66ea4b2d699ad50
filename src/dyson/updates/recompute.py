"""Ratios by evaluating the whole network again: works for every network, costs a forward pass."""

from typing import ClassVar, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.networks import Network, Projection, unprojected
from dyson.spins import flip
from dyson.updates.protocol import (
    MOVES_AT_ONCE,
    BoundUpdates,
    LocalUpdates,
    Proposal,
    parameter_bytes,
)


@final
class Recompute(LocalUpdates):
    """The reference implementation of local updates, for any network with ``n_sites``."""

    takes_any_flips: ClassVar[bool] = True
    rebuilds: ClassVar[bool] = False

    def bind(self, model: Network) -> "BoundRecompute":
        return BoundRecompute(model)


class RecomputeCache(eqx.Module):
    spins: Int8[Array, " n_sites"]
    log_psi: Inexact[Array, ""]


class RecomputeProposal(Proposal):
    moved: RecomputeCache


@final
class BoundRecompute(BoundUpdates):
    """Forward passes of one network."""

    model: Network

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> RecomputeCache:
        return RecomputeCache(spins, self.model(spins))

    @eqx.filter_jit
    def propose(self, cache: RecomputeCache, sites: Int[Array, " flips"]) -> RecomputeProposal:
        moved = self.init(flip(cache.spins, sites))
        return RecomputeProposal(sites, moved.log_psi - cache.log_psi, moved)

    def commit(self, cache: RecomputeCache, proposal: RecomputeProposal) -> RecomputeCache:
        return proposal.moved

    def log_psi(self, cache: RecomputeCache) -> Inexact[Array, ""]:
        return cache.log_psi

    def spins(self, cache: RecomputeCache) -> Int8[Array, " n_sites"]:
        return cache.spins

    def single_flips(self, cache: RecomputeCache) -> Inexact[Array, " n_sites"]:
        return self.ratios(cache, jnp.arange(self.model.n_sites, dtype=jnp.int32)[:, None])

    def bytes_per_sample(self) -> int:
        width = getattr(unprojected(self.model), "features", 64)
        images = self.model.n_images if isinstance(self.model, Projection) else 1
        numbers = 24 * width * self.model.n_sites * images * MOVES_AT_ONCE
        return numbers * parameter_bytes(self.model)
