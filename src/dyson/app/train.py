"""From settings to a trained state: what `dyson train` and `dyson resume` do, without the terminal.

Nothing here prints; the caller watches through callbacks.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from dyson import exact, processes
from dyson.app.ladder import FIRST_STEPS, NEXT_STEPS
from dyson.app.metrics import Record
from dyson.app.run import CHECKPOINT, RunDirectory, RunError
from dyson.app.settings import Settings, SettingsError
from dyson.devices import placed
from dyson.hamiltonians import Hamiltonian, Ising
from dyson.networks import DysonNet, Network, SpinFlip
from dyson.optimisers import annealed_rate, decaying_shift, spring
from dyson.samplers import Metropolis, Sweep
from dyson.vmc.measurement import joined
from dyson.vmc.state import VMCState
from dyson.vmc.statistics import v_score
from dyson.vmc.vmc import VMC, NonFiniteError


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the settings describe, built."""

    hamiltonian: Hamiltonian
    vmc: VMC
    network: Callable[[], Network]
    """The network before the first step; may be traced, to know the shapes alone."""
    initial_state: Callable[[], VMCState]
    """The state before the first step; may be traced as well."""

    @functools.cached_property
    def network_shapes(self) -> Network:
        """The network without its values."""
        return eqx.filter_eval_shape(self.network)

    @functools.cached_property
    def state_shapes(self) -> VMCState:
        """The state without its values: the shapes of its arrays and where they belong."""
        return placed(eqx.filter_eval_shape(self.initial_state))

    @functools.cached_property
    def exact_energy(self) -> float | None:
        """The exact total energy if it is known; may take seconds, once."""
        try:
            return exact.ground_energy(self.hamiltonian)
        except MemoryError:  # a reference is not worth losing a result for
            return None


Problems = Callable[[int], Problem]
"""The problem on each chain of a run, by its number of sites."""


def problems_of(settings: Settings, build: Callable[[Settings], Problem]) -> Problems:
    """What :func:`build` makes of each chain of a run, once."""
    return functools.cache(lambda n_sites: build(settings.on(n_sites)))


def build(settings: Settings) -> Problem:
    """Hamiltonian, network, sampler and optimiser of a run. Raises `SettingsError`."""
    try:
        hamiltonian = Ising(
            settings.n_sites,
            coupling=settings.coupling,
            exponent=settings.exponent,
            field=settings.field,
            longitudinal=settings.longitudinal,
            periodic=settings.periodic,
            kac=settings.kac,
        )

        def network() -> Network:
            model = DysonNet(
                settings.sizes[0],
                features=settings.features,
                depth=settings.depth,
                modes=settings.modes,
                kernel_size=settings.kernel_size,
                hidden=settings.hidden,
                token_size=settings.token_size,
                mixer=settings.mixer,  # pyright: ignore[reportArgumentType]  (checked by Settings)
                periodic=settings.periodic,
                complex_head=settings.complex_head,
                dtype=jnp.float32 if settings.precision == 32 else jnp.float64,
                key=_initial_keys(settings)[0],
            )
            projected = settings.project and hamiltonian.spin_flip_symmetric
            return (SpinFlip(model) if projected else model).resized(settings.n_sites)

        make_sampler = {"sweep": Sweep, "metropolis": Metropolis}[settings.sampler]
        sampler = make_sampler(hamiltonian, settings.chains, sweeps=settings.sweeps)
        optimiser = _optimiser(settings)
        vmc = VMC(hamiltonian, sampler, optimiser, chain_length=settings.chain_length)
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error

    def initial_state() -> VMCState:
        _, state_key = _initial_keys(settings)
        return vmc.init(state_key, network())

    return Problem(hamiltonian, vmc, network, initial_state)


def _initial_keys(settings: Settings) -> tuple[jax.Array, jax.Array]:
    model_key, state_key = jax.random.split(jax.random.key(settings.seed))
    return model_key, state_key


def _optimiser(settings: Settings) -> optax.GradientTransformationExtraArgs:
    return spring(
        annealed_rate(settings.learning_rate, hold=_hold(settings)),
        shift=decaying_shift(settings.shift, settings.shift_floor),
        trust_region=settings.trust_region,
    )


def _hold(settings: Settings) -> int:
    """Steps at the full learning rate: what a chain of its own takes, and on a grown one those that
    its longer waves take, which decay by the sum of the rates times their small energy."""
    before = sum(rung.steps for rung in settings.ladder)
    return max(FIRST_STEPS, before + NEXT_STEPS if before else 0)


def start(run: RunDirectory, problems: Problems) -> Any:
    """The state of a new run, saved as its first checkpoint."""
    state = problems(run.settings.sizes[0]).initial_state()
    save(run, state)
    return state


def save(run: RunDirectory, state: VMCState) -> None:
    """Write the checkpoint."""
    run.save_state(state, int(state.step), n_sites=state.model.n_sites)


