"""Seconds until a relative error of the energy is reached, beside NetKet's Boltzmann machines."""

import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import typer
from matplotlib.figure import Figure
from rich.table import Table

from dyson.app.bench.options import Scale, checked_numbers, checked_sizes
from dyson.app.bench.report import Report
from dyson.app.bench.timing import compile_anew
from dyson.app.estimates import evaluate
from dyson.app.plotting import times_to_accuracy
from dyson.app.problem import build
from dyson.app.program import train
from dyson.app.settings import Settings

SCALE = Scale("16", "64,256", "64,256,1000")
RATES, QUICK_RATES = "0.02,0.05,0.1", "0.05"
PATIENCE, QUICK_PATIENCE = 300.0, 30.0
TARGETS = (1e-3, 1e-4, 1e-5)
# The energy is estimated where so many times more seconds have passed than at the estimate before.
SPACING = 1.15
# Of an estimate: samples at a time, and how often at most, until its error bar is small enough.
SAMPLES, AT_MOST = 8192, 32
# Samples of a step and chains of NetKet, those of `dyson train`.
STEP_SAMPLES, CHAINS = 512, 128
# Of NetKet's natural gradient.
SHIFT = 1e-3
# Long after any patience is lost.
MOST_STEPS = 1_000_000


class Mark(NamedTuple):
    """What a way had reached after so many seconds of training, compilation included; the relative
    error of the energy is that of fresh samples."""

    way: str
    n_sites: int
    seconds: float
    steps: int
    relative_error: float
    error_bar: float

    def is_within(self, target: float) -> bool:
        """Whether the error is, and its error bar at most a third of that."""
        return abs(self.relative_error) <= target and self.error_bar <= target / 3


class Course:
    """A training on the clock, which stands still while energies are estimated."""

    def __init__(self, way: str, n_sites: int, patience: float, on_mark: Callable[[Mark], object]):
        self.way, self.n_sites, self.patience, self.on_mark = way, n_sites, patience, on_mark
        self.exact: float = build(Settings(n_sites=n_sites)).exact_energy  # pyright: ignore[reportAttributeAccessIssue]
        self.ahead, self.due = list(TARGETS), 0.0
        self.start = time.perf_counter()

    def is_over(self, steps: int, estimate: Callable[[float], tuple[float, float]]) -> bool:
        """Called after every step with what estimates the energy and its error bar, to a relative
        error bar: whether the last target is reached, patience lost, or the energy."""
        seconds = time.perf_counter() - self.start
        if seconds < self.due:
            return False
        energy, error = estimate(self.ahead[0] / 3)
        relative, bar = (energy - self.exact) / abs(self.exact), error / abs(self.exact)
        mark = Mark(self.way, self.n_sites, seconds, steps, relative, bar)
        self.on_mark(mark)
        while self.ahead and mark.is_within(self.ahead[0]):
            self.ahead.pop(0)
        self.due = SPACING * seconds
        self.start = time.perf_counter() - seconds
        return not self.ahead or seconds > self.patience or not np.isfinite(relative)


def dysonnet(course: Course) -> None:
    """What `dyson train` does, growth included."""
    problem = build(Settings(n_sites=course.n_sites))
    most = AT_MOST * SAMPLES // STEP_SAMPLES

    def after_step(record: dict[str, Any], state: Any) -> bool:
        def estimate(until: float) -> tuple[float, float]:
            key = jax.random.key(record["step"])
            found = evaluate(problem, state, batches=most, until=until, key=key)
            return found["energy"], found["error"]

        return record["n_sites"] == course.n_sites and course.is_over(record["step"], estimate)

    train(
        n_sites=course.n_sites,
        steps=MOST_STEPS,
        checkpoint_every=MOST_STEPS,
        callbacks=after_step,
        batches=1,
        progress=False,
    )


