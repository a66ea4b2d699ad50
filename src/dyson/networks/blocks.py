"""One block of a DysonNet: a local nonlinear stream gates a global linear one.

Arrays are feature-first, ``(features, tokens)``: dense layers are plain matrix products and the
convolutions and transforms over tokens run over contiguous memory.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.mixers import Mixer
from hodlr import circulant_matvec, toeplitz_matvec

Stream = Float[Array, "features tokens"]


def layer_norm(x: Stream, scale: Array, shift: Array) -> Stream:
    """Normalise the features of each token; acts on one token at a time, so it stays local."""
    centred = x - jnp.mean(x, axis=0)
    variance = jnp.mean(centred**2, axis=0)
    return centred * jax.lax.rsqrt(variance + 1e-6) * scale[:, None] + shift[:, None]


class LocalFeatures(eqx.Module):
    """What the local stream of one block produces from phi of the block before."""

    inputs: Stream  # a, fed to the convolution
    convolved: Stream  # before the nonlinearity
    sources: Stream  # c = SiLU(convolved), added to both streams
    gates: Stream  # D = SiLU(g), multiplies the linear stream


class Block(eqx.Module):
    """Equations of one block (theory: section 1 of arXiv:2603.11189, Fig. 1c)

        (a, g) = split(W_d norm(phi) + b_d),  c = SiLU(conv(a) + b_c),  D = SiLU(g)
        u = W_in actnorm(h) + c,   y = G u,   h <- h + D * (W_out y),   phi <- phi + c

    Cost per configuration: O(tokens * features^2) and the kernel G in O(tokens log tokens).
    """

    norm_scale: Float[Array, " features"]
    norm_shift: Float[Array, " features"]
    dense: Float[Array, "2*features features"]
    dense_bias: Float[Array, " 2*features"]
    taps: Float[Array, "features kernel_size"]
    taps_bias: Float[Array, " features"]
    act_scale: Float[Array, " features"]
    act_shift: Float[Array, " features"]
    mix_in: Float[Array, "features features"]
    mix_out: Float[Array, "features features"]
    mixer: Mixer
    periodic: bool = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        kernel_size: int,
        mixer: Mixer,
        *,
        periodic: bool,
        dtype,
        key: jax.Array,
    ):
        keys = jax.random.split(key, 4)
        normal = jax.random.normal
        self.norm_scale, self.norm_shift = jnp.ones(features, dtype), jnp.zeros(features, dtype)
        self.dense = normal(keys[0], (2 * features, features), dtype) / features**0.5
        self.dense_bias = jnp.zeros(2 * features, dtype)
        self.taps = normal(keys[1], (features, kernel_size), dtype) / kernel_size**0.5
        self.taps_bias = jnp.zeros(features, dtype)
        self.act_scale, self.act_shift = jnp.ones(features, dtype), jnp.zeros(features, dtype)
        self.mix_in = normal(keys[2], (features, features), dtype) / features**0.5
        self.mix_out = normal(keys[3], (features, features), dtype) / features**0.5
        self.mixer = mixer
        self.periodic = periodic

    @property
    def features(self) -> int:
        return self.taps.shape[0]

    @property
    def reach(self) -> int:
        """Half-width of the local convolution in tokens."""
        return self.taps.shape[1] // 2

    @property
    def mix_scattered(self) -> Float[Array, "features features"]:
        """W_in diag(actnorm scale): how a change of h enters the mixer."""
        return self.mix_in * self.act_scale

    def split(self, phi: Stream) -> tuple[Stream, Stream]:
        """Convolution inputs ``a`` and gates ``D`` of each token, from that token alone."""
        normed = layer_norm(phi, self.norm_scale, self.norm_shift)
        both = self.dense @ normed + self.dense_bias[:, None]
        return both[: self.features], jax.nn.silu(both[self.features :])

    def local(self, phi: Stream) -> LocalFeatures:
        inputs, gates = self.split(phi)
        convolved = self.taps_bias[:, None] + sum(
            self.taps[:, tap, None] * self._neighbour(inputs, tap - self.reach)
            for tap in range(self.taps.shape[1])
        )
        return LocalFeatures(inputs, convolved, jax.nn.silu(convolved), gates)

    def propagate(self, u: Stream) -> Stream:
        """``y = G u``: every channel with its own kernel, both directions."""
        n_tokens = u.shape[1]
        kernel = self.mixer.kernel(jnp.arange(n_tokens), n_tokens, periodic=self.periodic)
        if self.periodic:
            return jax.vmap(circulant_matvec)(kernel, u)
        return jax.vmap(toeplitz_matvec)(kernel, kernel, u)

    def driven(self, h: Stream, sources: Stream) -> Stream:
        """``u = W_in actnorm(h) + c``: what enters the mixer."""
        normed = (h - self.act_shift[:, None]) * self.act_scale[:, None]
        return self.mix_in @ normed + sources

    def mixed(self, h: Stream, sources: Stream) -> Stream:
        """``W_out G u``: what the gates multiply."""
        return self.mix_out @ self.propagate(self.driven(h, sources))

    def __call__(self, phi: Stream, h: Stream) -> tuple[Stream, Stream]:
        local = self.local(phi)
        return phi + local.sources, h + local.gates * self.mixed(h, local.sources)

    def normalised_to(self, h: Float[Array, "samples features tokens"]) -> "Block":
        """The same block with its actnorm set to give ``h`` zero mean and unit variance."""
        scale = 1 / (jnp.std(h, axis=(0, 2)) + 1e-6)
        where = lambda block: (block.act_scale, block.act_shift)
        return eqx.tree_at(where, self, (scale, jnp.mean(h, axis=(0, 2))))

    def _neighbour(self, x: Stream, offset: int) -> Stream:
        """``x[:, t + offset]``, around the ring or zero beyond the ends of an open chain."""
        if self.periodic:
            return jnp.roll(x, -offset, axis=1)
        n = x.shape[1]
        padded = jnp.pad(x, ((0, 0), (self.reach, self.reach)))
        return jax.lax.slice_in_dim(padded, self.reach + offset, self.reach + offset + n, axis=1)
