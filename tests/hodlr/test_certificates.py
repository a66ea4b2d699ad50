"""Fits and builders certify what they return, find what they claim to, or say that they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from hodlr import ExponentialToeplitz, SumOfExponentials
from lanes import later
from random_matrices import brute_force, dense, epsilon

# Fits


def _matern(order, length):
    def kernel(r):
        x = np.sqrt(order) * r / length
        return (1 + x + (x**2 / 3 if order == 5 else 0)) * np.exp(-x)

    return kernel


@pytest.mark.parametrize(
    "kernel, n, tol",
    [
        (_matern(5, 50.0), 500, 1e-7),
        (_matern(3, 200.0), 500, 1e-8),
        (lambda r: r * np.exp(-r / 30), 400, 1e-6),
    ],
)
def test_a_fit_is_within_tol_as_it_is_returned(kernel, n, tol):
    fit, info = hodlr.fit_exponentials(kernel, n, tol=tol)
    r = np.arange(1, n + 1)
    error = np.max(np.abs(np.asarray(fit(r)) - kernel(r)))
    assert error <= tol and info.max_abs_error <= tol
    np.testing.assert_allclose(info.max_abs_error, error, rtol=1e-6)
    assert fit.dtype == np.float64 and np.max(np.abs(fit.weights)) <= tol / epsilon("float64") / 10


@pytest.mark.parametrize(
    "kernel",
    [_matern(5, 50.0), _matern(3, 50.0), lambda r: 1 - r / 1000, lambda r: np.cos(r / 40.0)],
)
def test_a_fit_in_single_precision_is_certified_as_returned(kernel):
    r = np.arange(1, 501)
    with jax.enable_x64(False):
        fit, info = hodlr.fit_exponentials(kernel, 500, tol=1e-3)
        error = np.max(np.abs(np.asarray(fit(jnp.asarray(r))) - kernel(r)))
        assert fit.weights.dtype.itemsize == 4 * (1 + np.iscomplexobj(fit.weights))
    assert error <= 1e-3
    np.testing.assert_allclose(info.max_abs_error, error, rtol=1e-3)


@pytest.mark.parametrize("n", [10_000, later(100_000)])
def test_a_power_law_in_single_precision_is_right_or_refused(n):
    with jax.enable_x64(False):
        fit, info = hodlr.fit_power_law(0.2, n, tol=1e-5)
        r = np.unique(np.geomspace(1, n, 2000).astype(int))
        error = np.max(np.abs(np.asarray(fit(jnp.asarray(r))) - r**-0.2))
        assert error <= info.max_abs_error * (1 + 1e-6) <= 1e-5
        with pytest.raises(ValueError, match="jax_enable_x64"):
            hodlr.fit_power_law(1.0, 1000, tol=1e-10)


@pytest.mark.parametrize(
    "weights, poles",
    [([1.0, -1.0], [0.5, 0.5]), ([], []), ([0.0], [0.9]), ([2.0], [0.0]), ([1j, -1j], [0.3, 0.3])],
)
def test_what_cancels_is_truncated_to_the_zero_kernel(weights, poles):
    kernel, info = hodlr.truncate(SumOfExponentials(weights, poles), tol=1e-3)
    assert info.bound == 0 and kernel.modes == 1 and np.all(kernel(np.arange(1, 9)) == 0)


def test_a_fit_under_differentiation_is_refused():
    with pytest.raises(TypeError, match="cannot run inside jit, vmap or grad"):
        jax.jit(lambda s: hodlr.fit_exponentials(s, 9, tol=1e-3)[0].weights)(jnp.ones(9))


# Builders


@pytest.mark.parametrize("scale", [later(1e20), later(1e-20), later(1.0)])
def test_ranks_and_errors_at_every_scale_in_single_precision(scale):
    i = np.arange(200)
    full = 1 / (1.0 + np.abs(i[:, None] - i))
    single = jnp.asarray(full * scale, jnp.float32)

    def error(H):
        return np.linalg.norm(np.asarray(H.to_dense(), float) / scale - full) / np.linalg.norm(full)

    built = hodlr.from_dense(single, tol=1e-4)
    fine = hodlr.from_dense(single, tol=1e-6)
    compressed, info = hodlr.compress(fine, tol=1e-4)
    sampled, measured = hodlr.from_entries(
        lambda i, j: jnp.float32(scale) / (1 + jnp.abs(i - j).astype(jnp.float32)),
        200, tol=1e-4, key=jax.random.key(0),
    )  # fmt: skip
    for H in (built, compressed, sampled):
        assert 1 < max(H.ranks) < 12 and error(H) <= 1e-4
    assert measured.error <= 1e-4
    norm = np.linalg.norm(full) * scale
    np.testing.assert_allclose(info.error, error(compressed) * norm, rtol=0.1)
    np.testing.assert_allclose(hodlr.frobenius_norm(built), norm, rtol=1e-3)
    k = SumOfExponentials(jnp.asarray([scale], jnp.float32), jnp.asarray([0.5], jnp.float32))
    A = ExponentialToeplitz(200, k, k, jnp.float32(2 * scale))
    x = np.linalg.solve(brute_force(A) / scale, np.ones(200))
    np.testing.assert_allclose(hodlr.solve(A, jnp.ones(200, jnp.float32)) * scale, x, rtol=1e-5)


def _wendland(t, radius):
    def entries(i, j):
        r = jnp.minimum(jnp.abs(t[i] - t[j]) / radius, 1.0)
        return (1 - r) ** 4 * (4 * r + 1)

    return entries


@pytest.mark.parametrize("kernel", [later("wendland"), later("ring"), "band"])
def test_kernels_of_compact_support_are_found(kernel):
    n = 1000
    t = jnp.asarray(np.sort(np.random.default_rng(0).uniform(0, 50, size=n)))
    entries = {
        "wendland": _wendland(t, 0.5),
        "band": lambda i, j: jnp.maximum(1 - jnp.abs(i - j).astype(float) / 9, 0.0) ** 0.5,
        "ring": lambda i, j: (
            jnp.where((i - j + 6) % n < 13, 1.0, 0.0) + jnp.where(i == j, 1.0, 0.0)
        ),
    }[kernel]
    i = np.arange(n)
    full = np.asarray(jax.jit(entries)(i[:, None], i))
    built, info = hodlr.from_entries(entries, n, tol=1e-6, key=jax.random.key(0))
    error = np.abs(np.asarray(dense(built)) - full)
    assert np.linalg.norm(error) <= 1e-6 * np.linalg.norm(full) and info.error <= 1e-6


def test_unsorted_points_get_a_hint():
    t = jnp.asarray(np.random.default_rng(0).permutation(400) * 0.1)
    with pytest.raises(ValueError, match="sort the points"):
        hodlr.from_entries(_wendland(t, 0.5), 400, tol=1e-8, key=jax.random.key(0), leaf_size=8)


def test_a_numpy_kernel_gets_a_sentence():
    t = np.linspace(0, 1, 100)
    with pytest.raises(TypeError, match=r"jax\.numpy"):
        hodlr.from_entries(
            lambda i, j: np.exp(-np.abs(t[i] - t[j])), 100, tol=1e-6, key=jax.random.key(0)
        )
