"""Optimisers: optax transformations that also see the samples.

``natural_gradient`` (sr, minsr, spring), the ``checked_step`` it takes, the ``metric`` of the
samples, and ``schedules``.  Any other optax transformation serves as well.
"""

from dyson.optimisers.metric import energy_gradient
from dyson.optimisers.natural_gradient import NaturalGradientState, minsr, spring, sr
from dyson.optimisers.schedules import annealed_rate, decaying_shift

__all__ = [
    "NaturalGradientState",
    "annealed_rate",
    "decaying_shift",
    "energy_gradient",
    "minsr",
    "spring",
    "sr",
]
