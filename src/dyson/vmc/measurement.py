"""Samples and their local energies.

Two compiled programs, :func:`draw` and :func:`measured`, serve warm-up, every step of training and
every estimate after it: what takes longest to compile is compiled once.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int8

from dyson.devices import at_samples, by_chain, everywhere, over_chains
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers import Sampler, SamplerState
from dyson.updates import LocalUpdates
from dyson.vmc.blur import blurred, can_blur, share_drawn_afresh, weights
from dyson.vmc.local_energy import local_energies, weighted_local_energies
from dyson.vmc.statistics import Estimate, estimate_mean, if_moved, moved

# The stream of random numbers that blurs samples: beyond the halves that a key is split into.
_BLURS = 2**31


class Measurement(eqx.Module):
    """Samples of all chains and their local energies."""

    spins: Int8[Array, "n_chains chain_length n_sites"]
    energies: Inexact[Array, "n_chains chain_length"]
    acceptance: Float[Array, "n_chains chain_length"]
    """Fraction of the moves that were accepted on the way to each sample."""
    weights: Float[Array, "n_chains chain_length"] | None = None
    """What each sample counts, where they are blurred (:mod:`dyson.vmc.blur`); else none."""

    def estimate(self) -> Estimate:
        """Mean local energy and what is known of its quality."""
        estimate = estimate_mean(self.energies, self.weights)
        return if_moved(moved(self.spins, self.acceptance), estimate)


def joined(measurements: Sequence[Measurement]) -> Measurement:
    """One after the other."""
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *measurements)


@eqx.filter_jit
def draw(
    sampler: Sampler, length: int, key: jax.Array, model: Network, samples: SamplerState
) -> tuple[
    SamplerState,
    Int8[Array, "n_chains length n_sites"],
    Float[Array, "n_chains length"],
]:
    """``length`` samples of every chain: the state of the chains, the samples, their acceptance.

    Takes its random numbers from the first half of ``jax.random.split(key)``; the second half
    belongs to the caller.
    """

    def of_each(keys: Array, model: Network, samples: SamplerState):
        def sample(samples: SamplerState, step_keys: Array):
            samples, info = sampler.sample_chains(step_keys, model, samples)
            return samples, (samples.spins, info.acceptance)

        step_keys = jnp.swapaxes(jax.vmap(lambda k: jax.random.split(k, length))(keys), 0, 1)
        samples, (spins, acceptance) = jax.lax.scan(sample, samples, step_keys)
        return samples, jnp.swapaxes(spins, 0, 1), jnp.swapaxes(acceptance, 0, 1)

    keys = jax.random.split(jax.random.split(key)[0], sampler.n_chains)
    samples, spins, acceptance = over_chains(of_each)(keys, model, samples)
    return by_chain(samples), spins, acceptance


@eqx.filter_jit
def measured(
    hamiltonian: Hamiltonian,
    updates: LocalUpdates | None,
    chunk_size: int | None,
    blur: Float[Array, ""],
    key: jax.Array,
    model: Network,
    spins: Int8[Array, "n_chains length n_sites"],
    acceptance: Float[Array, "n_chains length"],
) -> Measurement:
    """The samples with their local energies; ``updates`` and ``chunk_size`` as in
    :func:`dyson.local_energies`.

    The samples of a state with phases are blurred with probability ``blur``
    (:mod:`dyson.vmc.blur`), by random numbers of ``key`` that are others than those of
    :func:`draw`, and have weights: one, where it is zero.
    """
    if not can_blur(hamiltonian, model, spins[0, 0]):
        mine = lambda model, spins: energies_of(hamiltonian, updates, chunk_size, model, spins)
        return Measurement(spins, at_samples(mine)(model, spins), acceptance)

    def blurred_here(keys: Array, model: Network, spins: Array) -> tuple[Array, ...]:
        shape = spins.shape[:2]
        flat = spins.reshape(-1, spins.shape[-1])
        keys = jax.vmap(lambda key: jax.random.split(key, shape[1]))(keys).reshape(-1)
        moved = jax.vmap(lambda k, s: blurred(k, blur, hamiltonian, model, s))(keys, flat)
        how = {"updates": updates, "chunk_size": chunk_size}
        energies, densities = weighted_local_energies(
            hamiltonian, model, moved.spins, blur=blur, **how
        )
        values = energies, densities, moved.log_psi, moved.at_zero
        return moved.spins.reshape(spins.shape), *(value.reshape(shape) for value in values)

    keys = jax.random.split(jax.random.fold_in(key, _BLURS), spins.shape[0])
    spins, energies, *known = over_chains(blurred_here)(keys, model, spins)
    # the samples of all devices together tell what each counts
    fresh = share_drawn_afresh(blur, spins.shape[-1])
    return Measurement(spins, energies, acceptance, weights(fresh, *everywhere(known)))


def energies_of(
    hamiltonian: Hamiltonian,
    updates: LocalUpdates | None,
    chunk_size: int | None,
    model: Network,
    spins: Int8[Array, "chains length n_sites"],
) -> Inexact[Array, "chains length"]:
    """Local energies of samples by chain, on the device where they are."""
    flat = spins.reshape(-1, spins.shape[-1])
    energies = local_energies(hamiltonian, model, flat, updates=updates, chunk_size=chunk_size)
    return energies.reshape(spins.shape[:2])
