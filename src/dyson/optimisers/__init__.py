"""Optimisers: optax transformations that also see the samples."""

from dyson.optimisers.spring import SpringState, spring
from dyson.optimisers.sr import (
    NaturalGradientState,
    annealed_rate,
    decaying_shift,
    minsr,
    sr,
)

__all__ = [
    "NaturalGradientState",
    "SpringState",
    "annealed_rate",
    "decaying_shift",
    "minsr",
    "spring",
    "sr",
]
