"""Power laws as sums of real exponentials: for states whose correlations have no length."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dyson.fields import with_fields
from dyson.mixers.base import Mixer
from hodlr import SumOfExponentials, fit_power_law, integer_power

# Absolute error of 1/r^p on the lags of the chain: that of single precision.
TOLERANCE = 1e-7


class PowerLaw(Mixer):
    """``sum_p amplitude_p / r^p`` with the exponents p = 1 .. modes, fixed; odd channels staggered.

    Every power law is a sum of ten to twenty exponentials with poles in (0, 1), fitted once for
    the length of the chain (:func:`hodlr.fit_power_law`).  *That sum* is the kernel, exactly, so
    local updates stay exact; it differs from the power law by at most ``errors[p - 1]`` on the
    lags 1 .. n_tokens - 1.  On a ring the sum closes over all images of the chain.

    The many exponentials make local updates several hundred times as much work as those of one
    mode: full forward passes are cheaper up to long chains.
    """

    amplitudes: Float[Array, "features modes"]
    local: Float[Array, " features"]
    lags: int = eqx.field(static=True)  # on which the fits hold

    def __init__(self, features: int, modes: int, n_tokens: int, *, dtype, key: jax.Array):
        amplitude_key, local_key = jax.random.split(key)
        self.lags = max(n_tokens - 1, 1)
        lags = np.arange(1, n_tokens + 1.0)
        # bounds the response to a uniform (or staggered) input
        response = [1 + 2 * np.sum(lags**-p) for p in range(1, modes + 1)]
        scale = jnp.asarray(1 / np.array(response) / modes**0.5, dtype)
        self.amplitudes = jax.random.normal(amplitude_key, (features, modes), dtype) * scale
        self.local = jax.random.normal(local_key, (features,), dtype)

    @property
    def errors(self) -> tuple[float, ...]:
        """Largest error of each power law on the lags of the chain, measured at every lag."""
        return tuple(error for _, _, error in self._fits())

    def resized(self, n_tokens: int) -> "PowerLaw":
        """The same power laws, fitted anew on the lags of a chain of another length."""
        return with_fields(self, lags=max(n_tokens - 1, 1))

    def _fits(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        return [_fitted(power, self.lags) for power in range(1, self.amplitudes.shape[1] + 1)]

    def _poles(self) -> Array:
        poles = np.concatenate([poles for _, poles, _ in self._fits()])
        sign = 1 - 2 * (np.arange(self.local.size)[:, None] % 2)
        return jnp.asarray(sign * poles, self.amplitudes.dtype)

    def exponentials(self) -> SumOfExponentials:
        weights = [
            amplitude[:, None] * jnp.asarray(weights, amplitude.dtype)
            for amplitude, (weights, _, _) in zip(self.amplitudes.T, self._fits(), strict=True)
        ]
        return jax.vmap(SumOfExponentials)(jnp.concatenate(weights, axis=1), self._poles())

    def powers(self, r: Int[Array, " lags"]) -> Array:
        return integer_power(self._poles()[..., None], r)


@functools.cache
def _fitted(power: int, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Weights, poles and the largest error of 1/r^power on the lags 1 .. n."""
    with jax.ensure_compile_time_eval():
        fit, info = fit_power_law(float(power), n, tol=TOLERANCE)
        return np.asarray(fit.weights), np.asarray(fit.poles), info.max_abs_error
