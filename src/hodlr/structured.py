"""What every structured matrix can do: `@ + - * /`, `.T`, `.H`, entries, shape and dtype, written
once.

A type fills in its products with columns, its entries, transpose, conjugate and multiples. What two
types make together (sums, products) is a table that they enter with `pairs`; where nothing is
entered for two types, what is entered for all answers.
"""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from hodlr.chunks import Chunks
from hodlr.exponentials import promote


class AbstractStructured(eqx.Module):
    """A square matrix (n, n) held by fewer numbers than it has entries."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, n)."""

    @property
    @abc.abstractmethod
    def dtype(self) -> Any:
        """The dtype of the entries."""

    @abc.abstractmethod
    def _columns_product(self, x: Array) -> Array:
        """A x for x (n,) or (n, k) of the dtype of A or a wider one."""

    @abc.abstractmethod
    def _entries(self, i: Array, j: Array) -> Array:
        """A[i, j] for index arrays of one shape."""

    @abc.abstractmethod
    def _dense(self) -> Array:
        """The matrix as an array (n, n)."""

    @property
    @abc.abstractmethod
    def T(self) -> Any:
        """The transpose."""

    @abc.abstractmethod
    def conj(self) -> Any:
        """The complex conjugate."""

    @abc.abstractmethod
    def _scaled(self, factor: Any) -> Any:
        """The matrix times a number."""

    @abc.abstractmethod
    def plus_diagonal(self, d: Array) -> Any:
        """A + diag(d) for a number or a vector (n,) of the dtype of A or a wider one."""

    @abc.abstractmethod
    def chunks(self, smallest: int) -> Chunks:
        """The matrix in chunks of at least `smallest` sites, for products and factorisations."""

    @property
    @abc.abstractmethod
    def redundant_waves(self) -> bool:
        """Whether the waves of `chunks` say nearly the same, so that Cholesky needs other
        coordinates (see `Chunks.observed`)."""

    @property
    def H(self) -> Any:
        """The adjoint, conj(A).T."""
        return self.conj().T

    def to_dense(self) -> Array:
        """The matrix as an array (n, n); O(n²) times the modes or ranks."""
        return _dense(self)

    def entries(self, i: ArrayLike, j: ArrayLike) -> Array:
        """A[i, j] for integer index arrays 0 … n - 1 that broadcast, without forming anything
        larger."""
        i, j = jnp.broadcast_arrays(jnp.asarray(i), jnp.asarray(j))
        n = self.shape[0]
        for name, index in (("row", i), ("column", j)):
            if not jnp.issubdtype(index.dtype, jnp.integer):
                raise TypeError(f"entries needs integer indices, but got dtype {index.dtype}.")
            if not isinstance(index, Tracer) and index.size:
                low, high = int(np.min(index)), int(np.max(index))
                if low < 0 or high >= n:
                    raise IndexError(
                        f"the matrix is {n}×{n}: it has no {name} "
                        f"{low if low < 0 else high}; indices run from 0 to {n - 1}."
                    )
        return _entries(self, i, j)

    # numpy leaves `array @ A` to A.
    __array_ufunc__ = None

    def __matmul__(self, x: Any) -> Any:
        """A @ x for x (n,) or (n, k); for a structured matrix `hodlr.matmul`."""
        if isinstance(x, AbstractStructured):
            return combine("matmul", self, x)
        n, x = self.shape[0], _as_array(x)
        if x is None:
            return NotImplemented
        if x.ndim not in (1, 2) or x.shape[0] != n:
            raise ValueError(
                f"A is {n}×{n}: in A @ x, x must have shape ({n},) or ({n}, k), but got {x.shape}."
            )
        return _product(self, promote(x, jnp.zeros((), self.dtype))[0])

    def __rmatmul__(self, y: Any) -> Any:
        """y @ A for y (n,) or (k, n)."""
        n, y = self.shape[0], _as_array(y)
        if y is None:
            return NotImplemented
        if y.ndim not in (1, 2) or y.shape[-1] != n:
            raise ValueError(
                f"A is {n}×{n}: in y @ A, y must have shape ({n},) or (k, {n}), but got {y.shape}."
            )
        return (self.T @ y.T).T

    def __add__(self, other: Any) -> Any:
        """The sum; see `hodlr.add`."""
        if not isinstance(other, AbstractStructured):
            return _not_added(self, other)
        return combine("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return self if isinstance(other, int) and other == 0 else _not_added(self, other)

    def __sub__(self, other: Any) -> Any:
        if not isinstance(other, AbstractStructured):
            return NotImplemented
        return combine("add", self, -other)

    def __mul__(self, factor: Any) -> Any:
        """Scaling by a number."""
        if isinstance(factor, (str, bytes)) or not jnp.isscalar(factor):
            return NotImplemented
        return self._scaled(factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Any:
        if isinstance(divisor, (str, bytes)) or not jnp.isscalar(divisor):
            return NotImplemented
        return self._scaled(1 / divisor)

    def __neg__(self) -> Any:
        return self._scaled(-1)


# One program each: outside jit their operations would be compiled one by one, for seconds.


@jax.jit
def _product(A: AbstractStructured, x: Array) -> Array:
    return A._columns_product(x)


@jax.jit
def _entries(A: AbstractStructured, i: Array, j: Array) -> Array:
    return A._entries(i, j)


@jax.jit
def _dense(A: AbstractStructured) -> Array:
    return A._dense()


def _not_added(A: AbstractStructured, x: Any) -> Any:
    if not jnp.isscalar(x) and _as_array(x) is None:
        return NotImplemented
    raise TypeError(
        f"a {type(A).__name__} and a number or an array are not added, for that could mean every "
        "entry or the diagonal; write hodlr.add_diagonal(A, x), or A + hodlr.from_dense(x) for an "
        "array (n, n)."
    )


def _as_array(x: Any) -> Array | None:
    """An operand of a product as an array, or None for what is none."""
    if isinstance(x, (list, tuple)) or hasattr(x, "__array__") or isinstance(x, Tracer):
        return jnp.asarray(x)
    return None


def diagonal(A: Any) -> Array:
    """The diagonal (n,) of any structured matrix."""
    if not isinstance(A, AbstractStructured):
        raise TypeError(_expected("diagonal", A))
    sites = jnp.arange(A.shape[0])
    return A.entries(sites, sites)


_PAIRS: dict[tuple[str, type, type], Callable[..., Any]] = {}


def pairs(verb: str, first: type, second: type):
    """Enter the decorated function of two matrices for these types; `AbstractStructured` stands for
    all."""

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        _PAIRS[verb, first, second] = function
        return function

    return enter


def combine(verb: str, A: Any, B: Any, **options: Any) -> Any:
    """What the table has for the types of A and B, or for all types."""
    for operand in (A, B):
        if not isinstance(operand, AbstractStructured):
            raise TypeError(_expected(verb, operand))
    if A.shape != B.shape:
        raise ValueError(f"{verb} needs one size, but got the sizes {A.shape} and {B.shape}.")
    default = _PAIRS[verb, AbstractStructured, AbstractStructured]
    return _PAIRS.get((verb, type(A), type(B)), default)(A, B, **options)


def check_structured(verb: str, A: Any) -> None:
    if not isinstance(A, AbstractStructured):
        raise TypeError(_expected(verb, A))


def _expected(verb: str, A: Any) -> str:
    return (
        f"{verb} needs a structured matrix, such as a HODLR or an ExponentialToeplitz, but got "
        f"{type(A).__name__}; turn an array into one with hodlr.from_dense(A)."
    )
