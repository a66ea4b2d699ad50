"""Stochastic reconfiguration (natural gradient), in parameter space and in sample space.

With centred and normalised samples X = (O - <O>) / sqrt(B), eps = (E_loc - <E>) / sqrt(B), real
and imaginary parts stacked as rows,

    sr:     (X^T X + shift) delta = X^T eps          parameters x parameters
    minsr:  delta = X^T (X X^T + shift)^-1 eps       samples x samples

have the same solution; take the smaller matrix.  The step is ``-learning_rate * delta``, shortened
where the state would move further than the trust region, sqrt(step^T S step) with S = X^T X.

Both solve in float64 whatever the precision of the network: the Gram matrix of a float32 network
loses the small eigenvalues that carry the last digits of the energy.

References: S. Sorella, Phys. Rev. Lett. 80, 4558 (1998); A. Chen and M. Heyl, Nat. Phys. 20,
1476 (2024).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, Int

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
ScalarOrSchedule = float | Schedule


class NaturalGradientState(NamedTuple):
    """Steps taken, and of the last one: the shift and the distance sqrt(step^T S step)."""

    count: Int[Array, ""]
    shift: Float[Array, ""]
    distance: Float[Array, ""]


def annealed_rate(start: float = 0.08, hold: int = 40, halving: int = 20) -> Schedule:
    """``start`` for ``hold`` steps, then falling like 1/t, to one half after ``halving`` more.

    A step is one of Euler's in imaginary time, stable for excitations below 2 / rate unless the
    shift damps them; and the noise of the samples heats the state in proportion to the rate.
    """
    return lambda count: start / (1 + jnp.maximum(_real(count) - hold, 0) / halving)


def decaying_shift(start: float = 1e-2, floor: float = 1e-4, tenfold: int = 40) -> Schedule:
    """``start``, ten times less every ``tenfold`` steps down to ``floor``: firm, then sharp."""
    return lambda count: jnp.maximum(start * 10.0 ** (-_real(count) / tenfold), floor)


def _real(count: Int[Array, ""]) -> Float[Array, ""]:
    return count.astype(jnp.float64)


DEFAULT_RATE = annealed_rate()
DEFAULT_SHIFT = decaying_shift()


def sr(
    learning_rate: ScalarOrSchedule = DEFAULT_RATE,
    *,
    shift: ScalarOrSchedule = DEFAULT_SHIFT,
    trust_region: float = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """Stochastic reconfiguration with a dense metric; O(samples * parameters^2 + parameters^3).

    ``update`` takes, beside the gradient (ignored: the force follows from the samples),
    ``derivatives`` (samples, parts, parameters) and ``energies`` (samples,).
    """

    def solve(x: Array, eps: Array, eta: Array) -> Array:
        return solve_positive(x.T @ x, eta, x.T @ eps)

    return _natural_gradient(solve, learning_rate, shift, trust_region)


def minsr(
    learning_rate: ScalarOrSchedule = DEFAULT_RATE,
    *,
    shift: ScalarOrSchedule = DEFAULT_SHIFT,
    trust_region: float = 0.1,
) -> optax.GradientTransformationExtraArgs:
    """The same step from the Gram matrix of the samples; O(samples^2 * parameters + samples^3).

    Arguments as :func:`sr`; the cheaper one when there are more parameters than samples.
    """

    def solve(x: Array, eps: Array, eta: Array) -> Array:
        return x.T @ solve_positive(x @ x.T, eta, eps)

    return _natural_gradient(solve, learning_rate, shift, trust_region)


def centred_samples(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> tuple[Float[Array, "rows parameters"], Float[Array, " rows"]]:
    """X and eps in float64, real and imaginary parts stacked."""
    samples, parts, _ = derivatives.shape
    o = derivatives.astype(jnp.float64)
    if o.dtype != jnp.float64:
        raise RuntimeError(
            "natural gradient needs float64: call jax.config.update('jax_enable_x64', True) at the "
            "start of the program; the network may stay in float32 (dtype=jnp.float32)"
        )
    scale = samples**-0.5
    x = (o - jnp.mean(o, axis=0)) * scale
    e = energies.astype(np.promote_types(energies.dtype, np.float64))
    e = (e - jnp.mean(e)) * scale
    eps = jnp.stack([jnp.real(e), jnp.imag(e)][:parts], axis=1)
    return x.reshape(samples * parts, -1), eps.reshape(-1)


def _natural_gradient(
    solve: Callable[[Array, Array, Array], Array],
    learning_rate: ScalarOrSchedule,
    shift: ScalarOrSchedule,
    trust_region: float,
) -> optax.GradientTransformationExtraArgs:
    check_positive(learning_rate=learning_rate, shift=shift, trust_region=trust_region)

    def init(params: optax.Params) -> NaturalGradientState:
        zero = jnp.zeros((), jnp.float64)
        return NaturalGradientState(jnp.zeros((), jnp.int32), zero, zero)

    def update(
        updates: optax.Updates,
        state: NaturalGradientState,
        params: optax.Params | None = None,
        *,
        derivatives: Float[Array, "samples parts parameters"],
        energies: Inexact[Array, " samples"],
        **_: Array,
    ) -> tuple[optax.Updates, NaturalGradientState]:
        x, eps = centred_samples(derivatives, energies)
        eta = at_step(shift, state.count)
        step = -at_step(learning_rate, state.count) * solve(x, eps, eta)
        step, distance, _factor = shortened(step, x, trust_region)
        flat, unravel = ravel_pytree(updates)
        new_state = NaturalGradientState(state.count + 1, eta, distance)
        return unravel(step.astype(flat.dtype)), new_state

    # optax types the extra arguments as Any keyword
    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def check_positive(**settings: ScalarOrSchedule) -> None:
    """Refuse numbers that are not positive; schedules are taken as they are."""
    for name, value in settings.items():
        if not callable(value) and not value > 0:
            raise ValueError(f"natural gradient: expected {name} > 0, got {value}")


def shortened(step: Array, x: Array, trust_region: float) -> tuple[Array, Array, Array]:
    """The step cut to the trust region, the distance it goes and the factor."""
    distance = jnp.linalg.norm(x @ step)
    factor = jnp.minimum(1, trust_region / jnp.maximum(distance, 1e-300))
    return factor * step, factor * distance, factor


def at_step(value: ScalarOrSchedule, count: Array) -> Array:
    """A number, or a schedule at a step, in float64."""
    return jnp.asarray(value(count) if callable(value) else value, jnp.float64)


def solve_positive(matrix: Array, eta: Array, vector: Array) -> Array:
    """(matrix + eta)^-1 vector for a positive semidefinite matrix, by Cholesky."""
    shifted = matrix + eta * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    operator = lx.MatrixLinearOperator(shifted, lx.positive_semidefinite_tag)
    # A failed solve is not hidden: it leaves NaN, which the VMC step reports with its advice.
    return lx.linear_solve(operator, vector, lx.Cholesky(), throw=False).value


def force(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> Float[Array, " parameters"]:
    """Half the gradient of the energy, X^T eps: what first-order optimisers follow."""
    x, eps = centred_samples(derivatives, energies)
    return x.T @ eps
