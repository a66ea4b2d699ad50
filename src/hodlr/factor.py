"""What every factorisation offers: solutions, the determinant, the inverse."""

import abc
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from hodlr.algebra import Structured, add_diagonal
from hodlr.exponentials import check_finite, promote
from hodlr.lowrank import frobenius
from hodlr.structured import AbstractStructured


class AbstractFactorisation(eqx.Module):
    """A factorised matrix A: solve for many right-hand sides, log-determinant, inverse.

    Every one is backward stable: solutions and determinants are those of a matrix within a few
    eps·‖A‖ of A, whatever its diagonal blocks.

    Where such matrices have nothing in common, the condition number being above 0.1/eps, general
    factorisations have no answer: RuntimeError from `solve`, `slogdet`, their derivatives and all
    that goes by them, under jit and vmap too. (Cholesky refuses what is not positive definite.)
    """

    matrix: eqx.AbstractVar[Any]

    @classmethod
    @abc.abstractmethod
    def of(cls, matrix: Any) -> "AbstractFactorisation":
        """Factorise the matrix."""

    @abc.abstractmethod
    def _solve(self, b: Array) -> Array:
        """A⁻¹ b for columns b (n, k) of the dtype of A or its complex counterpart."""

    @abc.abstractmethod
    def _slogdet(self) -> tuple[Array, Array]:
        """`slogdet`, unchecked."""

    def _trusted(self, known: ArrayLike = False) -> "AbstractFactorisation":
        """The factorisation, whose answers and their derivatives are errors where A is singular to
        working precision and the answer is not `known` all the same."""
        del known
        return self

    def slogdet(self) -> tuple[Array, Array]:
        """(sign, logabs): det A = sign · exp(logabs), the sign ±1 or a complex phase; (0, -inf) if
        singular.

        RuntimeError where A is singular to working precision only: there the sign may be either.
        """
        return _slogdet(self._trusted(known=_slogdet(self)[0] == 0))

    def logdet(self) -> Array:
        """log det A: NaN for a real matrix of negative determinant, complex for a complex one."""
        sign, logabs = self.slogdet()
        if jnp.issubdtype(sign.dtype, jnp.complexfloating):
            return jax.lax.complex(logabs, jnp.angle(sign))
        return jnp.where(sign < 0, jnp.nan, logabs)

    def solve(
        self, b: ArrayLike, *, transpose: bool = False, conj: bool = False, refinements: int = 0
    ) -> Array:
        """x with A x = b for b (n,) or (n, k); with Aᵀ, Ā or Aᴴ for `transpose`, `conj` or both.

        `refinements` steps of iterative refinement, each one product and one more solve: the
        residual becomes small in every row by itself, where rows differ in size. For b more precise
        than A it is that of b's precision, where A is not too close to singular in its own.
        RuntimeError where A is singular to working precision.
        """
        return self._trusted().unchecked(b, transpose, conj, refinements)

    def unchecked(
        self, b: ArrayLike, transpose: bool = False, conj: bool = False, refinements: int = 0
    ) -> Array:
        """What `solve` returns, also where it would raise: then the solution for another matrix."""
        b, _ = promote(b, jnp.zeros((), self.matrix.dtype))
        columns = check_columns(b, self.matrix.shape[0])
        check_finite("the right-hand side", b)
        if not jnp.issubdtype(self.matrix.dtype, jnp.complexfloating):
            if jnp.issubdtype(columns.dtype, jnp.complexfloating):
                parts = jnp.concatenate([columns.real, columns.imag], axis=-1)
                x = self.unchecked(parts, transpose, refinements=refinements)
                return jax.lax.complex(*jnp.split(x, 2, axis=-1)).reshape(b.shape)
        return _solve(self, columns, transpose, conj, refinements).reshape(b.shape)

    def residual(self, x: Array, b: Array, *, transpose: bool = False, conj: bool = False) -> Array:
        """Relative residual ‖b - A x‖/‖b‖ (in the Frobenius norm for many columns)."""
        x, b = promote(x, b)
        return frobenius(b - _view(self.matrix, transpose, conj) @ x) / frobenius(b)

    def inverse(self) -> "Inverse":
        """A⁻¹ as an operator."""
        return Inverse(self)

    def inverse_diagonal(self) -> Array:
        """The diagonal of A⁻¹ (n,), as ∂ log det A / ∂ A[i, i]; costs a few factorisations."""
        cls, matrix = type(self), self.matrix

        def logabs(shift: Array) -> Array:
            return factorised(cls.of, add_diagonal(matrix, shift)).slogdet()[1]

        # For complex matrices too: the gradient of Re f, for analytic f, is f'.
        return jax.grad(logabs)(jnp.zeros(matrix.shape[0], matrix.dtype))


