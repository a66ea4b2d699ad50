"""What every Hamiltonian provides, written for one configuration; batch with `jax.vmap`."""

import abc

import equinox as eqx
from jaxtyping import Array, Float, Int, Int8


class Hamiltonian(eqx.Module):
    """A Hermitian operator on ±1 spins, given by its rows in the σᶻ basis.

    The local energy of a state ψ is

        E_loc(σ) = H_σσ + Σ_σ' H_σσ' ψ(σ') / ψ(σ),

    so a row is all that is needed: its diagonal entry and the configurations it connects to, each
    written as the sites that differ from σ. Energies are totals, never per site.
    """

    n_sites: eqx.AbstractVar[int]
    periodic: eqx.AbstractVar[bool]
    """A ring or an open chain."""
    spin_flip_symmetric: eqx.AbstractVar[bool]
    """Whether H commutes with the flip of all spins, known when H is built."""
    flips_each_site: eqx.AbstractClassVar[bool]
    """Whether `connected` lists the flip of every single site, in order of the sites: all ratios of
    a row then come from one reference (`LocalUpdates.single_flips`)."""

    conserves_magnetisation: eqx.AbstractClassVar[bool]
    """Whether H commutes with the sum of all σᶻ: samplers then stay in one sector."""
    reach: eqx.AbstractVar[int]
    """The largest distance between two of the sites in which connected configurations differ."""

    @abc.abstractmethod
    def diagonal(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """H_σσ."""

    @abc.abstractmethod
    def connected(self, spins: Int8[Array, " n"]) -> tuple[Int[Array, "c f"], Float[Array, " c"]]:
        """The off-diagonal entries of row σ.

        Returns `sites` (c, f) int32, the sites in which the connected configurations differ from σ,
        padded with -1; and `elements` (c,), the entries H_σσ'. The shapes do not depend on σ: an
        entry that vanishes for this σ is returned as zero. The configurations of one row differ
        from each other, and none has all its sites padded.
        """

    @property
    @abc.abstractmethod
    def trace_per_dimension(self) -> Float[Array, ""]:
        """Tr H / 2^n: the energy of the infinite-temperature state, subtracted in a V-score."""
