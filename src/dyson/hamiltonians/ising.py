"""The Ising chain in a transverse field, nearest-neighbour or with power-law couplings."""

import math
from typing import ClassVar, final

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

from dyson.hamiltonians.base import Hamiltonian
from dyson.hamiltonians.couplings import check_finite, checked_size, power_law_couplings
from hodlr import circulant_matvec, toeplitz_matvec


@final
class Ising(Hamiltonian):
    r"""Transverse-field Ising chain

        H = -h Σ_i σˣ_i - g Σ_i σᶻ_i + (J/Ñ) Σ_{i<j} σᶻ_i σᶻ_j / r_ij^α

    in Pauli matrices (not spin 1/2), with h = `field`, g = `longitudinal`, J = `coupling` and
    α = `exponent`. J < 0 is the ferromagnet. α = inf keeps the nearest neighbours only.

    The distance is r_ij = min(|i-j|, n-|i-j|) on a ring (`periodic=True`) and |i-j| on an open
    chain. Every pair counts once: a ring of two sites is one bond, the same as the open chain, and
    a single site has no bond at all. With `kac=True`, Ñ = 1 + Σ_j r_0j^-α over the sites j ≠ 0,
    which keeps the energy extensive for α <= 1; otherwise Ñ = 1.

    With `rotate=True` every spin of a chain in a negative field is rotated by π about the z axis,
    which changes the sign of h, and of σˣ in every observable, and no energy: the ground state is
    then positive and even under the flip of all spins. As written, its signs alternate with every
    spin that is down, and on an odd number of sites it is odd. `field` is h after the rotation.

    **Arguments** `n_sites` at least 1, `exponent` > 0, all others finite; `ValueError` otherwise.

    **Cost** per configuration: O(n) for nearest neighbours, O(n log n) for power laws (one Fourier
    transform of the couplings); the change under a flip is O(1) once `local_fields` are known.
    """

    flips_each_site: ClassVar[bool] = True
    conserves_magnetisation: ClassVar[bool] = False
    reach: ClassVar[int] = 0

    couplings: Float[Array, " n"]
    """The coefficient of σᶻ_i σᶻ_j by distance |i-j|; entry 0 is zero."""
    field: Float[Array, ""]
    longitudinal: Float[Array, ""]
    n_sites: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    nearest_neighbour: bool = eqx.field(static=True)
    spin_flip_symmetric: bool = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        coupling: float = -1.0,
        exponent: float = math.inf,
        field: float = 1.0,
        longitudinal: float = 0.0,
        periodic: bool = True,
        kac: bool = False,
        rotate: bool = True,
    ):
        n_sites = checked_size(n_sites)
        check_finite(coupling=coupling, field=field, longitudinal=longitudinal)
        couplings = power_law_couplings(n_sites, coupling, exponent, periodic=periodic, kac=kac)
        self.couplings = jnp.asarray(couplings, dtype=float)
        self.field = jnp.asarray(abs(float(field)) if rotate else float(field), dtype=float)
        self.longitudinal = jnp.asarray(float(longitudinal), dtype=float)
        self.n_sites = n_sites
        self.periodic = bool(periodic)
        self.nearest_neighbour = math.isinf(exponent)
        self.spin_flip_symmetric = float(longitudinal) == 0

    def diagonal(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """(J/Ñ) Σ_{i<j} σ_i σ_j / r_ij^α - g Σ_i σ_i."""
        # ½ Σ σ_i f_i counts every pair once, but only half of the longitudinal field in f_i.
        aligned = jnp.sum(spins.astype(self.field.dtype) * self.local_fields(spins))
        magnetisation = jnp.sum(spins, dtype=jnp.int32).astype(self.field.dtype)
        return 0.5 * (aligned - self.longitudinal * magnetisation)

    def connected(self, spins: Int8[Array, " n"]) -> tuple[Int[Array, "n 1"], Float[Array, " n"]]:
        """Every single flip, each with the entry -h."""
        self._check(spins)
        sites = jnp.arange(self.n_sites, dtype=jnp.int32)[:, None]
        return sites, jnp.full(self.n_sites, -self.field)

    @property
    def trace_per_dimension(self) -> Float[Array, ""]:
        """Zero: every term is a product of Pauli matrices."""
        return jnp.zeros_like(self.field)

    def local_fields(self, spins: Int8[Array, " n"]) -> Float[Array, " n"]:
        """The field f_i = Σ_{j≠i} J_ij σ_j - g seen by each spin.

        Flipping site i changes the diagonal by -2 σ_i f_i, see `diagonal_change`.
        """
        self._check(spins)
        if self.nearest_neighbour:
            return self._neighbour_sum(spins) - self.longitudinal
        spins_ = spins.astype(self.couplings.dtype)
        if self.periodic:
            return circulant_matvec(self.couplings, spins_) - self.longitudinal
        return toeplitz_matvec(self.couplings, self.couplings, spins_) - self.longitudinal

    def diagonal_change(
        self, spins: Int8[Array, " n"], fields: Float[Array, " n"], sites: Int[Array, " f"]
    ) -> Float[Array, ""]:
        """The change of `diagonal` when the given distinct sites (padded with -1) are flipped,

            -2 Σ_i σ_i f_i + 2 Σ_ij σ_i J_ij σ_j    over the flipped sites i, j,

        where `fields` are the `local_fields` of `spins`. Cost O(f²), whatever the number of sites.
        """
        present = sites >= 0
        flipped = jnp.where(present, spins[sites], 0).astype(fields.dtype)
        separation = jnp.abs(sites[:, None] - sites[None, :])
        pairs = self.couplings[jnp.where(present[:, None] & present[None, :], separation, 0)]
        return -2 * jnp.sum(flipped * fields[sites]) + 2 * flipped @ pairs @ flipped

    def _neighbour_sum(self, spins: Int8[Array, " n"]) -> Float[Array, " n"]:
        if self.n_sites == 1:
            return jnp.zeros_like(self.couplings)
        if self.periodic and self.n_sites > 2:
            neighbours = jnp.roll(spins, 1) + jnp.roll(spins, -1)
        else:
            padded = jnp.pad(spins, 1)
            neighbours = padded[:-2] + padded[2:]
        return self.couplings[1] * neighbours.astype(self.couplings.dtype)

    def _check(self, spins: Array) -> None:
        if spins.shape != (self.n_sites,):
            raise ValueError(
                f"expected one configuration of shape ({self.n_sites},), got {spins.shape}; "
                "use jax.vmap for a batch"
            )
