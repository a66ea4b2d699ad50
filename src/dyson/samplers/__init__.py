"""Markov chains that sample |psi|^2."""

from dyson.samplers.base import Sampler, SamplerInfo, SamplerState
from dyson.samplers.metropolis import Metropolis
from dyson.samplers.sweep import Sweep
from dyson.samplers.typewriter import Typewriter, TypewriterInfo, TypewriterState

__all__ = [
    "Metropolis",
    "Sampler",
    "SamplerInfo",
    "SamplerState",
    "Sweep",
    "Typewriter",
    "TypewriterInfo",
    "TypewriterState",
]
