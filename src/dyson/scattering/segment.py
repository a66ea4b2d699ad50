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

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.scattering.medium import (
    Medium,
    Phase,
    Transfer,
    numbered,
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


class Segment(eqx.Module):
    """Everything between two cuts.

    through: per layer the transmission lambda^length.
    excited[m]: what waves of layer m excite that enter at the left end and, in the columns behind
      these, at the right end.  Rows are the waves of layers m+1, m+2, ..., of each those that leave
      to the right, then those that leave to the left, and last the share of head @ sum_t h_t.
    sent: the same, for all layers, if nothing enters.  None where changes alone are followed.

    Waves are numbered (parts, features, modes).  The batch comes first: to join two segments is to
    multiply matrices.  Numbers per batch entry with w waves, L layers and K outputs of the head:
    2 L (L-1) w^2 + 2 L (K + 1) w.
    """

    through: tuple[Phase, ...]
    excited: tuple[Float[Array, "batch _leaving _entering"], ...]
    sent: Float[Array, "batch _leaving 1"] | None

    @property
    def silent(self) -> "Segment":
        """As changes see it."""
        return Segment(self.through, self.excited, None)

    def excites(self, layer: int, waves: Float[Array, "entering batch *moves"]) -> Array:
        """What leaves (in the rows of ``excited``) for waves that enter: (leaving, batch, ...)."""
        by_batch = jnp.moveaxis(waves, 1, 0).reshape(waves.shape[1], waves.shape[0], -1)
        leaving = jnp.moveaxis(jnp.matmul(self.excited[layer], by_batch), 0, 1)
        return leaving.reshape(*leaving.shape[:2], *waves.shape[2:])


def no_segment(medium: Medium, batch: int, *, outside: bool = False) -> Segment:
    """The segment without tokens, through which everything passes; or what lies ``outside`` an
    open chain, through which nothing does."""
    phases = [(0 if outside else 1) * layer.unchanged for layer in medium.layers]
    entering = [2 * phase.size for phase in phases]
    leaving = [sum(entering[m:]) + medium.head.shape[0] for m in range(len(entering) + 1)]
    zeros = lambda *shape: jnp.zeros((batch, *shape), medium.head.dtype)
    return Segment(tuple(phases), tuple(map(zeros, leaving[1:], entering)), zeros(leaving[0], 1))


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
        sent.append(numbered(out, mixing.through))
        h = h + gate * shared_product(layer.mix_out, y)
    sent.append(medium.head @ jnp.sum(h, axis=1))
    pooled = _pooled_maps(medium, transfers, tokens.gates)
    excited = []
    for m, (entered, mixing) in enumerate(zip(medium.layers, transfers, strict=True)):
        # what y in channel a adds to h at the same token: (features, tokens, batch, a)
        direct = tokens.gates[m][..., None] * entered.mix_out[:, None, None]
        heard = jnp.swapaxes(mixing.heard, 0, 1)[:, None]  # (tokens, 1, a, waves)
        induced, leaving = None, []
        for index in range(m + 1, n_layers):
            layer, gate = medium.layers[index], tokens.gates[index]
            u = shared_product(layer.scattered, direct)[..., None] * heard
            if induced is not None:
                u = u + shared_product(layer.scattered, induced)
            leaving.append(_by_end(transfers[index].leaving(u), phases[index], phases[m]))
            if index + 1 < n_layers:
                y = transfers[index].within(u)
                more = gate[..., None, None] * shared_product(layer.mix_out, y)
                induced = more if induced is None else induced + more
        excited.append(jnp.concatenate([*leaving, pooled[m]], axis=1))
    return Segment(tuple(phases), tuple(excited), jnp.concatenate(sent).T[..., None])


def _pooled_maps(
    medium: Medium, transfers: tuple[Transfer, ...], gates: tuple[Array, ...]
) -> tuple[Float[Array, "batch outputs entering"], ...]:
    response = medium.head.T[:, None, :, None]  # (features, tokens, outputs, batch)
    pooled = []
    for layer, mixing, gate in zip(medium.layers[::-1], transfers[::-1], gates[::-1], strict=True):
        to_y = shared_product(layer.mix_out.T, gate[:, :, None] * response)
        share = jnp.einsum("atx,atkn->axkn", mixing.heard, to_y)
        share = _split(share, 1, mixing.through)  # (a, 2, parts, modes, outputs, batch)
        share = jnp.transpose(share, (5, 4, 1, 2, 0, 3))
        pooled.append(share.reshape(*share.shape[:2], -1))
        if layer is not medium.layers[0]:
            to_u = mixing.within(to_y)  # the kernel is symmetric
            response = response + shared_product(layer.scattered.T, to_u)
    return tuple(pooled[::-1])


def _split(x: Array, axis: int, phase: Phase) -> Array:
    """An axis of the waves of a channel as (2, parts, modes)."""
    n_parts, _, modes = phase.shape
    return x.reshape(*x.shape[:axis], 2, n_parts, modes, *x.shape[axis + 1 :])


def _by_end(out: Array, phase: Phase, lower: Phase) -> Float[Array, "batch leaving entering"]:
    """Waves (features, waves, batch, lower features, lower waves) by direction and end."""
    x = _split(_split(out, 4, lower), 1, phase)
    x = jnp.transpose(x, (4, 1, 2, 0, 3, 6, 7, 5, 8))
    return x.reshape(x.shape[0], 2 * phase.size, 2 * lower.size)


def join(first: Segment, second: Segment) -> Segment:
    """The segment made of ``first`` and, to the right of it, ``second``.

    Cost per batch entry O(waves^2) at depth 2, O(waves^3) for each triple of layers beyond.
    """
    excited = []
    for m, (one, two) in enumerate(zip(first.excited, second.excited, strict=True)):
        # what enters the one at its far end arrives at the other behind a phase
        width = first.through[m].size
        from_right = turn_columns(one[:, :, width:], second.through[m])
        from_left = turn_columns(two[:, :, :width], first.through[m])
        one = jnp.concatenate([one[:, :, :width], from_right], axis=2)
        two = jnp.concatenate([from_left, two[:, :, width:]], axis=2)
        excited.append(_joined(first, second, one, two, m + 1))
    sent = None
    if first.sent is not None and second.sent is not None:
        sent = _joined(first, second, first.sent, second.sent, 0)
    through = tuple(map(turn_phase, first.through, second.through))
    return Segment(through, tuple(excited), sent)


def _joined(first: Segment, second: Segment, one: Array, two: Array, lowest: int) -> Array:
    """What leaves both together if they send ``one`` and ``two`` from layer ``lowest`` on.

    Layer by layer the waves at the joint follow from what enters at the far ends and from the waves
    of lower layers.
    """
    leaving = []
    for past_first, past_second, by_first, by_second in zip(
        first.through[lowest:], second.through[lowest:],
        first.excited[lowest:], second.excited[lowest:], strict=True,
    ):  # fmt: skip
        width = past_first.size
        right, left = one[:, :width], two[:, width : 2 * width]  # at the joint
        leaving.append(turn(past_second, right) + two[:, :width])
        leaving.append(one[:, width : 2 * width] + turn(past_first, left))
        one = one[:, 2 * width :] + jnp.matmul(by_first[:, :, width:], left)
        two = two[:, 2 * width :] + jnp.matmul(by_second[:, :, :width], right)
    return jnp.concatenate([*leaving, one + two], axis=1)
