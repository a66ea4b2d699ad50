"""Hamiltonians of spin chains."""

from dyson.hamiltonians.ising import Ising
from dyson.hamiltonians.terms import Hamiltonian

__all__ = ["Hamiltonian", "Ising"]
