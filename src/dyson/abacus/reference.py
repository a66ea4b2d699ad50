"""The cache of ABACUS: one reference configuration and the links through its medium."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int8

from dyson.abacus.windows import Chain
from dyson.networks import Block, DysonNet
from dyson.networks.blocks import LocalFeatures, Stream
from hodlr.band import toeplitz_product_band


class Layer(eqx.Module):
    """Activations of one block at the reference, each (features, tokens)."""

    phi: Stream  # input of the local stream
    local: LocalFeatures
    mixed: Stream  # W_out y, what the gates multiply


class Reference(eqx.Module):
    """Everything a local update needs to know of the configuration it starts from.

    links: link tensor Lambda^(2,1) as a band, one array (features, features, tokens) per offset
      ``j - i`` in -bandwidth..bandwidth: entry [a, b, i] takes a source in channel b at token
      i + offset of block 1 to channel a of y at token i of block 2, through the gates of block 1.
    readouts: per block (parts, hidden, features, tokens): the response of theta to a source.
    """

    spins: Int8[Array, " n_sites"]
    theta: Inexact[Array, " hidden"]
    log_psi: Inexact[Array, ""]
    layers: tuple[Layer, ...]
    links: tuple[Float[Array, "features features tokens"], ...]
    readouts: tuple[Float[Array, "parts hidden features tokens"], ...]


def chain_of(model: DysonNet) -> Chain:
    return Chain(model.n_tokens, model.periodic)


def build_reference(model: DysonNet, spins: Int8[Array, " n_sites"], span: int) -> Reference:
    """One forward pass, the readout by transposed propagation, and the links.

    Cost O(n log n): transforms over the tokens for the readouts (hidden * features channels per
    block) and for the links (features^2 channels per offset).
    """
    phi, h = model.embed(model.patterns(spins))
    layers = []
    for block in model.blocks:
        local = block.local(phi)
        mixed = block.mixed(h, local.sources)
        layers.append(Layer(phi, local, mixed))
        phi, h = phi + local.sources, h + local.gates * mixed
    theta = model.head.theta(model.pooled(h))
    links = ()
    if model.depth == 2:
        first, second = model.blocks
        links = neighbour_links(first, second, layers[0].local.gates, chain_of(model), span)
    return Reference(
        spins,
        theta,
        model.head.log_amplitude(theta),
        tuple(layers),
        links,
        readouts(model, [layer.local.gates for layer in layers]),
    )


def readouts(model: DysonNet, gates: list[Stream]) -> tuple[Array, ...]:
    """``T^(l)``: how theta responds to a source at each token of block l, from the last block back.

    With r = d theta / d h after the block: T = G^T W_out^T (D * r), and before it r + W~^T T.
    """
    response = model.pool_scale * model.head.weight[..., None]
    rows = []
    for block, gate in zip(model.blocks[::-1], gates[::-1], strict=True):
        scattered = jnp.einsum("cb,pkct->pkbt", block.mix_out, gate * response)
        # G is symmetric in the two directions, so it is its own transpose
        row = jax.vmap(jax.vmap(block.propagate))(scattered)
        rows.append(row)
        response = response + jnp.einsum("cb,pkct->pkbt", block.mix_scattered, row)
    return tuple(rows[::-1])


def neighbour_links(
    first: Block, second: Block, gates: Stream, chain: Chain, span: int
) -> tuple[Array, ...]:
    """The band of ``G2 W~2 D0 W_out G1`` between two successive blocks.

    For channels (a, b) it is the product ``G2_a diag(M_ab) G1_b`` of two Toeplitz matrices with
    M(t) = W~2 diag(D0(t)) W_out: hodlr computes its diagonals, exactly for every kernel.
    """
    n, periodic = chain.n_tokens, chain.periodic
    medium = jnp.einsum("ac,ct,cb->abt", second.mix_scattered, gates, first.mix_out)
    g2, g1 = (
        block.mixer.kernel(jnp.arange(n), n, periodic=periodic) for block in (second, first)
    )
    if not periodic:
        g2, g1 = (jnp.concatenate([g[:, :0:-1], g], axis=1) for g in (g2, g1))
    bandwidth = chain.bandwidth(span, second.reach)

    def band(kernel2: Array, m: Array, kernel1: Array) -> Array:
        return toeplitz_product_band(kernel2, m, kernel1, bandwidth, periodic=periodic)

    over_sources = jax.vmap(band, in_axes=(None, 0, 0))
    bands = jax.vmap(over_sources, in_axes=(0, 0, None))(g2, medium, g1)
    return tuple(bands[..., d] for d in range(2 * bandwidth + 1))
