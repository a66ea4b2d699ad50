"""A segment of a DysonNet as an affine scatterer of the waves that enter it.

Cut the chain anywhere: in every layer all that crosses the cut is one wave per mode and direction.
A segment therefore maps the waves entering at its two ends to the waves leaving there and to its
share of the pooled stream.  The map is affine, and strictly triangular in the layer index but for
the transmission lambda^length inside each layer: a wave of layer m excites layers l > m only, so
nothing is ever inverted and multiple scattering ends with the last layer (the truncated Dyson
series of arXiv:2603.11189).

Segments are made of stretches of tokens and joined end to end.  What lies outside an open chain is
a segment too, through which nothing passes.
"""

import functools

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.environments.medium import (
    Medium,
    Phase,
    Transfer,
    phase_of_length,
    shared_product,
    turn,
    turn_columns,
    turn_phase,
)


class Site(eqx.Module):
    """Tokens with their local features; leading axis features, last axis the batch.

    embedded: h^(0).   drives: per layer c + offset, what enters the mixer apart from h.
    gates: per layer D.  All zero is the vacuum, which transmits waves and does nothing else.
    """

    embedded: Float[Array, "features tokens batch"]
    drives: tuple[Float[Array, "features tokens batch"], ...]
    gates: tuple[Float[Array, "features tokens batch"], ...]


# By the direction in which waves leave and the end at which they enter: (batch, waves, lower).
Map = tuple[tuple[Array, Array], tuple[Array, Array]]


class Segment(eqx.Module):
    """Everything between two cuts.

    through: per layer the transmission lambda^length.
    maps[l][m][out][in], m < l: from the waves of layer m that enter at the left end (in = 0) or at
      the right end (1) to those of layer l that leave to the right (out = 0) or to the left (1).
    sent[l][out]: what leaves if nothing enters.
    pooled[m][in], pooled_sent: the same for the share of head @ sum_t h_t.

    Waves are numbered (parts, features, modes).  The batch comes first: to join two segments is to
    multiply matrices.  Numbers per batch entry with w waves, L layers and K outputs of the head:
    2 L (L-1) w^2 + 2 L (K + 1) w.
    """

    through: tuple[Phase, ...]
    maps: tuple[tuple[Map, ...], ...]
    sent: tuple[tuple[Float[Array, "batch waves 1"], Float[Array, "batch waves 1"]], ...]
    pooled: tuple[
        tuple[Float[Array, "batch outputs waves"], Float[Array, "batch outputs waves"]], ...
    ]
    pooled_sent: Float[Array, "batch outputs 1"]


def no_segment(medium: Medium, batch: int, *, outside: bool = False) -> Segment:
    """The segment without tokens, through which everything passes; or what lies ``outside`` an
    open chain, through which nothing does."""
    phases = [phase_of_length(layer, 0) * (0 if outside else 1) for layer in medium.layers]
    sizes = [phase.size for phase in phases]
    zeros = lambda *shape: jnp.zeros((batch, *shape), medium.head.dtype)  # noqa: E731
    both = lambda *shape: (zeros(*shape), zeros(*shape))  # noqa: E731
    outputs = medium.head.shape[0]
    return Segment(
        tuple(phases),
        tuple(
            tuple((both(size, lower), both(size, lower)) for lower in sizes[:index])
            for index, size in enumerate(sizes)
        ),
        tuple(both(size, 1) for size in sizes),
        tuple(both(outputs, size) for size in sizes),
        zeros(outputs, 1),
    )


