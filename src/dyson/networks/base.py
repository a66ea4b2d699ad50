"""What every variational state provides."""

import abc

import equinox as eqx
from jaxtyping import Array, Inexact, Int8


class Network(eqx.Module):
    """log psi of one configuration of ``n_sites`` spins, real or complex, with real parameters."""

    n_sites: eqx.AbstractVar[int]

    @abc.abstractmethod
    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        """log psi; batch with ``jax.vmap``."""
