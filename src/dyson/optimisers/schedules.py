"""How the learning rate and the diagonal shift change with the step."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
ScalarOrSchedule = float | Schedule


def annealed_rate(start: float = 0.2, hold: int = 80, halving: int = 10) -> Schedule:
    """``start`` for ``hold`` steps, then falling like 1/t, to one half after ``halving`` more.

    A step is one of Euler's in imaginary time, stable for excitations below 2 / rate unless the
    shift damps them; an excitation of energy gap E decays by exp(-E * rate) per step, so the sum
    of the rates must be several times the inverse of the smallest gap.  The noise of the samples
    heats the state in proportion to the rate: hence the fall at the end.
    """
    return lambda count: start / (1 + jnp.maximum(_real(count) - hold, 0) / halving)


def decaying_shift(start: float = 1e-2, floor: float = 1e-4, tenfold: int = 40) -> Schedule:
    """``start``, ten times less every ``tenfold`` steps down to ``floor``: firm, then sharp."""
    return lambda count: jnp.maximum(start * 10.0 ** (-_real(count) / tenfold), floor)


def at_step(value: ScalarOrSchedule, count: Array) -> Array:
    """A number, or a schedule at a step, in float64."""
    return jnp.asarray(value(count) if callable(value) else value, jnp.float64)


def _real(count: Int[Array, ""]) -> Float[Array, ""]:
    return count.astype(jnp.float64)
