"""Token mixers: the linear, translation-invariant part of a block, one kernel per channel."""

from dyson.mixers.base import Mixer
from dyson.mixers.diagonal import S4D, RealPoles

__all__ = ["S4D", "Mixer", "RealPoles"]
