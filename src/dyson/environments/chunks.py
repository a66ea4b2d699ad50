"""A mixer along the whole chain, chunk by chunk: O(n) for every number of tokens, no transform."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.environments.medium import (
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
)

# Tokens of a chunk.  Fewer: more waves to hand on; more: larger products.
CHUNK = 16


class Chunks(eqx.Module):
    """The transfers along the chunks of a chain, the last of which may be shorter.

    lengths: lambda^(length), stacked over the number of chunks passed, from 0 on.
    turn: 1 / (1 - lambda^n) on a ring; zero on an open chain, where no wave comes around.
    """

    whole: Transfer
    last: Transfer
    lengths: Float[Array, "chunks parts features modes"]
    turn: Phase

    def __call__(self, u: Float[Array, "features *rows tokens"]) -> Array:
        """``y = G u`` of one row or many; O(features * rows * tokens * (CHUNK + waves))."""
        n, size, count = u.shape[-1], self.whole.slots, self.lengths.shape[0]
        filled = jnp.pad(u.reshape(u.shape[0], -1, n), ((0, 0), (0, 0), (0, count * size - n)))
        chunks = filled.reshape(*filled.shape[:2], count, size)

        def sent(x: Array, outputs: slice) -> Array:
            """Through the transfer of every chunk: (features, rows, chunks, outputs)."""
            along = lambda transfer, x: jnp.einsum(  # noqa: E731
                "foi,f...i->f...o", transfer.matrix[:, outputs, : x.shape[-1]], x
            )
            y = along(self.whole, x)
            return y if count * size == n else y.at[:, :, -1].set(along(self.last, x[:, :, -1]))

        arriving = self._arriving(sent(chunks, slice(size, None)))
        y = sent(jnp.concatenate([chunks, arriving], axis=3), slice(size))
        return y.reshape(*u.shape[:-1], -1)[..., :n]

    def _arriving(self, out: Float[Array, "features rows chunks waves"]) -> Array:
        """Waves that arrive at every chunk, from those that leave every chunk."""
        count, rows = self.lengths.shape[0], out.shape[1]
        sent = numbered(jnp.moveaxis(out, (3, 2), (1, 2)), self.turn)  # (waves, chunks, rows)
        right, left = jnp.moveaxis(sent.reshape(2, -1, count, rows), 2, 1)
        through, last = self.whole.through, self.last.through

        def step(waves: tuple[Array, Array], sent: tuple[Array, Array]):
            (f, g), (more_f, more_g) = waves, sent
            return (passed(through, f) + more_f, passed(through, g) + more_g), waves

        nothing = jnp.zeros_like(right[0])
        (f, g), (f_in, g_in) = jax.lax.scan(step, (nothing, nothing), (right[:-1], left[:0:-1]))
        # all that leaves either end of the chain comes around any number of times
        f_turn = passed(self.turn, passed(last, f) + right[-1])
        g_turn = passed(self.turn, passed(through, g) + left[0] if count > 1 else left[0])
        f_in = jnp.concatenate([f_in, f[None]]) + behind(self.lengths, f_turn)
        others = behind(self.lengths[:-1], passed(last, g_turn))
        g_in = jnp.concatenate([g_in, g[None]]) + jnp.concatenate([g_turn[None], others])
        arriving = jnp.concatenate([f_in, g_in[::-1]], axis=1)
        return jnp.transpose(by_channel(jnp.moveaxis(arriving, 1, 0), self.turn), (0, 3, 2, 1))


def chunks_of(medium: Medium) -> tuple[Chunks, ...]:
    """The mixers of all layers."""
    n_tokens, periodic = medium.n_tokens, medium.periodic
    size = min(CHUNK, n_tokens)
    count = -(-n_tokens // size)
    whole, last = transfers(medium, [size, n_tokens - (count - 1) * size], size)

    def phases(layer: Propagator) -> tuple[Array, Phase]:
        powers = layer.mixer.powers(jnp.append(size * jnp.arange(count), n_tokens))
        closing = 1 / (1 - powers[..., -1]) if periodic else jnp.zeros_like(powers[..., -1])
        lengths = jnp.moveaxis(parts(powers[..., :-1]), (2, 3), (0, 1))
        return lengths, jnp.moveaxis(parts(closing), -1, 0)

    each = zip(whole, last, for_each_layer(phases, medium.layers), strict=True)
    return tuple(Chunks(one, other, *more) for one, other, more in each)


def behind(phases: Array, wave: Array) -> Array:
    """One wave behind each of several phases."""
    return jax.vmap(lambda phase: passed(phase, wave))(phases)

