"""The XXZ chain, nearest-neighbour or with power-law couplings: XY, Heisenberg, dipolar."""

import math
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from dyson.hamiltonians.base import Exchanges
from dyson.hamiltonians.couplings import check_finite, checked_size, power_law_couplings


@final
class XXZ(Exchanges):
    r"""XXZ chain

        H = (J/Ñ) Σ_{i<j} (Sˣ_i Sˣ_j + Sʸ_i Sʸ_j + Δ Sᶻ_i Sᶻ_j) / r_ij^α,      S = σ/2,

    with J = `coupling`, Δ = `anisotropy` and α = `exponent`: Δ = 0 is the XY chain, Δ = 1 the
    Heisenberg chain, Δ = -2 and α = 3 dipoles that point along z. α = inf keeps the nearest
    neighbours only. Distances and Ñ are those of :class:`Ising`: every pair counts once.

    With `marshall=True` every second spin is rotated by π about the z axis, which changes the sign
    of each exchange with odd |i-j| and no energy: with antiferromagnetic nearest neighbours, on an
    even ring or an open chain, the ground state is then positive. If not given, this is done for
    J > 0; exchanges of a ferromagnetic sign have a positive ground state as they are.

    H commutes with the magnetisation and with the flip of all spins.

    **Arguments** `n_sites` at least 1, `exponent` > 0, all others finite; `ValueError` otherwise.

    **Cost** per configuration: O(number of coupled pairs); a row has n entries for nearest
    neighbours and n²/4 for power laws, each one ratio in O(1) by ``dyson.AbacusPairs()``.
    """

    pairs: Int[Array, "bonds 2"]
    couplings: Float[Array, " bonds"]
    signs: Float[Array, " bonds"]
    anisotropy: Float[Array, ""]
    n_sites: int = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    spin_flip_symmetric: bool = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        coupling: float = 1.0,
        anisotropy: float = 1.0,
        exponent: float = math.inf,
        marshall: bool | None = None,
        periodic: bool = True,
        kac: bool = False,
    ):
        n_sites = checked_size(n_sites)
        check_finite(coupling=coupling, anisotropy=anisotropy)
        marshall = coupling > 0 if marshall is None else bool(marshall)
        by_difference = power_law_couplings(n_sites, coupling, exponent, periodic=periodic, kac=kac)
        first, second = np.triu_indices(n_sites, k=1)
        coupled = by_difference[second - first] != 0
        pairs = np.stack([first[coupled], second[coupled]], axis=1).astype(np.int32)
        apart = pairs[:, 1] - pairs[:, 0]
        self.pairs = jnp.asarray(pairs)
        self.couplings = jnp.asarray(by_difference[apart], dtype=float)
        self.signs = jnp.asarray(np.where(marshall & (apart % 2 == 1), -1.0, 1.0), dtype=float)
        self.anisotropy = jnp.asarray(float(anisotropy), dtype=float)
        self.n_sites = n_sites
        around = np.minimum(apart, n_sites - apart) if periodic else apart
        self.reach = int(max(around, default=0))
        self.periodic = bool(periodic)
        self.spin_flip_symmetric = True

    def diagonal(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """¼ Δ Σ J_ij σ_i σ_j over all pairs."""
        return self.anisotropy * self.bonds(spins)

    def connected(self, spins: Int8[Array, " n"]) -> tuple[Int[Array, "c 2"], Float[Array, " c"]]:
        """Exchanges of pairs: ±J_ij/2 for opposite spins, zero for equal ones.

        At most n²/4 pairs have opposite spins, so where more are coupled, that many are returned.
        """
        elements, most = self.exchanges(spins), self.n_sites**2 // 4
        if self.pairs.shape[0] <= most:
            return self.pairs, elements
        first = jnp.argsort(elements == 0, stable=True)[:most]
        return self.pairs[first], elements[first]
