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
O(tokens * features^2 * bandwidth * (chunk + waves)), whatever the factors of the number of tokens.
Source: the low-rank off-diagonal blocks of Proposition 3 of arXiv:2603.11189, for the product of
Theorem 1.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dyson.abacus.links.offsets import Chain
from dyson.mixers import Mixer
from dyson.networks import Block
from dyson.networks.blocks import Stream

# Tokens of a chunk.  Fewer: more waves to hop; more: larger products, with matrices that every
# configuration reads anew.  On short chains that is dearer than hops: then chunks are half as long.
CHUNK = 16
SHORT_CHAIN = 144

# One array (features, features, tokens) per offset -bandwidth..bandwidth.
Band = tuple[Array, ...]

# A number, or the real and the imaginary part of one: XLA on the CPU takes twice as long for
# products of complex numbers.
Parts = tuple[Array, ...]


class Ring(NamedTuple):
    """How waves (a, b, waves) close on a ring whose last chunk may be incomplete."""

    turn: Parts  # 1 - pole^n
    last: Parts  # pole^(tokens of the last chunk)
    # (a, b, chunk, parts): of the chunk that waves pass last on their way once around
    last_sums: tuple[Array, Array]


class Hops(NamedTuple):
    """How waves get from chunk to chunk."""

    pole: Parts  # over one chunk, (a, b, waves)
    # (a, b, chunk, parts): from the tokens of a chunk to its right end, and to its left end
    sums: tuple[Array, Array]
    ring: Ring | None


class LinkTables(eqx.Module):
    """What the links of two blocks owe to the mixers.

    response: per offset (a, b, inputs, chunk), what window and waves do at the tokens of a chunk.
    A chain no larger than a window is one chunk: then hops is None.
    """

    response: tuple[Array, ...]
    hops: Hops | None
    chain: Chain
    bandwidth: int = eqx.field(static=True)

    @property
    def chunk(self) -> int:
        """Tokens of a chunk."""
        return self.response[0].shape[-1]


class Lags(NamedTuple):
    """What the mixer of a block does over all distances that occur.

    kernel: at the lags 0, 1, ...   near, far: powers at these lags and at n minus them; no ``far``
    on an open chain.   weights: of the waves, closed around a ring.
    """

    kernel: Array  # (features, lags)
    near: Array  # (features, modes, lags)
    far: Array | None
    weights: Array  # (features, modes)


def lags_of(mixer: Mixer, chain: Chain, bandwidth: int) -> Lags:
    """As far as links of this bandwidth need."""
    n, chunk = chain.n_tokens, chunk_length(chain.n_tokens, bandwidth)
    lags = jnp.arange(n + bandwidth if chunk == n else chunk + 2 * bandwidth + 1)
    # beyond an open chain there is nothing to multiply a kernel with
    inside = lags % n if chain.periodic else jnp.minimum(lags, n - 1)
    weights = mixer.exponentials().weights
    if not chain.periodic:
        near = mixer.powers(inside)
        return Lags(mixer.kernel_from(inside, near), near, None, weights)
    near, far, turns = mixer.powers_around(inside, n)
    kernel = mixer.kernel_from(inside, turns * (near + far))
    return Lags(kernel, near, far, turns[..., 0] * weights)


def chunk_length(n_tokens: int, bandwidth: int) -> int:
    """Tokens of a chunk; all of them where a window would not be shorter, or reach two chunks."""
    short = n_tokens <= SHORT_CHAIN and 4 * bandwidth <= CHUNK
    chunk = CHUNK // 2 if short else CHUNK
    return n_tokens if n_tokens <= chunk + 2 * bandwidth or chunk < 2 * bandwidth else chunk


def link_tables(first: Lags, second: Lags, chain: Chain, bandwidth: int) -> LinkTables:
    """O(features^2 * bandwidth * chunk^2), without any configuration."""
    n, chunk = chain.n_tokens, chunk_length(chain.n_tokens, bandwidth)
    offsets = np.arange(-bandwidth, bandwidth + 1)

    def near(lags: np.ndarray) -> Array:
        """``G2_a(r) G1_b(r + d)``, (d, a, b, window, token); kernels are even."""
        shifted = np.abs(lags + offsets[:, None, None])
        to, into = second.kernel[:, np.abs(lags)], first.kernel[:, shifted]
        return to[:, None] * jnp.swapaxes(into, 0, 1)[:, None]

    if chunk == n:
        lags = np.arange(n) - np.arange(n)[:, None]
        return LinkTables(tuple(near(lags)), None, chain, bandwidth)
    waves = _waves(first, second, chunk, bandwidth)
    response = near(np.arange(chunk) + bandwidth - np.arange(chunk + 2 * bandwidth)[:, None])
    acting = waves.acting.reshape(len(offsets), *response.shape[1:3], -1, chunk)
    if waves.around is not None:
        # (.., window, waves): what the window of a chunk itself sends once around; it counts once,
        # with its kernels
        again = _real(waves.around[:, :, 1:])
        again = jnp.concatenate([again, again[:, :, ::-1]], axis=-1)
        response = response - jnp.einsum("abwi,dabit->dabwt", again, acting)
    response = jnp.concatenate([response, acting], axis=3)
    return LinkTables(tuple(response), _hops(waves, n), chain, bandwidth)


