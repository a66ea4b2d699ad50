"""Direct solution: what a factorisation offers, and the factorisation of a HODLR matrix."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from hodlr.algebra import Structured, add_diagonal
from hodlr.blocks import invert
from hodlr.exponentials import check_finite, promote
from hodlr.matrix import HODLR, as_columns, from_columns


class BlockInverse(eqx.Module):
    """Inverses (…, s, s) of a batch of square blocks, and the sign and log|det| of each one."""

    inverse: Array
    sign: Array
    logabs: Array

    def __init__(self, blocks: Array):
        self.inverse, self.sign, self.logabs = invert(blocks)

    def solve(self, b: Array) -> Array:
        """Solve for columns b (…, s, k)."""
        return self.inverse @ b


class AbstractFactorisation(eqx.Module):
    """A factorised matrix A: solve for many right-hand sides, log-determinant, inverse.

    The blocks are pivoted inside, not between them: where a diagonal block of A is (nearly)
    singular although A is not, accuracy is lost. `residual` tells, `refinements=1` often repairs,
    and `hodlr.solve` does both and checks.
    """

    matrix: eqx.AbstractVar[Any]

    @abc.abstractmethod
    def _solve(self, b: Array) -> Array:
        """A⁻¹ b for columns b (n, k) of the dtype of A or its complex counterpart."""

    @abc.abstractmethod
    def _blocks(self) -> list[BlockInverse]:
        """All inverted blocks: the product of their determinants is det A."""

    def solve(
        self, b: ArrayLike, *, transpose: bool = False, conj: bool = False, refinements: int = 0
    ) -> Array:
        """x with A x = b for b (n,) or (n, k); with Aᵀ, Ā or Aᴴ for `transpose`, `conj` or both.

        `refinements` steps of iterative refinement, each one product and one more solve.
        """
        n = self.matrix.shape[0]
        b = jnp.asarray(b)
        if b.ndim not in (1, 2) or b.shape[0] != n:
            raise ValueError(
                f"the matrix is {n}×{n}: b must have shape ({n},) or ({n}, k), but got {b.shape}."
            )
        check_finite("the right-hand side", b)
        b, like = promote(b, jnp.zeros((), self.matrix.dtype))
        columns = b.reshape(n, -1)
        if columns.dtype != self.matrix.dtype and not jnp.issubdtype(
            self.matrix.dtype, jnp.complexfloating
        ):
            if jnp.issubdtype(columns.dtype, jnp.complexfloating):
                parts = jnp.concatenate([columns.real, columns.imag], axis=-1)
                x = self.solve(parts, transpose=transpose, refinements=refinements)
                return jax.lax.complex(*jnp.split(x, 2, axis=-1)).reshape(b.shape)
        direct = _under(self._solve, columns, transpose, conj)
        x = direct(columns)
        if refinements:
            operator = _view(self.matrix, transpose, conj)
            for _ in range(refinements):
                x = x + direct(columns - operator @ x)
        return x.reshape(b.shape)

    def residual(self, x: Array, b: Array, *, transpose: bool = False, conj: bool = False) -> Array:
        """Relative residual ‖b - A x‖/‖b‖ (in the Frobenius norm for many columns)."""
        x, b = promote(x, b)
        return jnp.linalg.norm(b - _view(self.matrix, transpose, conj) @ x) / jnp.linalg.norm(b)

    def slogdet(self) -> tuple[Array, Array]:
        """(sign, logabs): det A = sign · exp(logabs), the sign ±1 or a complex phase; (0, -inf) if
        singular."""
        sign = jnp.ones((), self.matrix.dtype)
        logabs = jnp.zeros((), jnp.finfo(self.matrix.dtype).dtype)
        for block in self._blocks():
            sign, logabs = sign * jnp.prod(block.sign), logabs + jnp.sum(block.logabs)
        return sign, logabs

    def inverse(self) -> "Inverse":
        """A⁻¹ as an operator."""
        return Inverse(self)

    def inverse_diagonal(self) -> Array:
        """The diagonal of A⁻¹ (n,), as ∂ log det A / ∂ A[i, i]; costs a few factorisations."""
        cls, matrix = type(self), self.matrix

        def logabs(shift: Array) -> Array:
            return cls(add_diagonal(matrix, shift)).slogdet()[1]

        # For complex matrices too: the gradient of Re f, for analytic f, is f'.
        return jax.grad(logabs)(jnp.zeros(matrix.shape[0], matrix.dtype))


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

    def __matmul__(self, b: Any) -> Array:
        return self.factorisation.solve(b, transpose=self.transposed, conj=self.conjugated)

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


class HODLRFactorisation(AbstractFactorisation):
    """Recursive Woodbury factorisation of a HODLR matrix; O(n·r²·log² n), solve O(n·r·log n).

    With the diagonal blocks D of the children of a node solved already, [D₁, U₁V₂ᵀ; U₂V₁ᵀ, D₂] x =
    b is x_c = D_c⁻¹ b_c - Y_c t_c', Y = D⁻¹ U, where t_c = V_cᵀ x_c obeys t₁ + (V₁ᵀ Y₁) t₂ = V₁ᵀ
    D₁⁻¹ b₁ and the same with 1 and 2 exchanged: one batched system of 2r unknowns for each node.
    (Ambikasaran, Darve, J. Sci. Comput. 57, 477, 2013.) The determinant is the product of those of
    the leaves and of these systems.
    """

    matrix: HODLR
    leaf: BlockInverse
    solved: tuple[Array, ...]
    small: tuple[BlockInverse, ...]
    cols: tuple[Array, ...]

    def __init__(self, matrix: HODLR):
        self.matrix = matrix
        a, tree = matrix.unshared(), matrix.tree
        padding = (jnp.arange(tree.padded) >= tree.n).reshape(tree.n_leaves, tree.leaf_size)
        self.cols = a.cols
        self.leaf = BlockInverse(a.leaves + jax.vmap(jnp.diag)(padding.astype(a.dtype)))
        widths = [u.shape[-1] for u in a.rows]
        columns = [u.reshape(tree.padded, -1) for u in a.rows]
        # The factors of all levels above are solved together, one batch of columns, root first.
        y = jnp.zeros((tree.padded, 0), a.dtype)
        if columns:
            y = _by_node(self.leaf.solve, tree.n_leaves, jnp.concatenate(columns, -1))
        solved, small = [], []
        for level in reversed(range(tree.depth)):
            before = sum(widths[:level])
            mine = y[:, before:].reshape(2**level, 2, tree.half(level), widths[level])
            transfer = jnp.swapaxes(a.cols[level], -1, -2) @ mine
            system = BlockInverse(_coupling(transfer))
            solved.append(mine)
            small.append(system)
            y = _join_children(y[:, :before], mine, a.cols[level], system)
        self.solved, self.small = tuple(solved[::-1]), tuple(small[::-1])

    def _solve(self, b: Array) -> Array:
        tree = self.matrix.tree
        x = jnp.pad(as_columns(b), ((0, tree.padded - tree.n), (0, 0)))
        x = _by_node(self.leaf.solve, tree.n_leaves, x)
        for level in reversed(range(tree.depth)):
            x = _join_children(x, self.solved[level], self.cols[level], self.small[level])
        return from_columns(x[: tree.n], b)

    def _blocks(self) -> list[BlockInverse]:
        return [self.leaf, *self.small]


def _by_node(function, nodes: int, x: Array) -> Array:
    return function(x.reshape(nodes, -1, x.shape[-1])).reshape(x.shape)


def _coupling(transfer: Array) -> Array:
    """The systems [I, T₁; T₂, I] (nodes, 2r, 2r) from the transfers (nodes, 2, r, r)."""
    identity = jnp.broadcast_to(
        jnp.eye(transfer.shape[-1], dtype=transfer.dtype), transfer[:, 0].shape
    )
    above = jnp.concatenate([identity, transfer[:, 0]], axis=-1)
    below = jnp.concatenate([transfer[:, 1], identity], axis=-1)
    return jnp.concatenate([above, below], axis=-2)


def _join_children(x: Array, solved: Array, cols: Array, system: BlockInverse) -> Array:
    """From the children's solutions x (padded, k) to their parents'."""
    nodes, _, s, rank = solved.shape
    halves = x.reshape(nodes, 2, s, x.shape[-1])
    inner = jnp.swapaxes(cols, -1, -2) @ halves
    t = system.solve(inner.reshape(nodes, 2 * rank, -1)).reshape(inner.shape)
    return (halves - solved @ t[:, ::-1]).reshape(x.shape)
