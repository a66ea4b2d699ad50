"""Variational Monte Carlo: samples, local energies, statistics, and the step of training.

============  ================================================================================
vmc           :class:`VMC`: ``init`` and ``step``;   state: what they hand on
step          the improvement that measured samples call for
measurement   samples of all chains with their local energies
evolution     :class:`Evolution`: the same in real time
blur          samples that reach the nodes of a state, by importance sampling
local_energy  E_loc of a batch
ratios        amplitude ratios by kinds of moves; ``fastest_updates`` asks the cost model which pay
jacobian      derivatives of log psi at the samples
statistics    means with error bars, autocorrelation, R-hat, V-score
============  ================================================================================
"""

from dyson.vmc import statistics
from dyson.vmc.evolution import Evolution, EvolutionError, EvolutionInfo, EvolutionState
from dyson.vmc.jacobian import log_derivatives
from dyson.vmc.local_energy import local_energies
from dyson.vmc.state import VMCInfo, VMCState
from dyson.vmc.vmc import VMC, NonFiniteError

__all__ = [
    "VMC",
    "Evolution",
    "EvolutionError",
    "EvolutionInfo",
    "EvolutionState",
    "NonFiniteError",
    "VMCInfo",
    "VMCState",
    "local_energies",
    "log_derivatives",
    "statistics",
]
