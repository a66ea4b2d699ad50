"""The protocol shared by every way to compute amplitude ratios."""

import abc
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Inexact, Int, Int8

from dyson.batching import in_chunks
from dyson.networks import Network

# Moves whose ratios are evaluated side by side: with forward passes, more only spill the
# processor's caches.
MOVES_AT_ONCE = 32


class Proposal(eqx.Module):
    """A local move and what it does to the amplitude: ``log psi(sigma') - log psi(sigma)``."""

    sites: Int[Array, " flips"]
    log_ratio: Inexact[Array, ""]


class BoundUpdates(eqx.Module):
    """Pure functions on a cache, of one network; one configuration at a time, ``jax.vmap`` outside.
    They are compiled as they are called.

    Holds all that depends on the parameters alone, computed once; after a step of the parameters
    ``LocalUpdates.bind`` makes another.  The cache describes one reference configuration and
    belongs to the state of whoever asks (a sampler, an estimator), never to the network.

    Laws, which the tests verify for every implementation:
      propose(init(s), sites).log_ratio == model(flip(s, sites)) - model(s)
      commit(cache, proposal) == init(flip(spins(cache), proposal.sites))
      single_flips(cache)[i] == ratios(cache, [[0], [1], ...])[i] == propose(cache, [i]).log_ratio
    """

    @abc.abstractmethod
    def init(self, spins: Int8[Array, " n_sites"]) -> Any:
        """The cache of a reference configuration."""

    @abc.abstractmethod
    def propose(self, cache: Any, sites: Int[Array, " flips"]) -> Proposal:
        """Evaluate the flip of ``sites`` (int32, padded with -1); leaves the cache as it is."""

    @abc.abstractmethod
    def commit(self, cache: Any, proposal: Proposal) -> Any:
        """The cache of the configuration after the move."""

    @abc.abstractmethod
    def log_psi(self, cache: Any) -> Inexact[Array, ""]:
        """log psi of the reference."""

    @abc.abstractmethod
    def spins(self, cache: Any) -> Int8[Array, " n_sites"]:
        """The reference configuration."""

    @abc.abstractmethod
    def single_flips(self, cache: Any) -> Inexact[Array, " n_sites"]:
        """Log-ratios of the flips of every single site of one reference."""

    @abc.abstractmethod
    def bytes_per_sample(self) -> int:
        """Estimated working memory of ``init`` and ``single_flips`` for one configuration."""

    @eqx.filter_jit
    def ratios(self, cache: Any, moves: Int[Array, "moves flips"]) -> Inexact[Array, " moves"]:
        """Log-ratios of many moves of one reference, in bounded memory."""
        return in_chunks(lambda sites: self.propose(cache, sites).log_ratio, moves, MOVES_AT_ONCE)


class LocalUpdates(eqx.Module):
    """A way to compute amplitude ratios; :meth:`bind` applies it to a network."""

    takes_any_flips: eqx.AbstractClassVar[bool]
    """Whether ``propose`` takes any set of sites, or only those of one window."""
    rebuilds: eqx.AbstractClassVar[bool]
    """Whether ``commit`` computes the reference anew, at several times the cost of a forward pass:
    right for many moves of one reference, wrong for a chain that accepts one after the other."""

    @abc.abstractmethod
    def bind(self, model: Network) -> BoundUpdates:
        """The updates of this network, with all that depends on its parameters alone computed."""


def parameter_bytes(model: Network) -> int:
    """Bytes of one number of the network (its widest parameter)."""
    arrays = [x for x in jax.tree.leaves(model) if eqx.is_inexact_array(x)]
    return max((x.dtype.itemsize for x in arrays), default=4)
