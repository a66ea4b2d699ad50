"""Local energies E_loc(sigma) = H_ss + sum_s' H_ss' psi(s') / psi(s) of a batch of samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int8

from dyson.batching import in_chunks
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.updates import LocalUpdates
from dyson.vmc.ratios import RowRatios, row_ratios, samples_per_chunk


def local_energies(
    hamiltonian: Hamiltonian,
    model: Network,
    spins: Int8[Array, "samples n_sites"],
    *,
    updates: LocalUpdates | None = None,
    chunk_size: int | None = None,
) -> Inexact[Array, " samples"]:
    """Total local energies, shape (samples,), real for a real log psi and real elements, complex
    otherwise.

    Each sample is one reference whose connected configurations share one cache, or one for those
    near each other and one for the others: with ABACUS the cost per connected element does not grow
    with the chain.  Ratios are evaluated in the precision of the network, the sum over them in that
    of the Hamiltonian.

    Arguments:
      updates: how ratios are computed; for each kind of moves (``Hamiltonian.rows``) the cheaper
        of ABACUS and forward passes if not given.
      chunk_size: samples evaluated side by side; if not given, as many as fit the memory budget
        of the device (``dyson.vmc.ratios.MEMORY_BUDGET``).
    """
    if spins.ndim != 2 or spins.shape[1] != hamiltonian.n_sites:
        raise ValueError(
            f"local_energies: expected spins of shape (samples, {hamiltonian.n_sites}), "
            f"got {spins.shape}; write spins[None] for one configuration"
        )
    if getattr(model, "n_sites", hamiltonian.n_sites) != hamiltonian.n_sites:
        raise ValueError(
            f"local_energies: the Hamiltonian has {hamiltonian.n_sites} sites, "
            f"the model {model.n_sites}"
        )
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"local_energies: expected chunk_size >= 1, got {chunk_size}")
    ratios = row_ratios(model, spins[0], jax.eval_shape(hamiltonian.rows, spins[0]), updates)
    chunk_size = samples_per_chunk(*ratios.bound) if chunk_size is None else chunk_size

    return in_chunks(local_energy(hamiltonian, ratios), spins, chunk_size)


def local_energy(
    hamiltonian: Hamiltonian, ratios: RowRatios
) -> Callable[[Int8[Array, " n_sites"]], Inexact[Array, ""]]:
    """E_loc as a function of one configuration."""

    def energy(sample: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        diagonal = hamiltonian.diagonal(sample)
        total = diagonal.astype(np.promote_types(diagonal.dtype, ratios.log_psi))
        for terms in ratios.terms(sample, hamiltonian.rows(sample)):
            dtype = np.promote_types(total.dtype, terms.dtype)
            total = total.astype(dtype) + jnp.sum(terms.astype(dtype))
        return total

    return energy
