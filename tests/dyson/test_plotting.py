import numpy as np
import pytest
from matplotlib.figure import Figure

from dyson.app import plotting

STEPS = np.arange(1, 6)
ENERGIES = np.array([-9.0, -9.9, -9.99, -10.001, -10.0])
ERRORS = np.array([0.1, 0.05, 0.02, 0.002, 0.0])
V_SCORES = np.array([1e-1, 1e-2, np.nan, 1e-4, 0.0])


def curve(axes):
    return axes.lines[0].get_xdata(), axes.lines[0].get_ydata()


def test_without_an_exact_value_the_energy_per_site_is_drawn(tmp_path):
    upper, lower = plotting.convergence(STEPS, ENERGIES, ERRORS, V_SCORES, n_sites=10)
    np.testing.assert_array_equal(curve(upper), [STEPS, ENERGIES / 10])
    np.testing.assert_array_equal(curve(lower), [STEPS, V_SCORES])
    assert (upper.get_yscale(), lower.get_yscale()) == ("linear", "log")
    upper.figure.savefig(tmp_path / "plot.png")


def test_with_an_exact_value_the_relative_error_is_drawn(tmp_path):
    figure = Figure()
    upper, lower = plotting.convergence(
        STEPS, ENERGIES, ERRORS, V_SCORES, n_sites=10, exact=-10.0, figure=figure
    )
    assert upper.figure is figure and lower.figure is figure
    assert upper.get_yscale() == "log"
    np.testing.assert_allclose(curve(upper)[1], np.abs(ENERGIES + 10) / 10)
    # Every bar stays above zero, and the view does not follow the bars.
    bars = np.concatenate([line[:, 1] for line in upper.collections[0].get_segments()])
    assert np.all(bars >= 0)
    assert upper.get_ylim() == pytest.approx((5e-5, 0.2))
    figure.savefig(tmp_path / "plot.png")


def test_exact_agreement_and_an_empty_run_can_be_drawn(tmp_path):
    for steps in (STEPS, STEPS[:0]):
        flat = np.full(len(steps), -10.0)
        upper, _ = plotting.convergence(steps, flat, 0 * flat, 0 * flat, n_sites=10, exact=-10.0)
        upper.figure.savefig(tmp_path / "plot.png")


def test_scaling_of_the_typewriter_is_drawn_beside_the_theory(tmp_path):
    left, right = plotting.typewriter_scaling(
        [32, 64],
        {-1.0: [2.0, 5.0], -2.0: [1.0, 1.5]},
        interval=4,
        slopes={0.5: 0.8, 3.0: 0.4},
        theory=lambda alpha: 2 / (2 + alpha),
    )
    np.testing.assert_array_equal(curve(left), [[32, 64], [4, 8]])
    np.testing.assert_array_equal(left.lines[2].get_ydata(), [1.0, 1.5])
    np.testing.assert_array_equal(right.lines[1].get_xydata(), [[0.5, 0.8], [3.0, 0.4]])
    grid, expected = curve(right)
    np.testing.assert_allclose(expected, 2 / (2 + grid))
    left.figure.savefig(tmp_path / "plot.png")
