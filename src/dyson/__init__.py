"""Neural quantum states for spin chains with exact local updates at constant cost.

The names a user needs are re-exported here by hand; importing computes nothing, prints nothing
and leaves the configuration of jax alone.  A module imports only from what stands below it:

  ============  ================================================================================
  app           what a person runs: the command line, run directories, pictures, benchmarks
  analysis      what a trained state says: observables, a Lanczos step, its expansion
  vmc           samples, local energies, statistics, the step of training
  samplers      Markov chains: Metropolis, exact sweeps, the screened typewriter
  abacus        ABACUS, exact local updates at constant cost: Theorem 1 of arXiv:2603.11189
  updates       what every way to compute amplitude ratios provides
  scattering    waves that cross a cut of the chain, the language of abacus and of exact sweeps
  optimisers    natural gradient that checks its steps, as optax transformations
  exact         energies by diagonalisation and free fermions, to compare with
  networks      DysonNet and its projections;   baselines: networks of other papers
  mixers        the kernels of DysonNet: sums of exponentials (:mod:`hodlr`)
  hamiltonians  spin chains, written as rows
  checkpoint    files that survive a kill; spins, phases, batching, devices and processes beside it
  ============  ================================================================================

Start reading with :mod:`dyson.abacus`, which tells the idea and the words.
"""

from dyson import checkpoint, exact
from dyson.abacus import Abacus, AbacusPairs
from dyson.analysis import (
    Correlations,
    Energy,
    Function,
    LanczosStep,
    Magnetisation,
    Observable,
    Renyi2,
    StructureFactor,
    dimers,
    expect,
    fidelity,
    flip_response,
    lanczos_step,
    measure,
    poles,
    propagators,
    series,
    state_vector,
    thermalised,
)
from dyson.app.program import Trained, train
from dyson.app.train import load
from dyson.hamiltonians import J1J2, XXZ, Hamiltonian, Ising, Pauli, PauliStrings, interactions
from dyson.mixers import S4, S4D, Mixer, PowerLaw, RealPoles
from dyson.networks import DysonNet, Reflection, SpinFlip, Translations
from dyson.optimisers import annealed_rate, decaying_shift, minsr, spring, sr
from dyson.samplers import Metropolis, Sampler, Sweep, Typewriter, moves
from dyson.updates import BoundUpdates, CachedTheta, LocalUpdates, Proposal, Recompute
from dyson.vmc import (
    VMC,
    Evolution,
    EvolutionError,
    EvolutionInfo,
    EvolutionState,
    NonFiniteError,
    VMCInfo,
    VMCState,
    local_energies,
    log_derivatives,
    statistics,
)

__version__ = "0.1.0"

__all__ = [
    "J1J2",
    "S4",
    "S4D",
    "VMC",
    "XXZ",
    "Abacus",
    "AbacusPairs",
    "BoundUpdates",
    "CachedTheta",
    "Correlations",
    "DysonNet",
    "Energy",
    "Evolution",
    "EvolutionError",
    "EvolutionInfo",
    "EvolutionState",
    "Function",
    "Hamiltonian",
    "Ising",
    "LanczosStep",
    "LocalUpdates",
    "Magnetisation",
    "Metropolis",
    "Mixer",
    "NonFiniteError",
    "Observable",
    "Pauli",
    "PauliStrings",
    "PowerLaw",
    "Proposal",
    "RealPoles",
    "Recompute",
    "Reflection",
    "Renyi2",
    "Sampler",
    "SpinFlip",
    "StructureFactor",
    "Sweep",
    "Trained",
    "Translations",
    "Typewriter",
    "VMCInfo",
    "VMCState",
    "annealed_rate",
    "checkpoint",
    "decaying_shift",
    "dimers",
    "exact",
    "expect",
    "fidelity",
    "flip_response",
    "interactions",
    "lanczos_step",
    "load",
    "local_energies",
    "log_derivatives",
    "measure",
    "minsr",
    "moves",
    "poles",
    "propagators",
    "series",
    "spring",
    "sr",
    "state_vector",
    "statistics",
    "thermalised",
    "train",
]
