"""A vision transformer with softmax attention, the common reference for neural quantum states."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int8

from dyson.networks import Network
from dyson.networks.blocks import layer_norm
from dyson.networks.dysonnet import CALIBRATION_SAMPLES, INITIAL_SPREAD
from dyson.networks.head import LogCoshHead
from dyson.spins import random_spins

Tokens = Float[Array, "features tokens"]


class EncoderBlock(eqx.Module):
    """``x += W_o attention(norm x)``, then ``x += MLP(norm x)``; O(tokens^2 features)."""

    norm_scale: Float[Array, "2 features"]
    norm_shift: Float[Array, "2 features"]
    project: Float[Array, "3*features features"]
    mix: Float[Array, "features features"]
    widen: Float[Array, "4*features features"]
    widen_bias: Float[Array, " 4*features"]
    narrow: Float[Array, "features 4*features"]
    narrow_bias: Float[Array, " features"]
    heads: int = eqx.field(static=True)

    def __init__(self, features: int, heads: int, *, dtype, key: jax.Array):
        keys = jax.random.split(key, 4)

        def matrix(key: jax.Array, rows: int, columns: int) -> Array:
            return jax.random.normal(key, (rows, columns), dtype) / columns**0.5

        self.norm_scale = jnp.ones((2, features), dtype)
        self.norm_shift = jnp.zeros((2, features), dtype)
        self.project = matrix(keys[0], 3 * features, features)
        self.mix = matrix(keys[1], features, features)
        self.widen = matrix(keys[2], 4 * features, features)
        self.widen_bias = jnp.zeros(4 * features, dtype)
        self.narrow = matrix(keys[3], features, 4 * features)
        self.narrow_bias = jnp.zeros(features, dtype)
        self.heads = heads

    def attention(self, x: Tokens) -> Tokens:
        """softmax(q^T k / sqrt(features per head)) v, all tokens with all tokens."""
        features, tokens = x.shape
        projected = (self.project @ x).reshape(3, self.heads, features // self.heads, tokens)
        query, key, value = projected
        scores = jnp.einsum("hct,hcs->hts", query, key) / (features // self.heads) ** 0.5
        mixed = jnp.einsum("hts,hcs->hct", jax.nn.softmax(scores, axis=-1), value)
        return self.mix @ mixed.reshape(features, tokens)

    def __call__(self, x: Tokens) -> Tokens:
        x = x + self.attention(layer_norm(x, self.norm_scale[0], self.norm_shift[0]))
        normed = layer_norm(x, self.norm_scale[1], self.norm_shift[1])
        hidden = jax.nn.gelu(self.widen @ normed + self.widen_bias[:, None])
        return x + self.narrow @ hidden + self.narrow_bias[:, None]


class ViT(Network):
    """log psi of a softmax vision transformer on patches of a chain.

    Patches of ``patch`` spins are embedded linearly with a learned position, pass ``depth`` encoder
    blocks, and their mean goes through the same log-cosh head as a DysonNet, which starts as that
    does.  Softmax couples every token to all others, so a flip changes everything and no local
    update is exact.

    Cost O(tokens^2 features depth), tokens = n_sites / patch.
    Source: Dosovitskiy et al. 2021; for quantum states Viteritti, Rende, Becca 2023.
    """

    embedding: Float[Array, "features patch"]
    positions: Float[Array, "features tokens"]
    blocks: tuple[EncoderBlock, ...]
    head: LogCoshHead
    n_sites: int = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        features: int = 16,
        depth: int = 2,
        patch: int = 4,
        heads: int = 4,
        hidden: int = 8,
        complex_head: bool = False,
        dtype=None,
        key: jax.Array,
    ):
        if n_sites % patch:
            raise ValueError(f"ViT: expected a multiple of patch={patch} sites, got {n_sites}")
        if features % heads:
            raise ValueError(f"ViT: expected a multiple of heads={heads} features, got {features}")
        dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
        embed_key, position_key, head_key, *block_keys = jax.random.split(key, 3 + depth)
        data_key = jax.random.fold_in(head_key, 0)
        self.n_sites = n_sites
        self.embedding = jax.random.normal(embed_key, (features, patch), dtype) / patch**0.5
        self.positions = jax.random.normal(position_key, (features, n_sites // patch), dtype)
        self.blocks = tuple(EncoderBlock(features, heads, dtype=dtype, key=k) for k in block_keys)
        head = LogCoshHead(features, hidden, complex_head=complex_head, dtype=dtype, key=head_key)
        parts = self.embedding, self.positions, self.blocks, head
        self.head = _calibrated(*parts, random_spins(data_key, (CALIBRATION_SAMPLES, n_sites)))

    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        if spins.shape != (self.n_sites,):
            raise ValueError(
                f"ViT: expected spins of shape {(self.n_sites,)}, got {spins.shape}; "
                "use jax.vmap(model) for a batch"
            )
        pooled = _pooled(self.embedding, self.positions, self.blocks, spins)
        return self.head.log_amplitude(self.head.theta(pooled))


def _pooled(
    embedding: Float[Array, "features patch"],
    positions: Tokens,
    blocks: tuple[EncoderBlock, ...],
    spins: Int8[Array, " n_sites"],
) -> Float[Array, " features"]:
    """The mean over tokens of what comes out of the last block."""
    patches = spins.astype(embedding.dtype).reshape(-1, embedding.shape[1])
    x = embedding @ patches.T + positions
    for block in blocks:
        x = block(x)
    return jnp.mean(x, axis=1)


@eqx.filter_jit
def _calibrated(
    embedding: Float[Array, "features patch"],
    positions: Tokens,
    blocks: tuple[EncoderBlock, ...],
    head: LogCoshHead,
    spins: Int8[Array, "samples n_sites"],
) -> LogCoshHead:
    """The head that gives log psi the same spread as that of a DysonNet at the start."""
    pooled = jax.vmap(lambda s: _pooled(embedding, positions, blocks, s))(spins)
    return head.calibrated(pooled, INITIAL_SPREAD)
