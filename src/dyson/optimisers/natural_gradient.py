"""Natural gradient (stochastic reconfiguration) that checks the steps it takes.

With the centred samples X, eps of :mod:`dyson.optimisers.metric`,

    sr:      (X^T X + shift) delta = X^T eps                      parameters x parameters
    minsr:   delta = X^T (X X^T + shift)^-1 eps                   samples x samples
    spring:  delta = mu delta' + X^T (X X^T + shift)^-1 (eps - mu X delta')

``sr`` and ``minsr`` have the same solution; take the smaller matrix.  ``spring`` remembers the step
before, delta': the samples of one step see only as many directions as there are samples, in the
others the memory is kept.

The step is ``-learning_rate * delta``, shortened where the linear model says that the state moves
further than the trust region, sqrt(step^T S step).  That model fails without warning: in directions
that the samples hardly see, a long step costs nothing in S while log psi bends.  One such step can
throw a converged state away, and small ones add up: on a critical ring they moved the slowest
excitation, which only slowly decays again, by several times the intended step.  So the step is
tried on the samples, and what log psi misses of the linear prediction is

- too much (``BENDING``): the step is made anew with a raised shift and half the memory.  The raised
  shift stays and is lowered again step by step (Levenberg and Marquardt's rule, on the state
  instead of the residual);
- tolerable: it is taken as a residual and corrected by the same solver, until little is left
  (``CLOSE``) or nothing is gained.  The state then follows imaginary time on the samples although
  the parameters act nonlinearly.

Phases count modulo 2 pi: what is missing of a change of Im log psi is taken on the circle, sample
by sample, before anything is averaged.  And of complex states, each sample may follow either of two
paths that agree to first order: log psi changes by -learning_rate * eps, or psi by the factor
1 - learning_rate * eps.  Near a node the parameters move psi, not its logarithm, and no smooth
path of log psi leads to the other sign: held to the first path alone, states with signs stall
before every node they have to cross.

References: S. Sorella, Phys. Rev. Lett. 80, 4558 (1998); A. Chen and M. Heyl, Nat. Phys. 20,
1476 (2024); G. Goldshlager, N. Abrahamsen and L. Lin, J. Comput. Phys. 516, 113351 (2024).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, Int

from dyson.optimisers.metric import centred, centred_samples, check_precision, solve_positive
from dyson.optimisers.schedules import ScalarOrSchedule, annealed_rate, at_step, decaying_shift
from dyson.phases import around_the_common_phase

DEFAULT_RATE = annealed_rate()
DEFAULT_SHIFT = decaying_shift()

# Departure from the linear prediction, relative to it, beyond which a step is made anew ...
BENDING = 1.0
# ... unless it is small in proportion to the learning rate: what every step adds to an excitation
# decays again at the rate of learning_rate times its energy.
HARMLESS = 0.1
# Departure that needs no correction: relative, and what log psi in single precision may show.
CLOSE, ROUND_OFF = 0.1, 1e-5
RAISE, LOWER = 4.0, 0.5
MOST_TRIALS = 16


class NaturalGradientState(NamedTuple):
    """Steps taken, the direction kept in memory, the factor on the scheduled shift that the checks
    call for; and of the last step: its shift and the distance sqrt(step^T S step)."""

    count: Int[Array, ""]
    direction: Float[Array, " parameters"]
    firmness: Float[Array, ""]
    shift: Float[Array, ""]
    distance: Float[Array, ""]


class _Trial(NamedTuple):
    """A step on its way: the direction it takes, the change of log psi at the samples it is meant
    to make and what is missing of that, how far it goes and how it was made."""

    step: Array
    direction: Array
    target: Array
    missing: Array
    distance: Array
    firmness: Array
    memory: Array
    count: Array
    anew: Array  # the next trial makes the step anew; else it corrects it
    done: Array


Solver = Callable[[Array, Array, Array], Array]
"""delta from eps, the shift and the direction kept."""


def sr(
    learning_rate: ScalarOrSchedule = DEFAULT_RATE,
    *,
    shift: ScalarOrSchedule = DEFAULT_SHIFT,
    trust_region: float = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic reconfiguration with a dense metric; O(samples * parameters^2 + parameters^3).

    ``update`` takes, beside the gradient (ignored: the force follows from the samples),
    ``derivatives`` (samples, parts, parameters), ``energies`` (samples,) and, for the check of the
    step, ``response``: a function from an update of the parameters to the change of log psi,
    (samples, parts).  Without it steps are taken unchecked.
    """

    def solver(x: Array) -> Solver:
        metric = x.T @ x
        return lambda eps, eta, _: solve_positive(metric, eta, x.T @ eps)

    return _natural_gradient(solver, learning_rate, shift, trust_region, momentum=0)


