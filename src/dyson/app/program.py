"""Training from a program or a notebook: :func:`dyson.train`.

The driver is that of the command; what differs is who watches, and that objects may stand in place
of names.
"""

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import optax
from jaxtyping import Float

from dyson.app.choices import AUTO_SAMPLER, CHOICES, GIVEN
from dyson.app.engine import engine_sentence
from dyson.app.estimates import evaluate, final_key
from dyson.app.memory import check_memory
from dyson.app.metrics import Record
from dyson.app.problem import Given, Problem, Problems, build, doubt, problems_of
from dyson.app.progress import ProgressLine
from dyson.app.ranges import SettingsError
from dyson.app.run import RunDirectory
from dyson.app.settings import Settings
from dyson.app.train import Journal, sampler_of, start
from dyson.app.train import train as take_steps
from dyson.app.wording import figures, uncertain
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers import Sampler
from dyson.vmc.state import VMCState
from dyson.vmc.statistics import DiagnosticWarning
from dyson.vmc.vmc import VMC

Callback = Callable[[Record, VMCState], object]
"""Called after every step with its metrics and the state; training stops where it returns True."""


@dataclasses.dataclass(frozen=True, repr=False)
class Trained:
    """What :func:`dyson.train` returns."""

    model: Network
    """log ψ of one configuration."""
    energy: float | None
    """The total energy, from samples that training has not seen; None where it is not finite."""
    error: float | None
    """One standard deviation of it; None where the samples do not tell."""
    estimate: Record
    """All that is known of the energy: variance, V-score, τ, R̂, per site, and beside the exact
    one."""
    log: list[Record]
    """The metrics of every step, as `metrics.jsonl` holds them: names and plain numbers."""
    state: VMCState
    """What the next step would need."""
    vmc: VMC
    """Goes on with `vmc.step(state)`, or draws with `vmc.sample(state, length)`."""
    directory: Path | None

    def column(self, name: str) -> Float[np.ndarray, " steps"]:
        """One of the metrics at every step, as "energy"; NaN where it was not known."""
        return np.array([np.nan if each[name] is None else each[name] for each in self.log], float)

    def __repr__(self) -> str:
        shown = uncertain(self.estimate["energy_per_site"], self.estimate["error_per_site"])
        return (
            f"Trained({type(self.model).__name__} of {self.model.n_sites} sites, "
            f"{len(self.log)} steps, E/N = {shown})"
        )


def train(
    hamiltonian: str | Hamiltonian | Callable[[int], Hamiltonian] = "ising",
    network: str | Network | Callable[..., Network] = "dysonnet",
    *,
    sampler: str | Sampler | Callable[[Hamiltonian], Sampler] = "sweep",
    optimiser: str | optax.GradientTransformation = "spring",
    directory: str | os.PathLike | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    progress: bool | None = None,
    batches: int = 16,
    **settings: Any,
) -> Trained:
    """Train a network for the ground state of a Hamiltonian, as ``dyson train`` does.

        dyson.train("ising", n_sites=64, steps=150)
        dyson.train(dyson.J1J2(12, j2=0.4), optimiser=optax.adam(0.01), chains=64)

    The same settings give the same run as the command, bit for bit, on as many devices.  Natural
    gradient wants double precision (``jax_enable_x64``).

    Arguments:
      hamiltonian: a name (``dyson train --help`` lists them), ``module:object``, a Hamiltonian, or
        a function of the number of sites that makes one.
      network: the same; an object is taken as it is, without a projection.  A function takes the
        number of sites and a ``key``.
      sampler: a name, a sampler, or a function of the Hamiltonian that makes one.
      optimiser: a name, or any optax transformation.
      directory: a new run directory, which ``dyson resume``, ``dyson evaluate``, ``dyson plot`` and
        :func:`dyson.load` read; only where everything has a name, since no object is stored.
      callbacks: functions of the metrics and the state of every step; training stops where one of
        them returns True.
      progress: whether a line on standard error tells how far it is; by default on a terminal and
        in a notebook.
      batches: sweeps of all chains that the final estimate averages.
      settings: the options of ``dyson train`` by name with underscores, as ``n_sites``, ``steps``,
        ``chains``, ``grow`` or ``seed``.

    Cost: that of the steps, see :class:`dyson.VMC`; before the first step of every chain length,
    compilation.

    Raises `ValueError` with one sentence for settings that do not fit (each is one of
    ``dyson train``), `RunError` where the directory cannot be used, and
    :class:`dyson.NonFiniteError`, with a state to go on from, where a step meets a value that is
    not finite.
    """
    named, objects = _parted(hamiltonian, network, sampler, optimiser)
    chosen = _settings(named | settings, objects)
    if directory is not None and objects:
        raise SettingsError(
            f"directory={os.fspath(directory)!r} stores names only, got an object for "
            f"{' and '.join(objects)}; name it as module:object, or leave the directory out"
        )
    problems = problems_of(chosen, functools.partial(build, given=Given(**objects)))
    check_memory(problems(chosen.n_sites), chosen, batches=batches)
    if (sentence := doubt(chosen)) is not None:
        warnings.warn(sentence, DiagnosticWarning, stacklevel=2)
    callbacks = [callbacks] if callable(callbacks) else list(callbacks)
    with ProgressLine(progress) as line, ExitStack() as stack:
        run: Journal = _InMemory(chosen)
        if directory is not None:
            run = RunDirectory.create(directory, chosen)
            stack.enter_context(run.claim(new=True))
        if chosen.sampler == AUTO_SAMPLER and line.shown:
            line.write(engine_sentence([problems(n_sites) for n_sites in chosen.sizes]))
            line.end()
        return _trained(run, problems, _Watch(chosen, callbacks, line), batches)


