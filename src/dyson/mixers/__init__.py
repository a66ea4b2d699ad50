"""Token mixers: the linear, translation-invariant part of a block, one kernel per channel.

``base.Mixer`` is the interface, with a whole example in its docstring; a class of one's own goes
into ``DysonNet(mixer=...)`` as it is.  The other files are mixers.
"""

from dyson.mixers.base import Mixer
from dyson.mixers.diagonal import S4D, RealPoles
from dyson.mixers.power_law import PowerLaw
from dyson.mixers.s4 import S4

__all__ = ["S4", "S4D", "Mixer", "PowerLaw", "RealPoles"]
