"""Projection of a network on the sector even under a global spin flip."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int8

from dyson.networks.base import Network


class SpinFlip(Network):
    """psi(sigma) + psi(-sigma) of any network, halved.

    Without it a network trained on a Hamiltonian that commutes with the global flip converges to a
    mixture of parity sectors.  Local updates stay local: the two terms are updated separately
    and combined by their amplitudes, so the cost doubles and nothing becomes approximate.
    """

    network: Network

    def __init__(self, network: Network):
        self.network = network

    @property
    def n_sites(self) -> int:
        return self.network.n_sites

    def images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "2 n_sites"]:
        """The configurations whose amplitudes are averaged."""
        return jnp.stack([spins, -spins])

    def combine(self, log_terms: Inexact[Array, " 2"]) -> Inexact[Array, ""]:
        """log of the mean of exp(log_terms)."""
        return jnp.logaddexp(log_terms[0], log_terms[1]) - jnp.log(jnp.asarray(2, log_terms.dtype))

    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        return self.combine(jax.vmap(self.network)(self.images(spins)))
