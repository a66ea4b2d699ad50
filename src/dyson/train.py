"""From settings to a trained state: what `dyson train` and `dyson resume` do, without the terminal.

Nothing here prints; the caller watches through callbacks.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from dyson import exact, processes
from dyson.devices import placed
from dyson.hamiltonians import Hamiltonian, Ising
from dyson.networks import DysonNet, Network, SpinFlip
from dyson.optimisers import annealed_rate, decaying_shift, spring
from dyson.run import Record, RunDirectory
from dyson.samplers import Metropolis
from dyson.settings import Settings, SettingsError
from dyson.statistics import estimate_mean, v_score
from dyson.vmc import VMC, NonFiniteError


@dataclasses.dataclass(frozen=True)
class Problem:
    """What the settings describe, built."""

    hamiltonian: Hamiltonian
    vmc: VMC
    initial_state: Callable[[], Any]
    """The state before the first step; may be traced, to know the shapes alone."""

    @functools.cached_property
    def exact_energy(self) -> float | None:
        """The exact total energy if it is known; may take seconds, once."""
        return exact.ground_energy(self.hamiltonian)


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

        def network(key: jax.Array) -> Network:
            model = DysonNet(
                settings.n_sites,
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
                key=key,
            )
            projected = settings.project and hamiltonian.spin_flip_symmetric
            return SpinFlip(model) if projected else model

        sampler = Metropolis(hamiltonian, settings.chains, sweeps=settings.sweeps)
        optimiser = _optimiser(settings)
        vmc = VMC(hamiltonian, sampler, optimiser, chain_length=settings.chain_length)
    except (ValueError, TypeError) as error:
        raise SettingsError(str(error)) from error

    def initial_state():
        model_key, state_key = jax.random.split(jax.random.key(settings.seed))
        return vmc.init(state_key, network(model_key))

    return Problem(hamiltonian, vmc, initial_state)


def _optimiser(settings: Settings) -> optax.GradientTransformationExtraArgs:
    return spring(
        annealed_rate(settings.learning_rate),
        shift=decaying_shift(settings.shift, settings.shift_floor),
        trust_region=settings.trust_region,
    )


def start(run: RunDirectory, problem: Problem) -> Any:
    """The state of a new run, saved as its first checkpoint."""
    state = problem.initial_state()
    run.save_state(state, 0)
    return state


def shapes(problem: Problem) -> Any:
    """The state without its values, as a template for loading: the shapes and where they lie."""
    return placed(eqx.filter_eval_shape(problem.initial_state))


def restore(run: RunDirectory, problem: Problem) -> Any:
    """The state in the run's checkpoint; metrics of later steps are dropped, they come again."""
    state = run.load_state(shapes(problem))
    processes.on_first(run.forget_after, int(state.step))
    return state


def train(
    run: RunDirectory,
    problem: Problem,
    state: Any,
    *,
    on_step: Callable[[Record], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> Any:
    """Take steps until the number in the settings is reached or `stop()` is true.

    Every step adds a line to the metrics; checkpoints are written as often as the settings say and
    at the end, also when a value is not finite: then the last good state is saved and the
    `NonFiniteError` goes on to the caller.

    Of several processes all call this, the first writes, and all stop when one of them is told to.
    """
    step = saved = int(state.step)
    while step < run.settings.steps and not processes.on_any(stop()):
        began = time.perf_counter()
        try:
            state, info = problem.vmc.step(state)
        except NonFiniteError as error:
            run.save_state(error.state, int(error.state.step))
            processes.on_first(run.forget_after, int(error.state.step))
            raise
        step = int(state.step)
        record = {"step": step} | _numbers(info)
        record["seconds"] = round(time.perf_counter() - began, 6)
        processes.on_first(run.append, record)
        if step % run.settings.checkpoint_every == 0:
            run.save_state(state, step)
            saved = step
        on_step(record)
    if saved != step:
        run.save_state(state, step)
    return state


def evaluate(problem: Problem, state: Any, *, batches: int, seed: int) -> Record:
    """Energy of the trained network from fresh samples, compared with the exact value if known.

    The chains start where training left them; each of the `batches` draws as many samples as one
    step of the training.
    """
    samples = state.sampler
    series, acceptance = [], []
    for key in jax.random.split(jax.random.key(seed), batches):
        samples, energies, accepted = problem.vmc.measure(key, state.model, samples)
        series.append(energies)
        acceptance.append(accepted)
    local = jnp.concatenate(series, axis=1)
    estimate = estimate_mean(local)
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
            "acceptance": jnp.mean(jnp.stack(acceptance)),
        }
    )
    record["samples"] = local.size
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
