"""Local updates: psi(sigma') / psi(sigma) for configurations that differ on a few sites.

``protocol`` says what every way provides: :class:`LocalUpdates` is bound to a network once, and
:class:`BoundUpdates` answers moves of a reference configuration.  ``recompute`` is the plain one by
forward passes; the fast ones are :mod:`dyson.abacus` and, for shallow networks, ``cached_theta``.
"""

from dyson.updates.cached_theta import CachedTheta
from dyson.updates.protocol import BoundUpdates, LocalUpdates, Proposal
from dyson.updates.recompute import Recompute

__all__ = ["BoundUpdates", "CachedTheta", "LocalUpdates", "Proposal", "Recompute"]
