"""The readout: log psi = sum_k log cosh(theta_k), theta = W Omega + b; with phases, to first order
in them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact


def log_cosh(z: Inexact[Array, " *shape"]) -> Inexact[Array, " *shape"]:
    """log cosh(z) without overflow, real or complex."""
    z = jnp.where(jnp.real(z) < 0, -z, z)
    return z + jnp.log1p(jnp.exp(-2 * z)) - jnp.log(jnp.asarray(2, z.dtype))


def smooth_log_cosh(theta: Inexact[Array, " *shape"]) -> Inexact[Array, " *shape"]:
    """log cosh(x) + i y tanh(x) of theta = x + i y: log cosh to first order in y.

    log cosh itself is singular at the zeros of cosh, x = 0 and y = pi/2.  Where phases matter,
    training ends there: a large amplitude is held down by one factor close to its zero, as that is
    the factor that changes fastest, and then no step is short enough.  This is the same for large
    |x| and for small y, and has neither zeros nor cuts.
    """
    if jnp.isrealobj(theta):
        return log_cosh(theta)
    x = jnp.real(theta)
    return jax.lax.complex(log_cosh(x), jnp.imag(theta) * jnp.tanh(x))


def from_parts(parts: Float[Array, " parts *shape"]) -> Inexact[Array, " *shape"]:
    """Real numbers, or real and imaginary parts to complex ones."""
    return parts[0] if parts.shape[0] == 1 else jax.lax.complex(parts[0], parts[1])


class LogCoshHead(eqx.Module):
    """Maps the pooled stream Omega of shape (features,) to log psi.

    A complex head keeps real parameters: ``weight[0] + i weight[1]`` acts on the real Omega, and
    log cosh is :func:`smooth_log_cosh`.

    ``growth`` is the number of tokens as a multiple of those that the head was made for: Omega, a
    mean over tokens, says how one chain of that length would look, and log psi is that of so many.
    """

    weight: Float[Array, "parts hidden features"]
    bias: Float[Array, "parts hidden"]
    growth: float = eqx.field(static=True)

    def __init__(self, features: int, hidden: int, *, complex_head: bool, dtype, key: jax.Array):
        parts = 2 if complex_head else 1
        weight_key, bias_key = jax.random.split(key)
        shape = (parts, hidden, features)
        self.weight = jax.random.normal(weight_key, shape, dtype) / features**0.5
        bias = jax.random.normal(bias_key, (parts, hidden), dtype)
        self.bias = bias.at[1:].set(0)  # no phases at the start
        self.growth = 1.0

    def theta(self, pooled: Float[Array, " features"]) -> Inexact[Array, " hidden"]:
        return from_parts(self.weight @ pooled + self.bias)

    def log_amplitude(self, theta: Inexact[Array, " hidden"]) -> Inexact[Array, ""]:
        return self.growth * jnp.sum(smooth_log_cosh(theta))

    def log_ratio(
        self, theta: Inexact[Array, " hidden"], change: Inexact[Array, " hidden"]
    ) -> Inexact[Array, ""]:
        """What a change of theta adds to log psi, without the difference of two large sums."""
        return self.growth * jnp.sum(smooth_log_cosh(theta + change) - smooth_log_cosh(theta))

    def calibrated(self, pooled: Float[Array, "samples features"], spread: float) -> "LogCoshHead":
        """Centre theta on the bias and scale it to give log psi over the samples the ``spread``.

        The biases stay of order one: around theta = 0 log cosh is quadratic, and the first steps
        of natural gradient, which trust a linear model, would overshoot many times.  Forty
        halvings of a logarithmic bracket find the scale.
        """
        centred = jnp.einsum("phd,sd->sph", self.weight, pooled - jnp.mean(pooled, 0))
        theta = jax.vmap(from_parts)(centred)

        def spread_at(log_scale: Array) -> Array:
            scale = jnp.exp(log_scale).astype(theta.dtype)
            shifted = scale * theta + from_parts(self.bias)
            return jnp.std(jax.vmap(self.log_amplitude)(shifted))

        def halve(_, bracket):
            low, high = bracket
            middle = (low + high) / 2
            above = spread_at(middle) > spread
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        bracket = (jnp.asarray(-12.0, pooled.dtype), jnp.asarray(8.0, pooled.dtype))
        low, high = jax.lax.fori_loop(0, 40, halve, bracket)
        weight = self.weight * jnp.exp((low + high) / 2)
        bias = self.bias - weight @ jnp.mean(pooled, 0)
        return eqx.tree_at(lambda head: (head.weight, head.bias), self, (weight, bias))
