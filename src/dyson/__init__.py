"""Neural quantum states for spin chains with exact local updates at constant cost.

The names a user needs are re-exported here by hand; importing computes nothing, prints nothing
and leaves the configuration of jax alone.
"""

from dyson import checkpoint, exact
from dyson.abacus import Abacus, AbacusPairs
from dyson.analysis import flip_response, poles, propagators, series
from dyson.app.train import load
from dyson.hamiltonians import J1J2, XXZ, Hamiltonian, Ising
from dyson.mixers import S4, S4D, Mixer, PowerLaw, RealPoles
from dyson.networks import DysonNet, SpinFlip, Translations
from dyson.optimisers import annealed_rate, decaying_shift, minsr, spring, sr
from dyson.samplers import Metropolis, Sampler, Sweep, Typewriter, moves
from dyson.updates import BoundUpdates, LocalUpdates, Proposal, Recompute
from dyson.vmc import (
    VMC,
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
    "DysonNet",
    "Hamiltonian",
    "Ising",
    "LocalUpdates",
    "Metropolis",
    "Mixer",
    "NonFiniteError",
    "PowerLaw",
    "Proposal",
    "RealPoles",
    "Recompute",
    "Sampler",
    "SpinFlip",
    "Sweep",
    "Translations",
    "Typewriter",
    "VMCInfo",
    "VMCState",
    "annealed_rate",
    "checkpoint",
    "decaying_shift",
    "exact",
    "flip_response",
    "load",
    "local_energies",
    "log_derivatives",
    "minsr",
    "moves",
    "poles",
    "propagators",
    "series",
    "spring",
    "sr",
    "statistics",
]
