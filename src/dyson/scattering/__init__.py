"""Parts of a DysonNet chain as affine scatterers: what surrounds a window, exact after any moves.

The words (medium, wave, cut, segment, window, exterior) and the picture are in
:mod:`dyson.abacus`.  Here:

  ========  ====================================================================================
  medium    the constant part of all blocks, as waves see it; powers of the poles along a stretch
  local     tokens: patterns, embeddings, gates and sources, and what a move does to them
  segment   tokens as an affine map of waves; ``join`` puts two end to end
  window    a window between exteriors: ``settled`` solves it, ``changed`` follows a move in it
  sequence  the same for a row of windows with segments between them
  partition how a chain is cut into windows
  chunks    a mixer along the whole chain in O(n), by waves from chunk to chunk
  ========  ====================================================================================

A segment costs O(features * modes)^2 numbers per pair of layers and its joining one product of
such matrices; nothing is inverted, because a wave of one layer excites later layers only.
"""

from dyson.scattering.chunks import Chunks, chunks_of
from dyson.scattering.local import (
    LocalFeatures,
    Move,
    flipped,
    half_window,
    local_features,
    move_within,
    token_patterns,
)
from dyson.scattering.medium import Medium, Transfer, for_each_layer, shared_product, unstacked
from dyson.scattering.partition import Partition, partition_of
from dyson.scattering.segment import Segment, Site, join, no_segment, segment_of
from dyson.scattering.sequence import Stretch, changed_in_sequence
from dyson.scattering.window import (
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
    "Move",
    "Partition",
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
    "partition_of",
    "segment_of",
    "settled",
    "shared_product",
    "token_patterns",
    "unstacked",
    "window_transfers",
]
