"""Neural quantum states for spin chains with exact local updates at constant cost.

The names a user needs are re-exported here by hand; importing computes nothing, prints nothing
and leaves the configuration of jax alone.
"""

from dyson import exact
from dyson.hamiltonians import Hamiltonian, Ising

__all__ = [
    "Hamiltonian",
    "Ising",
    "exact",
]
