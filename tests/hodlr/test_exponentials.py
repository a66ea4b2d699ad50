"""SumOfExponentials: values, derivatives, algebra, and refused input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hodlr import SumOfExponentials
from hodlr.exponentials import smooth_length
from random_matrices import random_sum


def test_values_on_a_million_lags():
    lags = np.array([0, 1, 2, 17, 1000, 10**6])
    poles = np.array([0.999999, -0.999999, 0.3, 0.0, 1.0])
    values = SumOfExponentials(np.eye(5)[0], poles)(lags)
    np.testing.assert_allclose(values, 0.999999**lags, rtol=1e-9)
    for m in range(5):
        values = SumOfExponentials([2.0], poles[m : m + 1])(lags)
        np.testing.assert_allclose(values, 2.0 * poles[m] ** lags, rtol=1e-9)


def test_complex_values_follow_the_phase():
    pole = 0.9999 * np.exp(0.3j)
    lags = np.arange(5000)
    values = SumOfExponentials([1.0 + 2.0j], [pole])(lags)
    np.testing.assert_allclose(values, (1 + 2j) * pole**lags, atol=1e-12)


def test_derivatives_at_zero_pole_and_zero_lag():
    def total(poles):
        return jnp.sum(SumOfExponentials(jnp.array([1.0, 1.0]), poles)(jnp.arange(4)))

    poles = jnp.array([0.0, 0.5])
    np.testing.assert_allclose(jax.jit(jax.grad(total))(poles), [1.0, 1 + 2 * 0.5 + 3 * 0.25])
    np.testing.assert_allclose(jax.jit(jax.hessian(total))(poles), [[2.0, 0.0], [0.0, 2 + 6 * 0.5]])


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_algebra_of_kernels(dtype):
    rng = np.random.default_rng(1)
    k, other = random_sum(rng, 3, dtype), random_sum(rng, 2, dtype)
    r = np.arange(6)

    @eqx.filter_jit
    def algebra(k, other):
        both = k + other, k - other, k * other
        one = 2.5 * k, k.delay(3), k.conj(), k.real, k.periodic(5)
        values = k(r), other(r), k(np.arange(2500))
        return [kernel(r) for kernel in both + one], values

    found, (here, there, further) = algebra(k, other)
    here, there, further = map(np.asarray, (here, there, further))
    images = further.reshape(500, 5).sum(0)[r % 5] - np.where(r < 5, 0, here[0])
    expected = [
        here + there, here - there, here * there,
        2.5 * here, further[3:9], here.conj(), here.real, images,
    ]  # fmt: skip
    assert len(found) == len(expected)
    for result, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(result, reference, atol=1e-14)


def test_refused_input():
    with pytest.raises(ValueError, match="one shape"):
        SumOfExponentials([1.0, 2.0], [0.5])
    with pytest.raises(ValueError, match="NaN or infinity"):
        SumOfExponentials([np.nan], [0.5])
    with pytest.raises(ValueError, match="<= 1"):
        SumOfExponentials([1.0], [1.5])
    with pytest.raises(TypeError, match="integer lags"):
        SumOfExponentials([1.0], [0.5])(0.5)
    with pytest.raises(ValueError, match="diverges"):
        SumOfExponentials([1.0], [1.0]).periodic(4)
    with pytest.raises(ValueError, match="lags >= 0"):
        SumOfExponentials([1.0], [0.5]).delay(-1)


def test_smooth_lengths_are_the_smallest():
    def smooth(n):
        for p in (2, 3, 5):
            while n % p == 0:
                n //= p
        return n == 1

    for n in range(1, 700):
        expected = next(m for m in range(max(n, 2), 10 * n + 10) if m % 2 == 0 and smooth(m))
        assert smooth_length(n) == expected
