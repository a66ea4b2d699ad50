"""Direct solution of circulant matrices: rings with the same diagonal at every site."""

import jax.numpy as jnp
from jaxtyping import Array

from hodlr.factor import AbstractFactorisation
from hodlr.toeplitz import ExponentialToeplitz


class CirculantFactorisation(AbstractFactorisation):
    """The eigenvalues of a ring whose diagonal is one number; O(n log n).

    They are the transform of the first column, so the error is eps times the condition of the
    matrix.
    """

    matrix: ExponentialToeplitz
    eigenvalues: Array

    @classmethod
    def of(cls, matrix: ExponentialToeplitz) -> "CirculantFactorisation":
        column = matrix.entries(jnp.arange(matrix.n), jnp.asarray(0))
        return cls(matrix, jnp.fft.fft(column))

    def _solve(self, b: Array) -> Array:
        modes = jnp.fft.fft(b, axis=0) / self.eigenvalues[:, None]
        x = jnp.fft.ifft(modes, axis=0)
        return x if jnp.issubdtype(b.dtype, jnp.complexfloating) else jnp.real(x)

    def slogdet(self) -> tuple[Array, Array]:
        moduli = jnp.abs(self.eigenvalues)
        zero = moduli == 0
        sizes = jnp.where(zero, 1, moduli).astype(self.eigenvalues.dtype)
        phases = jnp.where(zero, 0, self.eigenvalues / sizes)
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            # eigenvalues of a real matrix come in conjugate pairs: the product is a sign
            phases = jnp.sign(jnp.real(jnp.prod(phases)))
            return phases.astype(self.matrix.dtype), jnp.sum(jnp.log(moduli))
        return jnp.prod(phases), jnp.sum(jnp.log(moduli))

    def inverse_diagonal(self) -> Array:
        """The mean of the inverse eigenvalues, the same at every site."""
        mean = jnp.mean(1 / self.eigenvalues)
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            mean = jnp.real(mean)
        return jnp.broadcast_to(mean, (self.matrix.n,))
