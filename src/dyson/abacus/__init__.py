"""ABACUS: exact local updates of a DysonNet at a cost independent of the size of the chain."""

from dyson.abacus.pairs import Pairs
from dyson.abacus.propose import Abacus, ProjectedReference
from dyson.abacus.reference import Reference
from dyson.abacus.routes import Whole
from dyson.abacus.surroundings import Surroundings

__all__ = ["Abacus", "Pairs", "ProjectedReference", "Reference", "Surroundings", "Whole"]
