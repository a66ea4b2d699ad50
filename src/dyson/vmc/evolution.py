r"""Evolution in real time by the time-dependent variational principle.

The parameters move so that the state follows -i H psi as closely as the network can: with X of
:mod:`dyson.optimisers.metric`, real and imaginary parts of the centred derivatives as rows,

    X v = eps',     eps' = sqrt(p) times the parts of -i (E_loc - <E>),
    v = X^T (X X^T + shift)^-1 eps',                                    samples x samples

the least squares solution of smallest norm.  Parameters are real, so the principle is McLachlan's.
Where the network has more parameters than the state has amplitudes it follows exactly, whatever
the samples; elsewhere the residual |X v - eps'|^2 / |eps'|^2 says what part of the motion is lost.

Time goes on in steps of Bogacki and Shampine's pair of third and second order, each velocity from
new samples.  Their difference e, as a distance |X e| between states, is the error that decides how
long a step is: near a state whose amplitudes hardly depend on the parameters these move fast.

References: A. D. McLachlan, Mol. Phys. 8, 39 (1964); G. Carleo and M. Troyer, Science 355, 602
(2017); M. Schmitt and M. Heyl, Phys. Rev. Lett. 125, 100503 (2020); P. Bogacki and L. F. Shampine,
Appl. Math. Lett. 2, 321 (1989).
"""

import dataclasses
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from dyson.devices import placed
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.optimisers.metric import centred_samples, check_precision, shares, solve_positive
from dyson.samplers import Sampler, SamplerState
from dyson.updates import LocalUpdates
from dyson.vmc.jacobian import derivatives_of_chains
from dyson.vmc.measurement import Measurement
from dyson.vmc.vmc import VMC

# Bogacki and Shampine's method: how far along the last velocity the next one is taken, what each
# counts, and what each counts for the error, with that at the end.
_AHEAD = (0.5, 0.75)
_WEIGHTS = (2 / 9, 1 / 3, 4 / 9)
_ERRORS = (-5 / 72, 1 / 12, 1 / 9, -1 / 8)
# A step is changed to what would have just been right, less a margin, within these factors.
_MARGIN, _SHORTER, _LONGER = 0.9, 0.2, 4.0
# Steps of a call at most: beyond, the evolution has come to a stand.
_MOST_STEPS = 10_000


class EvolutionError(FloatingPointError):
    """The evolution cannot go on; ``state`` is that of the last step that could be taken."""

    def __init__(self, state: "EvolutionState", what: str):
        self.state = state
        super().__init__(
            f"time {float(state.time):g}: {what}; go on from this state with a larger shift, a "
            "larger tolerance or more samples"
        )


class EvolutionState(eqx.Module):
    """What the next step needs.  ``VMC.sample`` takes it as well."""

    model: Network
    sampler: SamplerState
    key: jax.Array
    time: Float[Array, ""]
    interval: Float[Array, ""]
    """How long the next inner step is to be."""


class EvolutionInfo(eqx.Module):
    """Of the state at ``time``, before the step; the energy is a total and should not change."""

    time: Float[Array, ""]
    energy: Float[Array, ""]
    error: Float[Array, ""]  # one standard deviation, autocorrelation included
    variance: Float[Array, ""]
    residual: Float[Array, ""]
    """The part of |(H - <H>) psi|^2 that the network could not follow, from 0 to 1."""
    inner_steps: Int[Array, ""]
    """Inner steps that were taken, and tried in vain."""


class Velocity(eqx.Module):
    """The time derivative of the parameters; X; and the residual."""

    parameters: Float[Array, " parameters"]
    metric: Float[Array, "rows parameters"]
    residual: Float[Array, ""]


