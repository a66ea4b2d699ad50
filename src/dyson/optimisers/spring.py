"""SPRING: natural gradient in sample space that remembers the step before.

    delta_k = mu delta_{k-1} + X^T (X X^T + shift)^-1 (eps - mu X delta_{k-1})

The samples of one step see only as many directions as there are samples; in the others the step
before is kept, damped by mu.  So the steps share their samples: the critical Ising ring of 64 sites
reaches with 512 samples a step what :func:`minsr` needs several times as many for.

Reference: G. Goldshlager, N. Abrahamsen and L. Lin, J. Comput. Phys. 516, 113351 (2024).
"""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Inexact, Int

from dyson.optimisers.sr import (
    DEFAULT_RATE,
    DEFAULT_SHIFT,
    ScalarOrSchedule,
    at_step,
    centred_samples,
    check_positive,
    shortened,
    solve_positive,
)


class SpringState(NamedTuple):
    """Steps taken, the direction of the last one, its shift and the distance it went."""

    count: Int[Array, ""]
    direction: Float[Array, " parameters"]
    shift: Float[Array, ""]
    distance: Float[Array, ""]


def spring(
    learning_rate: ScalarOrSchedule = DEFAULT_RATE,
    *,
    shift: ScalarOrSchedule = DEFAULT_SHIFT,
    trust_region: float = 0.1,
    momentum: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Natural gradient with memory; O(samples^2 * parameters + samples^3) per step.

    ``update`` takes ``derivatives`` (samples, parts, parameters) and ``energies`` (samples,) beside
    the gradient, which is ignored.  ``momentum`` is mu, 0 <= mu < 1; 0 is :func:`minsr`.
    """
    check_positive(learning_rate=learning_rate, shift=shift, trust_region=trust_region)
    if not 0 <= momentum < 1:
        raise ValueError(f"spring: expected 0 <= momentum < 1, got {momentum}")

    def init(params: optax.Params) -> SpringState:
        zero = jnp.zeros((), jnp.float64)
        direction = jnp.zeros(ravel_pytree(params)[0].shape, jnp.float64)
        return SpringState(jnp.zeros((), jnp.int32), direction, zero, zero)

    def update(
        updates: optax.Updates,
        state: SpringState,
        params: optax.Params | None = None,
        *,
        derivatives: Float[Array, "samples parts parameters"],
        energies: Inexact[Array, " samples"],
        **_: Array,
    ) -> tuple[optax.Updates, SpringState]:
        x, eps = centred_samples(derivatives, energies)
        eta = at_step(shift, state.count)
        kept = momentum * state.direction
        direction = kept + x.T @ solve_positive(x @ x.T, eta, eps - x @ kept)
        rate = at_step(learning_rate, state.count)
        step, distance, factor = shortened(-rate * direction, x, trust_region)
        flat, unravel = ravel_pytree(updates)
        # what was cut from the step is not remembered either
        new_state = SpringState(state.count + 1, factor * direction, eta, distance)
        return unravel(step.astype(flat.dtype)), new_state

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]
