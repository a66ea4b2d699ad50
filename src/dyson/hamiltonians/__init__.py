"""Hamiltonians of spin chains.

``base.Hamiltonian`` says what each provides: rows of H, that is ``diagonal`` and ``connected``, and
what it conserves, from which samplers and updates are chosen; ``ising`` is a whole example.
"""

from dyson.hamiltonians.base import Hamiltonian
from dyson.hamiltonians.heisenberg import J1J2
from dyson.hamiltonians.ising import Ising
from dyson.hamiltonians.xxz import XXZ

__all__ = ["J1J2", "XXZ", "Hamiltonian", "Ising"]
