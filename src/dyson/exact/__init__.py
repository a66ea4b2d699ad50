"""Exact reference energies, computed with numpy and scipy independently of the networks."""

from dyson.exact.diagonalise import MAX_SITES, ground_state
from dyson.exact.free_fermions import free_fermion_energy
from dyson.exact.known import ground_energy

__all__ = ["MAX_SITES", "free_fermion_energy", "ground_energy", "ground_state"]
