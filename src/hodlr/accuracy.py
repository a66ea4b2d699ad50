"""How accurate the factorisations are, beside dense LAPACK: `python -m hodlr.bench accuracy`.

Every matrix is formed from its modes in extended precision, and so are log det, a solution and a
derivative of log det: the reference. LAPACK solves the same matrix, its entries rounded, as it
stands and with its rows and columns in reverse order, by Cholesky where it is positive definite,
else by QR. The larger of its two errors, or what one rounding of every entry may do where it was
lucky, is what a factorisation may be ten times worse than.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from hodlr.build import from_exponentials
from hodlr.direct import factorise
from hodlr.exponentials import SumOfExponentials
from hodlr.toeplitz import ExponentialToeplitz


class Case(NamedTuple):
    """A matrix, whether it is positive definite, and whether it is factorised as HODLR."""

    kind: str
    matrix: ExponentialToeplitz
    definite: bool = False
    hierarchical: bool = False


class Row(NamedTuple):
    """Of a case: the condition number, and the errors of log det, solution and derivative of log
    det, each as (of hodlr, of LAPACK)."""

    case: Case
    condition: float
    logdet: tuple[float, float]
    solution: tuple[float, float]
    derivative: tuple[float, float]

    @property
    def ratio(self) -> float:
        """The worst error of hodlr over LAPACK's."""
        pairs = (self.logdet, self.solution, self.derivative)
        return max(ours / theirs if ours == ours else math.inf for ours, theirs in pairs)


def measure(case: Case) -> Row:
    """All errors of one case."""
    matrix, dtype = case.matrix, np.dtype(case.matrix.dtype)
    rng = np.random.default_rng(matrix.n)
    b = rng.normal(size=matrix.n).astype(dtype)
    ours = _ours(matrix, jnp.asarray(b), case.definite, case.hierarchical)
    exact, change = _extended(matrix)
    reference = _by_elimination(exact, change, b)
    flipped, turned = (a[::-1, ::-1].astype(dtype) for a in (exact, change))
    theirs = [
        _by_lapack(exact.astype(dtype), change.astype(dtype), b, case.definite),
        _by_lapack(flipped, turned, b[::-1], case.definite),
    ]
    theirs[1] = theirs[1]._replace(solution=theirs[1].solution[::-1])
    floors = _one_rounding(exact, change, reference, dtype)
    pairs = []
    for name, floor in zip(_Answers._fields, floors, strict=True):
        right = getattr(reference, name)
        errors = [_distance(getattr(answer, name), right) for answer in (ours, *theirs)]
        pairs.append((errors[0], max(*errors[1:], floor)))
    condition = float(np.linalg.cond(exact.astype(np.promote_types(dtype, np.float64))))
    logdet, solution, derivative = pairs
    return Row(case, condition, logdet, solution, derivative)


class _Answers(NamedTuple):
    """log det with its phase, A⁻¹ b, and tr(A⁻¹ dA)."""

    logdet: Any
    solution: Any
    derivative: Any


def _distance(a, b) -> float:
    """Of log determinants on the circle of phases; relative for solutions."""
    if np.ndim(b):
        return float(np.linalg.norm((a - b).astype(complex)) / np.linalg.norm(b.astype(complex)))
    gap = complex(a - b)
    return math.hypot(gap.real, math.remainder(gap.imag, 2 * math.pi))


@eqx.filter_jit
def _compiled(matrix, b, definite: bool, hierarchical: bool):
    def at(t):
        moved = _moved(matrix, t)
        form = from_exponentials(moved, leaf_size=32) if hierarchical else moved
        return factorise(form, positive_definite=definite)

    def logabs(t):
        return at(t).slogdet()[1]

    zero = jnp.zeros((), jnp.finfo(matrix.dtype).dtype)
    factorisation = at(zero)
    return factorisation.slogdet(), factorisation.solve(b), jax.grad(logabs)(zero)


