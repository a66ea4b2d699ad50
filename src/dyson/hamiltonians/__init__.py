"""Hamiltonians of spin chains."""

from dyson.hamiltonians.heisenberg import J1J2
from dyson.hamiltonians.ising import Ising
from dyson.hamiltonians.terms import Hamiltonian

__all__ = ["J1J2", "Hamiltonian", "Ising"]
