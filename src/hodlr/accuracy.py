"""How accurate the factorisations are, beside dense LAPACK: `python -m hodlr.bench accuracy`.

Every matrix is formed from its modes in extended precision, and so are log det, a solution and a
derivative of log det: the reference. LAPACK solves the same matrix, its entries rounded, by
Cholesky where it is positive definite, else by QR, in several orders of rows and columns: as it
stands, in reverse, and in random ones. One order may be lucky, above all where entries fall off
exponentially and the natural order keeps small ones apart from large ones; what is asked for is
what a dense factorisation does that knows nothing of the order. The largest of its errors, or what
one rounding of every entry may do, is what a factorisation may be ten times worse than. Derivatives
are taken in forward mode (with tr(A⁻¹ dA) from solutions) and in reverse mode (with reverse mode
through the dense matrix), and the worse one of ours is compared with the worse one of LAPACK.

Not judged is a matrix that is singular to the reference, and a general one that is singular to
working precision (condition above 0.1/eps) and refused for that.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from hodlr.accuracy_cases import Case, cases
from hodlr.build import from_exponentials
from hodlr.direct import factorise
from hodlr.exponentials import SumOfExponentials
from hodlr.toeplitz import ExponentialToeplitz


class Row(NamedTuple):
    """Of a case: the condition number, the errors of log det, solution, and the derivative of log
    det in forward and in reverse mode, each as (of hodlr, of LAPACK); whether the matrix is regular
    to the reference, and whether hodlr refuses it as singular to working precision."""

    case: Case
    condition: float
    logdet: tuple[float, float]
    solution: tuple[float, float]
    derivative: tuple[float, float]
    gradient: tuple[float, float]
    known: bool
    refused: bool

    @property
    def ratio(self) -> float:
        """The worst error of hodlr over LAPACK's, 0 where it is not judged."""
        if not self.known or self.refused:
            return 0.0
        # the derivative is one number, whichever way it is computed
        slopes = zip(self.derivative, self.gradient, strict=True)
        pairs = (self.logdet, self.solution, tuple(map(max, slopes)))
        return max(ours / theirs if ours == ours else math.inf for ours, theirs in pairs)

    @property
    def silent(self) -> bool:
        """Whether a solution without a correct digit comes back as if it were one."""
        return not (self.solution[0] < 0.5 or self.refused)


@np.errstate(divide="ignore", invalid="ignore")
def measure(case: Case) -> Row:
    """All errors of one case."""
    matrix, n, dtype = case.matrix, case.matrix.n, np.dtype(case.matrix.dtype)
    rng = np.random.default_rng(n)
    b = rng.normal(size=n).astype(dtype)
    ours, refused = _ours(matrix, jnp.asarray(b), case.definite, case.hierarchical)
    exact, change = _extended(matrix)
    reference = _by_elimination(exact, change, b)
    site = np.arange(n)
    orders = [site, site[::-1], *(rng.permutation(n) for _ in range(1 + 3 * (n <= 300)))]
    theirs = [_dense(case, exact, change, b, order) for order in orders]
    floors = _one_rounding(exact, change, reference, dtype)
    pairs = []
    for name, floor in zip(_Answers._fields, floors, strict=True):
        right = getattr(reference, name)
        errors = [_distance(getattr(answer, name), right) for answer in (ours, *theirs)]
        # Orders in which LAPACK breaks down, with NaN, do not count.
        pairs.append((errors[0], np.nanmax([*errors[1:], floor]).item()))
    wide = np.promote_types(dtype, np.float64)
    condition = float(np.linalg.cond(exact.astype(wide)))
    known, working = (condition * float(np.finfo(d).eps) < 0.05 for d in (exact.dtype, dtype))
    refused = refused and not working and not case.definite
    return Row(case, condition, *pairs, known=known, refused=refused)


class _Answers(NamedTuple):
    """log det with its phase, A⁻¹ b, and the derivative of log|det| twice: forward and reverse."""

    logdet: Any
    solution: Any
    derivative: Any
    gradient: Any


def _distance(a, b) -> float:
    """Of log determinants on the circle of phases; relative for solutions."""
    if np.ndim(b):
        return float(np.linalg.norm((a - b).astype(complex)) / np.linalg.norm(b.astype(complex)))
    gap = complex(a - b)
    return math.hypot(gap.real, math.remainder(gap.imag, 2 * math.pi))


