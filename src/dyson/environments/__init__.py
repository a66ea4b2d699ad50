"""Environments: parts of a DysonNet chain as affine scatterers, exact after any number of moves."""

from dyson.environments.local import (
    LocalFeatures,
    flipped,
    half_window,
    local_features,
    token_patterns,
)
from dyson.environments.medium import Medium
from dyson.environments.segment import Segment, Site, absorb, empty_segment
from dyson.environments.window import log_psi, outputs_between

__all__ = [
    "LocalFeatures",
    "Medium",
    "Segment",
    "Site",
    "absorb",
    "empty_segment",
    "flipped",
    "half_window",
    "local_features",
    "log_psi",
    "outputs_between",
    "token_patterns",
]
