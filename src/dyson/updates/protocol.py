"""The protocol shared by every way to compute amplitude ratios."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.networks import Network


class Proposal(eqx.Module):
    """A local move and what it does to the amplitude: ``log psi(sigma') - log psi(sigma)``."""

    sites: Int[Array, " flips"]
    log_ratio: Inexact[Array, ""]


class LocalUpdates(eqx.Module):
    """Three pure functions on a cache; one configuration at a time, ``jax.vmap`` outside.

    The cache describes one reference configuration and belongs to the state of whoever asks (a
    sampler, an estimator), never to the network.  It holds for the model it was made with:
    after a parameter step it must be made again.

    Laws, which the tests verify for every implementation:
      propose(model, init(model, s), sites).log_ratio == model(flip(s, sites)) - model(s)
      commit(model, cache, proposal) == init(model, flip(s, proposal.sites))
      single_flips(model, cache)[i] == propose(model, cache, [i]).log_ratio
    """

    takes_any_flips: eqx.AbstractClassVar[bool]
    """Whether ``propose`` takes any set of sites, or only those of one window."""
    rebuilds: eqx.AbstractClassVar[bool]
    """Whether ``commit`` computes the reference anew, at several times the cost of a forward pass:
    right for many moves of one reference, wrong for a chain that accepts one after the other."""

    def bind(self, model: Network) -> "LocalUpdates":
        """The same updates with all that depends on the parameters alone computed in advance.

        Worth a call before many references of one network; holds for this network only.
        """
        return self

    @abc.abstractmethod
    def init(self, model: Network, spins: Int8[Array, " n_sites"]) -> Any:
        """The cache of a reference configuration."""

    @abc.abstractmethod
    def propose(self, model: Network, cache: Any, sites: Int[Array, " flips"]) -> Proposal:
        """Evaluate the flip of ``sites`` (int32, padded with -1); leaves the cache as it is."""

    @abc.abstractmethod
    def commit(self, model: Network, cache: Any, proposal: Proposal) -> Any:
        """The cache of the configuration after the move."""

    @abc.abstractmethod
    def log_psi(self, cache: Any) -> Inexact[Array, ""]:
        """log psi of the reference."""

    @abc.abstractmethod
    def spins(self, cache: Any) -> Int8[Array, " n_sites"]:
        """The reference configuration."""

    def single_flips(self, model: Network, cache: Any) -> Inexact[Array, " n_sites"]:
        """Log-ratios of the flips of every single site of one reference."""
        sites = jnp.arange(model.n_sites, dtype=jnp.int32)[:, None]
        return jax.vmap(lambda move: self.propose(model, cache, move).log_ratio)(sites)

    @abc.abstractmethod
    def bytes_per_sample(self, model: Network) -> int:
        """Estimated working memory of ``init`` and ``single_flips`` for one configuration."""


def parameter_bytes(model: Network) -> int:
    """Bytes of one number of the network (its widest parameter)."""
    arrays = [x for x in jax.tree.leaves(model) if eqx.is_inexact_array(x)]
    return max((x.dtype.itemsize for x in arrays), default=4)


