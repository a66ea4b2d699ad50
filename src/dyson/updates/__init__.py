"""Local updates: psi(sigma') / psi(sigma) for configurations that differ on a few sites."""

from dyson.updates.protocol import LocalUpdates, Proposal
from dyson.updates.recompute import Recompute

__all__ = ["LocalUpdates", "Proposal", "Recompute"]