def _ours(matrix, b, definite: bool, hierarchical: bool) -> _Answers:
    (sign, logabs), x, slope = _compiled(matrix, b, definite, hierarchical)
    phase = math.atan2(float(jnp.imag(sign)), float(jnp.real(sign)))
    return _Answers(complex(float(logabs), phase), np.asarray(x), complex(float(slope)))


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
        logdet = complex(logabs, np.angle(sign))
        return _Answers(logdet, both[:, 0], complex(np.trace(both[:, 1:])).real)
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
    trace = np.trace(work[:, n + 1 :])
    logdet = np.clongdouble(logabs) + 1j * np.clongdouble(phase)
    return _Answers(logdet, work[:, n], np.real(trace))


def _by_lapack(a: np.ndarray, change: np.ndarray, b: np.ndarray, definite: bool) -> _Answers:
    right = np.concatenate([b[:, None], change], axis=1)
    if definite:
        factor = np.linalg.cholesky(a)
        logdet = complex(2 * np.sum(np.log(np.diag(factor).real)))
        both = scipy.linalg.cho_solve((factor, True), right)
    else:
        q, r = np.linalg.qr(a)
        pivots = np.diag(r)
        phase = np.angle(np.linalg.slogdet(q)[0]) + np.sum(np.angle(pivots))
        logdet = complex(np.sum(np.log(np.abs(pivots))), phase)
        both = scipy.linalg.solve_triangular(r, q.conj().T @ right)
    return _Answers(logdet, both[:, 0], complex(np.trace(both[:, 1:]).real))