def _trained(run: Journal, problems: Problems, watch: "_Watch", batches: int) -> Trained:
    """From the first step to the estimate after the last."""
    watch.compiling(sampler_of(run.settings.sizes[0]))
    state = take_steps(
        run,
        problems,
        start(run, problems),
        on_step=watch.step,
        on_compile=watch.compiling,
        stop=lambda: watch.stopped,
    )
    problem = problems(state.model.n_sites)
    estimate = _estimate(run, problem, state, batches, watch)
    return Trained(
        state.model,
        estimate["energy"],
        estimate["error"],
        estimate,
        watch.log,
        state,
        problem.vmc,
        run.path if isinstance(run, RunDirectory) else None,
    )


def _estimate(
    run: Journal, problem: Problem, state: VMCState, batches: int, watch: "_Watch"
) -> Record:
    key = final_key(run.settings.seed, state.step)
    estimate = evaluate(problem, state, batches=batches, key=key, on_batch=watch.batch)
    if isinstance(run, RunDirectory):
        run.save_result({"directory": str(run.path), "step": int(state.step)} | estimate)
    return estimate


def _parted(*objects: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """What has a name, and the objects that have none, by what they are."""
    named, given = {}, {}
    for kind, found in zip(CHOICES, objects, strict=True):
        named[kind] = found if isinstance(found, str) else GIVEN
        if not isinstance(found, str):
            given[kind] = found
    return named, given


def _settings(values: dict[str, Any], objects: dict[str, Any]) -> Settings:
    """With the number of sites and of chains that objects have, where nothing else was said."""
    fallback = {}
    for kind in ("network", "hamiltonian"):
        if isinstance(n_sites := getattr(objects.get(kind), "n_sites", None), int):
            fallback["n_sites"] = n_sites
    if isinstance(n_chains := getattr(objects.get("sampler"), "n_chains", None), int):
        fallback["chains"] = n_chains
    return Settings.from_table(fallback | values)


class _InMemory:
    """A run that is written nowhere."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def append(self, record: Record) -> None:
        pass

    def forget_after(self, step: int) -> None:
        pass

    def save_state(self, state: Any, step: int, *, n_sites: int | None = None) -> None:
        pass


class _Watch:
    """Keeps the metrics, calls the callbacks and shows a line."""

    def __init__(self, settings: Settings, callbacks: Sequence[Callback], line: ProgressLine):
        self._settings, self._callbacks, self._line = settings, callbacks, line
        self.log: list[Record] = []
        self.stopped = False

    def compiling(self, what: str) -> None:
        self._line.write(f"compiling {what}")

    def step(self, record: Record, state: VMCState) -> None:
        self.log.append(record)
        grows = bool(self._settings.ladder)
        shown = figures(record, grows=grows)
        self._line.write(f"{record['step']}/{self._settings.steps}  {shown}")
        # every callback is called, whatever the others say
        self.stopped = any([callback(record, state) is True for callback in self._callbacks])

    def batch(self, drawn: int, wanted: int) -> None:
        self._line.write(f"evaluating {drawn}/{wanted}")
