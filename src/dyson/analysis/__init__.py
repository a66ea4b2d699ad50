"""What a trained state says: expectation values, its expansion, propagators and poles."""

from dyson.analysis.correlations import Correlations, StructureFactor, dimers
from dyson.analysis.expect import expect
from dyson.analysis.fidelity import fidelity, state_vector
from dyson.analysis.lanczos import LanczosStep, lanczos_step
from dyson.analysis.measure import measure, thermalised
from dyson.analysis.observables import (
    Energy,
    Function,
    Magnetisation,
    Observable,
    Renyi2,
    TwoCopies,
)
from dyson.analysis.series import flip_response, poles, propagators, series

__all__ = [
    "Correlations",
    "Energy",
    "Function",
    "LanczosStep",
    "Magnetisation",
    "Observable",
    "Renyi2",
    "StructureFactor",
    "TwoCopies",
    "dimers",
    "expect",
    "fidelity",
    "flip_response",
    "lanczos_step",
    "measure",
    "poles",
    "propagators",
    "series",
    "state_vector",
    "thermalised",
]