def read_state(run: RunDirectory, problems: Problems) -> VMCState:
    """The state in the run's checkpoint, of the chain that it has come to."""
    state, step = run.load_state_and_step(problems(run.saved_sites()).state_shapes)
    if int(state.step) != step:
        raise RunError(f"{run.path / CHECKPOINT} holds step {int(state.step)} and says {step}")
    return state


def restore(run: RunDirectory, problems: Problems) -> VMCState:
    """The state to go on from; metrics of later steps are dropped, they come again."""
    state = read_state(run, problems)
    processes.on_first(run.forget_after, int(state.step))
    return state


def load(directory: str | os.PathLike) -> Network:
    """The trained network of a run: `model(spins)` is log ψ, for `local_energies` and all others.

    The run may be finished, stopped or under way; what is read is its last checkpoint. Raises
    `RunError` with one sentence. A run with ``--precision 64`` needs jax's double precision.
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
    run: RunDirectory,
    problems: Problems,
    state: Any,
    *,
    on_step: Callable[[Record], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Take steps until the number in the settings is reached or `stop()` is true.

    A state grows to the chain of a step right before it. Every step adds a line to the metrics;
    checkpoints are written as often as the settings say and at the end, also when a value is not
    finite: then the last good state is saved and the `NonFiniteError` goes on to the caller.

    Of several processes all call this, the first writes, and all stop when one of them is told to.
    """
    step = saved = int(state.step)
    while step < run.settings.steps and not processes.on_any(stop()):
        began = time.perf_counter()
        # a state that had to step back may stand on a chain that its step does not belong to yet
        n_sites = max(run.settings.sites_at(step + 1), state.model.n_sites)
        vmc = problems(n_sites).vmc
        if n_sites > state.model.n_sites:
            if saved != step:  # the programs of the longer chain take a while to compile
                save(run, state)
                saved = step
            state = vmc.grown(state)
        try:
            state, info = vmc.step(state)
        except NonFiniteError as error:
            save(run, error.state)
            processes.on_first(run.forget_after, int(error.state.step))
            raise
        step = int(state.step)
        record = {"step": step, "n_sites": n_sites} | _numbers(info)
        record["seconds"] = round(time.perf_counter() - began, 6)
        processes.on_first(run.append, record)
        if step % run.settings.checkpoint_every == 0:
            save(run, state)
            saved = step
        on_step(record)
    if saved != step:
        save(run, state)
    return state


def final_key(run: RunDirectory, state: VMCState) -> jax.Array:
    """The random numbers of the estimate that completes a run: always the same for a state, and
    others than those of training or of any seed given to `dyson evaluate`."""
    return jax.random.fold_in(_stream(run.settings.seed, 1), state.step)


def evaluation_key(seed: int) -> jax.Array:
    """The random numbers of one more estimate, by its own seed."""
    return _stream(seed, 2)


def _stream(seed: int, number: int) -> jax.Array:
    # Training splits the seed's own key in two, so those halves are left to it.
    return jax.random.fold_in(jax.random.key(seed), 2**31 + number)


def evaluate(problem: Problem, state: Any, *, batches: int, key: jax.Array) -> Record:
    """Energy of the trained network from fresh samples, compared with the exact value if known.

    The chains start where training left them; each of the `batches` draws as many samples as one
    step of the training.
    """
    samples = state.sampler
    batches_measured = []
    for batch in range(batches):
        batch_key = jax.random.fold_in(key, batch)
        samples, measured = problem.vmc.measure(batch_key, state.model, samples)
        batches_measured.append(measured)
    measured = joined(batches_measured)
    estimate = measured.estimate()
    energy = jnp.real(estimate.mean)
    infinity = problem.hamiltonian.trace_per_dimension.astype(energy.dtype)
    record = _numbers(
        {
            "energy": energy,
            "error": estimate.error,
            "variance": estimate.variance,
            "v_score": v_score(problem.hamiltonian.n_sites, energy, estimate.variance, infinity),
            "tau": estimate.tau,
            "r_hat": estimate.r_hat,
            "acceptance": jnp.mean(measured.acceptance),
        }
    )
    record["samples"] = measured.energies.size
    return record | compare(problem, record)


def compare(problem: Problem, record: Record) -> Record:
    """Energies per site, and the relative error where the exact energy is known."""
    n_sites, energy, error = problem.hamiltonian.n_sites, record["energy"], record["error"]
    reference = problem.exact_energy
    relative = None
    if energy is not None and reference:
        relative = abs(energy / reference - 1)
    return {
        "n_sites": n_sites,
        "energy_per_site": None if energy is None else energy / n_sites,
        "error_per_site": None if error is None else error / n_sites,
        "exact_energy": reference,
        "exact_energy_per_site": None if reference is None else reference / n_sites,
        "relative_error": relative,
    }


def _numbers(values: Any) -> Record:
    """Scalars of a table or a module by name, as plain numbers; None for what is not finite."""
    if not isinstance(values, dict):
        values = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    numbers = {name: float(value) for name, value in values.items()}
    return {name: x if math.isfinite(x) else None for name, x in numbers.items()}
