"""Hamiltonians of spin chains.

``base.Hamiltonian`` says what each provides: rows of H, that is ``diagonal`` and ``connected``, and
what it conserves, from which samplers and updates are chosen; ``ising`` is a whole example.  Sums
of Pauli strings are given as data (``pauli``, and ``interactions`` for the usual ones).
"""

from dyson.hamiltonians import interactions
from dyson.hamiltonians.base import Hamiltonian, Row
from dyson.hamiltonians.heisenberg import J1J2
from dyson.hamiltonians.ising import Ising
from dyson.hamiltonians.pauli import PauliStrings
from dyson.hamiltonians.strings import Pauli
from dyson.hamiltonians.xxz import XXZ

__all__ = [
    "J1J2",
    "XXZ",
    "Hamiltonian",
    "Ising",
    "Pauli",
    "PauliStrings",
    "Row",
    "interactions",
]
