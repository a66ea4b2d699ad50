"""Phases are numbers on a circle: Im log psi is defined modulo 2 pi.

Projections wrap it and log cosh jumps by 2 pi where the real part of its argument changes sign, so
whatever compares phases of two evaluations has to take differences on the circle.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact


def wrapped(angle: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    """The same angle in [-pi, pi)."""
    turn = jnp.asarray(2 * np.pi, angle.dtype)
    return angle - turn * jnp.floor(angle / turn + jnp.asarray(0.5, angle.dtype))


def around_the_common_phase(
    angles: Float[Array, " samples"], share: Float[Array, " samples"]
) -> Float[Array, " samples"]:
    """Angles less that of their mean direction, in [-pi, pi): what may then be averaged.

    ``share`` is what each sample counts.  A phase that all samples share is none of the state,
    wherever on the circle it lies.
    """
    common = jnp.arctan2(jnp.dot(share, jnp.sin(angles)), jnp.dot(share, jnp.cos(angles)))
    return wrapped(angles - common)


def with_wrapped_phase(log_ratio: Inexact[Array, " *shape"]) -> Inexact[Array, " *shape"]:
    """The same logarithm of a ratio of amplitudes with its phase in [-pi, pi)."""
    if jnp.isrealobj(log_ratio):
        return log_ratio
    return jax.lax.complex(jnp.real(log_ratio), wrapped(jnp.imag(log_ratio)))
