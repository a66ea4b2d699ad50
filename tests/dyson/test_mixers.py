"""A mixer's kernel for training and its sum of exponentials are the same Green's function."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import S4D, RealPoles
from hodlr import ExponentialToeplitz, SumOfExponentials


@pytest.mark.parametrize("mixer", [S4D, RealPoles])
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("n, modes", [(1, 1), (2, 3), (13, 2)])
def test_kernel_is_the_matrix_of_its_exponentials(mixer, periodic, n, modes):
    m = mixer(3, modes, n, dtype=jnp.float64, key=jax.random.key(n))
    kernel = m.kernel(jnp.arange(n), n, periodic=periodic)
    assert kernel.shape == (3, n) and kernel.dtype == jnp.float64
    exponentials = m.exponentials()
    for channel in range(3):
        both_ways = SumOfExponentials(
            exponentials.weights[channel], exponentials.poles[channel]
        ).real
        diagonal = m.local[channel] + jnp.sum(both_ways.weights.real)
        matrix = ExponentialToeplitz(n, both_ways, both_ways, diagonal, periodic).to_dense()
        lags = np.abs(np.arange(n)[:, None] - np.arange(n))
        np.testing.assert_allclose(kernel[channel][lags], matrix, atol=1e-12)


@pytest.mark.parametrize("mixer", [S4D, RealPoles])
def test_poles_stay_inside_the_unit_circle(mixer):
    m = mixer(4, 2, 1000, dtype=jnp.float32, key=jax.random.key(0))
    for scale in (-50.0, 50.0):
        parameters, static = eqx.partition(m, eqx.is_inexact_array)
        extreme = eqx.combine(jax.tree.map(lambda x, s=scale: x * s, parameters), static)
        assert float(jnp.max(jnp.abs(extreme.exponentials().poles))) < 1
        for periodic in (True, False):
            kernel = extreme.kernel(jnp.arange(1000), 1000, periodic=periodic)
            assert bool(jnp.all(jnp.isfinite(kernel)))


@pytest.mark.parametrize("mixer", [S4D, RealPoles])
def test_start_covers_uniform_and_staggered_order(mixer):
    m = mixer(8, 1, 64, dtype=jnp.float64, key=jax.random.key(1))
    poles = np.asarray(m.exponentials().poles).real[:, 0]
    assert (poles[::2] > 0).all() and (poles[1::2] < 0).all()
    lengths = -1 / np.log(np.abs(poles))
    assert lengths.min() > 0.9 and lengths.max() < 16.1
