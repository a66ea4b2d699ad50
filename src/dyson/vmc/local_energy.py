"""Local energies E_loc(sigma) = H_ss + sum_s' H_ss' psi(s') / psi(s) of a batch of samples."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int8

from dyson.abacus import Abacus, AbacusPairs, supported
from dyson.batching import in_chunks
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.updates import BoundUpdates, LocalUpdates, Recompute

# Working memory for one chunk of samples.  A processor gains nothing from more than its caches
# hold; an accelerator needs the parallelism.
MEMORY_BUDGET = {"cpu": 4 * 2**20, "gpu": 4 * 2**30, "tpu": 4 * 2**30}


# Neighbouring sites up to which moves are evaluated in one window.
LONGEST_SPAN = 4


def fastest_updates(model: Network, reach: int = 0, flips: int = 1) -> LocalUpdates:
    """ABACUS where it is built for the network and pays, else the full forward pass, for moves
    of at most so many ``flips``, of sites up to ``reach`` apart."""
    near = reach < LONGEST_SPAN
    # far apart, two windows take two flips; a window that holds more of them would be a long one
    if not supported(model) or not (near or flips <= 2):
        return Recompute()
    updates = Abacus(span=1 + reach) if near else AbacusPairs()
    return updates if updates.pays(model) else Recompute()


def samples_per_chunk(updates: BoundUpdates) -> int:
    """How many samples fit the memory budget of the default device side by side."""
    budget = MEMORY_BUDGET.get(jax.default_backend(), MEMORY_BUDGET["cpu"])
    return max(1, budget // updates.bytes_per_sample())


def local_energies(
    hamiltonian: Hamiltonian,
    model: Network,
    spins: Int8[Array, "samples n_sites"],
    *,
    updates: LocalUpdates | None = None,
    chunk_size: int | None = None,
) -> Inexact[Array, " samples"]:
    """Total local energies, shape (samples,), real for a real log psi and complex otherwise.

    Each sample is one reference whose connected configurations share one cache: with ABACUS the
    cost per connected element does not grow with the chain.  Ratios are evaluated in the precision
    of the network, the sum over them in that of the Hamiltonian.

    Arguments:
      updates: how ratios are computed; the cheaper of ABACUS and forward passes if not given.
      chunk_size: samples evaluated side by side; if not given, as many as fit the memory budget
        of the device (``dyson.vmc.local_energy.MEMORY_BUDGET``).
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
    if updates is None:
        sites, _ = jax.eval_shape(hamiltonian.connected, spins[0])
        updates = fastest_updates(model, hamiltonian.reach, flips=sites.shape[1])
    bound = updates.bind(model)
    chunk_size = samples_per_chunk(bound) if chunk_size is None else chunk_size

    def energy(sample: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        sites, elements = hamiltonian.connected(sample)
        cache = bound.init(sample)
        each = hamiltonian.flips_each_site
        log_ratios = bound.single_flips(cache) if each else bound.ratios(cache, sites)
        # an entry that vanishes for this sample may lead out of its sector, where psi means nothing
        # and the ratio may overflow
        ratios = jnp.where(elements == 0, 0, jnp.exp(log_ratios))
        dtype = np.promote_types(ratios.dtype, elements.dtype)
        moved = jnp.sum(elements.astype(dtype) * ratios.astype(dtype))
        return hamiltonian.diagonal(sample).astype(dtype) + moved

    return in_chunks(energy, spins, chunk_size)
