"""Environments: parts of a DysonNet chain as affine scatterers, exact after any number of moves."""

from dyson.environments.chunks import Chunks, chunks_of
from dyson.environments.local import (
    LocalFeatures,
    flipped,
    half_window,
    local_features,
    move_within,
    token_patterns,
)
from dyson.environments.medium import Medium, Transfer, shared_product
from dyson.environments.segment import Segment, Site, join, mirrored, no_segment, segment_of
from dyson.environments.sequence import Stretch, changed_in_sequence
from dyson.environments.window import (
    Exterior,
    changed,
    exterior_of,
    log_psi,
    open_transfers,
    settled,
    window_transfers,
)

__all__ = [
    "Chunks",
    "Exterior",
    "LocalFeatures",
    "Medium",
    "Segment",
    "Site",
    "Stretch",
    "Transfer",
    "changed",
    "changed_in_sequence",
    "chunks_of",
    "exterior_of",
    "flipped",
    "half_window",
    "join",
    "local_features",
    "log_psi",
    "mirrored",
    "move_within",
    "no_segment",
    "open_transfers",
    "segment_of",
    "settled",
    "shared_product",
    "token_patterns",
    "window_transfers",
]
