"""Natural gradient (stochastic reconfiguration) that checks the steps it takes.

With the centred samples X, eps of :mod:`dyson.optimisers.metric`,

    sr:      (X^T X + shift) delta = X^T eps                      parameters x parameters
    minsr:   delta = X^T (X X^T + shift)^-1 eps                   samples x samples
    spring:  delta = mu delta' + X^T (X X^T + shift)^-1 (eps - mu X delta')

``sr`` and ``minsr`` have the same solution; take the smaller matrix.  ``spring`` remembers the step
before, delta': the samples of one step see only as many directions as there are samples, in the
others the memory is kept.

Of states with signs or phases the shift is in units of the diagonal of S (Marquardt), so that a
step does not depend on the units of the parameters.  With the same shift for all, those that log
psi is most sensitive to take every step, by which it becomes more sensitive still: on the
Majumdar-Ghosh ring, where the large amplitudes of the Neel states have to be turned around, the
largest eigenvalue of S rose to 1e9, and no step was short enough for the check.

The step is ``-learning_rate * delta``, checked on the samples before it is taken, and shortened,
made anew or corrected (:mod:`dyson.optimisers.checked_step`).

References: S. Sorella, Phys. Rev. Lett. 80, 4558 (1998); A. Chen and M. Heyl, Nat. Phys. 20,
1476 (2024); G. Goldshlager, N. Abrahamsen and L. Lin, J. Comput. Phys. 516, 113351 (2024);
D. W. Marquardt, J. Soc. Indust. Appl. Math. 11, 431 (1963).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, Int

from dyson.optimisers.checked_step import LOWER, Solver, Step
from dyson.optimisers.metric import (
    centred_samples,
    check_precision,
    scales,
    shares,
    solve_positive,
)
from dyson.optimisers.schedules import ScalarOrSchedule, annealed_rate, at_step, decaying_shift

DEFAULT_RATE = annealed_rate()
DEFAULT_SHIFT = decaying_shift()


class NaturalGradientState(NamedTuple):
    """Steps taken, the direction kept in memory, the factor on the scheduled shift that the checks
    call for; and of the last step: its shift and the distance sqrt(step^T S step)."""

    count: Int[Array, ""]
    direction: Float[Array, " parameters"]
    firmness: Float[Array, ""]
    shift: Float[Array, ""]
    distance: Float[Array, ""]


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
    (samples, parts).  Without it steps are taken unchecked.  ``weights`` (samples,) say what each
    sample counts, if not all the same.
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


def _scaled(solver: Callable[[Array], Solver], x: Array) -> Solver:
    """The solver for parameters in units of what log psi changes with them."""
    scale = scales(x)
    solve = solver(x / scale)
    return lambda eps, eta, kept: solve(eps, eta, scale * kept) / scale


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
        weights: Float[Array, " samples"] | None = None,
        **_: object,
    ) -> tuple[optax.Updates, NaturalGradientState]:
        share = shares(weights, energies.size)
        x, eps = centred_samples(derivatives, energies, share)
        flat, unravel = ravel_pytree(updates)
        as_update = lambda step: unravel(step.astype(flat.dtype))
        change = None if response is None else lambda step: response(as_update(step))
        step = Step(
            x,
            eps,
            derivatives,
            share,
            solver(x) if derivatives.shape[1] == 1 else _scaled(solver, x),
            change,
            at_step(learning_rate, state.count),
            at_step(shift, state.count),
            trust_region,
            state.direction,
        )
        trial = step.taken(jnp.maximum(1, LOWER * state.firmness), momentum)
        new_state = NaturalGradientState(
            state.count + 1,
            trial.direction,
            step.afterwards(trial),
            trial.firmness * step.shift,
            trial.distance,
        )
        return as_update(trial.step), new_state

    # optax types the extra arguments as Any keyword
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
