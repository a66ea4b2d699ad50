"""Figures: arrays go in, matplotlib axes come out. Nothing is read, saved or shown here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

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
    n_sites: ArrayLike,
    exact: ArrayLike | None = None,
    figure: Figure | None = None,
) -> tuple[Axes, Axes]:
    """Energy and V-score against the step, in two panels with a common axis.

    `energies` and `errors` are totals, shown per site. With the `exact` total energy the upper
    panel is the relative error |E - E₀|/|E₀| on a logarithmic scale, without it the energy itself.
    `n_sites` and `exact` are numbers, or one for each step of a state that grew. Values that are
    not finite leave gaps. `figure` is a matplotlib figure to draw on, by default a
    new one that is attached to no window.
    """
    steps, energies, errors, v_scores = (
        np.asarray(values, dtype=float) for values in (steps, energies, errors, v_scores)
    )
    sites = np.broadcast_to(np.asarray(n_sites, dtype=float), energies.shape)
    figure = Figure(figsize=(7, 6), layout="constrained") if figure is None else figure
    upper, lower = figure.subplots(2, 1, sharex=True)
    style: dict[str, Any] = {"color": "tab:blue", "marker": ".", "markersize": 3, "linewidth": 0.8}
    bars: dict[str, Any] = {"ecolor": "lightsteelblue", "elinewidth": 0.8}
    if exact is None or np.any(np.asarray(exact) == 0):
        upper.errorbar(steps, energies / sites, errors / sites, **style, **bars)
        upper.set_ylabel("E / N")
    else:
        exact = np.broadcast_to(np.asarray(exact, dtype=float), energies.shape)
        deviation = np.abs(energies - exact) / np.abs(exact)
        # A bar that reaches below zero has no lower end on a logarithmic scale: let it end well
        # below its point, and the view follow the points.
        reach = errors / np.abs(exact)
        down = np.minimum(reach, 0.9 * deviation)
        upper.errorbar(steps, deviation, np.stack([down, reach]), **style, **bars)
        upper.set_ylabel("|E − E₀| / |E₀|")
        _logarithmic(upper, deviation)
        if exact.size:
            last = exact[-1] / sites[-1]
            upper.set_title(f"exact E₀/N = {last:.8f}", fontsize="medium")
    lower.plot(steps, v_scores, **style)
    lower.set_ylabel("V-score")
    lower.set_xlabel("step")
    _logarithmic(lower, v_scores)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        _mark_growth(axes, steps, sites)
    return upper, lower


def _mark_growth(axes: Axes, steps: np.ndarray, sites: np.ndarray) -> None:
    """A line where a state grew, with the sites of the chain that begins there."""
    (grown,) = np.nonzero(np.diff(sites))
    for last in grown:
        where = (steps[last] + steps[last + 1]) / 2
        axes.axvline(where, color="0.5", linewidth=0.8, linestyle="--")
        axes.annotate(
            f"{sites[last + 1]:.0f} sites",
            (where, 0.97),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            rotation=90,
            verticalalignment="top",
            fontsize="small",
        )


def by_size(
    curves: Mapping[str, Sequence[Sequence[float]]], *, label: str, figure: Figure | None = None
) -> Axes:
    """Something against the number of sites, both logarithmic: by the name of each curve its points
    (sites, value) or (sites, value, lowest, highest)."""
    figure = Figure(figsize=(6, 4.5), layout="constrained") if figure is None else figure
    axes = figure.subplots()
    for name, points in curves.items():
        if not points:
            continue
        sites, values, *bounds = np.array(points, dtype=float).T
        bars = [values - bounds[0], bounds[1] - values] if bounds else None
        axes.errorbar(sites, values, bars, marker="o", markersize=4, capsize=2, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = sorted({int(point[0]) for points in curves.values() for point in points})
    axes.set_xticks(sizes, list(map(str, sizes)))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("N")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


def interval_exponents(
    growth: Mapping[float, float],
    *,
    theory: Callable[[float], float],
    figure: Figure | None = None,
) -> Axes:
    """Measured exponents of the best interval by the decay α of the kernels, beside the exponent
    β(α) of the `theory`."""
    figure = Figure(figsize=(6, 4.5), layout="constrained") if figure is None else figure
    axes = figure.subplots()
    grid = np.linspace(0.05, 1.1 * max([2.0, *growth]), 200)
    axes.plot(grid, [theory(alpha) for alpha in grid], "k--", label="β of the paper")
    axes.plot(list(growth), list(growth.values()), "o", label="measured")
    axes.set_xlabel("decay α")
    axes.set_ylabel("exponent of the best interval")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


def times_to_accuracy(
    courses: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, figure: Figure | None = None
) -> Axes:
    """Relative errors against seconds of training, one curve (seconds, errors) by the name of each
    training."""
    figure = Figure(figsize=(7, 5), layout="constrained") if figure is None else figure
    axes = figure.subplots()
    for name, (seconds, errors) in courses.items():
        axes.loglog(seconds, errors, marker="o", markersize=3, label=name)
    axes.set_xlabel("seconds, compilation included")
    axes.set_ylabel("relative error of the energy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return axes


class Sweep(NamedTuple):
    """Of several networks along one parameter: `energies` per site and `v_scores` by the name of
    the network, each of shape (points, seeds)."""

    parameter: str
    values: Sequence[float]
    energies: Mapping[str, np.ndarray]
    v_scores: Mapping[str, np.ndarray]


def accuracy(
    sweeps: Sequence[Sweep], *, reference: str, figure: Figure | None = None
) -> list[Axes]:
    """Networks side by side, one column per sweep: above the energy of the `reference` network less
    that of every other, below the V-scores; medians over the seeds, bars from the lowest to the
    highest. Returns the axes, row by row."""
    figure = Figure(figsize=(9, 7), layout="constrained") if figure is None else figure
    panels = figure.subplots(2, len(sweeps), squeeze=False)
    for (upper, lower), sweep in zip(panels.T, sweeps, strict=True):
        order = np.argsort(sweep.values)
        x = np.asarray(sweep.values)[order]
        # a colour is a network in every panel
        for index, (name, v_scores) in enumerate(sweep.v_scores.items()):
            style: dict[str, Any] = {"color": f"C{index}", "marker": "o", "markersize": 4}
            lower.errorbar(x, *_spread(v_scores[order]), label=name, capsize=2, **style)
            if name != reference:
                lead = sweep.energies[reference] - sweep.energies[name]
                label = f"{reference} − {name}"
                upper.errorbar(x, *_spread(lead[order]), label=label, capsize=2, **style)
        upper.axhline(0, color="black", linewidth=0.8)
        upper.set_yscale("symlog", linthresh=1e-5)
        upper.set_ylabel("ΔE / N")
        lower.set_yscale("log")
        lower.set_ylabel("V-score")
        lower.set_xlabel(sweep.parameter)
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    return list(panels.ravel())


def _spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Medians over the last axis, and how far the lowest and the highest lie from them."""
    middle = np.median(values, axis=-1)
    return middle, np.stack([middle - values.min(axis=-1), values.max(axis=-1) - middle])


def _logarithmic(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic vertical axis around the values, where any of them is positive."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size:
        axes.set_yscale("log")
        axes.set_ylim(positive.min() / 2, positive.max() * 2)
