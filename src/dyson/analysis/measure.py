"""Sampling until the chains have settled, and until error bars are small enough."""

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dyson.analysis.expect import checked, estimated, local_values
from dyson.devices import everywhere
from dyson.updates import LocalUpdates
from dyson.vmc import VMC, VMCState
from dyson.vmc.statistics import DiagnosticWarning, Estimate, samples_needed

# Rounds of samples before the first look at the error bars.
_FIRST = 4


def thermalised(
    vmc: VMC, state: VMCState, *, r_hat: float = 1.02, length: int = 16, most: int = 1024
) -> VMCState:
    """The state with its chains moved on until they agree on the energy.

    Needed after anything that changes the distribution at once: other parameters, another sampler.
    Rounds of so many samples of every chain, each twice as long as the one before, until the split
    R-hat of the local energies of a round is at most ``r_hat``.

    Arguments:
      vmc, state: what draws the samples.
      length: samples of a chain in the first round, at least 4.
      most: of all rounds.  Warns with :class:`dyson.statistics.DiagnosticWarning` where they do not
        do.
    """
    if not r_hat > 1 or length < 4:
        raise ValueError(f"thermalised: expected r_hat > 1 and length >= 4, got {r_hat}, {length}")
    drawn, found = 0, math.nan
    while drawn + length <= most:
        state, measurement = vmc.sample(state, length)
        found, drawn = float(measurement.estimate().r_hat), drawn + length
        if found <= r_hat:
            return state
        length *= 2
    warnings.warn(
        f"thermalised: R-hat is {found:.3f} and not {r_hat} after {drawn} samples of each chain; "
        "take more, more sweeps between two samples, or moves that fit the state",
        DiagnosticWarning,
        stacklevel=2,
    )
    return state


def measure(
    observables: Any,
    vmc: VMC,
    state: VMCState,
    *,
    until: float,
    most: int = 4096,
    updates: LocalUpdates | None = None,
    chunk_size: int | None = None,
) -> tuple[VMCState, Any]:
    """Draw samples until every error bar is small enough: :func:`dyson.expect` of all of them.

        state, found = dyson.measure({"order": dyson.Magnetisation(n)}, vmc, state, until=1e-3)

    Error bars are looked at a few times only, after as many samples as the last look says are
    needed: stopping at the first one that is small by chance would make them too small.

    Arguments:
      observables: as in :func:`dyson.expect`.
      vmc, state: what draws the samples; those of its sector, where the magnetisation is conserved.
      until: the largest error bar, absolute, of any value.
      most: samples of each chain at most.  Warns with :class:`dyson.statistics.DiagnosticWarning`
        where they do not do.
      updates, chunk_size: as in :func:`dyson.local_energies`.

    Returns the state with its chains moved on, and the tree of estimates.

    Cost: that of the samples and their local values, each evaluated once; memory: those values.
    """
    if not until > 0:
        raise ValueError(f"measure: expected until > 0, got {until}")
    magnetisation = vmc.sampler.magnetisation
    parts, moving, first, length = [], jnp.zeros((), bool), None, vmc.chain_length
    wanted = min(_FIRST * length, most)
    chosen, structure = [], None
    while True:
        while len(parts) * length < wanted:
            state, measurement = vmc.sample(state, length)
            spins = measurement.spins
            first = spins[:1, :1] if first is None else first
            if structure is None:
                chosen, structure = checked(observables, state.model, spins, magnetisation)
            how = updates, chunk_size, magnetisation is not None
            parts.append(local_values(chosen, *how, everywhere(state.model), spins))
            moving = moving | jnp.any(spins != first)
        joined = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *parts)
        found = jax.tree.unflatten(structure, estimated(chosen, joined, moving))
        worst = _largest_error(found)
        if worst <= until:
            return state, found
        drawn = len(parts) * length
        if drawn >= most or not math.isfinite(worst):
            _warn(worst, until, drawn)
            return state, found
        wanted = min(samples_needed(drawn, worst, until), most)


def _largest_error(found: Any) -> float:
    """NaN where one is not known."""
    each = jax.tree.leaves(found, is_leaf=lambda x: isinstance(x, Estimate))
    return float(np.max([np.max(np.asarray(estimate.error)) for estimate in each], initial=0.0))


def _warn(worst: float, until: float, drawn: int) -> None:
    known = f"is {worst:.2e}" if math.isfinite(worst) else "is not known"
    warnings.warn(
        f"measure: after {drawn} samples of each chain the largest error bar {known}, not {until}; "
        "take more with most=, or more chains",
        DiagnosticWarning,
        stacklevel=3,
    )
