"""How close a network is to a state that is known in full."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from dyson.batching import in_chunks
from dyson.networks import Network
from dyson.spins import index_to_spins

MOST_SITES = 20
# Configurations evaluated side by side.
AT_ONCE = 256


def state_vector(model: Network, magnetisation: int | None = None) -> Complex[np.ndarray, " dim"]:
    """All amplitudes of a network, normalised, in the order of ``dyson.spins.enumerate_spins``.

    Arguments:
      model: of at most 20 sites.
      magnetisation: zero outside of this sector, where the chains never were.
    Cost 2^n forward passes, or as many as the sector has configurations.
    """
    n = model.n_sites
    if n > MOST_SITES:
        raise ValueError(f"state_vector: expected at most {MOST_SITES} sites, got {n}")
    indices = np.arange(2**n, dtype=np.int32)
    if magnetisation is not None:
        indices = indices[n - 2 * np.bitwise_count(indices).astype(int) == magnetisation]
        if indices.size == 0:
            raise ValueError(f"state_vector: no configuration of {n} spins has {magnetisation=}")
    log_psi = np.asarray(_amplitudes(model, jnp.asarray(indices))).astype(complex)
    vector = np.zeros(2**n, complex)
    vector[indices] = np.exp(log_psi - np.max(np.real(log_psi)))
    return vector / np.linalg.norm(vector)


def fidelity(
    model: Network, vector: Inexact[np.ndarray, " dim"], magnetisation: int | None = None
) -> float:
    """|⟨φ|ψ⟩|² of the normalised states: 1 where they are the same up to a phase.

    By all amplitudes: without samples and without an error bar.

    Arguments:
      model, magnetisation: as in :func:`state_vector`.
      vector: φ, (2^n,), as :class:`dyson.exact.GroundState` has it.
    """
    if np.shape(vector) != (2**model.n_sites,):
        raise ValueError(
            f"fidelity: expected a vector of shape ({2**model.n_sites},), got {np.shape(vector)}"
        )
    overlap = np.vdot(vector, state_vector(model, magnetisation))
    return float(np.abs(overlap) ** 2 / np.linalg.norm(vector) ** 2)


@eqx.filter_jit
def _amplitudes(model: Network, indices: Array) -> Float[Array, " some"]:
    log_psi = lambda index: model(index_to_spins(index, model.n_sites))
    return in_chunks(log_psi, indices, AT_ONCE)
