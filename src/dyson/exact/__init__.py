"""Exact reference energies, computed with numpy and scipy independently of the networks.

``known`` asks what is cheapest: ``free_fermions`` for critical and gapped Ising chains, else
``diagonalise``, and ``bethe_ansatz`` for Heisenberg rings that are too long for it.  ``sectors``
finds the lowest level of given momentum, reflection and parity.
"""

from dyson.exact.bethe_ansatz import heisenberg_energy
from dyson.exact.check import check
from dyson.exact.diagonalise import MAX_SITES, GroundState, ground_state
from dyson.exact.free_fermions import Correlators, free_fermion_correlators, free_fermion_energy
from dyson.exact.known import GroundLevel, ground_energy, ground_level
from dyson.exact.sectors import SectorState, sector_ground_state

__all__ = [
    "MAX_SITES",
    "Correlators",
    "GroundLevel",
    "GroundState",
    "SectorState",
    "check",
    "free_fermion_correlators",
    "free_fermion_energy",
    "ground_energy",
    "ground_level",
    "ground_state",
    "heisenberg_energy",
    "sector_ground_state",
]