def segment_of(medium: Medium, transfers: tuple[Transfer, ...], tokens: Site) -> Segment:
    """The segment made of a stretch of tokens.

    A wave that enters layer m is heard in one channel at each token and scattered by D W_out; what
    later layers hear of it is followed in all channels.  The pooled stream is followed backwards,
    from the head to the sources.

    Cost per token and batch entry O(features^3 + features^2 waves) at depth 2, O(features^2 waves)
    more for every pair of layers that are not neighbours.
    """
    if tokens.embedded.shape[1] == 0:
        return no_segment(medium, tokens.embedded.shape[-1])
    n_layers = len(medium.layers)
    phases = [mixing.through for mixing in transfers]
    h, sent = tokens.embedded, []
    for layer, mixing, drive, gate in zip(
        medium.layers, transfers, tokens.drives, tokens.gates, strict=True
    ):
        y, out = mixing(shared_product(layer.scattered, h) + drive)
        out = _split(out, 1, mixing.through)  # (features, 2, parts, modes, batch)
        out = jnp.transpose(out, (1, 4, 2, 0, 3)).reshape(2, out.shape[-1], -1, 1)
        sent.append((out[0], out[1]))
        h = h + gate * shared_product(layer.mix_out, y)
    maps: list[list[Map]] = [[] for _ in medium.layers]
    for m, (entered, mixing) in enumerate(zip(medium.layers, transfers, strict=True)):
        # what y in channel a adds to h at the same token: (features, a, tokens, batch)
        direct = tokens.gates[m][:, None] * entered.mix_out[..., None, None]
        induced = None
        for index in range(m + 1, n_layers):
            layer, gate = medium.layers[index], tokens.gates[index]
            u = shared_product(layer.scattered, direct)
            u = u[:, :, :, None] * mixing.heard[..., None]
            u = jnp.moveaxis(u, 2, 1)  # (features, tokens, a, waves, batch)
            if induced is not None:
                u = u + shared_product(layer.scattered, induced)
            maps[index].append(_by_end(transfers[index].leaving(u), phases[index], phases[m]))
            if index + 1 < n_layers:
                y = transfers[index].within(u)
                more = gate[:, :, None, None] * shared_product(layer.mix_out, y)
                induced = more if induced is None else induced + more
    return Segment(
        tuple(phases),
        tuple(map(tuple, maps)),
        tuple(sent),
        _pooled_maps(medium, transfers, tokens.gates),
        (medium.head @ jnp.sum(h, axis=1)).T[..., None],
    )


def _pooled_maps(
    medium: Medium, transfers: tuple[Transfer, ...], gates: tuple[Array, ...]
) -> tuple[tuple[Array, Array], ...]:
    response = medium.head.T[:, None, :, None]  # (features, tokens, outputs, batch)
    pooled = []
    for layer, mixing, gate in zip(
        medium.layers[::-1], transfers[::-1], gates[::-1], strict=True
    ):
        to_y = shared_product(layer.mix_out.T, gate[:, :, None] * response)
        share = jnp.einsum("atx,atkn->axkn", mixing.heard, to_y)
        share = _split(share, 1, mixing.through)  # (a, 2, parts, modes, outputs, batch)
        share = jnp.transpose(share, (1, 5, 4, 2, 0, 3))
        share = share.reshape(2, share.shape[1], share.shape[2], -1)
        pooled.append((share[0], share[1]))
        if layer is not medium.layers[0]:
            to_u = mixing.within(to_y)  # the kernel is symmetric
            response = response + shared_product(layer.scattered.T, to_u)
    return tuple(pooled[::-1])


def _split(x: Array, axis: int, phase: Phase) -> Array:
    """An axis of the waves of a channel as (2, parts, modes)."""
    n_parts, _, modes = phase.shape
    return x.reshape(*x.shape[:axis], 2, n_parts, modes, *x.shape[axis + 1 :])


def _by_end(out: Array, phase: Phase, lower: Phase) -> Map:
    """Waves (features, waves, lower features, lower waves, batch) by direction and end."""
    x = _split(_split(out, 3, lower), 1, phase)
    x = jnp.transpose(x, (1, 5, 8, 2, 0, 3, 6, 4, 7))
    x = x.reshape(2, 2, x.shape[2], phase.size, lower.size)
    return ((x[0, 0], x[0, 1]), (x[1, 0], x[1, 1]))


