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
from dyson.environments.medium import Medium, Transfer, for_each_layer, shared_product, unstacked
from dyson.environments.segment import Segment, Site, join, no_segment, segment_of
from dyson.environments.sequence import Stretch, changed_in_sequence
from dyson.environments.window import (
    Window,
    changed,
    changed_by_each,
    log_psi,
    open_transfers,
    settled,
    window_transfers,
)

__all__ = [
    "Chunks",
    "LocalFeatures",
    "Medium",
    "Segment",
    "Site",
    "Stretch",
    "Transfer",
    "Window",
    "changed",
    "changed_by_each",
    "changed_in_sequence",
    "chunks_of",
    "flipped",
    "for_each_layer",
    "half_window",
    "join",
    "local_features",
    "log_psi",
    "move_within",
    "no_segment",
    "open_transfers",
    "segment_of",
    "settled",
    "shared_product",
    "token_patterns",
    "unstacked",
    "window_transfers",
]