class Evolution(eqx.Module):
    """The evolution of a state in time, as two functions: ``init`` and ``step``.

        evolution = dyson.Evolution(hamiltonian, sampler, time_step=0.1)
        state = evolution.init(key, model)
        for _ in range(30):
            state, info = evolution.step(state)

    ``evolution.vmc``, a :class:`dyson.VMC` without an optimiser, draws samples of a state for
    :func:`dyson.expect`: ``evolution.vmc.sample(state, 8)``.

    Arguments:
      hamiltonian, sampler: what drives the evolution, and how the state is sampled.
      time_step: of a call of ``step``, in units of 1 / energy; negative runs back in time.
      tolerance: the error of each inner step, as a distance of states.
      chain_length, warm_up, blur, updates, chunk_size: as in :class:`dyson.VMC`.
      shift: in units of the largest diagonal element of X X^T.  Smaller: follows small amplitudes
        better; larger: parameters that samples say little of stay calmer.

    Cost of an inner step: three times that of ``minsr``, samples included.
    """

    vmc: VMC
    time_step: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    shift: Float[Array, ""]

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        sampler: Sampler,
        *,
        time_step: float,
        tolerance: float = 1e-4,
        chain_length: int = 4,
        warm_up: int = 8,
        blur: float = 0.5,
        shift: float = 1e-10,
        updates: LocalUpdates | None = None,
        chunk_size: int | None = None,
    ):
        if not (time_step and math.isfinite(time_step)) or not (tolerance > 0 and shift > 0):
            raise ValueError(
                "Evolution: expected time_step other than 0, tolerance > 0 and shift > 0, got "
                f"{time_step}, {tolerance} and {shift}"
            )
        self.vmc = VMC(
            hamiltonian,
            sampler,
            optax.set_to_zero(),
            chain_length=chain_length,
            warm_up=warm_up,
            blur=blur,
            updates=updates,
            chunk_size=chunk_size,
        )
        self.time_step, self.tolerance = float(time_step), float(tolerance)
        self.shift = jnp.asarray(shift, float)

    def init(self, key: jax.Array, model: Network) -> EvolutionState:
        """The state at time zero, its chains warmed up.

        Raises `TypeError` for a network without phases.
        """
        check_precision()
        spins = jax.ShapeDtypeStruct((self.vmc.sampler.n_sites,), jnp.int8)
        if not jnp.iscomplexobj(eqx.filter_eval_shape(model, spins)):
            raise TypeError(
                f"Evolution: expected a network with complex log psi, got {type(model).__name__} "
                "with a real one; DysonNet and ViT take complex_head=True"
            )
        start = self.vmc.init(key, model)
        zero, interval = jnp.zeros(()), jnp.asarray(self.time_step / 10)
        return placed(EvolutionState(start.model, start.sampler, start.key, zero, interval))

    def step(self, state: EvolutionState) -> tuple[EvolutionState, EvolutionInfo]:
        """The state ``time_step`` later.

        Raises :class:`EvolutionError` with a state to go on from.
        """
        state = placed(state)
        end = float(state.time) + self.time_step
        state, measurement, velocity = self._velocity(state, state.model)
        estimate, time, residual, tried = measurement.estimate(), state.time, velocity.residual, 0
        while float(state.time) != end:
            if tried == _MOST_STEPS:
                raise EvolutionError(state, f"{tried} inner steps do not lead to time {end:g}")
            tried += 1
            state, velocity = self._tried(state, velocity, end)
        info = EvolutionInfo(
            time=time,
            energy=jnp.real(estimate.mean),
            error=estimate.error,
            variance=estimate.variance,
            residual=residual,
            inner_steps=jnp.asarray(tried),
        )
        return state, info

    def _tried(
        self, state: EvolutionState, velocity: Velocity, end: float
    ) -> tuple[EvolutionState, Velocity]:
        """An inner step if its error is within the tolerance, else a shorter interval."""
        left = end - float(state.time)
        interval = float(state.interval)
        last = abs(interval) >= abs(left)
        interval = left if last else interval
        velocities, there = [velocity], state
        for ahead in _AHEAD:
            model = displaced(state.model, velocities[-1].parameters, jnp.asarray(ahead * interval))
            there, _, found = self._velocity(there, model)
            velocities.append(found)
        total = _weighted(_WEIGHTS, velocities)
        model = displaced(state.model, total, jnp.asarray(interval))
        there, _, found = self._velocity(there, model)
        velocities.append(found)
        lacking = _weighted(_ERRORS, velocities)
        error = abs(interval) * float(jnp.linalg.norm(found.metric @ lacking))
        if math.isfinite(error):
            fitting = _MARGIN * (self.tolerance / max(error, 1e-300)) ** (1 / 3)
            factor = min(max(fitting, _SHORTER), _LONGER)
        elif not math.isfinite(float(jnp.sum(velocity.parameters))):
            raise EvolutionError(state, "the velocity of the parameters is not finite")
        else:
            factor = _SHORTER
        if error <= self.tolerance:
            # the last step of a call may be short because nothing is left
            longer = max(abs(factor * interval), abs(float(state.interval)) if last else 0.0)
            time = end if last else float(state.time) + interval
            new = dataclasses.replace(
                there,
                model=model,
                time=jnp.asarray(time),
                interval=jnp.asarray(math.copysign(longer, interval)),
            )
            return placed(new), found
        shorter = jnp.asarray(factor * interval)
        return placed(dataclasses.replace(state, key=there.key, interval=shorter)), velocity

    def _velocity(
        self, state: EvolutionState, model: Network
    ) -> tuple[EvolutionState, Measurement, Velocity]:
        """That of another model, from samples of its own; the state with its chains moved on."""
        samples, measurement = self.vmc.measure(state.key, model, state.sampler)
        key = jax.random.split(state.key)[1]
        moved_on = dataclasses.replace(state, sampler=samples, key=key)
        return moved_on, measurement, velocity_of(model, measurement, self.shift)


def _weighted(weights: Sequence[float], velocities: Sequence[Velocity]) -> Array:
    rows = jnp.stack([velocity.parameters for velocity in velocities])
    return jnp.tensordot(jnp.asarray(weights), rows, axes=1)


@eqx.filter_jit
def displaced(model: Network, velocity: Float[Array, " parameters"], time: Array) -> Network:
    """The network after its parameters have moved at a velocity for some time."""
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    return eqx.combine(unravel((flat + time * velocity).astype(flat.dtype)), static)


@eqx.filter_jit
def velocity_of(model: Network, measurement: Measurement, shift: Float[Array, ""]) -> Velocity:
    """The velocity of the parameters for samples with their local energies and weights."""
    derivatives = derivatives_of_chains(model, measurement.spins)
    weights = measurement.weights
    share = shares(None if weights is None else weights.reshape(-1), derivatives.shape[0])
    energies = measurement.energies.reshape(-1).astype(jnp.complex128)
    x, eps = centred_samples(derivatives, -1j * energies, share)
    gram = x @ x.T
    scale = jnp.max(jnp.diagonal(gram))
    solution = solve_positive(gram, shift * jnp.where(scale > 0, scale, 1), eps)
    velocity = x.T @ solution
    size = jnp.sum(eps**2)
    residual = jnp.sum((x @ velocity - eps) ** 2) / jnp.where(size > 0, size, 1)
    return Velocity(velocity, x, residual)