def join(first: Segment, second: Segment) -> Segment:
    """The segment made of ``first`` and, to the right of it, ``second``.

    Layer by layer the waves at the joint, to the right and to the left, follow from what enters at
    the far ends and from the waves of lower layers.

    Cost per batch entry O(waves^2) at depth 2, O(waves^3) for each triple of layers beyond.
    """
    n_layers = len(first.through)
    # of every layer: what runs at the joint to the right and to the left, from what enters layer m
    # at the left end and at the right end
    inwards: list[list[tuple[tuple[Sum, Sum], ...]]] = []
    inwards_sent: list[tuple[Array, Array]] = []
    maps, sent = [], []
    for index in range(n_layers):
        one, two = first.maps[index], second.maps[index]
        past_first, past_second = first.through[index], second.through[index]
        joint, leaving = [], []
        for m in range(index):
            ends = []
            for end, phase in ((0, first.through[m]), (1, second.through[m])):
                through, other = (None, phase) if end == 0 else (phase, None)
                right, left = Sum((one[m][0][end], through)), Sum((two[m][1][end], other))
                past, back = Sum((two[m][0][end], other)), Sum((one[m][1][end], through))
                for p in range(m + 1, index):
                    to_right, to_left = inwards[p][m][end]
                    right += to_left.after(one[p][0][1])
                    left += to_right.after(two[p][1][0])
                    past += to_right.after(two[p][0][0])
                    back += to_left.after(one[p][1][1])
                ends.append((right, left, past, back))
            joint.append(tuple((right, left) for right, left, _, _ in ends))
            leaving.append(
                (
                    tuple(turn(past_second, r.total()) + p.total() for r, _, p, _ in ends),
                    tuple(turn(past_first, x.total()) + b.total() for _, x, _, b in ends),
                )
            )
        right, left = first.sent[index][0], second.sent[index][1]
        past, back = second.sent[index][0], first.sent[index][1]
        for p, (to_right, to_left) in enumerate(inwards_sent):
            right = right + jnp.matmul(one[p][0][1], to_left)
            left = left + jnp.matmul(two[p][1][0], to_right)
            past = past + jnp.matmul(two[p][0][0], to_right)
            back = back + jnp.matmul(one[p][1][1], to_left)
        inwards.append(joint)
        inwards_sent.append((right, left))
        maps.append(tuple(leaving))
        sent.append((turn(past_second, right) + past, turn(past_first, left) + back))
    pooled_sent = first.pooled_sent + second.pooled_sent
    for p, (right, left) in enumerate(inwards_sent):
        pooled_sent = pooled_sent + jnp.matmul(second.pooled[p][0], right)
        pooled_sent = pooled_sent + jnp.matmul(first.pooled[p][1], left)
    pooled = []
    for m in range(n_layers):
        ends = [
            first.pooled[m][0] + turn_columns(second.pooled[m][0], first.through[m]),
            turn_columns(first.pooled[m][1], second.through[m]) + second.pooled[m][1],
        ]
        for p in range(m + 1, n_layers):
            for end, (to_right, to_left) in enumerate(inwards[p][m]):
                ends[end] = ends[end] + to_right.after(second.pooled[p][0]).total()
                ends[end] = ends[end] + to_left.after(first.pooled[p][1]).total()
        pooled.append((ends[0], ends[1]))
    through = tuple(map(turn_phase, first.through, second.through))
    return Segment(through, tuple(maps), tuple(sent), tuple(pooled), pooled_sent)


def mirrored(segment: Segment) -> Segment:
    """The segment seen in the mirror: left is right.  Mirrored ``second`` joined with mirrored
    ``first`` is the mirrored join of ``first`` and ``second``."""

    def swapped(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        return pair[1], pair[0]

    return Segment(
        segment.through,
        tuple(
            tuple((swapped(to_left), swapped(to_right)) for to_right, to_left in maps)
            for maps in segment.maps
        ),
        tuple(map(swapped, segment.sent)),
        tuple(map(swapped, segment.pooled)),
        segment.pooled_sent,
    )


class Sum:
    """A sum of maps from waves, each behind a phase of these waves or none.

    A product with such a map is taken before the phase: there it costs the least.
    """

    def __init__(self, *terms: tuple[Array, Phase | None]):
        self.terms = terms

    def __add__(self, other: "Sum") -> "Sum":
        return Sum(*self.terms, *other.terms)

    def after(self, matrix: Array) -> "Sum":
        """``matrix`` times the map."""
        return Sum(*((jnp.matmul(matrix, x), phase) for x, phase in self.terms))

    def total(self) -> Array:
        """The map as one array."""
        turned = (x if phase is None else turn_columns(x, phase) for x, phase in self.terms)
        return functools.reduce(jnp.add, turned)
