"""Neural quantum states for spin chains with exact local updates at constant cost.

The names a user needs are re-exported here by hand; importing computes nothing, prints nothing
and leaves the configuration of jax alone.
"""

from dyson import checkpoint, exact, statistics
from dyson.abacus import Abacus
from dyson.hamiltonians import Hamiltonian, Ising
from dyson.local_energy import local_energies
from dyson.networks import DysonNet, SpinFlip
from dyson.optimisers import minsr, sr
from dyson.samplers import Metropolis
from dyson.updates import Recompute
from dyson.vmc import VMC, NonFiniteError

__all__ = [
    "VMC",
    "Abacus",
    "DysonNet",
    "Hamiltonian",
    "Ising",
    "Metropolis",
    "NonFiniteError",
    "Recompute",
    "SpinFlip",
    "checkpoint",
    "exact",
    "local_energies",
    "minsr",
    "sr",
    "statistics",
]
