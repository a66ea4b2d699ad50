import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson.vmc.statistics import estimate_mean, split_r_hat, v_score

estimate = jax.jit(estimate_mean)


def autoregressive(seed, chains, steps, memory):
    """Stationary x_t = memory·x_{t-1} + noise of unit variance: τ = (1 + memory)/(1 - memory)."""
    generator = np.random.default_rng(seed)
    series = np.empty((chains, steps))
    series[:, 0] = generator.standard_normal(chains)
    noise = np.sqrt(1 - memory**2) * generator.standard_normal((chains, steps))
    for step in range(1, steps):
        series[:, step] = memory * series[:, step - 1] + noise[:, step]
    return jnp.asarray(series)


@pytest.mark.parametrize("chains, steps", [(4, 8192), (512, 64)])
@pytest.mark.parametrize("memory, tau", [(0.0, 1.0), (0.5, 3.0), (0.8, 9.0), (-0.5, 1 / 3)])
def test_time_of_an_autoregressive_process(chains, steps, memory, tau):
    series = autoregressive(0, chains, steps, memory)
    result = estimate(series)
    assert 0.85 * tau < result.tau < 1.5 * tau
    assert result.effective_samples == pytest.approx(series.size / result.tau)
    assert result.variance == pytest.approx(1.0, abs=0.1)
    # The halves of a chain are themselves only half/τ independent samples.
    assert result.r_hat**2 == pytest.approx(1 + 2 * (tau - 1) / steps, abs=0.05)


@pytest.mark.parametrize("chains, steps", [(1, 1024), (16, 64), (256, 4), (1024, 1)])
def test_error_bars_cover_the_true_mean(chains, steps):
    deviations, errors = [], []
    for seed in range(200):
        result = estimate(autoregressive(seed, chains, steps, 0.7) + 5.0)
        deviations.append(float(result.mean) - 5.0)
        errors.append(float(result.error))
    actual = np.std(deviations)
    # 200 repetitions know the actual error to 5 %.
    assert 0.8 * actual < np.mean(errors) < 1.4 * actual
    covered = np.mean(np.abs(deviations) < 2 * np.asarray(errors))
    assert covered > 0.9


def test_constant_series():
    for shape in [(1, 100), (8, 5), (64, 1)]:
        result = estimate(jnp.full(shape, -127.3))
        assert result.mean == -127.3
        assert result.error == 0
        assert result.variance == 0
        assert result.tau == 1
        assert result.effective_samples == shape[0] * shape[1]
        if shape[1] >= 4:
            assert result.r_hat == 1


def test_of_a_single_sample_nothing_is_known_but_its_value():
    result = estimate(jnp.full((1, 1), -127.3))
    assert result.mean == -127.3
    for name in ("error", "variance", "tau", "effective_samples", "r_hat"):
        assert bool(jnp.isnan(getattr(result, name)))


@pytest.mark.parametrize("value", [0.0, -1e30, 0.1 + 0.2j])
def test_constant_series_of_every_type_stay_finite(value):
    kind = jnp.complex64 if isinstance(value, complex) else jnp.float32
    result = estimate(jnp.full((3, 50), value, dtype=kind))
    assert result.error == 0 and result.tau == 1 and result.r_hat == 1
    assert all(bool(jnp.all(jnp.isfinite(field))) for field in result)
    # a single step off in the last digit
    almost = estimate(jnp.full((3, 50), 0.1, dtype=kind).at[1, 7].add(1e-8))
    assert all(bool(jnp.all(jnp.isfinite(field))) for field in almost)


@pytest.mark.parametrize("steps", [50, 400])
def test_a_single_drifting_chain_is_noticed(steps):
    """A ramp of ten standard deviations of the noise: the halves disagree, and the error bar
    grows to the size of the drift (a ramp of length 10 has the standard deviation 2.9)."""
    noise = autoregressive(6, 1, steps, 0.3)
    result = estimate(noise + jnp.linspace(0.0, 10.0, steps))
    assert result.r_hat > 1.5
    assert result.error > 1.0 and result.tau > steps / 10
    assert estimate(noise).r_hat < 1.2 and estimate(noise).error < 0.4


