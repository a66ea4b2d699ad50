"""A mixer along the whole chain, chunk by chunk: O(n) for every number of tokens, no transform."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dyson.scattering.medium import (
    Medium,
    Phase,
    Propagator,
    Transfer,
    by_channel,
    for_each_layer,
    numbered,
    parts,
    passed,
    transfers,
    turn,
)

# Tokens of a chunk.  Fewer: more waves to hand on; more: larger products.  Up to half as many more
# where these divide the chain: then the last chunk is as long as all others.
CHUNK = 16


class Chunks(eqx.Module):
    """The transfers along the chunks of a chain, the last of which may be shorter.

    last: None if it is as long as all others.
    ends: lambda^(length) of the last chunk and of the first, where the waves of either direction
      leave the chain.
    around: what becomes of these waves until they arrive at each chunk, in their order, having gone
      around a ring any number of times; zero on an open chain.
    closing: 1 / (1 - lambda^n) on a ring, zero on an open chain.
    """

    whole: Transfer
    last: Transfer | None
    ends: Float[Array, "directions parts features modes"]
    around: Float[Array, "directions chunks parts features modes"]
    closing: Phase

    def filled(self, x: Float[Array, "*rows tokens"]) -> Array:
        """Rows that fill the last chunk, with zeros."""
        beyond = self.around.shape[1] * self.whole.slots - x.shape[-1]
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, beyond)])

    def __call__(self, u: Float[Array, "features *rows tokens"]) -> Array:
        """``y = G u`` of one row or many; O(features * rows * tokens * (CHUNK + waves)).

        Rows that fill the last chunk are spared two copies; what they hold behind the chain, where
        they vanish, means nothing in ``y``.
        """
        size, count = self.whole.slots, self.around.shape[1]
        chunks = self.filled(u).reshape(u.shape[0], -1, count, size)

        def sent(x: Array, outputs: slice) -> Array:
            """Through the transfer of every chunk: (features, rows, chunks, outputs)."""
            along = lambda transfer, x: jnp.einsum(
                "foi,f...i->f...o", transfer.matrix[:, outputs, : x.shape[-1]], x
            )
            y = along(self.whole, x)
            return y if self.last is None else y.at[:, :, -1].set(along(self.last, x[:, :, -1]))

        arriving = self._arriving(sent(chunks, slice(size, None)))
        y = sent(jnp.concatenate([chunks, arriving], axis=3), slice(size))
        return y.reshape(*u.shape[:-1], -1)[..., : u.shape[-1]]

    def _arriving(self, out: Float[Array, "features rows chunks waves"]) -> Array:
        """Waves that arrive at every chunk, from those that leave every chunk."""
        sent = numbered(jnp.moveaxis(out, (3, 2), (1, 2)), self.closing)  # (waves, chunks, rows)
        right, left = jnp.moveaxis(sent.reshape(2, -1, *sent.shape[1:]), 2, 1)
        sent = jnp.stack([right, left[::-1]], axis=1)  # chunks in the order in which waves pass

        def step(waves: Array, sent: Array) -> tuple[Array, Array]:
            return turn(self.whole.through, waves) + sent, waves

        last, arriving = jax.lax.scan(step, jnp.zeros_like(sent[0]), sent[:-1])
        arriving = jnp.concatenate([arriving, last[None]])
        leaving = jax.vmap(passed)(self.ends, last) + sent[-1]
        each_chunk = jax.vmap(passed, in_axes=(0, None))
        arriving = arriving + jax.vmap(each_chunk, out_axes=1)(self.around, leaving)
        arriving = jnp.concatenate([arriving[:, 0], arriving[::-1, 1]], axis=1)
        return jnp.transpose(by_channel(jnp.moveaxis(arriving, 1, 0), self.closing), (0, 3, 2, 1))


def chunks_of(medium: Medium) -> tuple[Chunks, ...]:
    """The mixers of all layers."""
    n_tokens, periodic = medium.n_tokens, medium.periodic
    even = (size for size in range(CHUNK, 3 * CHUNK // 2 + 1) if n_tokens % size == 0)
    size = min(next(even, CHUNK), n_tokens)
    count = -(-n_tokens // size)
    short = n_tokens - (count - 1) * size
    lengths = [size] if short == size else [size, short]
    whole, *last = transfers(medium, lengths, size)
    # tokens from either end of the chain to each chunk, in the order in which waves pass
    from_left = size * np.arange(count)
    from_right = np.append(0, short + from_left[:-1])
    distances = jnp.asarray([short, size, n_tokens, *from_left, *from_right])

    def phases(layer: Propagator) -> tuple[Array, Array, Phase]:
        powers = layer.mixer.powers(distances)
        ends, once, there = jnp.split(powers, [2, 3], axis=-1)
        closing = 1 / (1 - once) if periodic else jnp.zeros_like(once)
        together = parts(jnp.concatenate([ends, closing, closing * there], axis=-1))
        ends, closing, around = jnp.split(jnp.moveaxis(together, (2, 3), (0, 1)), [2, 3])
        return ends, around.reshape(2, count, *around.shape[1:]), closing[0]

    (last,) = last or [(None,) * len(whole)]
    each = zip(whole, last, for_each_layer(phases, medium.layers), strict=True)
    return tuple(Chunks(one, other, *more) for one, other, more in each)
