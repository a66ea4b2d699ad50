"""ABACUS: exact local updates of a DysonNet at a cost independent of the size of the chain."""

from dyson.abacus.propose import Abacus, Whole
from dyson.abacus.reference import Reference
from dyson.abacus.surroundings import Surroundings

__all__ = ["Abacus", "Reference", "Surroundings", "Whole"]