def minsr(
    learning_rate: ScalarOrSchedule = DEFAULT_RATE,
    *,
    shift: ScalarOrSchedule = DEFAULT_SHIFT,
    trust_region: float = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """The same step from the Gram matrix of the samples; O(samples^2 * parameters + samples^3).

    Arguments as :func:`sr`; the cheaper one when there are more parameters than samples.
    """
    return spring(learning_rate, shift=shift, trust_region=trust_region, momentum=0)


def spring(
    learning_rate: ScalarOrSchedule = DEFAULT_RATE,
    *,
    shift: ScalarOrSchedule = DEFAULT_SHIFT,
    trust_region: float = 0.1,
    momentum: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Natural gradient with memory; O(samples^2 * parameters + samples^3) per trial.

    ``momentum`` is mu, 0 <= mu < 1; 0 is :func:`minsr`.  Other arguments as :func:`sr`.
    """

    def solver(x: Array) -> Solver:
        gram = x @ x.T
        return lambda eps, eta, kept: kept + x.T @ solve_positive(gram, eta, eps - x @ kept)

    return _natural_gradient(solver, learning_rate, shift, trust_region, momentum)


def _apart(aim: Float[Array, "samples parts"], change: Float[Array, "samples parts"]) -> Array:
    """``aim - change`` of log psi, centred; phases on the circle, around the one that all share."""
    short = aim - change
    if short.shape[1] == 2:
        short = short.at[:, 1].set(around_the_common_phase(short[:, 1]))
    return short - jnp.mean(short, axis=0)


def _linear_in_psi(aim: Float[Array, "samples 2"]) -> Float[Array, "samples 2"]:
    """The change of log psi where psi, instead of its logarithm, changes by ``aim``."""
    changed = jnp.log(1 + jax.lax.complex(aim[:, 0], aim[:, 1]))
    return jnp.stack([jnp.real(changed), jnp.imag(changed)], axis=1)


def _nearer(first: Float[Array, "samples 2"], second: Float[Array, "samples 2"]) -> Array:
    """The shorter one of each sample."""
    lengths = [jnp.sum(short**2, axis=1, keepdims=True) for short in (first, second)]
    return jnp.where(lengths[1] < lengths[0], second, first)


def _natural_gradient(
    solver: Callable[[Array], Solver],
    learning_rate: ScalarOrSchedule,
    shift: ScalarOrSchedule,
    trust_region: float,
    momentum: float,
) -> optax.GradientTransformationExtraArgs:
    positive = {"learning_rate": learning_rate, "shift": shift, "trust_region": trust_region}
    for name, value in positive.items():
        if not callable(value) and not value > 0:
            raise ValueError(f"natural gradient: expected {name} > 0, got {value}")
    if not 0 <= momentum < 1:
        raise ValueError(f"spring: expected 0 <= momentum < 1, got {momentum}")

    def init(params: optax.Params) -> NaturalGradientState:
        check_precision()
        zero, one = jnp.zeros((), jnp.float64), jnp.ones((), jnp.float64)
        nothing = jnp.zeros(ravel_pytree(params)[0].shape, jnp.float64)
        return NaturalGradientState(jnp.zeros((), jnp.int32), nothing, one, zero, zero)

    def update(
        updates: optax.Updates,
        state: NaturalGradientState,
        params: optax.Params | None = None,
        *,
        derivatives: Float[Array, "samples parts parameters"],
        energies: Inexact[Array, " samples"],
        response: Callable[[optax.Updates], Float[Array, "samples parts"]] | None = None,
        **_: Array,
    ) -> tuple[optax.Updates, NaturalGradientState]:
        x, eps = centred_samples(derivatives, energies)
        flat, unravel = ravel_pytree(updates)
        scheduled, rate = at_step(shift, state.count), at_step(learning_rate, state.count)

        solve = solver(x)
        samples, parts = derivatives.shape[:2]
        slope = jnp.mean(derivatives.astype(jnp.float64), axis=0)

        def missed(step: Array, target: Array) -> Array:
            """What the samples, centred, miss of the change of log psi that they were to make."""
            if response is None:
                return target - x @ step
            change = response(unravel(step.astype(flat.dtype))).astype(jnp.float64) - slope @ step
            aim = samples**0.5 * target.reshape(samples, parts)
            short = _apart(aim, change)
            if parts == 2:
                short = _nearer(short, _apart(_linear_in_psi(aim), change))
            return centred(short).reshape(-1)

        def attempt(trial: _Trial) -> _Trial:
            """The step made anew, or corrected by what is missing."""
            anew = trial.anew
            delta = solve(
                jnp.where(anew, eps, trial.missing),
                trial.firmness * scheduled,
                jnp.where(anew, trial.memory, 0) * state.direction,
            )
            predicted = -rate * (x @ delta)
            distance = jnp.linalg.norm(predicted)
            factor = jnp.minimum(1, trust_region / jnp.maximum(distance, 1e-300))
            # what is cut from the step is not remembered either
            step = jnp.where(anew, -factor * rate * delta, trial.step + delta)
            direction = jnp.where(anew, factor * delta, trial.direction)
            target = jnp.where(anew, factor * predicted, trial.target)
            distance = jnp.where(anew, factor * distance, trial.distance)
            missing = missed(step, target)
            bending = jnp.linalg.norm(missing)
            better = anew | (bending < jnp.linalg.norm(trial.missing))
            # written so that a log psi that is not finite counts as too much
            repeat = anew & ~(bending <= BENDING * distance + HARMLESS * rate)
            new = _Trial(
                step,
                direction,
                target,
                missing,
                distance,
                jnp.where(repeat, RAISE, 1) * trial.firmness,
                jnp.where(repeat, 0.5, 1) * trial.memory,
                trial.count + 1,
                repeat,
                bending <= CLOSE * distance + ROUND_OFF,
            )
            as_it_was = trial._replace(done=jnp.asarray(True))
            return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, as_it_was)

        nothing, zero, yes = jnp.zeros_like(eps), jnp.zeros((), jnp.float64), jnp.asarray(True)
        trial = jax.lax.while_loop(
            # a step that is not finite is not tried again: the caller stops there
            lambda t: ~t.done & (t.count < MOST_TRIALS) & jnp.isfinite(t.distance),
            attempt,
            _Trial(
                step=jnp.zeros_like(state.direction),
                direction=state.direction,
                target=nothing,
                missing=nothing,
                distance=zero,
                firmness=jnp.maximum(1, LOWER * state.firmness),
                memory=zero + momentum,
                count=jnp.zeros((), jnp.int32),
                anew=yes,
                done=~yes,
            ),
        )
        new_state = NaturalGradientState(
            state.count + 1,
            trial.direction,
            trial.firmness,
            trial.firmness * scheduled,
            trial.distance,
        )
        return unravel(trial.step.astype(flat.dtype)), new_state

    # optax types the extra arguments as Any keyword
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
