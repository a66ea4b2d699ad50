"""The matrices of the table in `hodlr.accuracy`: two hundred of every kind."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hodlr.exponentials import SumOfExponentials
from hodlr.toeplitz import ExponentialToeplitz


class Case(NamedTuple):
    """A matrix, whether it is positive definite, and whether it is factorised as HODLR."""

    kind: str
    matrix: ExponentialToeplitz
    definite: bool = False
    hierarchical: bool = False


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
    # A zero diagonal on alternate stretches of 16 sites: conditions 5e13, 2e15, and singular.
    for k in (69, 177, 3):
        yield Case(*_general(np.random.default_rng(k), 100, "float64", 3))
    for dtype, n, count in (("float64", 130, 16), ("float32", 130, 10), ("complex64", 130, 10)):
        for k in range(count):
            kind, matrix = _general(rng, n, dtype, k)
            yield Case(kind + " HODLR", matrix, False, True)
    for k in range(6):
        yield Case("ring HODLR", _ring(rng, 120, "complex64", k), False, True)


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
