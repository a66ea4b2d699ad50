"""The step of training that measured samples call for, as one compiled program."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from dyson.batching import in_chunks
from dyson.devices import at_samples, everywhere, placed
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.optimisers import energy_gradient
from dyson.samplers import SamplerState
from dyson.updates import LocalUpdates
from dyson.vmc.jacobian import SAMPLES_AT_ONCE, derivatives_of_chains
from dyson.vmc.measurement import Measurement, energies_of
from dyson.vmc.state import Before, VMCInfo, VMCState
from dyson.vmc.statistics import moved, v_score

# What a network that is of no use shows first.
ENERGIES, DERIVATIVES = "the local energy", "a derivative of log psi"


@eqx.filter_jit
def improved(
    how: tuple[Hamiltonian, LocalUpdates | None, int | None],
    minimiser: optax.GradientTransformationExtraArgs,
    state: VMCState,
    samples: SamplerState,
    measured: Measurement,
) -> tuple[VMCState, VMCInfo, dict[str, Array], Array]:
    """The step that the samples call for; also which values are finite, and whether the chains
    moved.  ``how`` is what local energies take: the Hamiltonian, updates and chunk_size."""
    parameters, static = eqx.partition(state.model, eqx.is_inexact_array)
    derivatives = derivatives_of_chains(state.model, measured.spins)
    energies = measured.energies.reshape(-1)
    estimate = measured.estimate()
    energy = jnp.real(estimate.mean)
    flat, unravel = ravel_pytree(parameters)
    weights = None if measured.weights is None else measured.weights.reshape(-1)
    gradient = unravel(energy_gradient(derivatives, energies, weights).astype(flat.dtype))
    updates, optimiser = minimiser.update(
        gradient,
        state.optimiser,
        parameters,
        derivatives=derivatives,
        energies=energies,
        response=_response(parameters, static, measured.spins),
        weights=weights,
        value=energy.astype(flat.dtype),
        grad=gradient,
        value_fn=_energy(how, parameters, static, measured.spins, weights),
    )
    model: Network = eqx.combine(optax.apply_updates(parameters, updates), static)  # pyright: ignore[reportAssignmentType]
    hamiltonian = how[0]
    infinity = jnp.asarray(hamiltonian.trace_per_dimension, energy.dtype)
    step_norm = jnp.linalg.norm(ravel_pytree(updates)[0])
    info = VMCInfo(
        energy=energy,
        error=estimate.error,
        variance=estimate.variance,
        v_score=v_score(hamiltonian.n_sites, energy, estimate.variance, infinity),
        acceptance=jnp.mean(measured.acceptance),
        r_hat=estimate.r_hat,
        tau=estimate.tau,
        step_norm=step_norm,
    )
    finite = {
        ENERGIES: jnp.all(jnp.isfinite(measured.energies)),
        DERIVATIVES: jnp.all(jnp.isfinite(derivatives)),
        "the parameter step": jnp.isfinite(step_norm),
    }
    before, key = Before(parameters, state.optimiser), jax.random.split(state.key)[1]
    new = placed(VMCState(model, samples, optimiser, key, state.step + 1, before))
    moving = moved(measured.spins, measured.acceptance)
    return new, *everywhere((info, finite, moving))


def _at_samples(function: Callable[[Network, Array], Array], static: Network, spins: Array):
    """``function(model, spins)`` of all samples as a function of the parameters, chains spread over
    the devices; the result has a leading axis of samples."""

    def evaluate(parameters: Network) -> Array:
        model: Network = eqx.combine(parameters, static)
        values = at_samples(function)(model, spins)
        return values.reshape(-1, *values.shape[2:])

    return evaluate


def _log_psi(model: Network, spins: Array) -> Array:
    """Real parts, and phases if there are any: (chains, length, parts)."""
    values = in_chunks(model, spins.reshape(-1, spins.shape[-1]), SAMPLES_AT_ONCE)
    parts = [values] if jnp.isrealobj(values) else [jnp.real(values), jnp.imag(values)]
    return jnp.stack(parts, axis=-1).reshape(*spins.shape[:2], len(parts))


def _response(parameters: Network, static: Network, spins: Array):
    """The change of log psi at the samples, (samples, parts), as a function of an update."""
    evaluate = _at_samples(_log_psi, static, spins)
    before = evaluate(parameters)

    def response(update: optax.Updates) -> Array:
        return evaluate(optax.apply_updates(parameters, update)) - before  # pyright: ignore[reportArgumentType]

    return response


def _energy(
    how: tuple[Hamiltonian, LocalUpdates | None, int | None],
    parameters: Network,
    static: Network,
    spins: Array,
    weights: Array | None,
):
    """The energy as a function of the parameters, from samples of other ones: each counts as
    |psi|^2 has changed there.

    Its gradient is the covariance of local energies and derivatives of log psi, in which the
    derivatives of the local energies drop out on average, so that none is taken.  Where the weights
    leave less than half of the samples, they know nothing of the energy: it is made to rise, so
    that no line search goes there.
    """
    log_psi = _at_samples(_log_psi, static, spins)
    local = _at_samples(lambda model, spins: energies_of(*how, model, spins), static, spins)

    # line searches hand on all arguments of the update, by the names in this signature
    def energy(
        moved: Network,
        *,
        derivatives: Any = None,
        energies: Any = None,
        response: Any = None,
        weights: Any = weights,
    ) -> Array:
        before, after = jax.lax.stop_gradient(log_psi(parameters)), log_psi(moved)
        local_energies = jax.lax.stop_gradient(local(moved))
        gained = 2 * jax.lax.stop_gradient(after[:, 0] - before[:, 0])
        if weights is not None:
            gained = gained + jnp.log(weights).astype(gained.dtype)
        share = jax.nn.softmax(gained)
        mean = jnp.sum(share.astype(local_energies.dtype) * local_energies)
        parts = jnp.stack([jnp.real(local_energies - mean), jnp.imag(local_energies)], axis=1)
        parts = parts[:, : after.shape[1]].astype(after.dtype)
        slope = 2 * jnp.sum(share[:, None] * parts * after)
        value = jnp.real(mean).astype(after.dtype)
        left = 1 / (share.size * jnp.sum(share**2))
        beyond = 10 * (1 + jnp.abs(value)) * jnp.maximum(0.5 - left, 0)
        return value + beyond + slope - jax.lax.stop_gradient(slope)

    return energy
