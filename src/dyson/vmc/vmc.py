"""Variational Monte Carlo as two functions: ``init`` and ``step``.

One step draws samples of |psi|^2, evaluates their local energies and logarithmic derivatives, and
hands both to an optax transformation.  Samples are spread over all devices; every chain has its
own random stream, so the result does not depend on how many there are (up to summation order).
"""

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from dyson.batching import in_chunks
from dyson.devices import at_samples, by_chain, everywhere, gathered, placed
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.optimisers import energy_gradient
from dyson.samplers import Sampler, SamplerState, check_fit
from dyson.updates import LocalUpdates
from dyson.vmc.growth import carried_over, repeated
from dyson.vmc.jacobian import SAMPLES_AT_ONCE, log_derivatives
from dyson.vmc.measurement import Measurement, draw, energies_of, joined, measured
from dyson.vmc.statistics import (
    MIN_STEPS_SPLIT,
    DiagnosticWarning,
    moved,
    v_score,
)

# What a network that is of no use shows first.
ENERGIES, DERIVATIVES = "the local energy", "a derivative of log psi"


class Before(eqx.Module):
    """Parameters and optimiser as they were before the last step: with these, the local energies
    were finite."""

    parameters: Network
    optimiser: optax.OptState


class VMCState(eqx.Module):
    """What the next step needs."""

    model: Network
    sampler: SamplerState
    optimiser: optax.OptState
    key: jax.Array
    step: Int[Array, ""]
    before: Before


class VMCInfo(eqx.Module):
    """What a person wants to see of one step; energies are totals, before the step was taken.

    NaN is "not known": of chains that did not move no spread is, and R-hat takes four samples of a
    chain.
    """

    energy: Float[Array, ""]
    error: Float[Array, ""]  # one standard deviation, autocorrelation included
    variance: Float[Array, ""]
    v_score: Float[Array, ""]
    acceptance: Float[Array, ""]
    r_hat: Float[Array, ""]
    tau: Float[Array, ""]  # in samples of a chain
    step_norm: Float[Array, ""]  # Euclidean length of the parameter step

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if any(isinstance(x, Tracer) or jnp.ndim(x) for x in values.values()):
            return eqx.tree_pformat(self)
        shown = [f"{name}={_known(float(x))}" for name, x in values.items()]
        return f"VMCInfo({', '.join(shown)})"


def _known(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.8g}"


class NonFiniteError(FloatingPointError):
    """A step met a value that is not finite.

    ``state`` can be used: its local energies were finite.  It is the one that was given, or, where
    the step before had led to a network of no use, that before this step, with the chains as they
    are now.
    """

    def __init__(self, state: VMCState, step: int, what: str):
        self.state = state
        super().__init__(
            f"step {step}: {what} is not finite. The state after step {int(state.step)} is kept; "
            "go on from it with a smaller learning rate (or a larger shift of sr, minsr and "
            "spring) or more samples"
        )


