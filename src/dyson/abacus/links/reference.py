"""The cache of ABACUS: one reference configuration and the links through its medium."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int8

from dyson.abacus.links.offsets import Chain
from dyson.abacus.links.tensors import Band, LinkTables, lags_of, link_tables, neighbour_links
from dyson.networks import DysonNet
from dyson.networks.blocks import LocalFeatures, Stream
from dyson.scattering import Chunks, Medium, chunks_of, for_each_layer, shared_product


class Layer(eqx.Module):
    """Activations of one block at the reference, each (features, tokens)."""

    phi: Stream  # input of the local stream
    local: LocalFeatures
    mixed: Stream  # W_out y, what the gates multiply


class Reference(eqx.Module):
    """Everything a local update needs to know of the configuration it starts from.

    Rows of links and readouts have the width of the chain
    (:class:`dyson.abacus.links.offsets.Chain`).
    links: the link tensor Lambda between two blocks as a band, one array (features, features,
      tokens) per offset ``j - i`` in -bandwidth..bandwidth.  Entry [a, b, i] takes a source in
      channel b at token i + offset of the first block to channel a of y at token i of the second,
      through the gates of the first.  None if there is one block alone.
    readouts: per block (parts, hidden, features, tokens): the response of theta to a source.
    """

    spins: Int8[Array, " n_sites"]
    theta: Inexact[Array, " hidden"]
    log_psi: Inexact[Array, ""]
    layers: tuple[Layer, ...]
    links: Band | None
    readouts: tuple[Float[Array, "parts hidden features tokens"], ...]


def chain_of(model: DysonNet) -> Chain:
    return Chain(model.n_tokens, model.periodic)


class ReferenceTables(eqx.Module):
    """What all references of a network share: the mixers along the chain, their kernels at the lags
    within a window, and what the links of two blocks owe to them; no links where there is one
    block alone."""

    mixers: tuple[Chunks, ...]
    near: tuple[Float[Array, "features lags"], ...]
    links: LinkTables | None


def reference_tables(model: DysonNet, span: int) -> ReferenceTables:
    chain, mixers = chain_of(model), chunks_of(Medium(model))
    bandwidth = link_bandwidth(model, span)
    of_mixer = lambda mixer: lags_of(mixer, chain, bandwidth)
    lags = for_each_layer(of_mixer, [block.mixer for block in model.blocks])
    # from a source to a gate that a move changes; beyond the ends of a chain there are neither
    longest = span - 1 + (2 * model.depth - 1) * model.blocks[0].reach
    within = np.minimum(np.arange(longest + 1), chain.n_tokens - 1)
    near = tuple(of_block.kernel[:, within] for of_block in lags)
    if model.depth == 1:
        return ReferenceTables(mixers, near, None)
    first, second = lags
    return ReferenceTables(mixers, near, link_tables(first, second, chain, bandwidth))


def build_reference(
    model: DysonNet, spins: Int8[Array, " n_sites"], tables: ReferenceTables
) -> Reference:
    """One forward pass, the readout by transposed propagation, and the links, for one or two
    blocks: O(n), chunk by chunk, whatever the factors of n."""
    phi, h = model.embed(model.patterns(spins))
    layers = []
    for block, mixer in zip(model.blocks, tables.mixers, strict=True):
        local = block.local(phi)
        mixed = block.mix_out @ mixer(block.driven(h, local.sources))
        layers.append(Layer(phi, local, mixed))
        phi, h = phi + local.sources, h + local.gates * mixed
    theta = model.head.theta(model.pooled(h))
    gates = [layer.local.gates for layer in layers]
    links = None
    if tables.links is not None:
        first, second = model.blocks
        links = neighbour_links(tables.links, first, second, gates[0])
    return Reference(
        spins,
        theta,
        model.head.log_amplitude(theta),
        tuple(layers),
        links,
        tuple(map(chain_of(model).filled, readouts(model, gates, tables.mixers))),
    )


def link_bandwidth(model: DysonNet, span: int) -> int:
    """Largest offset that the window of a move needs between the two blocks.

    The sources of the first block change within a reach of the span, the gates of the second too.
    """
    return chain_of(model).bandwidth(span, 2 * model.blocks[0].reach)


def readouts(model: DysonNet, gates: list[Stream], mixers: tuple[Chunks, ...]) -> tuple[Array, ...]:
    """``T^(l)``: how theta responds to a source at each token of block l, from the last block back.

    With r = d theta / d h after the block: T = G^T W_out^T (D * r), and before it r + W~^T T.
    """
    head = model.head.weight
    response = model.pool_scale * jnp.transpose(head.reshape(-1, head.shape[-1]))[..., None]
    rows = []
    for block, gate, mixer in zip(model.blocks[::-1], gates[::-1], mixers[::-1], strict=True):
        scattered = shared_product(block.mix_out.T, mixer.filled(gate)[:, None] * response)
        # G is symmetric in the two directions, so it is its own transpose
        row = mixer(scattered)  # (features, rows, tokens of whole chunks)
        rows.append(jnp.swapaxes(row, 0, 1).reshape(*head.shape, -1))
        response = response + shared_product(block.mix_scattered.T, row)
    return tuple(rows[::-1])
