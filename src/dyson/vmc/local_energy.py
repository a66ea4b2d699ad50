"""Local energies E_loc(sigma) = H_ss + sum_s' H_ss' psi(s') / psi(s) of a batch of samples."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int8

from dyson.batching import in_chunks
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.updates import LocalUpdates
from dyson.vmc.blur import density
from dyson.vmc.ratios import RowRatios, products, row_ratios, samples_per_chunk


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
    ratios, at_once = _ratios(hamiltonian, model, spins, updates, chunk_size)
    return in_chunks(local_energy(hamiltonian, ratios), spins, at_once)


def weighted_local_energies(
    hamiltonian: Hamiltonian,
    model: Network,
    spins: Int8[Array, "samples n_sites"],
    *,
    blur: Float[Array, ""] | float,
    updates: LocalUpdates | None = None,
    chunk_size: int | None = None,
) -> tuple[Inexact[Array, " samples"], Float[Array, " samples"]]:
    """:func:`local_energies` of blurred samples, and the density d of each
    (:mod:`dyson.vmc.blur`)."""
    ratios, at_once = _ratios(hamiltonian, model, spins, updates, chunk_size)

    def values(sample: Int8[Array, " n_sites"]) -> tuple[Array, Array]:
        rows = hamiltonian.rows(sample)
        amplitudes = ratios.ratios(sample, rows)
        crowding = density(blur, rows, amplitudes)
        energy = _total(hamiltonian.diagonal(sample), ratios, products(rows, amplitudes))
        # where the squares of ratios overflow, nothing is left of |psi|^2
        return jnp.where(jnp.isinf(crowding), 0, energy), crowding

    return in_chunks(values, spins, at_once)


def _ratios(
    hamiltonian: Hamiltonian,
    model: Network,
    spins: Int8[Array, "samples n_sites"],
    updates: LocalUpdates | None,
    chunk_size: int | None,
) -> tuple[RowRatios, int]:
    """The local updates for the rows of H, and how many samples are evaluated side by side."""
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
    return ratios, samples_per_chunk(*ratios.bound) if chunk_size is None else chunk_size


def local_energy(
    hamiltonian: Hamiltonian, ratios: RowRatios
) -> Callable[[Int8[Array, " n_sites"]], Inexact[Array, ""]]:
    """E_loc as a function of one configuration."""

    def energy(sample: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        terms = ratios.terms(sample, hamiltonian.rows(sample))
        return _total(hamiltonian.diagonal(sample), ratios, terms)

    return energy


def _total(
    diagonal: Float[Array, ""], ratios: RowRatios, terms: Sequence[Inexact[Array, " c"]]
) -> Inexact[Array, ""]:
    total = diagonal.astype(np.promote_types(diagonal.dtype, ratios.log_psi))
    for term in terms:
        dtype = np.promote_types(total.dtype, term.dtype)
        total = total.astype(dtype) + jnp.sum(term.astype(dtype))
    return total
