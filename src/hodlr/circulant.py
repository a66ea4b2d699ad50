"""Direct solution of circulant matrices: rings with the same diagonal at every site."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hodlr.factor import CheckedFactorisation
from hodlr.lowrank import pairwise_sum
from hodlr.toeplitz import ExponentialToeplitz


class CirculantFactorisation(CheckedFactorisation):
    """The eigenvalues of a ring whose diagonal is one number; O(n log n).

    They are the transform of the first column, so the error is eps times the condition of the
    matrix.
    """

    matrix: ExponentialToeplitz
    eigenvalues: Array
    condition: Array

    @classmethod
    def of(cls, matrix: ExponentialToeplitz) -> "CirculantFactorisation":
        column = matrix.entries(jnp.arange(matrix.n), jnp.asarray(0))
        eigenvalues = jnp.fft.fft(column)
        moduli = jax.lax.stop_gradient(jnp.abs(eigenvalues))
        least = jnp.min(moduli)
        # The matrix is normal.
        condition = jnp.where(least > 0, jnp.max(moduli) / least, jnp.inf)
        return cls(matrix, eigenvalues, condition)

    def _core(self) -> Array:
        return self.eigenvalues

    def _solve(self, b: Array) -> Array:
        modes = jnp.fft.fft(b, axis=0) / self.eigenvalues[:, None]
        x = jnp.fft.ifft(modes, axis=0)
        return x if jnp.issubdtype(b.dtype, jnp.complexfloating) else jnp.real(x)

    def _slogdet(self) -> tuple[Array, Array]:
        moduli = jnp.abs(self.eigenvalues)
        zero = moduli == 0
        sizes = jnp.where(zero, 1, moduli).astype(self.eigenvalues.dtype)
        phases = jnp.where(zero, 0, self.eigenvalues / sizes)
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            # eigenvalues of a real matrix come in conjugate pairs: the product is a sign
            phases = jnp.sign(jnp.real(jnp.prod(phases)))
            return phases.astype(self.matrix.dtype), pairwise_sum(jnp.log(moduli))
        return jnp.prod(phases), pairwise_sum(jnp.log(moduli))

    def inverse_diagonal(self) -> Array:
        """The mean of the inverse eigenvalues, the same at every site."""
        mean = jnp.mean(1 / self._trusted()._core())
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            mean = jnp.real(mean)
        return jnp.broadcast_to(mean, (self.matrix.n,))
