"""Optimisers: optax transformations that also see the samples."""

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
