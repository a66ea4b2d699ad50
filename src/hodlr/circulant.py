"""Direct solution of circulant matrices: rings with the same diagonal at every site."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from hodlr.factor import AbstractFactorisation
from hodlr.toeplitz import ExponentialToeplitz


class _Eigenvalues(NamedTuple):
    sign: Array
    logabs: Array


class CirculantFactorisation(AbstractFactorisation):
    """The eigenvalues of a ring whose diagonal is one number; O(n log n).

    They are the transform of the first column, so the error is eps times the condition of the
    matrix, whatever the condition of its blocks.  Elimination along a chain has no such bound: cut
    open, a well-conditioned ring that is not symmetric may be singular to any number of digits
    (a symbol that winds around zero).
    """

    matrix: ExponentialToeplitz
    eigenvalues: Array

    def __init__(self, matrix: ExponentialToeplitz):
        self.matrix = matrix
        column = matrix.entries(jnp.arange(matrix.n), jnp.asarray(0))
        self.eigenvalues = jnp.fft.fft(column)

    def _solve(self, b: Array) -> Array:
        modes = jnp.fft.fft(b, axis=0) / self.eigenvalues[:, None]
        x = jnp.fft.ifft(modes, axis=0)
        return x if jnp.issubdtype(b.dtype, jnp.complexfloating) else jnp.real(x)

    def _blocks(self) -> list[_Eigenvalues]:
        moduli = jnp.abs(self.eigenvalues)
        zero = moduli == 0
        sizes = jnp.where(zero, 1, moduli).astype(self.eigenvalues.dtype)
        phases = jnp.where(zero, 0, self.eigenvalues / sizes)
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            # eigenvalues of a real matrix come in conjugate pairs: the product is a sign
            phases = jnp.sign(jnp.real(jnp.prod(phases)))
        return [_Eigenvalues(phases, jnp.log(moduli))]

    def inverse_diagonal(self) -> Array:
        """The mean of the inverse eigenvalues, the same at every site."""
        mean = jnp.mean(1 / self.eigenvalues)
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            mean = jnp.real(mean)
        return jnp.broadcast_to(mean, (self.matrix.n,))
