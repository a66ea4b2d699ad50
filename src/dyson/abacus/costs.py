"""Who pays when: multiply-adds of every way to update, against those of a forward pass.  Asked by
``Abacus.pays``; who asks that stands in :mod:`dyson.abacus`.

A reference and the flips of all its sites cost the same per token at any size; a forward pass grows
with the chain.  The constants reproduce the crossings measured on one core within a factor of about
two: with 16 features and one mode links pay from less than 50 sites on, for exchanges from about
64; windows at depth 3 from 100 with complex and 75 with real modes; pairs at any distance, depth 2,
beyond 250 sites.
"""

import equinox as eqx
import jax

from dyson.abacus.links.tensors import chunk_length
from dyson.networks import Block, DysonNet
from dyson.scattering import Partition

# A move of a list gathers its links, where the flips of all sites are shifted arrays: exchanges of
# next-nearest neighbours, 16 features, us each on 12, 32, 64 sites: links 40, 39, 42, passes
# 11, 24, 33.
LISTED = 7

# Multiply-adds in the time that a loop takes over a layer and slot, whatever is computed there.
STEP = 170_000


def links_pay(model: DysonNet, bandwidth: int, *, listed: bool) -> bool:
    """For the flips of all sites, or for as many moves that are ``listed``; without a second block
    there are no links to be made."""
    if model.depth == 1:
        return True
    inputs, _ = _link_inputs(model, bandwidth)
    links = (2 * bandwidth + 1) * model.features**2 * inputs
    return links * (LISTED if listed else 1) < 4 * forward_pass(model)


def windows_pay(model: DysonNet, parts: Partition) -> bool:
    """For single flips: joining segments around every window, and the flips in it."""
    waves, couples, triples = waves_of(model)
    joins = (48 * triples * waves**3 + 100 * couples * waves**2) // parts.core
    flips = model.depth * parts.window * model.features * (2 * model.features + parts.window)
    # few windows side by side leave the steps from slot to slot dearer than their arithmetic
    steps = STEP * model.depth // parts.count
    return joins + flips + steps < forward_pass(model)


def pairs_pay(model: DysonNet, parts: Partition) -> bool:
    """For moves of two flips anywhere: two windows and the maps of the segments around them."""
    width = 3 * parts.core + 2 * parts.margin
    windows = model.depth * width * model.features * (4 * model.features + width)
    return 4 * (windows + 4 * segment(model)) < forward_pass(model)


def forward_pass(model: DysonNet) -> int:
    """Multiply-adds."""
    return 4 * model.depth * model.features**2 * model.n_tokens


def link_numbers(model: DysonNet, bandwidth: int) -> int:
    """Per token: a reference with links, what they are made of, and all single flips."""
    numbers = activations(model)
    if model.depth == 2:
        inputs, chunk = _link_inputs(model, bandwidth)
        numbers += model.features**2 * (4 * (2 * bandwidth + 1) + 2 * inputs // chunk)
    return numbers


def segment(model: DysonNet) -> int:
    """Numbers of a segment."""
    waves, couples, _ = waves_of(model)
    outputs = model.head.weight.shape[0] * model.head.weight.shape[1]
    return 4 * couples * waves**2 + 2 * model.depth * (outputs + 1) * waves


def activations(model: DysonNet) -> int:
    """Numbers per token of the readouts and of the activations of a few evaluations."""
    parts, hidden, features = model.head.weight.shape
    return 4 * model.depth * parts * hidden * features + 100 * model.depth * features


def waves_of(model: DysonNet) -> tuple[int, int, int]:
    """Real waves of a layer in one direction; couples and triples of layers."""
    weights, depth = _weights(model.blocks[0]), model.depth
    waves = weights.size * (2 if weights.dtype.kind == "c" else 1)
    return waves, depth * (depth - 1) // 2, depth * (depth - 1) * (depth - 2) // 6


def _link_inputs(model: DysonNet, bandwidth: int) -> tuple[int, int]:
    """Numbers that arrive at a chunk of a ring, its window and the waves from either side; and the
    tokens of a chunk."""
    first, second = (_weights(block) for block in model.blocks)
    pairs = first.shape[1] * second.shape[1] * (4 if first.dtype.kind == "c" else 1)
    chunk = chunk_length(model.n_tokens, bandwidth)
    return chunk + 2 * bandwidth + 4 * pairs, chunk


def _weights(block: Block) -> jax.ShapeDtypeStruct:
    """Of the exponentials, (features, modes); nothing is computed."""
    return eqx.filter_eval_shape(lambda mixer: mixer.exponentials().weights, block.mixer)
