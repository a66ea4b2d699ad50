"""Updates on chains that windows would cover: every move takes a forward pass."""

from typing import final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.abacus.bound import NetworkUpdates, changes_one_by_one, check_pair, place
from dyson.abacus.costs import activations
from dyson.networks import DysonNet
from dyson.spins import flip


class Whole(eqx.Module):
    """The reference configuration alone."""

    spins: Int8[Array, " n_sites"]
    theta: Inexact[Array, " hidden"]
    log_psi: Inexact[Array, ""]


@final
class ForwardUpdates(NetworkUpdates):
    """Small chains.  span: tokens of a move; None for pairs at any distance."""

    network: DysonNet
    span: int | None = eqx.field(static=True)

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> Whole:
        theta = self.network.theta(spins)
        return Whole(spins, theta, self.network.head.log_amplitude(theta))

    def change(self, cache: Whole, sites: Int[Array, " flips"]) -> Inexact[Array, " hidden"]:
        change = self.network.theta(flip(cache.spins, sites)) - cache.theta
        if self.span is None:
            check_pair(sites)
            return change
        fits, _, _ = place(self.network, self.span, sites)
        return jnp.where(fits, change, jnp.nan)

    def changes(self, cache: Whole) -> Inexact[Array, "n_sites hidden"]:
        return changes_one_by_one(self, cache)

    def numbers_per_token(self) -> int:
        return self.network.n_sites * activations(self.network)