def test_common_drift_lengthens_the_error_and_shows_in_r_hat():
    chains, steps = 64, 64
    noise = autoregressive(1, chains, steps, 0.0)
    drift = 3 * jnp.linspace(-1.0, 1.0, steps)
    still, moving = estimate(noise), estimate(noise + drift)
    assert moving.r_hat > 1.3
    assert moving.tau > 10 * still.tau


def test_disagreeing_chains_lengthen_the_error_and_show_in_r_hat():
    noise = autoregressive(2, 16, 64, 0.0)
    offsets = jnp.where(jnp.arange(16) % 2 == 0, 2.0, -2.0)[:, None]
    result = estimate(noise + offsets)
    assert result.r_hat > 1.5
    # Only the 16 chain means, which are ±2, are independent.
    assert result.error == pytest.approx(2 / np.sqrt(16), rel=0.3)


def test_frozen_chains():
    series = jnp.broadcast_to(jnp.array([[1.0], [2.0], [4.0], [7.0]]), (4, 10))
    result = estimate(series)
    assert result.r_hat == jnp.inf
    assert result.error >= jnp.std(series[:, 0]) / 2


def test_split_r_hat_by_hand():
    series = jnp.array([[0.0, 1.0, 9.0, 2.0, 5.0]])
    halves = np.array([[0.0, 1.0], [2.0, 5.0]])
    within = np.var(halves, axis=1, ddof=1).mean()
    between = np.var(halves.mean(axis=1), ddof=1)
    assert jax.jit(split_r_hat)(series) == pytest.approx(np.sqrt((0.5 * within + between) / within))
    assert jnp.isnan(split_r_hat(series[:, :3]))


def test_complex_series_add_the_variances_of_both_parts():
    real, imaginary = autoregressive(3, 4, 4096, 0.6), autoregressive(4, 4, 4096, 0.6)
    result = estimate(jax.lax.complex(real, 2 * imaginary))
    assert result.variance == pytest.approx(5.0, rel=0.1)
    assert result.tau == pytest.approx(4.0, rel=0.35)
    assert result.error.dtype == jnp.float64


def test_large_offsets_keep_their_digits_in_single_precision():
    series = autoregressive(5, 16, 64, 0.5).astype(jnp.float32)
    shifted = estimate(series * 2**-10 - 4096.0)
    assert shifted.error.dtype == jnp.float32
    # 4096 leaves 2^-11 as the last digit: the rounding adds a twelfth of its square.
    expected = float(jnp.var(series)) * 2**-20 + 2**-22 / 12
    assert float(shifted.variance) == pytest.approx(expected, rel=0.1)


def test_v_score_ignores_constants():
    score = v_score(10, jnp.array(-12.0), jnp.array(0.3))
    assert score == pytest.approx(10 * 0.3 / 144)
    assert v_score(10, jnp.array(-7.0), jnp.array(0.3), 5.0) == pytest.approx(float(score))


def test_wrong_series_are_refused():
    for shape in [(5,), (2, 3, 4), (0, 5), (5, 0)]:
        with pytest.raises(ValueError, match=r"non-empty shape \(n_chains, n_steps\)"):
            estimate_mean(jnp.zeros(shape))
    with pytest.raises(TypeError, match="real or complex numbers, got int"):
        estimate_mean(jnp.zeros((2, 3), dtype=jnp.int32))


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_samples_that_all_count_the_same_are_an_average(dtype):
    """Of complex local energies as well, whatever counts them."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(8, 6)) + (
        1j * rng.normal(size=(8, 6)) if dtype is np.complex128 else 0
    )
    series = jnp.asarray(values, dtype)
    plain, weighted = estimate(series), estimate(series, jnp.full((8, 6), 2.0))
    for name in ("mean", "error", "variance", "tau"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(plain, name), rtol=1e-12)