def neighbour_links(tables: LinkTables, first: Block, second: Block, gates: Stream) -> Band:
    """The band of ``G2 W~2 D0 W_out G1`` between two successive blocks, D0 = ``gates``.

    One array per offset d in -bandwidth..bandwidth, entry [a, b, i] takes a source in channel b of
    ``first`` at token i + d to y in channel a of ``second`` at token i.
    """
    chain, hops = tables.chain, tables.hops
    # [a, b] in one row per pair, so that the medium is one matrix product
    couplings = second.mix_scattered[:, None] * first.mix_out.T
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
            band = jnp.where((source >= 0) & (source < chain.n_tokens), band, 0)
        bands.append(band)
    return tuple(bands)


def _framed(tables: LinkTables, gates: Stream) -> Stream:
    """Tokens from a halo before the chain on, as far as the windows of chunks reach that fill the
    rows of the links; beyond an open chain is nothing."""
    chain, halo, chunk = tables.chain, tables.bandwidth, tables.chunk
    filled = -(-chain.width // chunk) * chunk
    around = ((0, 0), (halo, filled + halo - chain.n_tokens))
    framed = jnp.pad(gates, around, mode="wrap" if chain.periodic else "constant")
    return jnp.pad(framed, ((0, 0), (0, chunk - 2 * halo)))


def _inputs(tables: LinkTables, hops: Hops, medium: Array) -> Array:
    """Windows of the chunks and the waves that arrive there: (a, b, chunks, inputs)."""
    halo, chunk = tables.bandwidth, tables.chunk
    chunks = -(-tables.chain.n_tokens // chunk)
    split = medium.reshape(*medium.shape[:2], -1, chunk)
    near = jnp.concatenate([split[:, :, :-1], split[:, :, 1:, : 2 * halo]], axis=-1)
    # Seen from the left the chain begins a halo early, so that its chunks end where windows begin;
    # seen from the right, a halo late.
    from_left = split[:, :, :chunks]
    from_right = medium[..., 2 * halo : 2 * halo + chunk * chunks].reshape(from_left.shape)
    waves = _arriving(hops, 0, from_left) + _arriving(hops, 1, from_right)
    waves = jnp.moveaxis(jnp.concatenate(waves, axis=-1), 0, 2)
    waves = jnp.pad(waves, ((0, 0), (0, 0), (0, near.shape[2] - chunks), (0, 0)))
    return jnp.concatenate([near, waves], axis=-1)


def _arriving(hops: Hops, side: int, tokens: Array) -> Parts:
    """Waves that arrive at every chunk from all tokens to the left of it (side 0) or to the right
    (side 1); on a ring, from all tokens on their way once around: (chunks, a, b, waves)."""

    def sums(tokens: Array, tables: tuple[Array, Array]) -> Parts:
        """Of the tokens of every chunk."""
        of_chunks = jnp.einsum("abct,abtf->abcf", tokens, tables[side])
        return tuple(jnp.split(jnp.moveaxis(of_chunks, 2, 0), len(hops.pole), axis=-1))

    def hop(waves: Parts, sent: Parts) -> tuple[Parts, Parts]:
        """Over a chunk: what leaves it, and what has arrived."""
        return _sum(_product(hops.pole, waves), sent), waves

    sent = sums(tokens, hops.sums)
    waves = tuple(jnp.zeros_like(x[0]) for x in sent)
    if hops.ring is not None:
        # what has gone once around when it arrives at the first chunk; from then on, what a chunk
        # sends replaces what it has sent once around
        passed = tuple(x[1:] if side else x[:-1] for x in sent)
        waves, _ = jax.lax.scan(lambda *x: (hop(*x)[0], None), waves, passed, reverse=bool(side))
        last = sums(tokens[:, :, :1] if side else tokens[:, :, -1:], hops.ring.last_sums)
        waves = _sum(_product(hops.ring.last, waves), tuple(x[0] for x in last))
        sent = _product(hops.ring.turn, sent)
    return jax.lax.scan(hop, waves, sent, reverse=bool(side))[1]


def _product(first: Parts, second: Parts) -> Parts:
    """Of numbers given by their parts."""
    if len(first) == 1:
        return (first[0] * second[0],)
    (x, y), (u, v) = first, second
    return x * u - y * v, x * v + y * u


def _sum(first: Parts, second: Parts) -> Parts:
    return tuple(map(jnp.add, first, second))


class _Waves(NamedTuple):
    """Of the waves that arrive at a chunk of links.

    powers: pole^r for r = 0, 1, ..   around: pole^(n - r), on a ring.  Both (a, b, r, waves).
    acting: what they do at the tokens of a chunk, (offsets, a, b, directions, parts, waves, chunk).
    """

    powers: Array
    around: Array | None
    acting: Array


def _hops(waves: _Waves, n_tokens: int) -> Hops:
    chunk = waves.acting.shape[-1]
    falling, pole = waves.powers[:, :, :chunk], waves.powers[:, :, chunk]
    rising = falling[:, :, ::-1]
    sums = _real(rising), _real(falling)
    if waves.around is None:
        return Hops(_parts(pole), sums, None)
    spare = -n_tokens % chunk
    nothing = jnp.zeros_like(falling[:, :, :spare])
    last_sums = (
        jnp.concatenate([rising[:, :, spare:], nothing], axis=2),
        jnp.concatenate([nothing, falling[:, :, : chunk - spare]], axis=2),
    )
    ring = Ring(
        turn=_parts(1 - waves.around[:, :, 0]),
        last=_parts(waves.powers[:, :, chunk - spare]),
        last_sums=(_real(last_sums[0]), _real(last_sums[1])),
    )
    return Hops(_parts(pole), sums, ring)


def _waves(first: Lags, second: Lags, chunk: int, halo: int) -> _Waves:
    """From the left a wave starts at the first token beyond the halo, a distance u from a token of
    the chunk; from the right, v."""
    u, v = np.arange(chunk) + halo + 1, chunk + halo - np.arange(chunk)
    shift = np.arange(-halo, halo + 1)[:, None]
    # lags to the tokens, and from the sources at every offset: (directions, offsets, chunk)
    to, into = np.stack([u, v])[:, None], np.stack([u + shift, v - shift])

    first = _with_conjugates(first)
    # products have the axes (a, b, m, m', ..)
    of_second = lambda x: x[:, None, :, None]
    of_first = lambda x: x[None, :, None]
    near2, near1 = of_second(second.near), of_first(first.near)
    c2, c1 = of_second(second.weights[..., None]), of_first(first.weights[..., None])

    def action(power2: Array, power1: Array) -> Array:
        return (c2 * power2)[..., to] * (c1 * power1)[..., into]

    powers, around, acting = [near2 * near1], [], [action(near2, near1)]
    if second.far is not None and first.far is not None:
        far2, far1 = of_second(second.far), of_first(first.far)
        falls = jnp.abs(near2[..., 1:2]) <= jnp.abs(near1[..., 1:2])

        def ratio(power2: Array, power1: Array) -> Array:
            """Of the smaller pole and the larger."""
            small, large = jnp.where(falls, power2, power1), jnp.where(falls, power1, power2)
            # where the power of the larger one vanishes, so does all that it is multiplied with
            gone = jnp.abs(large) < jnp.finfo(large.dtype).tiny ** 0.5
            return jnp.where(gone, 0, small / jnp.where(gone, 1, large))

        # lambda2^r lambda1^(n-r) and lambda2^(n-r) lambda1^r with r = i - k modulo n
        powers.append(ratio(near2, near1))
        around = [far2 * far1, ratio(far2, far1)]
        act = jnp.where(falls[..., None, None], action(near2, far1), action(far2, near1))
        acting.append(act)

    def waves(arrays: list[Array]) -> Array:
        """(.., a, b, waves)."""
        flat = [x.reshape(*x.shape[:2], -1, *x.shape[4:]) for x in arrays]
        return jnp.moveaxis(jnp.concatenate(flat, axis=2), (0, 1, 2), (-3, -2, -1))

    acts = waves(acting)
    # the real part of what waves do, for their amplitudes as real numbers
    parts = _parts(jnp.conj(acts))
    return _Waves(
        jnp.moveaxis(waves(powers), 0, 2),
        jnp.moveaxis(waves(around), 0, 2) if around else None,
        # from (parts, directions, offsets, chunk, a, b, waves)
        jnp.transpose(jnp.stack(parts), (2, 4, 5, 1, 0, 6, 3)),
    )


def _with_conjugates(lags: Lags) -> Lags:
    """Complex modes in pairs: Re x Re y = Re x (y + y*) / 2."""
    if not jnp.iscomplexobj(lags.near):
        return lags
    both = lambda x: jnp.concatenate([x, jnp.conj(x)], axis=1)
    far = None if lags.far is None else both(lags.far)
    return Lags(lags.kernel, both(lags.near), far, both(lags.weights / 2))


def _parts(x: Array) -> Parts:
    return (jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else (x,)


def _real(waves: Array) -> Array:
    """Amplitudes (.., waves) as real numbers: all real parts, then all imaginary ones."""
    return jnp.concatenate(_parts(waves), axis=-1)
