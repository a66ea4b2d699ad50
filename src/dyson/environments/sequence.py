"""The whole chain as windows and segments one after the other: changes in windows far apart."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.environments.medium import (
    Medium,
    Phase,
    Transfer,
    by_channel,
    numbered,
    passed,
    shared_product,
    turn_phase,
)
from dyson.environments.segment import Segment, Site
from dyson.networks.blocks import Stream


class Stretch(eqx.Module):
    """A window of tokens that change.

    transfers: along it, not closed around the ring (:func:`open_transfers`).
    gates, mixed: per layer D and W_out y before the change.   change: of all local features.
    """

    transfers: tuple[Transfer, ...]
    gates: tuple[Stream, ...]
    mixed: tuple[Stream, ...]
    change: Site


def changed_in_sequence(
    medium: Medium, elements: Sequence[Stretch | Segment], closing: Sequence[Phase]
) -> Float[Array, "outputs batch"]:
    """What the pooled outputs gain when the tokens of all stretches change.

    The elements follow each other from left to right and make up the chain; the last is followed
    by the first.  ``closing``: per layer 1 / (1 - lambda^n) on a ring, zero on an open chain.

    In every layer the elements send waves, excited by those that entered them in lower layers; what
    an element sends passes through the next ones, any number of times around a ring.  Exact for any
    number of windows, one application of the maps of every segment, O(length^2 features + length
    features^2) per stretch.
    """
    streams = [x.change.embedded if isinstance(x, Stretch) else None for x in elements]
    # per element and layer the waves that enter at the left end and at the right end
    entered: list[list[tuple[Array, Array]]] = [[] for _ in elements]
    for index, layer in enumerate(medium.layers):
        sent, heard, through = [], [], []
        for element, h, waves in zip(elements, streams, entered, strict=True):
            if isinstance(element, Segment):
                sent.append(_scattered(element, index, waves))
                heard.append(None)
                through.append(element.through[index])
                continue
            mixing = element.transfers[index]
            u = shared_product(layer.scattered, h) + element.change.drives[index]
            y, out = mixing(u)
            sent.append(tuple(jnp.split(numbered(out, mixing.through), 2)))
            heard.append(y)
            through.append(mixing.through)
        arriving = _arriving(sent, through, closing[index])
        for place, (element, y, waves) in enumerate(zip(elements, heard, arriving, strict=True)):
            entered[place].append(waves)
            if isinstance(element, Stretch):
                mixing, gate = element.transfers[index], element.change.gates[index]
                incoming = by_channel(jnp.concatenate(waves), mixing.through)
                y = y + jnp.einsum("ftw,fwn->ftn", mixing.heard, incoming)
                y = shared_product(layer.mix_out, y)
                more = element.gates[index] * y + gate * (element.mixed[index] + y)
                streams[place] = streams[place] + more
    return sum(
        medium.head @ jnp.sum(h, axis=1)
        if isinstance(element, Stretch)
        else _pooled(element, waves)
        for element, h, waves in zip(elements, streams, entered, strict=True)
    )


def _scattered(
    segment: Segment, index: int, entered: list[tuple[Array, Array]]
) -> tuple[Array, Array] | None:
    """Waves of a layer that a segment sends to the right and to the left."""
    if not entered:
        return None
    right, left = (
        sum(
            _applied(maps[way][0], f) + _applied(maps[way][1], g)
            for maps, (f, g) in zip(segment.maps[index], entered, strict=True)
        )
        for way in (0, 1)
    )
    return right, left


def _pooled(segment: Segment, entered: list[tuple[Array, Array]]) -> Array:
    return sum(
        _applied(left, f) + _applied(right, g)
        for (left, right), (f, g) in zip(segment.pooled, entered, strict=True)
    )


def _applied(matrix: Float[Array, "batch rows waves"], wave: Float[Array, "waves batch"]) -> Array:
    return jnp.einsum("nij,jn->in", matrix, wave)


def _arriving(
    sent: list[tuple[Array, Array] | None], through: list[Phase], closing: Phase
) -> list[tuple[Array, Array]]:
    """Waves that enter every element at its left and at its right end."""
    to_right = _passing([waves and waves[0] for waves in sent], through, closing)
    to_left = _passing([waves and waves[1] for waves in sent[::-1]], through[::-1], closing)
    return list(zip(to_right, to_left[::-1], strict=True))


def _passing(sent: list[Array | None], through: list[Phase], closing: Phase) -> list[Array]:
    """One direction: waves that enter every element, in the order in which they pass them."""
    nothing = jnp.zeros_like(next(waves for waves in sent if waves is not None))
    wave, entering, phases = nothing, [], []
    so_far = None
    for waves, phase in zip(sent, through, strict=True):
        entering.append(wave)
        phases.append(so_far)
        wave = passed(phase, wave)
        wave = wave if waves is None else wave + waves
        so_far = phase if so_far is None else turn_phase(so_far, phase)
    around = passed(closing, wave)
    return [
        wave + (around if phase is None else passed(phase, around))
        for wave, phase in zip(entering, phases, strict=True)
    ]
