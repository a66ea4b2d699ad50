"""What a screened chain has learnt about its own errors: the tolerance of the typewriter."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Observations that a mean square remembers; older ones fade, as the network changes.
MEMORY = 256
# Before a bin has seen so many errors nothing is decided without exact ratios.
ENOUGH = 8


class ErrorTable(eqx.Module):
    """Mean squares of ``|a_exact - a_approx|`` by the number of flips accepted since the refresh.

    Bin b holds the numbers 2^b .. 2^(b+1) - 1, so that a handful of bins serve any chain.  Every
    chain keeps a table of its own, and it stays with the chain when the parameters change.
    """

    counts: Float[Array, "*chains bins"]
    squares: Float[Array, "*chains bins"]

    @staticmethod
    def empty(n_chains: int, most_flips: int) -> "ErrorTable":
        bins = 1 + int(math.log2(max(most_flips, 1)))
        zeros = jnp.zeros((n_chains, bins))
        return ErrorTable(zeros, zeros)

    def observe(
        self, flips: Int[Array, ""], error: Float[Array, ""], happened: Bool[Array, ""]
    ) -> "ErrorTable":
        """The table of one chain with one more error; nothing changes unless it ``happened``."""
        here = happened & (self._bins(flips.dtype) == self._bin(flips))
        # an error that is not a number is as large as errors get
        square = jnp.where(jnp.isnan(error), 1, error**2).astype(self.squares.dtype)
        fade = jnp.where(here, 1 - 1 / MEMORY, 1).astype(self.counts.dtype)
        return ErrorTable(
            self.counts * fade + here.astype(self.counts.dtype),
            self.squares * fade + jnp.where(here, square, 0),
        )

    def tolerances(self, mismatch: Float[Array, ""]) -> Float[Array, " bins"]:
        """tau of every bin for one chain: how close to the acceptance a uniform is not trusted.

        A decision is wrong when the uniform falls between the two acceptances, so a step that is
        trusted for ``|u - a| >= tau`` goes wrong with probability ``E max(|error| - tau, 0)``.
        For errors with an exponential tail of scale s that is ``s exp(-tau/s)``, hence

            tau = s log(1 + s / mismatch),      s = root mean square of the errors seen,

        infinite in bins that have not seen enough.  Real tails differ: the sampler measures.
        """
        tiny = jnp.finfo(self.squares.dtype).tiny
        scale = jnp.sqrt(jnp.maximum(self.squares / jnp.maximum(self.counts, 1), tiny))
        tolerance = scale * jnp.log1p(scale / mismatch.astype(scale.dtype))
        return jnp.where(self.counts < ENOUGH, jnp.inf, tolerance)

    def tolerance(
        self, tolerances: Float[Array, " bins"], flips: Int[Array, ""]
    ) -> Float[Array, ""]:
        """Of one step after so many accepted flips; 0 right after a refresh, which is exact."""
        return jnp.where(flips > 0, tolerances[self._bin(flips)], 0)

    def _bin(self, flips: Int[Array, ""]) -> Int[Array, ""]:
        # shifts instead of a logarithm: exact at the powers of two
        shifted = flips[None] >> self._bins(flips.dtype)
        return jnp.sum(shifted > 0, dtype=flips.dtype) - 1

    def _bins(self, dtype: jnp.dtype) -> Int[Array, " bins"]:
        return jnp.arange(self.counts.shape[0], dtype=dtype)
