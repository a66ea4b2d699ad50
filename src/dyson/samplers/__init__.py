"""Markov chains that sample |psi|^2.

================  ============================================================================
base              :class:`Sampler`, what every sampler provides, and the rule of acceptance
moves             what is proposed: flips, runs, exchanges, mixtures
metropolis        random moves one after the other; the shortest whole sampler to start from
sweep             :class:`Sweep`: every site in turn, exactly
environment_pass  how a sweep stays exact in O(1) per proposal: an accepted move is followed in
                  its window, and a visited block joins the prefix as it is then
passes            what a sweep proposes, when environments pay (``environments_pay``), and the
                  same pass by full forward passes
typewriter        the screened typewriter: one reference serves many moves, approximately
screening         what it has learnt about its errors
fit               refuses samplers that cannot reach what a Hamiltonian connects
================  ============================================================================
"""

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
