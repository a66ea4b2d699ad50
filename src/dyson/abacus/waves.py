"""Link tensors of every depth from the waves that run along the chain, in O(tokens).

Every mode of a kernel carries a wave in either direction.  With u the source of a mixer and y its
output, in each layer (poles and weights per mode, kappa the kernel at lag 0)

    f_{t+1} = pole (f_t + u_t),    g_{t-1} = pole (g_t + u_t),    y = sum weight (f + g) + kappa u

and the medium of the reference scatters waves of layer m into those of every later layer:

    u^(l)_t = sum_{m<l} M^(l,m)_t y^(m)_t,      M^(l,m)_t = W~^(l) diag(D0^(m)_t) W_out^(m).

A wave of layer m never excites a layer before m, so the multiple scattering ends after finitely
many terms and no matrix is inverted.  ``R_t``, what the tokens from t on send back to the left for
a wave that enters there, obeys for each pair of layers an elementwise recursion

    R_t^(l,m) = pole_l (R_{t+1}^(l,m) pole_m + terms from smaller gaps l - m),

solved gap after gap: these are the cores of the off-diagonal blocks of the links.  A ring is
unrolled to an infinite periodic chain, where the recursion closes by ``1/(1 - (pole_l pole_m)^T)``.
What the images of a source send around the ring arrives through the transfer matrix of one turn.

Arrays are token-first here: recursions run over the first axis, products over the last two.
Layers are numbered from 0.  Cost per token and pair of layers: O((features * modes)^3) for gaps of
two or more; the matrices are as exact as the arithmetic, for every wave, also undamped ones.
Source: the environments of a matrix product, carried over to Theorem 1 of arXiv:2603.11189.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.networks import Block
from dyson.networks.blocks import Stream

# One matrix per token for pairs of layers (to, from), or for one layer.
Pairs = dict[tuple[int, int], Array]
Waves = dict[int, Array]


class Modes(NamedTuple):
    """The modes of one mixer, channel after channel; complex ones with their conjugates."""

    powers: Array  # (tokens + 1, modes): pole^r
    weights: Array  # (modes,)
    instant: Array  # (features,): the kernel at lag 0 without images
    per_channel: int

    @property
    def poles(self) -> Array:
        return self.powers[1]

    def emit(self, u: Array) -> Array:
        """Sources (..., features, columns) to modes (..., modes, columns)."""
        return jnp.repeat(u, self.per_channel, axis=-2)

    def receive(self, waves: Array) -> Array:
        """Modes (..., modes, columns) to channels (..., features, columns)."""
        weighted = self.weights[:, None] * waves
        grouped = (-1, self.per_channel, waves.shape[-1])
        return jnp.sum(weighted.reshape(*waves.shape[:-2], *grouped), axis=-2)


def modes_of(block: Block, n_tokens: int, dtype) -> Modes:
    weights = block.mixer.exponentials().weights
    powers = block.mixer.powers(jnp.arange(n_tokens + 1))
    instant = block.mixer.local + jnp.real(jnp.sum(weights, axis=1))
    if jnp.iscomplexobj(weights):
        # Re z = (z + z*) / 2: with the conjugates the waves are linear in their amplitudes
        weights = jnp.concatenate([weights, jnp.conj(weights)], axis=1) / 2
        powers = jnp.concatenate([powers, jnp.conj(powers)], axis=1)
    flat = powers.reshape(-1, n_tokens + 1).T
    flat, vector, instant = (x.astype(dtype) for x in (flat, weights.reshape(-1), instant))
    return Modes(flat, vector, instant, weights.shape[1])


def links_by_waves(
    blocks: tuple[Block, ...], gates: list[Stream], widths: dict[tuple[int, int], int], *,
    periodic: bool,
) -> dict[tuple[int, int], tuple[Float[Array, "features features tokens"], ...]]:
    """The bands of all link tensors ``Lambda^(l,m)``, l > m.

    Arguments: the blocks with their gates (features, tokens) at the reference; ``widths[l, m]``,
    the largest offset wanted of each pair.

    Returns per pair one array per offset d in -width..width: entry [a, b, i] takes a source in
    channel b of layer m at token i + d to channel a of y of layer l at token i.
    """
    features, n_tokens = gates[0].shape
    dtype = jnp.result_type(*(b.mixer.exponentials().weights.dtype for b in blocks))
    modes = [modes_of(block, n_tokens, dtype) for block in blocks]
    medium = {
        (to, m): jnp.einsum(
            "ac,ct,cb->tab", blocks[to].mix_scattered, gates[m], blocks[m].mix_out
        ).astype(dtype)
        for to, m in widths
    }
    # Both directions of running at once: the second sees the chain in the mirror.
    both = {pair: jnp.stack([x, x[::-1]]) for pair, x in medium.items()}
    build = lambda m: _reflections(m, modes, periodic)  # noqa: E731
    reflections, transfers = jax.vmap(build)(both)
    here, sent = _emission(medium, reflections, modes, periodic)
    widest = max(widths.values())

    def run(medium, reflections, transfers, sent):
        walk = functools.partial(_walk, medium, reflections, modes, periodic)
        if not periodic:
            return walk(sent, 1, widest)[1], {}
        arriving = _from_images(transfers, modes, sent, n_tokens - 1 - widest)
        arrived, images = walk(arriving, -widest, 0)
        # from the source on its own waves and those of the images run together
        together = {to: sent[to] + arrived[to] for to in sent}
        return walk(together, 1, widest)[1], images

    # y of every layer with the steps from the source first: (2, steps, tokens, features, sources),
    # behind the source (steps -widest..0) of the waves from its images alone
    outward, images = jax.vmap(run)(both, reflections, transfers, sent)

    def band(target: int, source: int, step: int) -> Array:
        """y at token j + step of layer ``target`` for a source at token j of layer ``source``."""
        columns = slice(source * features, (source + 1) * features)
        if step == 0:
            field = here[target][..., columns]
        elif step > 0:
            field = outward[target][0, step - 1, ..., columns]
        else:
            field = outward[target][1, -step - 1, ::-1, :, columns]
        if periodic and step <= 0:
            field = field + images[target][0, widest + step, ..., columns]
        if periodic and step >= 0:
            field = field + images[target][1, widest - step, ::-1, :, columns]
        return _banded(jnp.real(field), step, n_tokens, periodic)

    return {
        (to, m): tuple(band(to, m, -offset) for offset in range(-width, width + 1))
        for (to, m), width in widths.items()
    }


def _banded(field: Array, step: int, n_tokens: int, periodic: bool) -> Array:
    """From sources j (tokens, a, b) to targets i = j + step: (a, b, tokens)."""
    field = jnp.moveaxis(jnp.roll(field, step, axis=0), 0, -1)
    if periodic:
        return field
    origin = jnp.arange(n_tokens) - step
    return jnp.where((origin >= 0) & (origin < n_tokens), field, 0)


def _next(x: Array, periodic: bool, steps: int = 1) -> Array:
    """``x[t + steps]``; nothing beyond the right end of an open chain."""
    shifted = jnp.roll(x, -steps, axis=0)
    if periodic:
        return shifted
    inside = jnp.arange(x.shape[0]) + steps < x.shape[0]
    return jnp.where(inside[:, None, None], shifted, 0)


def _reflections(medium: Pairs, modes: list[Modes], periodic: bool) -> tuple[Pairs, Pairs]:
    """Reflections R_t^(l,m) and transfers Theta_t^(l,m) of right-running waves, l > m.

    R_t: wave f of layer m at token t to the wave g of layer l that leaves token t to the left,
    in the half-infinite medium right of t.  Theta_t: f at token t to f at token t + 1.
    """
    reflections: Pairs = {}
    transfers: Pairs = {}
    for m in range(len(modes) - 2, -1, -1):
        incoming = jnp.eye(modes[m].poles.shape[0], dtype=modes[m].poles.dtype)
        outputs: Waves = {m: modes[m].receive(incoming)[None]}
        for to in range(m + 1, len(modes)):
            poles = modes[to].poles[:, None]
            u = _sum([medium[to, p] @ outputs[p] for p in range(m, to)])
            emitted = modes[to].emit(u)
            transfers[to, m] = poles * emitted
            returned = [
                _next(reflections[to, p], periodic) @ transfers[p, m] for p in range(m + 1, to)
            ]
            source = poles * _sum([emitted, *returned])
            reflections[to, m] = _recursion(source, modes[to], modes[m], periodic)
            through = _next(reflections[to, m], periodic) * modes[m].poles
            g = _sum([through, *returned])
            outputs[to] = modes[to].receive(g) + modes[to].instant[:, None] * u
    return reflections, transfers


def _recursion(source: Array, first: Modes, second: Modes, periodic: bool) -> Array:
    """``x_t = decay * x_{t+1} + source_t`` with decay = poles of both, zero or periodic at T."""
    decay = first.poles[:, None] * second.poles

    def step(x, s):
        x = decay * x + s
        return x, x

    first_turn, open_chain = jax.lax.scan(step, jnp.zeros_like(source[0]), source, reverse=True)
    if not periodic:
        return open_chain
    n_tokens = source.shape[0]
    a, b = (modes.powers[:0:-1] for modes in (first, second))
    closed = first_turn / (1 - first.powers[n_tokens][:, None] * second.powers[n_tokens])
    return open_chain + a[:, :, None] * b[:, None, :] * closed


def _product(transfers: Pairs, modes: list[Modes], length: int) -> Pairs:
    """``Theta_{t+length-1} .. Theta_t`` on a ring, all pairs l >= m, every t.

    Blocks of the given length begin at its multiples: every product is a suffix of one block times
    a prefix of the next, and both are elementwise recursions gap after gap.
    """
    n_tokens = next(iter(transfers.values())).shape[0]
    diagonal: Pairs = {(to, to): jnp.diag(x.powers[length])[None] for to, x in enumerate(modes)}
    if length == 0:
        return diagonal | {pair: jnp.zeros_like(x) for pair, x in transfers.items()}
    tokens = jnp.arange(n_tokens + length)
    begins = (tokens % length == 0)[:, None, None]
    run = {pair: x[tokens % n_tokens] for pair, x in transfers.items()}
    to_end, from_begin = -tokens % length, tokens % length
    # suffix[t] = Theta_{a-1} .. Theta_t up to the next multiple a >= t of the length;
    # prefix[t] = Theta_t .. Theta_b from the last multiple b <= t on
    suffix: Pairs = {}
    prefix: Pairs = {}
    product = diagonal
    for to, m in sorted(transfers, key=lambda pair: pair[0] - pair[1]):
        a, b = modes[to].poles[:, None], modes[m].poles
        after = modes[to].powers[(to_end - 1) % length][:, :, None] * run[to, m]
        inner = [jnp.roll(suffix[to, p], -1, axis=0) @ run[p, m] for p in range(m + 1, to)]
        suffix[to, m] = _block_sums(jnp.where(begins, 0, _sum([after, *inner])), b, begins, True)
        before = run[to, m] * modes[m].powers[from_begin][:, None, :]
        inner = [
            jnp.where(begins, 0, run[to, p] @ jnp.roll(prefix[p, m], 1, axis=0))
            for p in range(m + 1, to)
        ]
        prefix[to, m] = _block_sums(_sum([before, *inner]), a, begins, False)
        # a window that begins at t ends with token t + length - 1
        start, end = slice(0, n_tokens), slice(length - 1, length - 1 + n_tokens)
        head = modes[m].powers[to_end[start]][:, None, :]
        tail = modes[to].powers[-to_end[start] % length]
        terms = [prefix[to, m][end] * head, tail[:, :, None] * suffix[to, m][start]]
        terms += [prefix[to, p][end] @ suffix[p, m][start] for p in range(m + 1, to)]
        product[to, m] = _sum(terms)
    return product


def _block_sums(source: Array, decay: Array, begins: Array, reverse: bool) -> Array:
    """``x_t = decay * x_{t-1} + s_t`` that starts afresh where a block begins (or ``x_{t+1}``)."""

    def step(x, inputs):
        s, fresh = inputs
        x = s + jnp.where(fresh, 0, decay * x)
        return x, x

    return jax.lax.scan(step, jnp.zeros_like(source[0]), (source, begins), reverse=reverse)[1]


def _emission(
    medium: Pairs, reflections: Pairs, modes: list[Modes], periodic: bool
) -> tuple[Waves, Waves]:
    """Unit sources in every channel of every layer, each at its own token of the infinite chain.

    Returns y at that token, and the waves that leave it: to the right, and to the left in the
    mirror.  Per layer (tokens, features, sources) and (2, tokens, modes, sources); the sources in
    layers 0, 1, .. follow each other in the columns, as far as they reach the layer.
    """
    n_tokens = next(iter(medium.values())).shape[0]
    beyond = {
        pair: (_next(x[0], periodic), _next(x[1], periodic)[::-1])
        for pair, x in reflections.items()
    }
    right: Waves = {}
    left: Waves = {}
    outputs: Waves = {}
    for to, x in enumerate(modes):
        poles, features = x.poles[:, None], x.instant.shape[0]
        unit = jnp.eye(features, dtype=poles.dtype)
        unit = jnp.broadcast_to(unit, (n_tokens, features, features))
        f, g, u = [], [], []
        if to:
            g = [beyond[to, p][0] @ right[p] for p in range(to)]
            f = [beyond[to, p][1] @ left[p] for p in range(to)]
            u = [medium[to, p] @ outputs[p] for p in range(to)]
        if to < len(modes) - 1:  # a source in the last layer needs no link
            u.append(jnp.pad(unit, ((0, 0), (0, 0), (to * features, 0))))
        u = _sum(u)
        f, g = (_sum([*waves, jnp.zeros_like(x.emit(u))]) for waves in (f, g))
        outputs[to] = x.receive(f + g) + x.instant[:, None] * u
        right[to] = poles * (f + x.emit(u))
        left[to] = poles * (g + x.emit(u))
    return outputs, {to: jnp.stack([right[to], left[to][::-1]]) for to in right}


def _walk(
    medium: Pairs, reflections: Pairs, modes: list[Modes], periodic: bool, f: Waves, first: int,
    last: int,
) -> tuple[Waves, Waves]:
    """Follow the waves f that arrive at token j + first, for every j, to token j + last.

    A token of the medium sees the wave f and what the medium behind it reflects.

    Returns the waves that arrive at j + last + 1, and y at j + first .. j + last.
    """

    def one_token(carry, _):
        f, medium, reflections = carry
        onward: Waves = {}
        outputs: Waves = {}
        for to, x in enumerate(modes):
            waves, direct = f[to], []
            if to:
                u = _sum([medium[to, p] @ outputs[p] for p in range(to)])
                u = _widened(u, f[to].shape[-1])
                waves, direct = waves + x.emit(u), [x.instant[:, None] * u]
            onward[to] = x.poles[:, None] * waves
            g = [reflections[to, p] @ onward[p] for p in range(to)]
            outputs[to] = _sum([*direct, x.receive(_sum([f[to], *g]))])
        ahead = [{k: _next(x, periodic) for k, x in y.items()} for y in (medium, reflections)]
        return (onward, *ahead), outputs

    start = {pair: _next(x, periodic, first) for pair, x in medium.items()}
    behind = {pair: _next(x, periodic, first + 1) for pair, x in reflections.items()}
    carry = (f, start, behind)
    (f, _, _), fields = jax.lax.scan(one_token, carry, length=last - first + 1)
    return f, fields


def _from_images(transfers: Pairs, modes: list[Modes], sent: Waves, rest: int) -> Waves:
    """The waves f that all images left of a source send to the left end of its window.

    With Q the transfer of one turn, from the token right of the source: first the sum over turns,
    ``F = sent + Q F``, layer by layer, then the transfer over the ``rest`` tokens to the window.
    """
    n_tokens = modes[0].powers.shape[0] - 1
    turn, onward = (
        {pair: jnp.roll(x, -1, axis=0) for pair, x in _product(transfers, modes, length).items()}
        for length in (n_tokens, rest)
    )
    total: Waves = {}
    for to in sent:
        scattered = [turn[to, p] @ total[p] for p in range(to)]
        total[to] = _sum([sent[to], *scattered]) / (1 - modes[to].powers[n_tokens][:, None])
    return {to: _sum([onward[to, p] @ total[p] for p in range(to + 1)]) for to in total}


def _sum(terms: list[Array]) -> Array:
    """The sum of arrays whose last axes are filled up with zeros to the longest."""
    width = max(term.shape[-1] for term in terms)
    return functools.reduce(jnp.add, (_widened(term, width) for term in terms))


def _widened(x: Array, width: int) -> Array:
    missing = width - x.shape[-1]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) if missing else x
