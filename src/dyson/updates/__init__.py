"""Local updates: psi(sigma') / psi(sigma) for configurations that differ on a few sites."""

from dyson.updates.protocol import BoundUpdates, LocalUpdates, Proposal
from dyson.updates.recompute import Recompute

__all__ = ["BoundUpdates", "LocalUpdates", "Proposal", "Recompute"]
