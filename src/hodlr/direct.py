"""The public verbs of direct solution: factorise, solve with a check, log-determinant."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from hodlr.algebra import Structured, norm_estimate
from hodlr.cholesky import CholeskyFactorisation, first_bad_pivot
from hodlr.circulant import CirculantFactorisation
from hodlr.elimination import PivotedFactorisation
from hodlr.exponentials import check_finite
from hodlr.factor import AbstractFactorisation, Inverse, factorised, largest_condition
from hodlr.lowrank import frobenius, unit
from hodlr.structured import check_structured
from hodlr.toeplitz import ExponentialToeplitz


class SolveInfo(NamedTuple):
    """`backward_error`: ‖b - A x‖/(‖A‖ ‖x‖ + ‖b‖), about eps for a good solve of any matrix.
    `growth`: ‖A‖ ‖x‖/‖b‖ or ‖A‖ ‖A⁻ᴴ x‖/‖x‖, whichever is larger, a lower bound of the condition
    number and mostly close to it; x is meaningless from about 1/eps.
    """

    backward_error: Array
    growth: Array


def factorise(A: Structured, *, positive_definite: bool = False) -> AbstractFactorisation:
    """Factorise once, then `solve`, `slogdet`, `inverse`, `inverse_diagonal`.

    positive_definite: A is Hermitian and positive definite, as a covariance is. Then Cholesky, in
    half the time or less, with `half_solve` and `half_product` too; a matrix that is not is
    refused with its first bad pivot (under jit: its solutions and determinant are NaN). Else
    elimination with pivots, for every matrix; a ring with the same diagonal everywhere is
    diagonalised by Fourier transforms, in O(n log n).

    With k modes O(n·k²) operations, for a HODLR matrix with ranks that sum to k too, where n is
    large. Answers for general matrices that are singular to working precision are refused with a
    RuntimeError when they are asked for (see `AbstractFactorisation`).
    """
    check_structured("factorise", A)
    check_finite("the matrix given to factorise", *jax.tree.leaves(A))
    if not positive_definite:
        return _factorise_any(A)
    _check_hermitian(A)
    F = factorised(CholeskyFactorisation.of, A)
    if not isinstance(F.triangle.blocks, Tracer):
        bad = first_bad_pivot(F.working, F.triangle)
        if bad is not None:
            site, pivot = bad
            raise ValueError(
                f"the matrix is not positive definite: pivot {site} is {pivot:.3g}, not above 0."
                + why_not_definite(A)
            )
    return F


@functools.singledispatch
def _factorise_any(A: Structured) -> AbstractFactorisation:
    return factorised(PivotedFactorisation.of, A)


@_factorise_any.register
def _(A: ExponentialToeplitz) -> AbstractFactorisation:
    circulant = A.periodic and A.diagonal.ndim == 0
    return factorised((CirculantFactorisation if circulant else PivotedFactorisation).of, A)


def _check_hermitian(A: Structured) -> None:
    """Refuse a matrix of known values that is not its own adjoint, by one product with each."""
    if any(isinstance(a, Tracer) for a in jax.tree.leaves(A)):
        return
    with jax.ensure_compile_time_eval():  # known values also within a function being traced
        x = jnp.asarray(np.cos(np.arange(A.shape[0]) ** 2 % 1009), A.dtype)
        size, apart = map(float, _there_and_back(A, x))
    if apart > 1e4 * float(jnp.finfo(A.dtype).eps) * size:
        raise ValueError(
            "factorise(A, positive_definite=True) needs a matrix that is its own adjoint, but "
            "A.H differs from A; leave positive_definite out for a general matrix."
        )


@jax.jit
def _there_and_back(A: Structured, x: Array) -> tuple[Array, Array]:
    """The size of A x and Aᴴ x, and how far they are apart."""
    there, back = A @ x, A.H @ x
    return frobenius(there, back), frobenius(there - back)


@functools.singledispatch
def why_not_definite(A: Structured) -> str:
    """What a matrix of this type that should be positive definite is often wrong in, if it is."""
    del A
    return ""


@why_not_definite.register
def _(A: ExponentialToeplitz) -> str:
    first = float(jnp.real(jnp.sum(A.lower.weights)))
    if float(jnp.min(jnp.real(A.diagonal))) >= first:
        return ""
    return (
        f" Its diagonal is less than the kernel at lag 0, {first:.3g}: `diagonal` is the whole "
        "diagonal, the kernel at lag 0 plus the noise."
    )


def solve_with_info(A: Structured, b: ArrayLike) -> tuple[Array, SolveInfo]:
    """x with A x = b, and how far it can be trusted. Nothing is raised; see `solve` for that."""
    inverse = factorise(A).inverse()
    b = jnp.asarray(b)
    x = inverse.unchecked(b)
    return x, measure(inverse, x, b)


def measure(inverse: Inverse, x: Array, b: Array) -> SolveInfo:
    """How well x = A⁻¹ b solves A x = b, for columns or one; some twenty products and one more
    solution. Both infinite where x is not finite. Constant under differentiation."""
    inverse, x, b = jax.lax.stop_gradient((inverse, x, b.astype(x.dtype)))
    known = jnp.all(jnp.isfinite(x))
    x = jnp.where(known, x, 0)
    A, size, norm_b = inverse.of, frobenius(x), frobenius(b)
    norm = norm_estimate(A)
    bound = norm * size
    error = frobenius(b - A @ x) / jnp.where(bound + norm_b > 0, bound + norm_b, 1)
    # What A⁻¹ blows up most is most of x, so A⁻ᴴ blows x up as much, where b had little of it too.
    # Of length one, for its square need not be a number of this precision.
    growth = jnp.maximum(
        bound / jnp.where(norm_b > 0, norm_b, 1), norm * frobenius(inverse.H.unchecked(unit(x)))
    )
    return SolveInfo(*(jnp.where(known, a, jnp.inf) for a in (error, growth)))


def trustworthy(x: Array, info: SolveInfo) -> Array:
    """Whether x is finite, its backward error at most √eps and its growth at most 0.1/eps."""
    root = float(jnp.finfo(x.dtype).eps) ** 0.5
    fits = (info.backward_error <= root) & (info.growth <= largest_condition(x.dtype))
    return fits & jnp.all(jnp.isfinite(x))


def solve(A: Structured, b: ArrayLike) -> Array:
    """x with A x = b for b (n,) or (n, k): `factorise(A).solve(b)`.

    x solves (A + E) x = b for a matrix E of a few eps·‖A‖. RuntimeError where that says nothing,
    the condition number of A being above 0.1/eps: A is singular to working precision. Works under
    jit, vmap and differentiation.
    """
    return factorise(A).solve(b)


def slogdet(A: Structured) -> tuple[Array, Array]:
    """(sign, logabs) with det A = sign · exp(logabs); the sign is ±1, a complex phase, or 0
    (singular). RuntimeError where A is singular to working precision only."""
    return factorise(A).slogdet()
