"""Hamiltonians of spin chains."""

from dyson.hamiltonians.heisenberg import J1J2
from dyson.hamiltonians.ising import Ising
from dyson.hamiltonians.terms import Hamiltonian
from dyson.hamiltonians.xxz import XXZ

__all__ = ["J1J2", "XXZ", "Hamiltonian", "Ising"]