def _one_rounding(a, change, reference: _Answers, dtype) -> tuple[float, float, float]:
    """What relative changes eps of every entry, of random sign, do to the three: the root of the
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
    return float(logdet), float(solution), float(derivative)


# The matrices


def cases(seed: int = 0) -> Iterator[Case]:
    """Two hundred matrices of every kind. Kinds share shapes, and so programs."""
    rng = np.random.default_rng(seed)
    for dtype, n, count in (
        ("float64", 1, 2), ("float64", 7, 4), ("float64", 300, 16), ("float64", 500, 2),
        ("float32", 300, 12), ("complex128", 100, 8), ("float32", 2000, 2),
    ):  # fmt: skip
        for k in range(count):
            yield Case(
                "positive definite", _definite(rng, n, dtype, 10.0 ** -(1 + 11 * k / count)), True
            )
    for dtype, n, count in (("float64", 100, 20), ("float32", 100, 12), ("complex128", 100, 12)):
        for k in range(count):
            yield Case(*_general(rng, n, dtype, k))
    for dtype, n, count in (("float64", 500, 6), ("float64", 2, 4), ("float32", 1000, 8)):
        for k in range(count):
            yield Case(*_general(rng, n, dtype, k))
    for dtype, n, count in (("float64", 200, 12), ("float32", 200, 6), ("complex128", 61, 6)):
        for k in range(count):
            yield Case("ring", _ring(rng, n, dtype, k))
    for dtype, n, count in (("float64", 200, 8), ("float32", 200, 6)):
        for k in range(count):
            gap = 10.0 ** -(1 + 7 * k / count)
            yield Case("definite ring", _definite(rng, n, dtype, gap, periodic=True), True)
    for dtype, n, count in (("float64", 300, 12), ("float32", 300, 6)):
        for k in range(count):
            gap = 10.0 ** -(1 + 11 * k / count)
            yield Case("definite HODLR", _definite(rng, n, dtype, gap), True, True)
    for dtype, n, count in (("float64", 130, 16), ("float32", 130, 10), ("complex64", 130, 10)):
        for k in range(count):
            kind, matrix = _general(rng, n, dtype, k)
            yield Case(kind + " HODLR", matrix, False, True)


def _definite(rng, n: int, dtype: str, gap: float, periodic: bool = False) -> ExponentialToeplitz:
    """A covariance of two decays (oscillating where complex), sampled ever more finely, with noises
    that spread over two decades; conditions up to about 1/gap² as far as the dtype reaches."""
    eps = float(np.finfo(dtype).eps)
    gap = max(gap, 30 * eps)
    poles = np.exp(-gap * np.array([1.0, 7.0]))
    if "complex" in dtype:
        poles = poles * np.exp(1j * gap * rng.normal(size=2))
    k = SumOfExponentials(rng.uniform(0.3, 1, 2).astype(np.dtype(dtype)), poles.astype(dtype))
    first = float(np.sum(np.real(k.weights)))
    noise = first * max(0.1 * gap, 300 * eps) * 10 ** rng.uniform(0, 2, n)
    if periodic:
        k = k * (gap * n if gap * n < 1 else 1.0)
        first = float(np.sum(np.real(k.weights)))
    return ExponentialToeplitz(n, k, k.conj(), (first + noise).astype(dtype), periodic)


def _general(rng, n: int, dtype: str, k: int) -> tuple[str, ExponentialToeplitz]:
    """In turn: non-symmetric, symmetric (Hermitian) indefinite, skew, with singular leaves, shifted
    beside an eigenvalue of a leading block, with a varying diagonal."""

    def kernel(largest: float) -> SumOfExponentials:
        w, p = rng.normal(size=2), rng.uniform(-largest, largest, 2)
        if "complex" in dtype:
            w, p = (a * np.exp(2j * np.pi * rng.uniform(size=2)) for a in (w, p))
        return SumOfExponentials(w.astype(dtype), p.astype(dtype))

    lower, upper = kernel(0.99), kernel(0.99)
    hermitian = lower.conj()
    constant = np.full(n, rng.normal())
    kinds = (
        ("non-symmetric", upper, constant),
        ("indefinite", hermitian, constant),
        ("skew", -hermitian, 0 * constant + (n % 2)),
        ("singular leaves", upper, np.where(np.arange(n) % 32 < 16, 0.0, constant)),
        ("shifted", hermitian, constant),
        ("varying diagonal", upper, rng.normal(size=n) * 10 ** rng.uniform(-3, 1, n)),
    )
    kind, upper, diagonal = kinds[k % len(kinds)]
    matrix = ExponentialToeplitz(n, lower, upper, diagonal.astype(dtype))
    if kind == "shifted":
        bare = ExponentialToeplitz(n, lower, upper, (0 * diagonal).astype(dtype))
        size = min(n, 13)
        block = np.asarray(bare.entries(*np.indices((size, size))))
        shift = -np.linalg.eigvalsh(block)[size // 2] - 1e-6
        matrix = ExponentialToeplitz(n, lower, upper, np.full(n, shift).astype(dtype))
    return kind, matrix


def _ring(rng, n: int, dtype: str, k: int) -> ExponentialToeplitz:
    """With a varying diagonal; every third one winds around zero: cut open, it is singular."""
    w, p = rng.normal(size=4), rng.uniform(-0.98, 0.98, 4)
    if "complex" in dtype:
        w = w * np.exp(2j * np.pi * rng.uniform(size=4))
    w, p = w.astype(dtype), p.astype(dtype)
    lower, upper = SumOfExponentials(w[:2], p[:2]), SumOfExponentials(w[2:], p[2:])
    diagonal = rng.normal() + 0.1 * rng.normal(size=n)
    if k % 3 == 0:
        lower, upper = lower * 0 + SumOfExponentials(w[:0], p[:0]), upper * 0
        lower = SumOfExponentials(np.array([-3.0, 0.0], dtype), p[:2] * 0 + np.asarray(0.5, dtype))
        diagonal = np.ones(n) + 1e-3 * rng.normal(size=n)
    return ExponentialToeplitz(n, lower, upper, diagonal.astype(dtype), True)


def table() -> None:
    """Print every row, and the worst."""
    worst = 0.0
    print(
        "kind                     n  dtype        cond   log det: hodlr  LAPACK   solve: hodlr  "
        "LAPACK  derivative: hodlr  LAPACK   ratio"
    )
    for case in cases():
        row = measure(case)
        matrix = case.matrix
        numbers = "   ".join(
            f"{ours:13.1e} {theirs:7.1e}"
            for ours, theirs in (row.logdet, row.solution, row.derivative)
        )
        print(
            f"{case.kind:22s} {matrix.n:4d}  {matrix.dtype!s:10s} {row.condition:7.1e} {numbers}   "
            f"{row.ratio:5.1f}",
            flush=True,
        )
        worst = max(worst, row.ratio)
    print(f"worst error over LAPACK's: {worst:.1f}")
