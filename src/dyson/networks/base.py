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

    @property
    def period(self) -> int:
        """psi is known not to change when the spins move by so many sites around the ring;
        ``n_sites`` where nothing is known."""
        return self.n_sites

    @property
    def mirror_symmetric(self) -> bool:
        """Whether psi is known to be the same for the chain read backwards."""
        return False

    def resized(self, n_sites: int) -> "Network":
        """The same state on a chain of another length, with the same parameters.

        TypeError for a network that has no such rule; ValueError for a length that does not fit.
        """
        raise TypeError(
            f"{type(self).__name__}.resized: expected a DysonNet or a projection of one; start on "
            f"{n_sites} sites with a new network, or define resized(n_sites)"
        )