class CheckedFactorisation(AbstractFactorisation):
    """Of a general matrix. `condition`: a lower bound of ‖A‖ ‖A⁻¹‖ that is mostly close to it."""

    condition: eqx.AbstractVar[Array]

    @abc.abstractmethod
    def _core(self) -> Array:
        """The array in which every answer divides."""

    def _trusted(self, known: ArrayLike = False) -> "CheckedFactorisation":
        lost = (self.condition > largest_condition(self.matrix.dtype)) & ~jnp.asarray(known)
        # Not the answer is held up but what it is made of, of which derivatives are made too.
        core = eqx.error_if(
            self._core(),
            lost,
            "hodlr: the matrix is singular to working precision, its condition number above "
            "0.1/eps: what would be returned is the answer for another matrix. Add to its diagonal "
            "(hodlr.add_diagonal), or look at F.condition and hodlr.solve_with_info.",
        )
        return eqx.tree_at(lambda F: F._core(), self, core)


# One program each: outside jit their operations would be compiled one by one, for seconds.


@functools.partial(jax.jit, static_argnums=0)
def factorised(
    of: Callable[[Structured], AbstractFactorisation], matrix: Structured
) -> AbstractFactorisation:
    """The factorisation of this way, in one program."""
    return of(matrix)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _solve(
    F: AbstractFactorisation, columns: Array, transpose: bool, conj: bool, refinements: int
) -> Array:
    """Solutions for columns (n, k), refined, in their dtype."""
    working = columns.astype(F.matrix.dtype)
    direct = _under(F._solve, working, transpose, conj)
    x = direct(working).astype(columns.dtype)
    for _ in range(refinements):
        rest = columns - _view(F.matrix, transpose, conj) @ x
        x = x + direct(rest.astype(working.dtype)).astype(columns.dtype)
    return x


@jax.jit
def _slogdet(F: AbstractFactorisation) -> tuple[Array, Array]:
    return F._slogdet()


def largest_condition(dtype) -> float:
    """0.1/eps: beyond it matrices that differ by rounding have no digit of their solutions in
    common."""
    return 0.1 / float(jnp.finfo(dtype).eps)


def check_columns(b: Array, n: int) -> Array:
    """b (n,) or (n, k) as columns (n, k), or an error."""
    if b.ndim not in (1, 2) or b.shape[0] != n:
        raise ValueError(
            f"the matrix is {n}×{n}: b must have shape ({n},) or ({n}, k), but got {b.shape}."
        )
    return b.reshape(n, -1)


def _under(solve, like: Array, transpose: bool, conj: bool):
    """The solve for the transposed or conjugate matrix; the transpose is that of the linear map b ↦
    A⁻¹ b."""
    inner = solve
    if transpose:
        transposed = jax.linear_transpose(solve, like)

        def inner(b: Array) -> Array:
            return transposed(b)[0]

    return (lambda b: jnp.conj(inner(jnp.conj(b)))) if conj else inner


def _view(matrix: Structured, transpose: bool, conj: bool) -> Structured:
    matrix = matrix.T if transpose else matrix
    return matrix.conj() if conj else matrix


class Inverse(eqx.Module):
    """The operator A⁻¹ of a factorisation: `@`, `.T`, `.conj()`, `.H`, `.to_dense()`."""

    factorisation: AbstractFactorisation
    transposed: bool = eqx.field(static=True, default=False)
    conjugated: bool = eqx.field(static=True, default=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self.factorisation.matrix.shape

    @property
    def dtype(self):
        return self.factorisation.matrix.dtype

    # numpy leaves `array @ A` to A.
    __array_ufunc__ = None

    def __matmul__(self, b: Any) -> Array:
        if isinstance(b, AbstractStructured):
            raise TypeError(
                f"an inverse and a {type(b).__name__} have no structured product; write "
                "inverse @ B.to_dense() for the array."
            )
        return self.factorisation.solve(b, transpose=self.transposed, conj=self.conjugated)

    def __rmatmul__(self, y: ArrayLike) -> Array:
        """y @ A⁻¹ for y (n,) or (k, n)."""
        return (self.T @ jnp.asarray(y).T).T

    def unchecked(self, b: ArrayLike) -> Array:
        """The product also where A is singular to working precision."""
        return self.factorisation.unchecked(b, self.transposed, self.conjugated)

    @property
    def of(self) -> Structured:
        """The matrix whose inverse this is."""
        return _view(self.factorisation.matrix, self.transposed, self.conjugated)

    @property
    def T(self) -> "Inverse":
        return Inverse(self.factorisation, not self.transposed, self.conjugated)

    def conj(self) -> "Inverse":
        return Inverse(self.factorisation, self.transposed, not self.conjugated)

    @property
    def H(self) -> "Inverse":
        """The adjoint."""
        return self.conj().T

    def to_dense(self) -> Array:
        """The inverse as an array (n, n)."""
        return self @ jnp.eye(self.shape[0], dtype=self.dtype)

    def diagonal(self) -> Array:
        """The diagonal (n,)."""
        diagonal = self.factorisation.inverse_diagonal()
        return jnp.conj(diagonal) if self.conjugated else diagonal
