"""Fits of exponential sums: number of terms, certificates that hold, and refusals."""

import time

import numpy as np
import pytest

import hodlr
from random_matrices import random_sum

# (exponent, lags, tolerance, terms of the reference table, of which two more are allowed)
TABLE = [
    (alpha, n, tol, terms)
    for alpha, rows in {
        1: [(11, 17), (14, 23), (18, 28)],
        2: [(10, 16), (11, 20), (12, 23)],
        3: [(7, 14), (7, 16), (7, 16)],
    }.items()
    for n, row in zip((10**3, 10**4, 10**5), rows, strict=True)
    for tol, terms in zip((1e-6, 1e-10), row, strict=True)
]


@pytest.mark.parametrize("alpha, n, tol, terms", TABLE)
def test_power_laws_need_few_terms(alpha, n, tol, terms):
    start = time.perf_counter()
    kernel, info = hodlr.fit_power_law(alpha, n, tol=tol)
    assert time.perf_counter() - start < 5
    assert info.terms == kernel.modes <= terms + 2
    lags = np.arange(1, n + 1)
    error = sum(
        w * p**lags for w, p in zip(*map(np.asarray, (kernel.weights, kernel.poles)), strict=True)
    )
    error = np.abs(error - lags ** -float(alpha))
    assert np.max(error) <= tol
    np.testing.assert_allclose(info.max_abs_error, np.max(error), rtol=1e-3)
    np.testing.assert_allclose(info.max_rel_error, np.max(error * lags ** float(alpha)), rtol=1e-3)
    assert np.all(np.asarray(kernel.weights) > 0)
    assert np.all((np.asarray(kernel.poles) > 0) & (np.asarray(kernel.poles) < 1))


@pytest.mark.parametrize(
    "name, kernel, n, tol, most",
    [
        ("oscillation", lambda r: 0.9**r * np.cos(0.7 * r + 0.2) + 0.5 * (-0.8) ** r, 50, 1e-12, 3),
        ("long", lambda r: 0.999**r * np.cos(0.7 * r + 0.2), 3000, 1e-11, 2),
        (
            "complex",
            lambda r: (0.99 * np.exp(0.3j)) ** r + 1j * (0.5 * np.exp(-1j)) ** r,
            300,
            1e-11,
            2,
        ),
        ("gaussian", lambda r: np.exp(-((r / 20) ** 2)), 400, 1e-8, 10),
        ("short", lambda r: 1.0 / r, 3, 1e-12, 3),
        ("one", lambda r: 2.0 * r, 1, 1e-12, 1),
        ("zero", lambda r: 0.0 * r, 9, 1e-12, 1),
    ],
)
def test_kernels_are_fitted_within_tolerance(name, kernel, n, tol, most):
    fit, info = hodlr.fit_exponentials(kernel, n, tol=tol)
    lags = np.arange(1, n + 1)
    error = np.max(np.abs(np.asarray(fit(lags)) - kernel(lags)))
    assert error <= tol + 1e-13 and info.max_abs_error <= tol
    assert info.terms == fit.modes <= most
    samples, _ = hodlr.fit_exponentials(kernel(lags), n, tol=tol)
    np.testing.assert_array_equal(samples.poles, fit.poles)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_truncation_keeps_its_bound(dtype):
    kernel = random_sum(np.random.default_rng(0), 12, dtype)
    lags = np.arange(1, 800)
    previous = 13
    for tol in (1e-8, 1e-4, 1e-2):
        smaller, info = hodlr.truncate(kernel, tol=tol)
        error = np.max(np.abs(np.asarray(smaller(lags)) - np.asarray(kernel(lags))))
        assert error <= info.bound + 1e-13 <= tol + 1e-13
        assert info.terms == smaller.modes < previous
        previous = info.terms
    assert hodlr.truncate(kernel, terms=3)[0].modes == 3


def test_refused_input():
    with pytest.raises(ValueError, match="alpha > 0"):
        hodlr.fit_power_law(-1.0, 10, tol=1e-3)
    with pytest.raises(ValueError, match="n >= 1"):
        hodlr.fit_power_law(1.0, 0, tol=1e-3)
    with pytest.raises(ValueError, match="tol > 0"):
        hodlr.fit_exponentials(lambda r: 1.0 / r, 10, tol=0.0)
    with pytest.raises(ValueError, match="NaN"):
        hodlr.fit_exponentials(np.full(9, np.nan), 9, tol=1e-3)
    with pytest.raises(ValueError, match=r"\(10,\)"):
        hodlr.fit_exponentials(np.ones(9), 10, tol=1e-3)
    with pytest.raises(ValueError, match="best error"):
        hodlr.fit_exponentials(
            np.random.default_rng(0).normal(size=300), 300, tol=1e-6, max_terms=20
        )
    with pytest.raises(ValueError, match="exactly one"):
        hodlr.truncate(hodlr.SumOfExponentials([1.0], [0.5]))
    with pytest.raises(ValueError, match="inside the unit circle"):
        hodlr.truncate(hodlr.SumOfExponentials([1.0], [1.0]), terms=1)
