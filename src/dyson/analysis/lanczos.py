"""One Lanczos step on a trained state: a lower energy from the same samples, without training."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int8

from dyson.analysis.expect import estimates
from dyson.batching import in_chunks
from dyson.devices import at_samples, everywhere
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.spins import flip
from dyson.updates import LocalUpdates
from dyson.vmc.local_energy import local_energy
from dyson.vmc.ratios import row_ratios
from dyson.vmc.statistics import Estimate


class LanczosStep(NamedTuple):
    """The energies before and after, and the state (1 + alpha H) ψ that has the latter."""

    variational: Estimate
    variance: Estimate
    """⟨H²⟩ - ⟨H⟩² before the step."""
    energy: Estimate
    alpha: Estimate


def lanczos_step(
    hamiltonian: Hamiltonian,
    model: Network,
    spins: Int8[Array, "n_chains length n_sites"],
    *,
    updates: LocalUpdates | None = None,
) -> LanczosStep:
    r"""The lowest energy in the space of ψ and Hψ,

        E = ⟨H⟩ + (μ₃ - √(μ₃² + 4μ₂³)) / 2μ₂,      μ_k = ⟨(H - ⟨H⟩)^k⟩,

    an upper bound of the ground-state energy and below the variational one unless ψ is an
    eigenstate, where the correction is not known (NaN).  With local energies E_loc,
    ⟨H²⟩ = ⟨|E_loc|²⟩ and ⟨H³⟩ = ⟨E_loc* Σ_σ' H_σσ' ψ(σ')/ψ(σ) E_loc(σ')⟩.

    Arguments:
      hamiltonian, model, spins: as in :func:`dyson.expect`.
      updates: as in :func:`dyson.local_energies`.

    Cost per sample: 1 + c references of c connected configurations each, every ratio O(1) with
    ABACUS: a factor 1 + c on top of an estimate of the energy.  Source: S. Sorella, Phys. Rev. B
    64, 024512 (2001).
    """
    if spins.ndim != 3 or spins.shape[2] != hamiltonian.n_sites:
        raise ValueError(
            f"lanczos_step: expected spins of shape (n_chains, length, {hamiltonian.n_sites}), "
            f"got {spins.shape}"
        )
    return _step(hamiltonian, updates, everywhere(model), spins)


class _Energies(NamedTuple):
    """Of the two states, from the means of E, |E|² and E* (H E)."""

    def of_means(self, means: tuple[Array, Array, Array]) -> Any:
        first, second, third = (jnp.real(x) for x in means)
        two = second - first**2
        three = third - 3 * first * second + 2 * first**3
        root = jnp.sqrt(three**2 + 4 * two**3)
        gain = (three - root) / (2 * two)
        # ψ + b (H - E) ψ / √μ₂ with b = gain / √μ₂
        alpha = gain / (two - gain * first)
        return {"variational": first, "variance": two, "energy": first + gain, "alpha": alpha}


@eqx.filter_jit
def _step(
    hamiltonian: Hamiltonian, updates: LocalUpdates | None, model: Network, spins: Array
) -> LanczosStep:
    def evaluate(model: Network, spins: Array) -> tuple[Array, Array, Array]:
        flat = spins.reshape(-1, spins.shape[-1])
        values = in_chunks(_local_moments(hamiltonian, updates, model, flat[0]), flat, 1)
        return jax.tree.map(lambda x: x.reshape(spins.shape[:2]), values)

    return LanczosStep(**estimates(_Energies(), at_samples(evaluate)(model, spins)))


def _local_moments(
    hamiltonian: Hamiltonian, updates: LocalUpdates | None, model: Network, sample: Array
):
    """E, |E|² and E* (H E) of one configuration."""
    ratios = row_ratios(model, sample, jax.eval_shape(hamiltonian.rows, sample), updates)
    energy = local_energy(hamiltonian, ratios)

    def moments(sample: Int8[Array, " n_sites"]) -> tuple[Inexact[Array, ""], ...]:
        rows = hamiltonian.rows(sample)
        here = energy(sample)
        again = hamiltonian.diagonal(sample).astype(here.dtype) * here
        for row, terms in zip(rows, ratios.terms(sample, rows), strict=True):
            there = jax.lax.map(lambda sites: energy(flip(sample, sites)), row.sites)
            dtype = np.promote_types(again.dtype, terms.dtype)
            # an entry that vanishes may lead to where psi means nothing
            product = jnp.where(terms == 0, 0, terms.astype(dtype) * there.astype(dtype))
            again = again.astype(dtype) + jnp.sum(product)
        return here, jnp.abs(here) ** 2, jnp.real(jnp.conj(here).astype(again.dtype) * again)

    return moments
