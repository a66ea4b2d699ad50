"""Figures: arrays go in, matplotlib axes come out. Nothing is read, saved or shown here."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike


def convergence(
    steps: ArrayLike,
    energies: ArrayLike,
    errors: ArrayLike,
    v_scores: ArrayLike,
    *,
    n_sites: int,
    exact: float | None = None,
    figure: Figure | None = None,
) -> tuple[Axes, Axes]:
    """Energy and V-score against the step, in two panels with a common axis.

    `energies` and `errors` are totals, shown per site. With the `exact` total energy the upper
    panel is the relative error |E - E₀|/|E₀| on a logarithmic scale, without it the energy itself.
    Values that are not finite leave gaps. `figure` is a matplotlib figure to draw on, by default a
    new one that is attached to no window.
    """
    steps, energies, errors, v_scores = (
        np.asarray(values, dtype=float) for values in (steps, energies, errors, v_scores)
    )
    figure = Figure(figsize=(7, 6), layout="constrained") if figure is None else figure
    upper, lower = figure.subplots(2, 1, sharex=True)
    style: dict[str, Any] = {"color": "tab:blue", "marker": ".", "markersize": 3, "linewidth": 0.8}
    bars: dict[str, Any] = {"ecolor": "lightsteelblue", "elinewidth": 0.8}
    if exact is None or exact == 0:
        upper.errorbar(steps, energies / n_sites, errors / n_sites, **style, **bars)
        upper.set_ylabel("E / N")
    else:
        deviation = np.abs(energies - exact) / abs(exact)
        # A bar that reaches below zero has no lower end on a logarithmic scale: let it end well
        # below its point, and the view follow the points.
        reach = errors / abs(exact)
        down = np.minimum(reach, 0.9 * deviation)
        upper.errorbar(steps, deviation, np.stack([down, reach]), **style, **bars)
        upper.set_ylabel("|E − E₀| / |E₀|")
        _logarithmic(upper, deviation)
        upper.set_title(f"exact E₀/N = {exact / n_sites:.8f}", fontsize="medium")
    lower.plot(steps, v_scores, **style)
    lower.set_ylabel("V-score")
    lower.set_xlabel("step")
    _logarithmic(lower, v_scores)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return upper, lower


def _logarithmic(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic vertical axis around the values, where any of them is positive."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size:
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / 2, positive.max() * 2)
