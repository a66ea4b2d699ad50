"""The Heisenberg chain with couplings of nearest and next-nearest neighbours."""

from typing import ClassVar, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from dyson.hamiltonians.base import Exchanges
from dyson.hamiltonians.couplings import check_finite, checked_size


@final
class J1J2(Exchanges):
    r"""J₁-J₂ chain

        H = J₁ Σ_i S_i·S_{i+1} + J₂ Σ_i S_i·S_{i+2},      S = σ/2,

    over the sites of a ring, i + r taken modulo n, or over the bonds that fit on an open chain. The
    sums of a ring are as written: on four sites each diagonal occurs twice and on two sites the
    bond does; a site is never coupled to itself. J₂ = 0 is the Heisenberg chain, and at J₂ = J₁/2
    the ground state of an even ring is a product of singlets with energy -3/8 J₁ n (Majumdar and
    Ghosh, J. Math. Phys. 10, 1388 (1969)).

    With `marshall=True` every second spin is rotated by π about the z axis, which changes the sign
    of each exchange over an odd distance |i-j| and no energy: for J₂ = 0 on an even ring the ground
    state is then positive. If not given, this is done for J₁ > 0; with ferromagnetic neighbours the
    ground state is positive as it is.

    H commutes with the magnetisation and with the flip of all spins.

    **Arguments** `n_sites` at least 1, couplings finite; `ValueError` otherwise.

    **Cost** per configuration: O(n) for the diagonal and for the at most 2n exchanges of a row.
    """

    reach: ClassVar[int] = 2

    pairs: Int[Array, "bonds 2"]
    couplings: Float[Array, " bonds"]
    signs: Float[Array, " bonds"]
    n_sites: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    spin_flip_symmetric: bool = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        j1: float = 1.0,
        j2: float = 0.0,
        marshall: bool | None = None,
        periodic: bool = True,
    ):
        n_sites = checked_size(n_sites)
        check_finite(j1=j1, j2=j2)
        marshall = j1 > 0 if marshall is None else bool(marshall)
        strengths: dict[tuple[int, int], float] = {}
        for distance, strength in [(1, float(j1)), (2, float(j2))]:
            for i in range(n_sites if periodic else n_sites - distance):
                j = (i + distance) % n_sites
                if i != j:
                    pair = (min(i, j), max(i, j))
                    strengths[pair] = strengths.get(pair, 0.0) + strength
        pairs = np.array(list(strengths), dtype=np.int32).reshape(-1, 2)
        rotated = marshall & ((pairs[:, 1] - pairs[:, 0]) % 2 == 1)
        self.pairs = jnp.asarray(pairs)
        self.couplings = jnp.asarray(list(strengths.values()), dtype=float)
        self.signs = jnp.asarray(np.where(rotated, -1.0, 1.0), dtype=float)
        self.n_sites = n_sites
        self.periodic = bool(periodic)
        self.spin_flip_symmetric = True

    def diagonal(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """¼ Σ J_ij σ_i σ_j over all pairs."""
        return self.bonds(spins)

    def connected(
        self, spins: Int8[Array, " n"]
    ) -> tuple[Int[Array, "bonds 2"], Float[Array, " bonds"]]:
        """The exchange of every pair: ±J_ij/2 for opposite spins, zero for equal ones."""
        return self.pairs, self.exchanges(spins)
