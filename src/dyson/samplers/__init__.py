"""Markov chains that sample |psi|^2."""

from dyson.samplers.base import Sampler, SamplerInfo, SamplerState
from dyson.samplers.metropolis import Metropolis

__all__ = ["Metropolis", "Sampler", "SamplerInfo", "SamplerState"]
