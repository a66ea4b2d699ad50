import numpy as np
import pytest
from matplotlib.figure import Figure

from dyson.app import plotting
from dyson.app.bench import training_time

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


def test_growth_is_marked(tmp_path):
    """A line and the new number of sites in both panels, between the steps where a state grew."""
    sites = np.array([4, 4, 8, 8, 16])
    for axes in plotting.convergence(STEPS, ENERGIES, ERRORS, V_SCORES, n_sites=sites):
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert marks == [2.5, 4.5]
        assert [text.get_text() for text in axes.texts] == ["8 sites", "16 sites"]
        axes.figure.savefig(tmp_path / "plot.png")


def test_exact_agreement_and_an_empty_run_can_be_drawn(tmp_path):
    for steps in (STEPS, STEPS[:0]):
        flat = np.full(len(steps), -10.0)
        upper, _ = plotting.convergence(steps, flat, 0 * flat, 0 * flat, n_sites=10, exact=-10.0)
        upper.figure.savefig(tmp_path / "plot.png")


def test_interval_exponents_are_drawn_beside_the_theory(tmp_path):
    axes = plotting.interval_exponents({0.5: 0.8, 3.0: 0.4}, theory=lambda alpha: 2 / (2 + alpha))
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), [[0.5, 0.8], [3.0, 0.4]])
    grid, expected = curve(axes)
    np.testing.assert_allclose(expected, 2 / (2 + grid))
    axes.figure.savefig(tmp_path / "plot.png")


def test_measurements_are_drawn_by_size_with_their_spread(tmp_path):
    curves = {"A": [(32, 2.0, 1.5, 4.0), (64, 3.0, 2.5, 3.5)], "B": [(32, 1.0)], "C": []}
    axes = plotting.by_size(curves, label="seconds")
    np.testing.assert_array_equal(curve(axes), [[32, 64], [2, 3]])
    bars = [line[:, 1].tolist() for line in axes.collections[0].get_segments()]
    assert bars == [[1.5, 4.0], [2.5, 3.5]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["A", "B"]
    assert axes.get_ylabel() == "seconds"
    axes.figure.savefig(tmp_path / "plot.png")


def test_networks_are_drawn_side_by_side(tmp_path):
    """Medians over the seeds, in the order of the parameter."""
    energies = {"A": np.array([[-1.0, -1.2, -1.1], [-2.0, -2.0, -2.0]]), "B": np.full((2, 3), -1.0)}
    scores = {"A": np.array([[1e-3, 1e-2, 1e-4], [1e-5] * 3]), "B": np.full((2, 3), 1e-2)}
    sweep = plotting.Sweep("J", [2.0, -1.0], energies, scores)
    upper, lower = plotting.accuracy([sweep], reference="A")
    np.testing.assert_allclose(curve(upper), [[-1, 2], [-1.0, -0.1]])
    np.testing.assert_allclose(curve(lower), [[-1, 2], [1e-5, 1e-3]])
    assert lower.get_xlabel() == "J" and lower.get_yscale() == "log"
    assert [text.get_text() for text in upper.get_legend().get_texts()] == ["A − B"]
    upper.figure.savefig(tmp_path / "plot.png")


def test_growth_of_training_times():
    """Over the larger half alone."""
    rows = [
        training_time.Row("ViT", n, 128, 5.0, step, 150, 4, 5 + 149 * step)
        for n, step in ((8, 9.0), (16, 1.0), (32, 4.0), (64, 16.0))
    ]
    assert training_time.exponents(rows) == {"ViT": pytest.approx(2.0)}


@pytest.mark.exhaustive
def test_a_training_is_counted_from_a_few_steps():
    row = training_time.measure("ViT", 4, chains=2, steps=3, timed=1)
    assert row.measured == 2 and row.samples == 8 and 0 < row.step < row.first
    assert row.training == pytest.approx(row.first + 2 * row.step)
