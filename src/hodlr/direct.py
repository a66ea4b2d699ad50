"""The public verbs of direct solution: factorise, solve with a check, log-determinant."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from hodlr.algebra import Structured, norm_estimate
from hodlr.circulant import CirculantFactorisation
from hodlr.exponentials import check_finite
from hodlr.factor import AbstractFactorisation, HODLRFactorisation
from hodlr.matrix import HODLR
from hodlr.semiseparable import ExponentialFactorisation
from hodlr.toeplitz import ExponentialToeplitz


class SolveInfo(NamedTuple):
    """`backward_error`: ‖b - A x‖/(‖A‖ ‖x‖ + ‖b‖), about eps for a good solve of any matrix.
    `growth`: ‖A‖ ‖x‖/‖b‖, a lower bound of the condition number; x is meaningless from about 1/eps.
    """

    backward_error: Array
    growth: Array


def factorise(A: Structured) -> AbstractFactorisation:
    """Factorise once, then `solve`, `slogdet`, `inverse`, `inverse_diagonal`.

    A HODLR matrix of ranks r takes O(n·r²·log² n), an exponential matrix of k modes O(n·k²), open
    or ring, and a ring with the same diagonal everywhere O(n log n).

    All but the last eliminate block by block: accuracy, also that of `slogdet`, is lost where a
    diagonal block is nearly singular although A is not. `solve` tells by its residual.
    """
    if isinstance(A, HODLR):
        check_finite("the matrix given to factorise", A.leaves, *A.rows, *A.cols)
        return HODLRFactorisation(A)
    if isinstance(A, ExponentialToeplitz):
        check_finite("the matrix given to factorise", *jax.tree.leaves(A))
        one_number = A.periodic and A.diagonal.ndim == 0
        return CirculantFactorisation(A) if one_number else ExponentialFactorisation(A)
    raise TypeError(
        f"factorise needs a HODLR or an ExponentialToeplitz, but got {type(A).__name__}; "
        "turn an array into one with hodlr.from_dense(A)."
    )


def solve_with_info(
    A: Structured, b: ArrayLike, *, refinements: int = 1
) -> tuple[Array, SolveInfo]:
    """x with A x = b, and how far it can be trusted. Nothing is raised; see `solve` for that."""
    b = jnp.asarray(b)
    x = factorise(A).solve(b, refinements=refinements)
    return x, measure(A, x, b)


def measure(A: Structured, x: Array, b: Array) -> SolveInfo:
    """How well x solves A x = b, for columns or one; some twenty products. Constant under
    differentiation."""
    A, x, b = jax.lax.stop_gradient((A, x, b.astype(x.dtype)))
    size, norm_b = jnp.linalg.norm(x), jnp.linalg.norm(b)
    bound = norm_estimate(A) * size
    error = jnp.linalg.norm(b - A @ x) / jnp.where(bound + norm_b > 0, bound + norm_b, 1)
    return SolveInfo(error, bound / jnp.where(norm_b > 0, norm_b, 1))


def trustworthy(x: Array, info: SolveInfo) -> Array:
    """Whether x is finite, its backward error at most √eps and its growth at most 0.1/eps."""
    eps = float(jnp.finfo(x.dtype).eps)
    fits = (info.backward_error <= eps**0.5) & (info.growth <= 0.1 / eps)
    return fits & jnp.all(jnp.isfinite(x))


def solve(A: Structured, b: ArrayLike, *, refinements: int = 1) -> Array:
    """x with A x = b for b (n,) or (n, k), refined, and checked: a RuntimeError instead of a wrong
    answer.

    Raised where the backward error exceeds √eps, where x is not finite, or where ‖A‖ ‖x‖/‖b‖ >
    0.1/eps, which says that A is singular to working precision. Works under jit, vmap and
    differentiation.
    """
    x, info = solve_with_info(A, b, refinements=refinements)
    return eqx.error_if(
        x,
        ~trustworthy(x, info),
        "hodlr.solve failed: the matrix, or one of its diagonal blocks, is singular to working "
        "precision. Add to its "
        "diagonal (hodlr.add_diagonal), use a larger leaf_size, or look at hodlr.solve_with_info.",
    )


def slogdet(A: Structured) -> tuple[Array, Array]:
    """(sign, logabs) with det A = sign · exp(logabs); the sign is ±1, a complex phase, or 0
    (singular)."""
    return factorise(A).slogdet()
