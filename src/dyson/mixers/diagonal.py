"""Mixers with independent modes: damped oscillations (S4D) and real poles."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dyson.mixers.base import Mixer, decay_lengths
from hodlr import SumOfExponentials, integer_power

# Slowest decay per token.  A wave that lasts 10^4 tokens is a constant on any chain in reach, and
# the floor keeps the ring's 1 / (1 - lambda^T) finite in float32.
SLOWEST = 1e-4
# Beyond exp(4) per token a wave is gone before the next one, also in float64.
FASTEST_LOG = 4.0


class S4D(Mixer):
    """Diagonal state-space model, discretised by zero-order hold with one token as the step.

    Mode ``m`` of channel ``a`` has the continuous pole ``A = -(exp(log_decay) + 1e-4) + i wave``,
    the discrete pole ``lambda = exp(A)`` and the weight ``c = C (lambda - 1) / A``.
    Reference: S4D (Gu et al. 2022), as used for the token mixer of arXiv:2603.11189.
    """

    log_decay: Float[Array, "features modes"]
    wave: Float[Array, "features modes"]
    output: Float[Array, "2 features modes"]
    local: Float[Array, " features"]

    def __init__(self, features: int, modes: int, n_tokens: int, *, dtype, key: jax.Array):
        decay_key, output_key, local_key = jax.random.split(key, 3)
        shape = (features, modes)
        self.log_decay = -jnp.log(decay_lengths(decay_key, shape, n_tokens)).astype(dtype)
        # uniform and staggered waves alternate: ferromagnetic and Neel order are both in reach
        staggered = (jnp.arange(features)[:, None] + jnp.arange(modes)) % 2
        self.wave = jnp.pi * staggered.astype(dtype)
        self.output = jax.random.normal(output_key, (2, *shape), dtype) / modes**0.5
        self.local = jax.random.normal(local_key, (features,), dtype)

    def _rate(self) -> Array:
        decay = jnp.exp(jnp.minimum(self.log_decay, FASTEST_LOG)) + SLOWEST
        return jax.lax.complex(-decay, self.wave)

    def exponentials(self) -> SumOfExponentials:
        rate = self._rate()
        poles = jnp.exp(rate)
        weights = jax.lax.complex(self.output[0], self.output[1]) * (poles - 1) / rate
        return jax.vmap(SumOfExponentials)(weights, poles)

    def powers(self, r: Int[Array, " lags"]) -> Array:
        return jnp.exp(self._rate()[..., None] * r.astype(jnp.result_type(self._rate())))


class RealPoles(Mixer):
    """Real poles of either sign in (-1, 1): the cheapest mixer; decays, uniform or staggered."""

    raw_poles: Float[Array, "features modes"]
    weights: Float[Array, "features modes"]
    local: Float[Array, " features"]

    def __init__(self, features: int, modes: int, n_tokens: int, *, dtype, key: jax.Array):
        decay_key, weight_key, local_key = jax.random.split(key, 3)
        shape = (features, modes)
        size = jnp.exp(-1 / decay_lengths(decay_key, shape, n_tokens)).astype(dtype)
        staggered = (jnp.arange(features)[:, None] + jnp.arange(modes)) % 2
        self.raw_poles = jnp.arctanh(size) * (1 - 2 * staggered.astype(dtype))
        # (1 - |lambda|) bounds the response to a uniform (or staggered) input
        self.weights = jax.random.normal(weight_key, shape, dtype) * (1 - size) / modes**0.5
        self.local = jax.random.normal(local_key, (features,), dtype)

    def _poles(self) -> Array:
        return (1 - SLOWEST) * jnp.tanh(self.raw_poles)

    def exponentials(self) -> SumOfExponentials:
        return jax.vmap(SumOfExponentials)(self.weights, self._poles())

    def powers(self, r: Int[Array, " lags"]) -> Array:
        return integer_power(self._poles()[..., None], r)
