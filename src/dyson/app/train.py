"""From settings to a trained state: what `dyson train` and `dyson resume` do, without the terminal.

Nothing here prints; the caller watches through callbacks.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax

from dyson import processes
from dyson.app.estimates import plain_numbers
from dyson.app.metrics import Record
from dyson.app.problem import Problem, Problems, build
from dyson.app.run import CHECKPOINT, RunDirectory, RunError
from dyson.app.settings import Settings
from dyson.networks import Network
from dyson.vmc.state import VMCState
from dyson.vmc.vmc import NonFiniteError


class Journal(Protocol):
    """Where a run is written down: a `RunDirectory`, or the memory of a program."""

    @property
    def settings(self) -> Settings: ...

    def append(self, record: Record) -> None:
        """Add what is known of a step."""

    def forget_after(self, step: int) -> None:
        """Drop what is known of later steps: they will come again."""

    def save_state(self, state: Any, step: int, *, n_sites: int | None = None) -> None:
        """Keep the state after a step, in place of earlier ones."""


def start(run: Journal, problems: Problems) -> VMCState:
    """The state of a new run, saved as its first checkpoint."""
    state = problems(run.settings.sizes[0]).initial_state()
    save(run, state)
    return state


def sampler_of(n_sites: int) -> str:
    """What is compiled first on a chain, in words."""
    return f"the sampler, {n_sites} sites"


def save(run: Journal, state: VMCState) -> None:
    """Write the checkpoint."""
    run.save_state(state, int(state.step), n_sites=state.model.n_sites)


def read_state(run: RunDirectory, problems: Problems) -> VMCState:
    """The state in the run's checkpoint, of the chain that it has come to."""
    state, step = run.load_state_and_step(problems(run.saved_sites()).state_shapes)
    if int(state.step) != step:
        raise RunError(f"{run.path / CHECKPOINT} holds step {int(state.step)} and says {step}")
    return state


def grown_state(state: VMCState, problem: Problem) -> VMCState:
    """The state continued on the chain of another problem, longer or shorter; `RunError` where its
    network has no rule for that."""
    try:
        return problem.vmc.grown(state)
    except (ValueError, TypeError) as error:
        raise RunError(str(error)) from error


def restore(run: RunDirectory, problems: Problems) -> VMCState:
    """The state to go on from; metrics of later steps are dropped, they come again."""
    state = read_state(run, problems)
    processes.on_first(run.forget_after, int(state.step))
    return state


def load(directory: str | os.PathLike) -> Network:
    """The trained network of a run: `model(spins)` is log ψ, for `local_energies` and all others.

    The run may be finished, stopped or under way; what is read is its last checkpoint. Raises
    `RunError` with one sentence, and `SettingsError` where it names a module that cannot be
    imported. A run with ``--precision 64`` needs jax's double precision.
    """
    run = RunDirectory.open(directory)
    if run.settings.precision == 64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise RunError(
            f"{run.path} holds a network in double precision; "
            'write jax.config.update("jax_enable_x64", True) before anything else'
        )
    if not run.has_state():
        raise RunError(f"{run.path} holds no trained network yet: {run.resume_command}")
    problem = build(run.settings.on(run.saved_sites()))
    return run.load_state(problem.network_shapes, within=".model")


def train(
    run: Journal,
    problems: Problems,
    state: VMCState,
    *,
    on_step: Callable[[Record, VMCState], object] = lambda record, state: None,
    on_compile: Callable[[str], None] = lambda what: None,
    stop: Callable[[], bool] = lambda: False,
) -> VMCState:
    """Take steps until the number in the settings is reached or `stop()` is true.

    A state grows to the chain of a step right before it. Every step adds a line to the metrics;
    checkpoints are written as often as the settings say and at the end, also when a value is not
    finite: then the last good state is saved and the `NonFiniteError` goes on to the caller.

    Of several processes all call this, the first writes, and all stop when one of them is told to.

    Arguments:
      run: where metrics and checkpoints go.   problems: what is trained, by the number of sites.
      state: what to begin with.
      on_step: called after every step with its metrics and the state.
      on_compile: called in words with what is compiled next, on every chain.
      stop: whether to stop before the next step.
    """
    step = saved = int(state.step)
    compiled = None
    while step < run.settings.steps and not processes.on_any(stop()):
        began = time.perf_counter()
        # a state that had to step back may stand on a chain that its step does not belong to yet
        n_sites = max(run.settings.sites_at(step + 1), state.model.n_sites)
        vmc = problems(n_sites).vmc
        if n_sites > state.model.n_sites:
            if saved != step:  # the programs of the longer chain take a while to compile
                save(run, state)
                saved = step
            on_compile(sampler_of(n_sites))
            state = vmc.grown(state)
        if n_sites != compiled:
            on_compile(f"the step, {n_sites} sites")
            compiled = n_sites
        try:
            state, info = vmc.step(state)
        except NonFiniteError as error:
            save(run, error.state)
            processes.on_first(run.forget_after, int(error.state.step))
            raise
        step = int(state.step)
        record = {"step": step, "n_sites": n_sites} | plain_numbers(info)
        record["seconds"] = round(time.perf_counter() - began, 6)
        processes.on_first(run.append, record)
        if step % run.settings.checkpoint_every == 0:
            save(run, state)
            saved = step
        on_step(record, state)
    if saved != step:
        save(run, state)
    return state
