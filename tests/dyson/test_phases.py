"""Phases on the circle."""

import jax.numpy as jnp
import numpy as np
import pytest

from dyson.phases import around_the_common_phase, with_wrapped_phase, wrapped


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_wrapped_angle_is_the_same_angle_within_half_a_turn(dtype):
    angles = jnp.asarray(np.linspace(-20, 20, 1001), dtype)
    inside = wrapped(angles)
    assert inside.dtype == dtype
    assert np.all(np.abs(np.asarray(inside, float)) < np.pi + 1e-6)
    tolerance = 4e-6 if dtype == jnp.float32 else 1e-13
    np.testing.assert_allclose(
        np.exp(1j * np.asarray(inside, float)),
        np.exp(1j * np.asarray(angles, float)),
        atol=tolerance,
    )
    assert float(wrapped(jnp.asarray(-np.pi))) == -np.pi


def test_amplitudes_keep_their_modulus_and_real_ones_stay_as_they_are():
    ratio = with_wrapped_phase(jnp.asarray(0.5 + 7j))
    np.testing.assert_allclose(ratio, 0.5 + (7 - 2 * np.pi) * 1j, rtol=1e-15)
    assert with_wrapped_phase(jnp.asarray(-7.0)) == -7


@pytest.mark.parametrize("common", [0.0, 3.0, np.pi, 100.0])
def test_angles_are_averaged_around_what_they_share(common):
    angles = np.random.default_rng(0).normal(size=50) * 0.3
    turned = jnp.asarray(angles + common + 2 * np.pi * np.arange(50))
    around = around_the_common_phase(turned, jnp.full(50, 1 / 50))
    np.testing.assert_allclose(around - jnp.mean(around), angles - angles.mean(), atol=1e-12)