@eqx.filter_jit
def _compiled(matrix, b, definite: bool, hierarchical: bool):
    def form(t):
        moved = _moved(matrix, t)
        return from_exponentials(moved, leaf_size=32) if hierarchical else moved

    def logabs(t):
        return factorise(form(t), positive_definite=definite).slogdet()[1]

    zero = jnp.zeros((), jnp.finfo(matrix.dtype).dtype)
    factorisation = factorise(form(zero), positive_definite=definite)
    slope = jax.jvp(logabs, (zero,), (jnp.ones_like(zero),))[1]
    return factorisation.slogdet(), factorisation.solve(b), slope, jax.grad(logabs)(zero)


def _ours(matrix, b, definite: bool, hierarchical: bool) -> tuple[_Answers, bool]:
    try:
        (sign, logabs), x, *slopes = _compiled(matrix, b, definite, hierarchical)
    except RuntimeError:
        return _Answers(np.nan, np.full(matrix.n, np.nan), np.nan, np.nan), True
    phase = math.atan2(float(jnp.imag(sign)), float(jnp.real(sign)))
    forward, reverse = (complex(float(s)) for s in slopes)
    answers = _Answers(complex(float(logabs), phase), np.asarray(x), forward, reverse)
    return answers, False


@eqx.filter_jit
def _dense_gradient(matrix, order, definite: bool):
    """d log|det| along `_moved`, by reverse mode through the dense matrix in this order."""

    def logabs(t):
        a = _moved(matrix, t).to_dense()[order][:, order]
        if definite:
            factor = jnp.linalg.cholesky(a)
            return 2 * jnp.sum(jnp.log(jnp.real(jnp.diagonal(factor))))
        return jnp.linalg.slogdet(a)[1]

    return jax.grad(logabs)(jnp.zeros((), jnp.finfo(matrix.dtype).dtype))


def _moved(matrix: ExponentialToeplitz, t) -> ExponentialToeplitz:
    """Weights w (1 + t), poles λ (1 - t/10), the diagonal d (1 + t/3)."""

    def kernel(k: SumOfExponentials) -> SumOfExponentials:
        s = t.astype(k.dtype)
        return SumOfExponentials(k.weights * (1 + s), k.poles * (1 - s * 0.1))

    diagonal = matrix.diagonal * (1 + t.astype(matrix.dtype) / 3)
    return ExponentialToeplitz(
        matrix.n, kernel(matrix.lower), kernel(matrix.upper), diagonal, matrix.periodic
    )


