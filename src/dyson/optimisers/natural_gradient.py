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
that the samples hardly see, a long step costs nothing in S while log psi bends, and a converged
state is lost in one step (critical ring of 64 sites: predicted 0.01 and 0.1, moved 0.2 and 5).  So
the step is tried on the samples first.  While log psi departs from the linear prediction by more
than ``BENDING`` of it, the shift is raised and the memory halved; the raised shift stays and is
lowered again step by step (Levenberg and Marquardt's rule, on the state instead of the residual).

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

from dyson.optimisers.metric import centred, centred_samples, solve_positive
from dyson.optimisers.schedules import ScalarOrSchedule, annealed_rate, at_step, decaying_shift

DEFAULT_RATE = annealed_rate()
DEFAULT_SHIFT = decaying_shift()

# Departure from the linear prediction, relative to it, at which a step is tried again.
BENDING = 1.0
# What the state may depart without harm: an energy of the order of its square.
HARMLESS = 0.02
RAISE, LOWER = 4.0, 0.5
MOST_TRIALS = 12


class NaturalGradientState(NamedTuple):
    """Steps taken, the direction kept in memory, the factor on the scheduled shift that the checks
    call for; and of the last step: its shift and the distance sqrt(step^T S step)."""

    count: Int[Array, ""]
    direction: Float[Array, " parameters"]
    firmness: Float[Array, ""]
    shift: Float[Array, ""]
    distance: Float[Array, ""]


class _Trial(NamedTuple):
    """A step, the direction it takes, how far it goes, how it was made, and whether it may go."""

    step: Array
    direction: Array
    distance: Array
    firmness: Array
    memory: Array
    trials: Array
    good: Array


Direction = Callable[[Array, Array, Array, Array], Array]
"""delta from X, eps, the shift and the direction kept."""


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

    def direction(x: Array, eps: Array, eta: Array, _: Array) -> Array:
        return solve_positive(x.T @ x, eta, x.T @ eps)

    return _natural_gradient(direction, learning_rate, shift, trust_region, momentum=0)


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

    def direction(x: Array, eps: Array, eta: Array, kept: Array) -> Array:
        return kept + x.T @ solve_positive(x @ x.T, eta, eps - x @ kept)

    return _natural_gradient(direction, learning_rate, shift, trust_region, momentum)


def _natural_gradient(
    direction: Direction,
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

        def attempt(firmness: Array, memory: Array, trials: Array) -> _Trial:
            delta = direction(x, eps, firmness * scheduled, memory * state.direction)
            predicted = -rate * (x @ delta)
            distance = jnp.linalg.norm(predicted)
            factor = jnp.minimum(1, trust_region / jnp.maximum(distance, 1e-300))
            step, distance = -factor * rate * delta, factor * distance
            good = jnp.asarray(True)
            if response is not None:
                moved = centred(response(unravel(step.astype(flat.dtype)))).reshape(-1)
                bending = jnp.linalg.norm(moved - factor * predicted)
                good = bending <= BENDING * distance + HARMLESS
            # what was cut from the step is not remembered either
            return _Trial(step, factor * delta, distance, firmness, memory, trials, good)

        def again(trial: _Trial) -> _Trial:
            return attempt(RAISE * trial.firmness, trial.memory / 2, trial.trials + 1)

        first = jnp.maximum(1, LOWER * state.firmness)
        trial = attempt(first, jnp.asarray(momentum, jnp.float64), jnp.ones((), jnp.int32))
        if response is not None:
            # a step that is not finite is not tried again: the caller stops there
            trial = jax.lax.while_loop(
                lambda t: ~t.good & (t.trials < MOST_TRIALS) & jnp.isfinite(t.distance),
                again,
                trial,
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
