"""Token mixers: the linear, translation-invariant part of a block, one kernel per channel."""

from dyson.mixers.base import Mixer
from dyson.mixers.diagonal import S4D, RealPoles
from dyson.mixers.power_law import PowerLaw
from dyson.mixers.s4 import S4

__all__ = ["S4", "S4D", "Mixer", "PowerLaw", "RealPoles"]
