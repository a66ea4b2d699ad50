"""Optimisers: optax transformations that also see the samples."""

from dyson.optimisers.sr import NaturalGradientState, minsr, sr

__all__ = ["NaturalGradientState", "minsr", "sr"]
