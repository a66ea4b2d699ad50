"""What every Hamiltonian provides, written for one configuration; batch with `jax.vmap`."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, Int8


class Row(eqx.Module):
    """Connected configurations of one kind, which one way of local updates serves."""

    sites: Int[Array, "c f"]
    """Where they differ from the reference, int32, padded with -1."""
    elements: Inexact[Array, " c"]
    reach: int = eqx.field(static=True)
    each_site: bool = eqx.field(static=True)
    """Whether these are the flips of every single site, in order of the sites."""


class Hamiltonian(eqx.Module):
    """A Hermitian operator on ±1 spins, given by its rows in the σᶻ basis.

    The local energy of a state ψ is

        E_loc(σ) = H_σσ + Σ_σ' H_σσ' ψ(σ') / ψ(σ),

    so a row is all that is needed: its diagonal entry and the configurations it connects to, each
    written as the sites that differ from σ. Energies are totals, never per site.

    Fields and properties that a type fills in, beside the methods; `dyson.exact.check` compares
    them with the matrix on a few sites:
      n_sites: the length of the chain.
      periodic: a ring or an open chain.
      spin_flip_symmetric: whether H commutes with the flip of all spins.
      conserves_magnetisation: whether H commutes with the sum of all σᶻ: samplers then stay in one
        sector.
      reach: the sites in which connected configurations differ lie among 1 + reach neighbours.
      flips_each_site: whether `connected` lists the flip of every single site, in order of the
        sites, and nothing else: all ratios of a row then come from one reference
        (`BoundUpdates.single_flips`).
      trace_per_dimension: Tr H / 2^n, the mean of the diagonal.
    """

    n_sites: eqx.AbstractVar[int]
    periodic: eqx.AbstractVar[bool]
    spin_flip_symmetric: eqx.AbstractVar[bool]
    flips_each_site: eqx.AbstractVar[bool]
    conserves_magnetisation: eqx.AbstractVar[bool]
    reach: eqx.AbstractVar[int]

    @abc.abstractmethod
    def diagonal(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """H_σσ."""

    @abc.abstractmethod
    def connected(self, spins: Int8[Array, " n"]) -> tuple[Int[Array, "c f"], Inexact[Array, " c"]]:
        """The off-diagonal entries of row σ, real or complex.

        Returns `sites` (c, f) int32, the sites in which the connected configurations differ from σ,
        padded with -1; and `elements` (c,), the entries H_σσ'. The shapes do not depend on σ: an
        entry that vanishes for this σ is returned as zero. The configurations of one row differ
        from each other, and none has all its sites padded.
        """

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        """`connected` in parts of one kind each, which are evaluated together; one if not said
        otherwise."""
        sites, elements = self.connected(spins)
        return (Row(sites, elements, self.reach, self.flips_each_site),)

    @property
    @abc.abstractmethod
    def trace_per_dimension(self) -> Float[Array, ""]:
        """Tr H / 2^n: the energy of the infinite-temperature state, subtracted in a V-score."""


class Exchanges(Hamiltonian):
    """Terms that exchange the spins of coupled pairs: they conserve the magnetisation and do not
    tell up from down."""

    flips_each_site: ClassVar[bool] = False
    conserves_magnetisation: ClassVar[bool] = True

    pairs: eqx.AbstractVar[Int[Array, "bonds 2"]]
    """The coupled sites, every pair once."""
    couplings: eqx.AbstractVar[Float[Array, " bonds"]]
    signs: eqx.AbstractVar[Float[Array, " bonds"]]
    """-1 where a rotation of the basis changes the sign of the exchange."""

    def ends(self, spins: Int8[Array, " n"]) -> Int8[Array, "bonds 2"]:
        """The two spins of every pair; `ValueError` for anything but one configuration."""
        if spins.shape != (self.n_sites,):
            raise ValueError(
                f"expected one configuration of shape ({self.n_sites},), got {spins.shape}; "
                "use jax.vmap for a batch"
            )
        return spins[self.pairs]

    def bonds(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """¼ Σ J_ij σ_i σ_j over all pairs."""
        aligned = jnp.prod(self.ends(spins), axis=1).astype(self.couplings.dtype)
        return 0.25 * jnp.sum(self.couplings * aligned)

    def exchanges(self, spins: Int8[Array, " n"]) -> Float[Array, " bonds"]:
        """±J_ij/2 for opposite spins, zero for equal ones."""
        ends = self.ends(spins)
        return jnp.where(ends[:, 0] != ends[:, 1], 0.5 * self.signs * self.couplings, 0)

    @property
    def trace_per_dimension(self) -> Float[Array, ""]:
        """Zero: every term is a product of Pauli matrices."""
        return jnp.zeros((), self.couplings.dtype)
