"""Structured matrices as lineax operators, and direct solution as a lineax solver.

    operator = hodlr.HODLROperator(H)     # or an ExponentialToeplitz, or F.inverse()
    solution = lineax.linear_solve(operator, b, hodlr.HODLRSolver())

`hodlr.HODLROperator(F.inverse(), lineax.positive_semidefinite_tag)` is a preconditioner for CG and
GMRES.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from hodlr.algebra import Structured
from hodlr.direct import factorise, measure, trustworthy
from hodlr.factor import Inverse
from hodlr.structured import AbstractStructured, diagonal


class HODLROperator(lx.AbstractLinearOperator):
    """A `HODLR`, an `ExponentialToeplitz` or an inverse of either as a lineax operator on arrays
    (n,).

    tags: what lineax may rely on, unchecked, such as `lineax.positive_semidefinite_tag`.
    """

    matrix: Structured | Inverse
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, matrix: Structured | Inverse, tags: object = ()):
        if not isinstance(matrix, (AbstractStructured, Inverse)):
            raise TypeError(
                "HODLROperator wraps a HODLR, an ExponentialToeplitz or an inverse, but got "
                f"{type(matrix).__name__}; turn an array into one with hodlr.from_dense(A)."
            )
        self.matrix = matrix
        self.tags = (
            frozenset(tags)
            if isinstance(tags, (tuple, list, set, frozenset))
            else frozenset([tags])
        )

    def mv(self, vector: Array) -> Array:
        return self.matrix @ vector

    def as_matrix(self) -> Array:
        return self.matrix.to_dense()

    def transpose(self) -> "HODLROperator":
        if lx.is_symmetric(self):
            return self
        return HODLROperator(self.matrix.T, lx.transpose_tags(self.tags))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((self.matrix.shape[0],), self.matrix.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()


# lineax asks for these by type, and refuses to differentiate through an operator that lacks one.


@lx.linearise.register(HODLROperator)
@lx.materialise.register(HODLROperator)
def _(operator: HODLROperator) -> HODLROperator:
    return operator


@lx.conj.register(HODLROperator)
def _(operator: HODLROperator) -> HODLROperator:
    return HODLROperator(operator.matrix.conj(), operator.tags)


@lx.diagonal.register(HODLROperator)
def _(operator: HODLROperator) -> Array:
    matrix = operator.matrix
    return matrix.diagonal() if isinstance(matrix, Inverse) else diagonal(matrix)


@lx.tridiagonal.register(HODLROperator)
def _(operator: HODLROperator) -> tuple[Array, Array, Array]:
    matrix = operator.matrix
    if isinstance(matrix, Inverse):
        dense = matrix.to_dense()
        return jnp.diagonal(dense), jnp.diagonal(dense, -1), jnp.diagonal(dense, 1)
    sites = jnp.arange(matrix.shape[0])
    below, above = matrix.entries(sites[1:], sites[:-1]), matrix.entries(sites[:-1], sites[1:])
    return matrix.entries(sites, sites), below, above


@lx.is_symmetric.register(HODLROperator)
def _(operator: HODLROperator) -> bool:
    if {lx.symmetric_tag, lx.diagonal_tag} & operator.tags:
        return True
    # Definite means Hermitian, which is symmetric for real matrices alone.
    definite = {lx.positive_semidefinite_tag, lx.negative_semidefinite_tag} & operator.tags
    return bool(definite) and not jnp.issubdtype(operator.matrix.dtype, jnp.complexfloating)


def _register_tag(question: Any, *tags: object) -> None:
    @question.register(HODLROperator)
    def _(operator: HODLROperator) -> bool:
        return any(tag in operator.tags for tag in tags)


_register_tag(lx.is_diagonal, lx.diagonal_tag)
_register_tag(lx.is_tridiagonal, lx.tridiagonal_tag, lx.diagonal_tag)
_register_tag(lx.has_unit_diagonal, lx.unit_diagonal_tag)
_register_tag(lx.is_lower_triangular, lx.lower_triangular_tag, lx.diagonal_tag)
_register_tag(lx.is_upper_triangular, lx.upper_triangular_tag, lx.diagonal_tag)
_register_tag(lx.is_positive_semidefinite, lx.positive_semidefinite_tag)
_register_tag(lx.is_negative_semidefinite, lx.negative_semidefinite_tag)


class HODLRSolver(lx.AbstractLinearSolver):
    """Direct solution of a `HODLROperator` by `hodlr.factorise`, as positive definite where it has
    lineax's tag for that.

    The result is `singular`, and lineax raises unless `throw=False`, where the solution cannot
    be trusted: a condition number above 0.1/eps, a backward error above √eps, or not finite.
    `stats` holds both numbers as `backward_error` and `growth`.
    """

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> Inverse:
        del options
        while isinstance(operator, lx.TaggedLinearOperator):
            operator = operator.operator
        if not isinstance(operator, HODLROperator) or isinstance(operator.matrix, Inverse):
            raise ValueError(
                "HODLRSolver solves a HODLROperator of a HODLR or an ExponentialToeplitz, but got "
                f"{type(operator).__name__}; build one with hodlr.from_operator."
            )
        definite = lx.is_positive_semidefinite(operator)
        return factorise(operator.matrix, positive_definite=definite).inverse()

    def compute(
        self, state: Inverse, vector: PyTree[Array], options: dict[str, Any]
    ) -> tuple[Array, lx.RESULTS, dict[str, Any]]:
        del options
        x = state.unchecked(vector)
        info = measure(state, x, vector)
        result = lx.RESULTS.where(trustworthy(x, info), lx.RESULTS.successful, lx.RESULTS.singular)
        return x, result, info._asdict()

    def transpose(self, state: Inverse, options: dict[str, Any]) -> tuple[Inverse, dict[str, Any]]:
        return state.T, options

    def conj(self, state: Inverse, options: dict[str, Any]) -> tuple[Inverse, dict[str, Any]]:
        return state.conj(), options

    def assume_full_rank(self) -> bool:
        return True
