"""Estimates of the energy of a trained network from fresh samples."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dyson.app.metrics import Record
from dyson.app.problem import Problem
from dyson.vmc.measurement import Measurement, joined
from dyson.vmc.statistics import samples_needed, v_score

# Batches of the first look at the error bar, where one is asked for.
FIRST_BATCHES = 16


def final_key(seed: int, step: Any) -> jax.Array:
    """The random numbers of the estimate that completes a run: always the same for a state, and
    others than those of training or of any seed given to `dyson evaluate`."""
    return jax.random.fold_in(_stream(seed, 1), step)


def evaluation_key(seed: int) -> jax.Array:
    """The random numbers of one more estimate, by its own seed."""
    return _stream(seed, 2)


def _stream(seed: int, number: int) -> jax.Array:
    # Training splits the seed's own key in two, so those halves are left to it.
    return jax.random.fold_in(jax.random.key(seed), 2**31 + number)


def evaluate(
    problem: Problem,
    state: Any,
    *,
    batches: int,
    key: jax.Array,
    until: float | None = None,
    on_batch: Callable[[int, int], None] = lambda drawn, wanted: None,
) -> Record:
    """Energy of the trained network from fresh samples, compared with the exact value if known.

    The chains start where training left them; each batch draws as many samples as one step of the
    training.

    Arguments:
      batches: how many are drawn; with `until`, the most.
      key: random numbers.
      until: draw until the error bar of the energy divided by its modulus is at most this.  It is
        looked at a few times only, after as many samples as the last look says are needed.
      on_batch: called with the numbers of batches drawn and wanted so far.

    Memory: a few numbers per sample.
    """
    samples, drawn = state.sampler, _Drawn()
    wanted = batches if until is None else min(FIRST_BATCHES, batches)
    while True:
        while drawn.batches < wanted:
            batch_key = jax.random.fold_in(key, drawn.batches)
            samples, measured = problem.vmc.measure(batch_key, state.model, samples)
            drawn.add(measured)
            on_batch(drawn.batches, wanted)
        record = drawn.record(problem)
        if until is None or wanted == batches or is_reached(record, until):
            return record | compare(problem, record)
        wanted = min(batches, _needed(record, until, wanted))


def is_reached(record: Record, until: float) -> bool:
    """Whether the error bar divided by the modulus of the energy is at most `until`."""
    energy, error = record["energy"], record["error"]
    return None not in (energy, error) and error <= until * abs(energy)


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


def plain_numbers(values: Any) -> Record:
    """Scalars of a table or a module by name, as plain numbers; None for what is not finite."""
    if not isinstance(values, dict):
        values = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    numbers = {name: float(value) for name, value in values.items()}
    return {name: x if math.isfinite(x) else None for name, x in numbers.items()}


class _Drawn:
    """The batches so far; of a configuration is kept whether it differs from the first one, which
    is all that an estimate asks for."""

    def __init__(self) -> None:
        self._parts: list[Measurement] = []
        self._first: jax.Array | None = None

    @property
    def batches(self) -> int:
        return len(self._parts)

    def add(self, measured: Measurement) -> None:
        if self._first is None:
            self._first = measured.spins[:1, :1]
        differs = jnp.any(measured.spins != self._first, axis=2, keepdims=True)
        kept = dataclasses.replace(measured, spins=differs.astype(measured.spins.dtype))
        self._parts.append(kept)

    def record(self, problem: Problem) -> Record:
        drawn = joined(self._parts)
        estimate = drawn.estimate()
        energy = jnp.real(estimate.mean)
        infinity = jnp.asarray(problem.hamiltonian.trace_per_dimension, energy.dtype)
        record = plain_numbers(
            {
                "energy": energy,
                "error": estimate.error,
                "variance": estimate.variance,
                "v_score": v_score(
                    problem.hamiltonian.n_sites, energy, estimate.variance, infinity
                ),
                "tau": estimate.tau,
                "r_hat": estimate.r_hat,
                "acceptance": jnp.mean(drawn.acceptance),
            }
        )
        return record | {"samples": drawn.energies.size}


def _needed(record: Record, until: float, batches: int) -> int:
    """Batches that the error bar asks for, twice as many where it is not known."""
    energy, error = record["energy"], record["error"]
    if energy and error is not None:
        return samples_needed(batches, error, until * abs(energy))
    return 2 * batches
