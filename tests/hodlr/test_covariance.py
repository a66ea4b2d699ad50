"""Covariances at irregular times and Gaussian processes on them, against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from hodlr import kernels
from lanes import later
from random_matrices import dense

RNG = np.random.default_rng(0)
# Irregular, with a gap, clusters and repeated times.
TIMES = np.sort(np.concatenate([RNG.uniform(0, 4, 50), RNG.uniform(30, 33, 40), [1.0, 1.0, 31.5]]))
NOISE = 10 ** RNG.uniform(-3, 0, TIMES.size)
KERNELS = {
    "decay": (lambda: kernels.decay(2.0), lambda t: np.exp(-t / 2)),
    "matern32": (
        lambda: kernels.Matern(1.5),
        lambda t: (1 + 3**0.5 * t / 1.5) * np.exp(-(3**0.5) * t / 1.5),
    ),
    "matern52": (
        lambda: kernels.Matern(1.5, 2.5),
        lambda t: (1 + 5**0.5 * t / 1.5 + 5 / 3 * (t / 1.5) ** 2) * np.exp(-(5**0.5) * t / 1.5),
    ),
    "oscillator": (
        lambda: kernels.Oscillation(1.0, 0.05, 0.2, 3.0),
        lambda t: np.exp(-0.2 * t) * (np.cos(3 * t) + 0.05 * np.sin(3 * t)),
    ),
    "quasi-periodic": (
        lambda: (
            2.0 * kernels.Matern(5.0) * (kernels.Constant(0.3) + kernels.Oscillation(1, 0, 0, 2))
            + kernels.decay(0.5)
        ),
        lambda t: (
            2 * (1 + 3**0.5 * t / 5) * np.exp(-(3**0.5) * t / 5) * (0.3 + np.cos(2 * t))
            + np.exp(-t / 0.5)
        ),
    ),
}
AT_ONCE = "decay", "oscillator", "quasi-periodic"
CASES = pytest.mark.parametrize(
    "name", [(pytest.param if name in AT_ONCE else later)(name) for name in KERNELS]
)


def _both(name):
    make, exact = KERNELS[name]
    lag = np.abs(TIMES[:, None] - TIMES)
    return hodlr.Covariance(TIMES, make(), NOISE), exact, exact(lag) + np.diag(NOISE)


@CASES
def test_product_solution_determinant_and_sample(name):
    A, _, full = _both(name)
    x = RNG.normal(size=TIMES.size)
    np.testing.assert_allclose(dense(A), full, atol=1e-13)

    @jax.jit
    def everything(A, x):
        F = hodlr.factorise(A, positive_definite=True)
        return A @ x, F.solve(x), F.logdet(), F.half_solve(x), F.half_product(x)

    product, solution, logdet, half, sample = everything(A, x)
    lower = np.linalg.cholesky(full)
    bound = 1e-14 * np.linalg.cond(full)
    np.testing.assert_allclose(product, full @ x, atol=1e-11)
    np.testing.assert_allclose(sample, lower @ x, atol=1e-11)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(full)[1], rtol=1e-12)
    np.testing.assert_allclose(half, np.linalg.solve(lower, x), rtol=bound, atol=bound)
    exact = np.linalg.solve(full, x)
    assert np.linalg.norm(solution - exact) <= bound * np.linalg.norm(exact)


@pytest.mark.parametrize("name", [later("matern32"), "quasi-periodic"])
def test_predictions(name):
    A, exact, full = _both(name)
    y = np.sin(TIMES) + 0.1 * RNG.normal(size=TIMES.size)
    new = np.concatenate([[-3.0, 100.0, 1.0, TIMES[7]], RNG.uniform(-1, 40, 60)])
    cross = exact(np.abs(new[:, None] - TIMES))
    mean, variance = jax.jit(lambda A, y, t: hodlr.condition(A, y).predict(t))(A, y, new)
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(full, y), atol=1e-9)
    explained = np.sum(cross * np.linalg.solve(full, cross.T).T, axis=1)
    np.testing.assert_allclose(variance, exact(0.0) - explained, atol=1e-10)


def test_gradients_of_the_likelihood():
    y = jnp.asarray(np.sin(TIMES))

    def kernel(p):
        return p[0] * kernels.Matern(p[1], 2.5) + kernels.Oscillation(p[2], 0.0, p[3], p[4])

    def fast(p):
        F = hodlr.factorise(hodlr.Covariance(TIMES, kernel(p), p[5]), positive_definite=True)
        return y @ F.solve(y) + F.logdet()

    def slow(p):
        k = kernel(p)(TIMES[:, None] - TIMES) + p[5] * jnp.eye(TIMES.size)
        return y @ jnp.linalg.solve(k, y) + jnp.linalg.slogdet(k)[1]

    p = jnp.asarray([1.0, 2.0, 0.5, 0.3, 4.0, 0.1])
    np.testing.assert_allclose(jax.jit(jax.grad(fast))(p), jax.jit(jax.grad(slow))(p), rtol=1e-9)


def test_points_that_are_not_observed_change_nothing():
    """Against the covariance of the others alone, with NaN where there are no data."""
    observed = RNG.uniform(size=TIMES.size) < 0.7
    y = np.where(observed, np.sin(TIMES), np.nan)
    kernel = kernels.Matern(1.5) + kernels.Oscillation(0.5, 0.0, 0.1, 2.0)
    new = np.linspace(-1, 40, 50)

    @jax.jit
    def posterior(covariance, y):
        process = hodlr.condition(covariance, y)
        return process.log_likelihood, *process.predict(new)

    masked = hodlr.Covariance(TIMES, kernel, NOISE, observed)
    alone = hodlr.Covariance(TIMES[observed], kernel, NOISE[observed])
    found = posterior(masked, y)
    for a, b in zip(found, posterior(alone, y[observed]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    full = np.asarray(dense(masked))
    product = jax.jit(lambda A: A @ TIMES)(masked)
    np.testing.assert_allclose(product, full @ TIMES, atol=1e-11)
    assert np.all(full[~observed] == np.eye(TIMES.size)[~observed])
    full = np.asarray(dense(alone))
    exact = y[observed] @ np.linalg.solve(full, y[observed]) + np.linalg.slogdet(full)[1]
    exact = -(exact + observed.sum() * np.log(2 * np.pi)) / 2
    np.testing.assert_allclose(found[0], exact, rtol=1e-10)
    with pytest.raises(ValueError, match="isfinite"):
        hodlr.Covariance(TIMES, kernel, NOISE, observed * 1.0)


def test_kernels_and_numbers():
    k, lag = hodlr.kernels.Matern(0.7), np.array([0.0, 0.3, 2.0])
    for kernel, factor, level in (
        (k + 2.0, 1, 2), (2 + k, 1, 2), (k / 2, 0.5, 0), (np.float64(3) * k, 3, 0),
        (sum([k, k]), 2, 0),
    ):  # fmt: skip
        np.testing.assert_allclose(kernel(lag), factor * k(lag) + level, rtol=1e-14)
        full = hodlr.Covariance(lag, kernel, 0.1).to_dense()
        expected = factor * k(lag[:, None] - lag) + level + 0.1 * np.eye(3)
        np.testing.assert_allclose(full, expected, rtol=1e-13)
    with pytest.raises(TypeError):
        k - k


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: hodlr.kernels.Matern(-1.0), r"Matern needs length ≥ 0, but got -1"),
        (lambda: hodlr.kernels.Oscillation(1, 0, -0.1, 2), r"needs rate ≥ 0, but got -0.1"),
        (lambda: hodlr.kernels.Matern([1.0, 2.0]), r"needs a number for length, .* shape \(2,\)"),
        (lambda: hodlr.kernels.Constant(np.ones(1)), r"needs a number for variance"),
    ],
)
def test_refused_hyperparameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "times, noise, hint",
    [
        ([0.0, 1.0, 2.0], [0.1, -5.0, 0.1], "noise is down to -5: noises are variances"),
        ([0.0, 1.0, 1.0], 0.0, "Times repeat without noise"),
    ],
)
def test_why_a_covariance_is_not_positive_definite(times, noise, hint):
    A = hodlr.Covariance(np.array(times), hodlr.kernels.decay(1.0), np.array(noise))
    with pytest.raises(ValueError, match=f"not positive definite: pivot .*{hint}"):
        hodlr.factorise(A, positive_definite=True)


def test_refused_input():
    with pytest.raises(ValueError, match="argsort"):
        hodlr.Covariance([1.0, 0.0], kernels.decay(1.0))
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        hodlr.Covariance([0.0, 1.0], kernels.decay(1.0), np.ones(3))
    with pytest.raises(ValueError, match="order"):
        kernels.Matern(1.0, 2.0)


def test_data_and_times_that_do_not_fit_are_named():
    covariance = hodlr.Covariance(np.arange(4.0), hodlr.kernels.decay(1.0), 0.1)
    with pytest.raises(ValueError, match=r"y without observed=np.isfinite\(y\) .* must be finite"):
        hodlr.condition(covariance, np.array([1.0, np.nan, 0.0, 2.0]))
    with pytest.raises(ValueError, match=r"condition needs y of shape \(4,\), but got \(3,\)"):
        hodlr.condition(covariance, np.ones(3))
    process = hodlr.condition(covariance, np.ones(4))
    with pytest.raises(ValueError, match=r"predict needs times \(m,\), but got shape \(\)"):
        process.predict(2.0)
