"""The Jastrow state: a classical Ising model of two-spin terms at every distance."""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int8

from dyson.networks import Network
from dyson.networks.dysonnet import INITIAL_SPREAD
from dyson.networks.head import from_parts


@final
class Jastrow(Network):
    """log psi = sum_{i<j} v(r_ij) sigma_i sigma_j, with one v for every distance.

    The simplest correlated state: even under the flip of all spins, and on a ring invariant under
    translations and reflections.  The ground state of the XY chain is close to one.

    Cost O(n_sites^2) per configuration.

    Arguments:
      n_sites: sites of the chain.
      periodic: distances around a ring, or along an open chain.
      complex_weights: complex v, for states with signs.
      dtype: float32 or float64; the default float of jax if not given.
      key: for the initial parameters.
    Source: R. Jastrow, Phys. Rev. 98, 1479 (1955); for spins, E. Manousakis, Rev. Mod. Phys. 63, 1
    (1991).
    """

    coupling: Float[Array, "parts distances"]
    n_sites: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        periodic: bool = True,
        complex_weights: bool = False,
        dtype=None,
        key: jax.Array,
    ):
        if n_sites < 1:
            raise ValueError(f"Jastrow: expected n_sites >= 1, got {n_sites}")
        dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
        distances = n_sites // 2 if periodic else n_sites - 1
        shape = 2 if complex_weights else 1, distances
        scale = jnp.asarray(INITIAL_SPREAD / n_sites, dtype)
        coupling = scale * jax.random.normal(key, shape, dtype)
        # no phases at the start
        self.coupling = coupling.at[1:].set(0)
        self.n_sites, self.periodic = n_sites, periodic

    @property
    def period(self) -> int:
        """Every translation of a ring leaves psi as it is."""
        return 1 if self.periodic else self.n_sites

    @property
    def mirror_symmetric(self) -> bool:
        return True

    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        if spins.shape != (self.n_sites,):
            raise ValueError(
                f"Jastrow: expected spins of shape ({self.n_sites},), got {spins.shape}; "
                "batch with jax.vmap"
            )
        first, second = np.triu_indices(self.n_sites, k=1)
        apart = second - first
        if self.periodic:
            apart = np.minimum(apart, self.n_sites - apart)
        bonds = (spins[first] * spins[second]).astype(self.coupling.dtype)
        return from_parts(self.coupling[:, apart - 1] @ bonds)
