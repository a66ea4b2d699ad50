"""What every token mixer provides: a two-sided kernel made of exponentials, one per channel.

On the infinite chain channel ``a`` propagates with the Green's function

    G_a(r) = sum_m Re[c_am lambda_am^|r|] + local_a delta_{r,0},        |lambda| < 1,

and on a ring of T tokens every image of the chain contributes, which closes in each mode to
``(lambda^r + lambda^(T-r)) / (1 - lambda^T)`` for ``0 <= r < T``.
"""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from hodlr import SumOfExponentials


class Mixer(eqx.Module):
    """Linear token mixer of ``features`` channels with ``modes`` exponentials each.

    A mixer of one's own fills in ``local``, ``exponentials`` and ``powers``, and is made by
    ``Decays(features, modes, n_tokens, dtype=dtype, key=key)``; with ``DysonNet(.., mixer=Decays)``
    everything else follows, local updates and sweeps too::

        import dyson, hodlr, jax, jax.numpy as jnp

        class Decays(dyson.Mixer):
            log_rate: jax.Array
            weights: jax.Array
            local: jax.Array

            def __init__(self, features, modes, n_tokens, *, dtype, key):
                shape = (features, modes)
                self.log_rate = jax.random.normal(key, shape, dtype)
                self.weights = jnp.ones(shape, dtype) / modes
                self.local = jnp.zeros(features, dtype)

            def exponentials(self):
                poles = jnp.exp(-jnp.exp(self.log_rate))
                return jax.vmap(hodlr.SumOfExponentials)(self.weights, poles)

            def powers(self, r):
                rate = jnp.exp(self.log_rate)[..., None]
                return jnp.exp(-rate * r.astype(rate.dtype))
    """

    local: eqx.AbstractVar[Float[Array, " features"]]

    @abc.abstractmethod
    def exponentials(self) -> SumOfExponentials:
        """Weights and poles, each of shape (features, modes), as
        ``jax.vmap(hodlr.SumOfExponentials)(weights, poles)``; the kernel is their real part."""

    @abc.abstractmethod
    def powers(self, r: Int[Array, " lags"]) -> Array:
        """``lambda^r`` for integers r >= 0: shape (features, modes, lags), real or complex."""

    def resized(self, n_tokens: int) -> "Mixer":
        """The mixer for a chain of another length: the same exponentials, which know of none.

        One whose exponentials were made for a length makes them anew here.
        """
        del n_tokens
        return self

    def kernel(
        self, lags: Int[Array, " lags"], n_tokens: int, *, periodic: bool
    ) -> Float[Array, "features lags"]:
        """``G(r)`` at the given lags, ``0 <= r < n_tokens``, in O(features * modes * lags)."""
        if not periodic:
            return self.kernel_from(lags, self.powers(lags))
        near, far, turns = self.powers_around(lags, n_tokens)
        return self.kernel_from(lags, turns * (near + far))

    def powers_around(self, lags: Int[Array, " lags"], ring: int) -> tuple[Array, Array, Array]:
        """``lambda^r`` and ``lambda^(ring - r)``, (features, modes, lags), and what any number of
        turns around the ring multiplies a wave by, ``1 / (1 - lambda^ring)``."""
        there = jnp.concatenate([lags, ring - lags, jnp.array([ring], lags.dtype)])
        near, far, once = jnp.split(self.powers(there), [lags.size, 2 * lags.size], axis=-1)
        return near, far, 1 / (1 - once)

    def kernel_from(
        self, lags: Int[Array, " lags"], waves: Inexact[Array, "features modes lags"]
    ) -> Float[Array, "features lags"]:
        """``G(r)`` from powers of the poles: ``lambda^r``, on a ring those of all images."""
        weights = self.exponentials().weights[..., None]
        kernel = jnp.real(jnp.sum(weights * waves, axis=1))
        return kernel + jnp.where(lags == 0, self.local[:, None], 0)


def decay_lengths(
    key: jax.Array, shape: tuple[int, int], n_tokens: int
) -> Float[Array, "features modes"]:
    """Initial decay lengths, log-uniform between one token and a quarter of the chain; in single
    precision, so that a key gives the same ones whatever jax computes in."""
    longest = jnp.asarray(math.log(max(n_tokens / 4, 2.0)), jnp.float32)
    return jnp.exp(jax.random.uniform(key, shape, jnp.float32) * longest)
