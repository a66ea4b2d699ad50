"""Markov chains that sample |psi|^2."""

from dyson.samplers.base import Sampler, SamplerInfo, SamplerState
from dyson.samplers.fit import check_fit
from dyson.samplers.metropolis import Metropolis
from dyson.samplers.moves import Exchanges, Flips, Mixture, Moves, Runs
from dyson.samplers.sweep import Sweep
from dyson.samplers.typewriter import Typewriter, TypewriterInfo, TypewriterState

__all__ = [
    "Exchanges",
    "Flips",
    "Metropolis",
    "Mixture",
    "Moves",
    "Runs",
    "Sampler",
    "SamplerInfo",
    "SamplerState",
    "Sweep",
    "Typewriter",
    "TypewriterInfo",
    "TypewriterState",
    "check_fit",
]
