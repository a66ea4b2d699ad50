"""ABACUS: exact local updates of a DysonNet at a cost independent of the size of the chain."""

from dyson.abacus.propose import Abacus
from dyson.abacus.reference import Reference

__all__ = ["Abacus", "Reference"]