class VMC(eqx.Module):
    """Functional variational Monte Carlo.

    Arguments:
      hamiltonian, sampler: what is minimised and how it is sampled.
      optimiser: any optax transformation of the gradient of the energy.  Those that take extra
        arguments receive ``derivatives`` (samples, parts, parameters), ``energies`` (samples,) and
        ``response``, the change of log psi at the samples as a function of an update (phases modulo
        2 pi); and, as line searches want them, ``value``, ``grad`` and ``value_fn``, the energy as
        a function of the parameters by weighing the samples anew.
      chain_length: samples of each chain per step; fewer than four leave R-hat unknown.
      warm_up: samples of each chain thrown away at the start, in rounds of ``chain_length``.
      updates, chunk_size: passed to :func:`dyson.local_energies`.
    """

    hamiltonian: Hamiltonian
    sampler: Sampler
    optimiser: optax.GradientTransformationExtraArgs = eqx.field(static=True)
    chain_length: int = eqx.field(static=True)
    warm_up: int = eqx.field(static=True)
    updates: LocalUpdates | None
    chunk_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        sampler: Sampler,
        optimiser: optax.GradientTransformation,
        *,
        chain_length: int = 4,
        warm_up: int = 8,
        updates: LocalUpdates | None = None,
        chunk_size: int | None = None,
    ):
        if chain_length < 1 or warm_up < 0:
            raise ValueError(
                f"VMC: expected chain_length >= 1 and warm_up >= 0, got {chain_length}, {warm_up}"
            )
        if chain_length < MIN_STEPS_SPLIT or sampler.n_chains * chain_length == 1:
            unknown = "R-hat" if sampler.n_chains * chain_length > 1 else "error bar, R-hat"
            warnings.warn(
                f"VMC: with {sampler.n_chains} chains of {chain_length} samples the {unknown} of "
                f"the energy is not known; R-hat takes chain_length >= {MIN_STEPS_SPLIT}",
                DiagnosticWarning,
                stacklevel=3,
            )
        check_fit(f"VMC with {type(sampler).__name__}", sampler.moves, hamiltonian)
        self.hamiltonian, self.sampler = hamiltonian, sampler
        self.optimiser = optax.with_extra_args_support(optimiser)
        self.chain_length, self.warm_up = chain_length, warm_up
        self.updates, self.chunk_size = updates, chunk_size

    def init(self, key: jax.Array, model: Network) -> VMCState:
        """Chains warmed up on the initial network."""
        start_key, warm_key, key = jax.random.split(key, 3)
        samples = by_chain(self.sampler.init(start_key, model))
        model, warm_key, key = everywhere((model, warm_key, key))
        samples = self._warmed(warm_key, model, samples)
        optimiser = self.optimiser.init(eqx.filter(model, eqx.is_inexact_array))
        return _new_state(model, samples, optimiser, key, jnp.zeros((), jnp.int32))

    def grown(self, state: VMCState) -> VMCState:
        """The state of a chain of another length continued on this one.

        The network is resized (:meth:`dyson.DysonNet.resized`), the optimiser keeps its memory and
        its step, and the chains start from their configurations repeated, warmed up.  ValueError
        where this VMC has another optimiser.

            state = vmc_of_64.grown(state_of_32)
        """
        start_key, warm_key, key = jax.random.split(state.key, 3)
        sampler = self.sampler
        model = state.model.resized(sampler.n_sites)
        shape = sampler.n_chains, sampler.n_sites
        spins = repeated(start_key, gathered(state.sampler.spins), shape, sampler.magnetisation)
        fresh = sampler.init(start_key, model)
        samples = by_chain(eqx.tree_at(lambda s: s.spins, fresh, spins))
        model, warm_key, key = everywhere((model, warm_key, key))
        samples = self._warmed(warm_key, model, samples)
        parameters = eqx.filter(model, eqx.is_inexact_array)
        shapes = eqx.filter_eval_shape(self.optimiser.init, parameters)
        optimiser = carried_over(state.optimiser, shapes)
        return _new_state(model, samples, optimiser, key, state.step)

    def _warmed(self, key: jax.Array, model: Network, samples: SamplerState) -> SamplerState:
        """After so many samples of each chain as are thrown away at a start."""
        for _ in range(-(-self.warm_up // self.chain_length)):
            samples, *_ = draw(self.sampler, self.chain_length, key, model, samples)
            key = jax.random.split(key)[1]
        return samples

    def step(self, state: VMCState) -> tuple[VMCState, VMCInfo]:
        """One optimisation step.

        Raises :class:`NonFiniteError` with a state to go on from; warns with
        :class:`dyson.vmc.statistics.DiagnosticWarning` where no chain moved.
        """
        state = placed(state)
        samples, measurement = self._measured(state.key, state.model, state.sampler)
        new_state, info, finite, moving = _improved(self, state, samples, measurement)
        finite, moving = jax.device_get((finite, moving))
        if not all(finite.values()):
            broken = ", ".join(name for name, ok in finite.items() if not ok)
            usable = state if finite[ENERGIES] and finite[DERIVATIVES] else _stepped_back(state)
            raise NonFiniteError(usable, int(state.step) + 1, broken)
        if not moving:
            warnings.warn(
                "VMC: no chain moved in a step, so that its error bar, V-score, tau and R-hat are "
                "not known; use more sweeps, moves that fit the state, or a smaller learning rate "
                "from the start",
                DiagnosticWarning,
                stacklevel=2,
            )
        return new_state, info

    def measure(
        self, key: jax.Array, model: Network, samples: SamplerState
    ) -> tuple[SamplerState, Measurement]:
        """Draw as many samples as one step and leave the network as it is.

        Returns the state of the chains and what was measured, whole on every device.
        """
        key, model = everywhere((key, model))
        samples, measurement = self._measured(key, model, by_chain(samples))
        return samples, everywhere(measurement)

    def sample(self, state: VMCState, length: int) -> tuple[VMCState, Measurement]:
        """At least ``length`` samples of every chain and their local energies, of a state that is
        left as it is: for :func:`dyson.expect` and whatever else.

        They are drawn ``chain_length`` at a time, by the programs of a step.  The state returned
        has its chains and its random key moved on, so that the next call draws others.
        """
        if length < 1:
            raise ValueError(f"VMC.sample: expected length >= 1, got {length}")
        state, parts = placed(state), []
        for _ in range(-(-length // self.chain_length)):
            samples, part = self.measure(state.key, state.model, state.sampler)
            key = jax.random.split(state.key)[1]
            state = placed(dataclasses.replace(state, sampler=samples, key=key))
            parts.append(part)
        return state, joined(parts)

    def _measured(
        self, key: jax.Array, model: Network, samples: SamplerState
    ) -> tuple[SamplerState, Measurement]:
        """With the chains spread over the devices."""
        samples, spins, acceptance = draw(self.sampler, self.chain_length, key, model, samples)
        how = self.hamiltonian, self.updates, self.chunk_size
        return samples, measured(*how, model, spins, acceptance)


def _new_state(
    model: Network,
    samples: SamplerState,
    optimiser: optax.OptState,
    key: jax.Array,
    step: Int[Array, ""],
) -> VMCState:
    """A state that nothing came before."""
    before = Before(eqx.filter(model, eqx.is_inexact_array), optimiser)
    return placed(VMCState(model, samples, optimiser, key, step, before))


@eqx.filter_jit
def _improved(
    vmc: VMC, state: VMCState, samples: SamplerState, measured: Measurement
) -> tuple[VMCState, VMCInfo, dict[str, Array], Array]:
    """The step that the samples call for; also which values are finite, and whether the chains
    moved."""
    parameters, static = eqx.partition(state.model, eqx.is_inexact_array)
    derivatives = _at_samples(_log_derivatives, static, measured.spins)(parameters)
    energies = measured.energies.reshape(-1)
    estimate = measured.estimate()
    energy = jnp.real(estimate.mean)
    flat, unravel = ravel_pytree(parameters)
    gradient = unravel(energy_gradient(derivatives, energies).astype(flat.dtype))
    updates, optimiser = vmc.optimiser.update(
        gradient,
        state.optimiser,
        parameters,
        derivatives=derivatives,
        energies=energies,
        response=_response(parameters, static, measured.spins),
        value=energy.astype(flat.dtype),
        grad=gradient,
        value_fn=_energy(vmc, parameters, static, measured.spins),
    )
    model: Network = eqx.combine(optax.apply_updates(parameters, updates), static)  # pyright: ignore[reportAssignmentType]
    infinity = vmc.hamiltonian.trace_per_dimension.astype(energy.dtype)
    step_norm = jnp.linalg.norm(ravel_pytree(updates)[0])
    info = VMCInfo(
        energy=energy,
        error=estimate.error,
        variance=estimate.variance,
        v_score=v_score(vmc.hamiltonian.n_sites, energy, estimate.variance, infinity),
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


def _stepped_back(state: VMCState) -> VMCState:
    """With the network and the optimiser before the last step."""
    _, static = eqx.partition(state.model, eqx.is_inexact_array)
    model: Network = eqx.combine(state.before.parameters, static)
    step = jnp.maximum(state.step - 1, 0)
    return VMCState(model, state.sampler, state.before.optimiser, state.key, step, state.before)


def _at_samples(function: Callable[[Network, Array], Array], static: Network, spins: Array):
    """``function(model, spins)`` of all samples as a function of the parameters, chains spread over
    the devices; the result has a leading axis of samples."""

    def evaluate(parameters: Network) -> Array:
        model: Network = eqx.combine(parameters, static)
        values = at_samples(function)(model, spins)
        return values.reshape(-1, *values.shape[2:])

    return evaluate


def _log_derivatives(model: Network, spins: Array) -> Array:
    """(chains, length, parts, parameters)."""
    rows = log_derivatives(model, spins.reshape(-1, spins.shape[-1]))
    return rows.reshape(*spins.shape[:2], *rows.shape[1:])


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


def _energy(vmc: VMC, parameters: Network, static: Network, spins: Array):
    """The energy as a function of the parameters, from samples of other ones: each counts as
    |psi|^2 has changed there.

    Its gradient is the covariance of local energies and derivatives of log psi, in which the
    derivatives of the local energies drop out on average, so that none is taken.  Where the weights
    leave less than half of the samples, they know nothing of the energy: it is made to rise, so
    that no line search goes there.
    """
    log_psi = _at_samples(_log_psi, static, spins)
    how = vmc.hamiltonian, vmc.updates, vmc.chunk_size
    local = _at_samples(lambda model, spins: energies_of(*how, model, spins), static, spins)

    # line searches hand on all arguments of the update, by the names in this signature
    def energy(
        moved: Network, *, derivatives: Any = None, energies: Any = None, response: Any = None
    ) -> Array:
        before, after = jax.lax.stop_gradient(log_psi(parameters)), log_psi(moved)
        local_energies = jax.lax.stop_gradient(local(moved))
        weights = jax.nn.softmax(2 * jax.lax.stop_gradient(after[:, 0] - before[:, 0]))
        mean = jnp.sum(weights.astype(local_energies.dtype) * local_energies)
        parts = jnp.stack([jnp.real(local_energies - mean), jnp.imag(local_energies)], axis=1)
        parts = parts[:, : after.shape[1]].astype(after.dtype)
        slope = 2 * jnp.sum(weights[:, None] * parts * after)
        value = jnp.real(mean).astype(after.dtype)
        left = 1 / (weights.size * jnp.sum(weights**2))
        beyond = 10 * (1 + jnp.abs(value)) * jnp.maximum(0.5 - left, 0)
        return value + beyond + slope - jax.lax.stop_gradient(slope)

    return energy