def _extended(matrix: ExponentialToeplitz) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and its derivative along `_moved`, in extended precision (in double precision for
    a matrix in single)."""
    single = np.finfo(matrix.dtype).eps > 1e-10
    wide = np.dtype(np.float64 if single else np.longdouble)
    if jnp.issubdtype(matrix.dtype, jnp.complexfloating):
        wide = np.dtype(np.complex128 if single else np.clongdouble)
    n = matrix.n
    lag = np.subtract.outer(np.arange(n), np.arange(n))
    diagonal = np.broadcast_to(np.asarray(matrix.diagonal), (n,)).astype(wide)
    values, slopes = np.diag(diagonal), np.diag(diagonal / 3)
    powers = np.arange(n + 1)
    for kernel, sign in ((matrix.lower, 1), (matrix.upper, -1)):
        for w, p in zip(np.asarray(kernel.weights), np.asarray(kernel.poles), strict=True):
            w, p = wide.type(w), wide.type(p)
            table = w * p**powers
            slope = table * (1 - powers.astype(wide) / 10)
            if matrix.periodic:
                turn = 1 - p**n
                closed = p**n / turn * n / 10
                table, slope = table / turn, (slope - table * closed) / turn
                distance = (sign * lag - 1) % n + 1
                values, slopes = values + table[distance], slopes + slope[distance]
            else:
                reached = sign * lag > 0
                distance = np.where(reached, sign * lag, 0)
                values = values + np.where(reached, table[distance], 0)
                slopes = slopes + np.where(reached, slope[distance], 0)
    return values, slopes


def _by_elimination(a: np.ndarray, change: np.ndarray, b: np.ndarray) -> _Answers:
    """By Gaussian elimination with pivots, in the precision of the arrays."""
    n = len(a)
    if a.dtype in (np.float64, np.complex128):
        sign, logabs = np.linalg.slogdet(a)
        both = np.linalg.solve(a, np.concatenate([b[:, None], change], axis=1))
        logdet, slope = complex(logabs, np.angle(sign)), complex(np.trace(both[:, 1:])).real
        return _Answers(logdet, both[:, 0], slope, slope)
    work = np.concatenate([a, b[:, None].astype(a.dtype), change.astype(a.dtype)], axis=1)
    logabs, phase = np.real(a).dtype.type(0), 0.0
    for k in range(n):
        pivot = k + int(np.argmax(np.abs(work[k:, k])))
        if pivot != k:
            work[[k, pivot]] = work[[pivot, k]]
            phase += math.pi
        value = work[k, k]
        logabs = logabs + np.log(np.abs(value))
        phase += math.atan2(float(value.imag), float(value.real))
        work[k, k:] /= value
        work[k + 1 :, k:] -= np.multiply.outer(work[k + 1 :, k], work[k, k:])
    for k in range(n - 1, 0, -1):
        work[:k, n:] -= np.multiply.outer(work[:k, k], work[k, n:])
    slope = np.real(np.trace(work[:, n + 1 :]))
    logdet = np.clongdouble(logabs) + 1j * np.clongdouble(phase)
    return _Answers(logdet, work[:, n], slope, slope)


def _dense(case: Case, exact, change, b: np.ndarray, order: np.ndarray) -> _Answers:
    """By LAPACK in the precision of b, with rows and columns in this order; NaN where it breaks
    down."""
    a, change = (m[order][:, order].astype(b.dtype) for m in (exact, change))
    gradient = complex(float(_dense_gradient(case.matrix, jnp.asarray(order), case.definite)))
    try:
        logdet, solution, derivative = _by_lapack(a, change, b[order], case.definite)
    except np.linalg.LinAlgError:
        return _Answers(math.nan, np.full_like(b, math.nan), math.nan, gradient)
    return _Answers(logdet, solution[np.argsort(order)], derivative, gradient)


def _by_lapack(a, change, b: np.ndarray, definite: bool) -> tuple[complex, np.ndarray, float]:
    right = np.concatenate([b[:, None], change], axis=1)
    if definite:
        factor = np.linalg.cholesky(a)
        logdet = complex(2 * np.sum(np.log(np.real(np.diag(factor)))))
        both = scipy.linalg.cho_solve((factor, True), right)
    else:
        q, r = np.linalg.qr(a)
        pivots = np.diag(r)
        phase = np.angle(np.linalg.slogdet(q)[0]) + np.sum(np.angle(pivots))
        logdet = complex(np.sum(np.log(np.abs(pivots))), phase)
        both = scipy.linalg.solve_triangular(r, q.conj().T @ right)
    slope = sum(np.diag(both[:, 1:]).tolist(), 0j).real
    return logdet, np.asarray(both)[:, 0], slope


def _one_rounding(a, change, reference: _Answers, dtype) -> tuple[float, float, float, float]:
    """What relative changes eps of every entry, of random sign, do to the four: the root of the
    sum of squares."""
    eps = float(np.finfo(dtype).eps)
    wide = np.promote_types(dtype, np.float64)
    inverse, entries = np.linalg.inv(a.astype(wide)), np.abs(a).astype(np.float64)
    turned = inverse @ change.astype(wide) @ inverse
    x = reference.solution.astype(wide)
    logdet = eps * (np.linalg.norm(np.abs(inverse.T) * entries) + abs(complex(reference.logdet)))
    moved = (np.abs(inverse) ** 2) @ (entries**2 @ np.abs(x) ** 2)
    solution = eps * (1 + math.sqrt(float(np.sum(moved))) / float(np.linalg.norm(x)))
    derivative = eps * (
        np.linalg.norm(np.abs(turned.T) * entries) + abs(complex(reference.derivative))
    )
    return float(logdet), float(solution), float(derivative), float(derivative)


def table() -> None:
    """Print every row, and the worst."""
    ratios, silent, unknown = [], 0, 0
    print(
        "kind                     n  dtype        cond   log det: hodlr  LAPACK   solve: hodlr  "
        "LAPACK   forward: hodlr  LAPACK   reverse: hodlr  LAPACK   ratio"
    )
    for case in cases():
        row = measure(case)
        matrix = case.matrix
        numbers = "   ".join(
            f"{ours:13.1e} {theirs:7.1e}"
            for ours, theirs in (row.logdet, row.solution, row.derivative, row.gradient)
        )
        verdict = f"{row.ratio:5.1f}" if row.known else "singular"
        print(
            f"{case.kind:22s} {matrix.n:4d}  {matrix.dtype!s:10s} {row.condition:7.1e} {numbers}   "
            f"{verdict}{' refused' if row.refused else ''}",
            flush=True,
        )
        ratios.append(row.ratio)
        silent, unknown = silent + row.silent, unknown + (not row.known)
    print(
        f"{len(ratios)} matrices, {unknown} of them singular to the reference. Worst error over "
        f"LAPACK's: {max(ratios):.1f}; median {np.median(ratios):.1f}; wrong without a word: "
        f"{silent}."
    )
