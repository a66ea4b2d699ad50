"""Link tensors between two successive blocks: a few matrix products per chunk of tokens.

For channels a of the second block and b of the first, a diagonal of the link is a convolution

    Lambda_ab(i, i + d) = sum_k G2_a(i - k) G1_b(i + d - k) M_ab(k),
    M(k) = W~2 diag(D0(k)) W_out.

Tokens are taken in chunks.  What lies within a halo of ``bandwidth`` around a chunk enters with the
kernels themselves.  What lies further enters through the waves that arrive at the chunk, because
a product of two exponentials is one: from either side the wave of pole lambda2 lambda1, and on a
ring also what has gone round between the two blocks, lambda2^r lambda1^(n-r), a wave whose pole is
the ratio of the two poles, the smaller over the larger.  No power that occurs exceeds one in
modulus.

The waves hop from chunk to chunk; all else is a matrix product per pair of channels, with a matrix
that depends on the mixers alone: ``link_tables``, made once for all configurations.
O(tokens * features^2 * bandwidth * (CHUNK + waves)), whatever the factors of the number of tokens.
Source: the low-rank off-diagonal blocks of Proposition 3 of arXiv:2603.11189, for the product of
Theorem 1.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dyson.abacus.windows import Chain
from dyson.mixers import Mixer
from dyson.networks import Block
from dyson.networks.blocks import Stream

# Tokens of a chunk.  Fewer: more waves to hop; more: larger products.
CHUNK = 16

# One array (features, features, tokens) per offset -bandwidth..bandwidth.
Band = tuple[Array, ...]


class Ring(NamedTuple):
    """How waves (a, b, .., waves) close on a ring whose last chunk may be incomplete."""

    turn: Array  # 1 - pole^n
    left: Array  # (.., chunks, waves): once around and on from the start of the ring to a chunk
    right: Array  # the same from the other side
    last: Array  # pole^(tokens of the last chunk)
    last_sums: Array  # (.., CHUNK, waves): to the end of the ring from its last chunk
    first_sums: Array  # to where the window of the last chunk ends, from the first chunk
    end_sums: Array  # to the start of the last chunk from the tokens in it


class Hops(NamedTuple):
    """How waves get from chunk to chunk."""

    pole: Array  # over one chunk
    left_sums: Array  # (.., CHUNK, waves): to the end of a chunk from sources within
    right_sums: Array
    ring: Ring | None


class LinkTables(eqx.Module):
    """What the links of two blocks owe to the mixers.

    response: per offset (a, b, inputs, CHUNK), what window and waves do at the tokens of a chunk.
    A chain no larger than a window is one chunk: then hops is None.
    """

    response: tuple[Array, ...]
    hops: Hops | None
    chain: Chain
    bandwidth: int = eqx.field(static=True)


class Lags(NamedTuple):
    """What the mixer of a block does over all distances that occur.

    kernel, powers: at the lags 0, 1, ...   around: powers at the lags n, n - 1, ...; nothing needs
    them beyond an open chain.   weights: of the waves, closed around a ring.
    """

    kernel: Array  # (features, lags)
    powers: Array  # (features, modes, lags)
    around: Array
    weights: Array  # (features, modes)


def lags_of(mixer: Mixer, chain: Chain, bandwidth: int) -> Lags:
    """As far as links of this bandwidth need."""
    n = chain.n_tokens
    longest = n - 1 + bandwidth if _in_one_chunk(n, bandwidth) else CHUNK + 2 * bandwidth
    lags = jnp.arange(longest + 1)
    # beyond an open chain there is nothing to multiply a kernel with
    inside = lags % n if chain.periodic else jnp.minimum(lags, n - 1)
    weights = mixer.exponentials().weights
    both = mixer.powers(jnp.concatenate([lags, jnp.maximum(n - lags, 0)]))
    powers, around = jnp.split(both, 2, axis=-1)
    return Lags(
        mixer.kernel(inside, n, periodic=chain.periodic),
        powers,
        around,
        weights / (1 - around[..., 0]) if chain.periodic else weights,
    )


def _in_one_chunk(n: int, bandwidth: int) -> bool:
    return n <= CHUNK + 2 * bandwidth or CHUNK < 2 * bandwidth


def link_tables(first: Lags, second: Lags, chain: Chain, bandwidth: int) -> LinkTables:
    """O(features^2 * bandwidth * CHUNK^2), without any configuration."""
    n, width, offsets = chain.n_tokens, CHUNK + 2 * bandwidth, np.arange(-bandwidth, bandwidth + 1)

    def near(lags: np.ndarray) -> Array:
        """``G2_a(r) G1_b(r + d)``, (d, a, b, window, token); kernels are even."""
        shifted = np.abs(lags + offsets[:, None, None])
        to, into = second.kernel[:, np.abs(lags)], first.kernel[:, shifted]
        return to[:, None] * jnp.swapaxes(into, 0, 1)[:, None]

    if _in_one_chunk(n, bandwidth):
        lags = np.arange(n) - np.arange(n)[:, None]
        return LinkTables(tuple(near(lags)), None, chain, bandwidth)
    poles, left, right = _waves(first, second, chain, bandwidth)
    hops = _hops(poles, chain)
    response = near(np.arange(CHUNK) + bandwidth - np.arange(width)[:, None])
    acting = jnp.concatenate([*_acting(left), *_acting(right)], axis=2)
    acting = jnp.moveaxis(acting, 3, 0)  # (d, a, b, waves, token)
    if hops.ring is not None:
        # (.., window, waves): what the window of a chunk itself sends once around; it counts once,
        # with its kernels
        again = jax.lax.integer_pow(poles, n - width)[..., None] * _powers(poles, width)
        again = jnp.swapaxes(again, -1, -2)
        again = jnp.concatenate([*_parts(again[..., ::-1, :]), *_parts(again)], axis=-1)
        response = response - jnp.einsum("abwi,dabit->dabwt", again, acting)
    response = jnp.concatenate([response, acting], axis=3)
    return LinkTables(tuple(response), hops, chain, bandwidth)


def link_inputs(blocks: tuple[Block, ...], bandwidth: int) -> int:
    """Numbers that arrive at a chunk of a ring: its window and the waves from either side."""
    weights = [block.mixer.exponentials().weights for block in blocks]
    pairs = weights[0].shape[1] * weights[1].shape[1]
    return CHUNK + 2 * bandwidth + 4 * pairs * (4 if jnp.iscomplexobj(weights[0]) else 1)


def neighbour_links(tables: LinkTables, first: Block, second: Block, gates: Stream) -> Band:
    """The band of ``G2 W~2 D0 W_out G1`` between two successive blocks, D0 = ``gates``.

    One array per offset d in -bandwidth..bandwidth, entry [a, b, i] takes a source in channel b of
    ``first`` at token i + d to y in channel a of ``second`` at token i.
    """
    chain, n = tables.chain, tables.chain.n_tokens
    # [a, b] in one row per pair, so that the medium is one matrix product
    couplings = second.mix_scattered[:, None] * first.mix_out.T

    hops = tables.hops
    framed = gates if hops is None else _framed(tables, gates)
    medium = couplings.reshape(-1, gates.shape[0]) @ framed
    medium = medium.reshape(*couplings.shape[:2], -1)
    inputs = medium[:, :, None] if hops is None else _inputs(tables, hops, medium)
    bands = []
    for d, response in enumerate(tables.response, -tables.bandwidth):
        band = jnp.einsum("abcw,abwt->abct", inputs, response)
        band = chain.filled(band.reshape(*band.shape[:2], -1))
        if not chain.periodic:  # no source beyond the ends
            source = jnp.arange(chain.width) + d
            band = jnp.where((source >= 0) & (source < n), band, 0)
        bands.append(band)
    return tuple(bands)


def _framed(tables: LinkTables, gates: Stream) -> Stream:
    """Tokens from a halo before the chain on, as far as the windows of chunks reach that fill the
    rows of the links; beyond an open chain is nothing."""
    chain, halo = tables.chain, tables.bandwidth
    filled = -(-chain.width // CHUNK) * CHUNK
    around = ((0, 0), (halo, filled + halo - chain.n_tokens))
    framed = jnp.pad(gates, around, mode="wrap" if chain.periodic else "constant")
    return jnp.pad(framed, ((0, 0), (0, CHUNK - 2 * halo)))


def _inputs(tables: LinkTables, hops: Hops, medium: Array) -> Array:
    """Windows of the chunks and the waves that arrive there: (a, b, chunks, inputs)."""
    chunks, halo = -(-tables.chain.n_tokens // CHUNK), tables.bandwidth
    split = medium.reshape(*medium.shape[:2], -1, CHUNK)
    near = jnp.concatenate([split[:, :, :-1], split[:, :, 1:, : 2 * halo]], axis=-1)
    # Seen from the left the chain begins a halo early, so that its chunks end where windows begin;
    # seen from the right, a halo late.
    from_left = split[:, :, :chunks]
    shifted = medium[..., 2 * halo : 2 * halo + CHUNK * chunks].reshape(from_left.shape)
    left, right = _arriving(hops, from_left, shifted)
    waves = jnp.concatenate([*_parts(left), *_parts(right)], axis=-1)
    waves = jnp.pad(waves, ((0, 0), (0, 0), (0, near.shape[2] - chunks), (0, 0)))
    return jnp.concatenate([near, waves], axis=-1)


def _arriving(hops: Hops, from_left: Array, from_right: Array) -> tuple[Array, Array]:
    """Waves that arrive at every chunk from all tokens to the left, and to the right, of it:
    (a, b, chunks, waves); on a ring, from all tokens on their way once around."""
    left_sums, right_sums = _sums(from_left, hops.left_sums), _sums(from_right, hops.right_sums)
    if hops.ring is not None:  # behind the last chunk a ring begins again
        last = _sums(from_right[:, :, -1:], hops.ring.end_sums)
        right_sums = jnp.concatenate([right_sums[:, :, :-1], last], axis=2)

    def step(waves: tuple[Array, Array], sums: tuple[Array, Array]):
        (left, right), (left_sum, right_sum) = waves, sums
        return (hops.pole * left + left_sum, hops.pole * right + right_sum), waves

    by_chunk = jnp.moveaxis(left_sums, 2, 0), jnp.moveaxis(right_sums[:, :, ::-1], 2, 0)
    nothing = jnp.zeros_like(hops.pole)
    (_, total), (left, right) = jax.lax.scan(step, (nothing, nothing), by_chunk)
    left, right = jnp.moveaxis(left, 0, 2), jnp.moveaxis(right, 0, 2)[:, :, ::-1]
    if hops.ring is None:
        return left, right
    turn, ring = hops.ring.turn[:, :, None], hops.ring
    whole = ring.last * left[:, :, -1] + _sums(from_left[:, :, -1:], ring.last_sums)[:, :, 0]
    left = turn * left + ring.left * whole[:, :, None]
    end = ring.last * right[:, :, 0] + _sums(from_right[:, :, :1], ring.first_sums)[:, :, 0]
    right = jnp.concatenate([right[:, :, :-1], end[:, :, None]], axis=2)
    return left, turn * right + ring.right * total[:, :, None]


def _hops(poles: Array, chain: Chain) -> Hops:
    chunks = -(-chain.n_tokens // CHUNK)
    last = chain.n_tokens - (chunks - 1) * CHUNK
    powers = jnp.swapaxes(_powers(poles, CHUNK + 1), -1, -2)  # (a, b, r, waves)
    falling, rising = powers[:, :, :CHUNK], powers[:, :, CHUNK - 1 :: -1]
    pole = powers[:, :, CHUNK]
    if not chain.periodic:
        return Hops(pole, rising, falling, None)
    left = jnp.swapaxes(_powers(pole, chunks), -1, -2)
    # chunk c but the last ends last + CHUNK (chunks - 2 - c) before the end of the ring, the window
    # of the last one as much past its start
    before = powers[:, :, last, None] * left[:, :, : chunks - 1][:, :, ::-1]
    past = jax.lax.integer_pow(poles, chain.n_tokens - (CHUNK - last))[:, :, None]
    nothing = jnp.zeros_like(falling[:, :, : CHUNK - last])
    ring = Ring(
        turn=1 - jax.lax.integer_pow(poles, chain.n_tokens),
        left=left,
        right=jnp.concatenate([before, past], axis=2),
        last=powers[:, :, last],
        last_sums=jnp.concatenate([rising[:, :, CHUNK - last :], nothing], axis=2),
        first_sums=jnp.concatenate([nothing, falling[:, :, :last]], axis=2),
        end_sums=jnp.concatenate([falling[:, :, :last], nothing], axis=2),
    )
    return Hops(pole, rising, falling, ring)


def _waves(first: Lags, second: Lags, chain: Chain, halo: int) -> tuple[Array, Array, Array]:
    """Poles (a, b, waves) of the waves that arrive at a chunk, and what they do at its tokens when
    they come from the left and from the right, (a, b, waves, offsets, CHUNK).

    From the left a wave starts at the first token beyond the halo, a distance u from a token of the
    chunk; from the right, v.
    """
    u, v = np.arange(CHUNK) + halo + 1, CHUNK + halo - np.arange(CHUNK)
    shift = np.arange(-halo, halo + 1)[:, None]

    def whole(x: Array) -> Array:
        """Re x Re y = Re x (y + y*) / 2: complex modes of the first block come in pairs."""
        return jnp.concatenate([x, jnp.conj(x)], axis=1) if jnp.iscomplexobj(x) else x

    first = Lags(*map(whole, first))
    c1, c2 = first.weights, second.weights
    c1 = c1 / 2 if jnp.iscomplexobj(c1) else c1

    def product(x: Array, y: Array) -> Array:
        """Of (a, m, ..) and (b, m', ..): (a, b, m m', ..)."""
        both = x[:, None, :, None] * y[None, :, None]
        return both.reshape(*both.shape[:2], -1, *both.shape[4:])

    def action(powers2: Array, powers1: Array) -> Array:
        x = c2[..., None] * powers2
        return product(x[..., None, :], c1[..., None, None] * powers1)

    poles2, poles1 = second.powers[..., 1], first.powers[..., 1]
    poles = product(poles2, poles1)
    left = action(second.powers[..., u], first.powers[..., u + shift])
    right = action(second.powers[..., v], first.powers[..., v - shift])
    if not chain.periodic:
        return poles, left, right
    # lambda2^r lambda1^(n-r) and lambda2^(n-r) lambda1^r with r = i - k modulo n; r = u or n - v
    slower, faster = product(poles2, jnp.ones_like(poles1)), product(jnp.ones_like(poles2), poles1)
    falls = jnp.abs(slower) <= jnp.abs(faster)
    small, large = jnp.where(falls, slower, faster), jnp.where(falls, faster, slower)
    ratio = jnp.where(small == 0, 0, small / jnp.where(large == 0, 1, large))
    falls = falls[..., None, None]
    around_left = jnp.where(
        falls,
        action(second.powers[..., u], first.around[..., u + shift]),
        action(second.around[..., u], first.powers[..., u + shift]),
    )
    around_right = jnp.where(
        falls,
        action(second.powers[..., v], first.around[..., v - shift]),
        action(second.around[..., v], first.powers[..., v - shift]),
    )
    return (
        jnp.concatenate([poles, ratio], axis=2),
        jnp.concatenate([left, around_left], axis=2),
        jnp.concatenate([right, around_right], axis=2),
    )


def _powers(base: Array, count: int) -> Array:
    """``base^r`` for r = 0 .. count - 1 on a new last axis, by doubling: much cheaper than as many
    logarithms, and as accurate, about r roundings."""
    table = jnp.ones_like(base)[..., None]
    while table.shape[-1] < count:
        table = jnp.concatenate([table, table * base[..., None]], axis=-1)
        base = base * base
    return table[..., :count]


def _parts(waves: Array) -> list[Array]:
    """Amplitudes as real numbers."""
    return [jnp.real(waves), jnp.imag(waves)] if jnp.iscomplexobj(waves) else [waves]


def _acting(action: Array) -> list[Array]:
    """The real part of what waves do, for their amplitudes as real numbers."""
    return [jnp.real(action), -jnp.imag(action)] if jnp.iscomplexobj(action) else [action]


def _sums(values: Array, table: Array) -> Array:
    """``sum_t values[a, b, c, t] table[a, b, t, f]``, one real product also for complex waves."""
    waves = table.shape[-1]
    sums = jnp.einsum("abct,abtf->abcf", values, jnp.concatenate(_parts(table), axis=-1))
    if not jnp.iscomplexobj(table):
        return sums
    return jax.lax.complex(sums[..., :waves], sums[..., waves:])