def boltzmann(course: Course, *, symmetric: bool, rate: float) -> None:
    """NetKet's machine with one hidden unit per site, or with four that are the same on all sites,
    by its natural gradient in the space of the samples; a sweep of proposals between samples."""
    import netket as nk  # pyright: ignore[reportMissingImports]

    chain = nk.graph.Chain(course.n_sites)
    space = nk.hilbert.Spin(0.5, course.n_sites)
    hamiltonian = nk.operator.IsingJax(space, graph=chain, h=1.0, J=-1.0)
    if symmetric:
        model = nk.models.RBMSymm(symmetries=chain.translation_group(), alpha=4)
    else:
        model = nk.models.RBM(alpha=1, param_dtype=float)
    sampler = nk.sampler.MetropolisLocal(space, n_chains=CHAINS, sweep_size=course.n_sites)
    options = {"n_discard_per_chain": 0, "seed": 0, "sampler_seed": 0}
    state = nk.vqs.MCState(sampler, model, n_samples=STEP_SAMPLES, **options)
    judge = nk.vqs.MCState(sampler, model, n_samples=SAMPLES, **options)
    how = {"diag_shift": SHIFT, "variational_state": state}
    driver = nk.driver.VMC_SR(hamiltonian, nk.optimizer.Sgd(rate), **how)

    def estimate(until: float) -> tuple[float, float]:
        judge.variables = state.variables
        judge.sample(n_discard_per_chain=16)
        means, errors = [], []
        while len(means) < AT_MOST:
            found = judge.expect(hamiltonian)
            means.append(float(np.real(found.mean)))
            errors.append(float(found.error_of_mean))
            error = float(np.linalg.norm(errors)) / len(errors)
            if not error > until * abs(course.exact):
                break
            judge.sample()
        return float(np.mean(means)), error

    def goes_on(step: int, log: Any, of: Any) -> bool:
        del log, of
        jax.block_until_ready(state.variables)
        return not course.is_over(step + 1, estimate)

    driver.run(MOST_STEPS, out=(), callback=goes_on, show_progress=False)


Way = Callable[[Course], None]


def ways(rates: Sequence[float]) -> dict[str, Way]:
    """By name: DysonNet, and where NetKet is installed, its machines at each of the rates."""
    found: dict[str, Way] = {"DysonNet": dysonnet}
    if importlib.util.find_spec("netket") is None:
        return found

    def machine(symmetric: bool, rate: float) -> Way:
        return lambda course: boltzmann(course, symmetric=symmetric, rate=rate)

    for name, symmetric in (("RBMSymm", True), ("RBM", False)):
        found |= {f"NetKet {name}, rate {rate:g}": machine(symmetric, rate) for rate in rates}
    return found


def reached(marks: Sequence[Mark], target: float) -> float | None:
    """Seconds at the first mark within the target."""
    return min((mark.seconds for mark in marks if mark.is_within(target)), default=None)


def _table(marks: Sequence[Mark]) -> Table:
    table = Table(title="Seconds to a relative error, compilation included")
    for heading in ("sites", "way", *(f"{target:g}" for target in TARGETS), "last", "after"):
        table.add_column(heading, justify="right")
    for n_sites, way in dict.fromkeys((mark.n_sites, mark.way) for mark in marks):
        here = [mark for mark in marks if (mark.n_sites, mark.way) == (n_sites, way)]
        times = [reached(here, target) for target in TARGETS]
        shown = ["–" if seconds is None else f"{seconds:.0f}" for seconds in times]
        last = f"{here[-1].relative_error:.1e} ± {here[-1].error_bar:.0e}"
        table.add_row(str(n_sites), way, *shown, last, f"{here[-1].seconds:.0f} s")
    return table


def _figure(marks: Sequence[Mark]) -> Figure:
    figure = Figure(figsize=(7, 5), layout="constrained")
    courses = {}
    for way, n_sites in dict.fromkeys((mark.way, mark.n_sites) for mark in marks):
        here = [mark for mark in marks if (mark.way, mark.n_sites) == (way, n_sites)]
        points = [m.seconds for m in here], [abs(m.relative_error) for m in here]
        courses[f"{way}, N = {n_sites}"] = points
    times_to_accuracy(courses, figure=figure)
    return figure


def command(
    sizes: Annotated[str | None, typer.Option(help=SCALE.help)] = None,
    rates: Annotated[
        str | None,
        typer.Option(help=f"Learning rates of NetKet's machines; {RATES} if not given."),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(min=1, help=f"Seconds of a training at most, {PATIENCE:g} if not given."),
    ] = None,
    quick: Annotated[
        bool, typer.Option(help="A short chain, one rate and half a minute where none are given.")
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file.")] = Path(
        "time-to-accuracy.png"
    ),
) -> int:
    """Seconds until the energy of the critical Ising ring is right: DysonNet, and NetKet if it is
    installed, one after the other, each with nothing compiled.

    Every estimate prints one line of JSON.
    """
    numbers = checked_sizes(sizes) if sizes else SCALE.here(quick=quick)
    found = ways(checked_numbers(rates or (QUICK_RATES if quick else RATES)))
    patience = patience or (QUICK_PATIENCE if quick else PATIENCE)
    compile_anew()
    marks: list[Mark] = []
    with Report("time-to-accuracy") as report:
        if len(found) == 1:
            report.say("NetKet is not installed: pip install netket, to have it beside DysonNet")

        def note(mark: Mark) -> None:
            marks.append(mark)
            report.add(mark._asdict())

        for n_sites in numbers:
            for name, way in found.items():
                report.doing(f"training {name}, {n_sites} sites")
                way(Course(name, n_sites, patience, note))
                jax.clear_caches()
        report.show(_table(marks), _figure(marks), output)
    return 0
