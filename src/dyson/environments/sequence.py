"""The whole chain as windows and segments one after the other: changes in windows far apart."""

import functools
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
    windows = {i: x for i, x in enumerate(elements) if isinstance(x, Stretch)}
    streams = {i: window.change.embedded for i, window in windows.items()}
    # per element and layer the waves that enter at the left end and at the right end
    entered: list[list[tuple[Array, Array]]] = [[] for _ in elements]
    for index, layer in enumerate(medium.layers):
        sent: list[tuple[Array, Array] | None] = [
            _scattered(element, index, waves) if isinstance(element, Segment) and index else None
            for element, waves in zip(elements, entered, strict=True)
        ]
        heard = {}
        for i, window in windows.items():
            mixing = window.transfers[index]
            u = shared_product(layer.scattered, streams[i]) + window.change.drives[index]
            heard[i], out = mixing(u)
            right, left = jnp.split(numbered(out, mixing.through), 2)
            sent[i] = right, left
        through = [
            x.through[index] if isinstance(x, Segment) else x.transfers[index].through
            for x in elements
        ]
        arriving = _arriving(sent, through, closing[index])
        for waves, so_far in zip(arriving, entered, strict=True):
            so_far.append(waves)
        for i, window in windows.items():
            mixing, gate = window.transfers[index], window.change.gates[index]
            incoming = by_channel(jnp.concatenate(arriving[i]), mixing.through)
            y = heard[i] + jnp.einsum("ftw,fwn->ftn", mixing.heard, incoming)
            y = shared_product(layer.mix_out, y)
            more = window.gates[index] * y + gate * (window.mixed[index] + y)
            streams[i] = streams[i] + more
    shares = [medium.head @ jnp.sum(h, axis=1) for h in streams.values()]
    for element, waves in zip(elements, entered, strict=True):
        if isinstance(element, Segment):
            shares += _pooled(element, waves)
    return functools.reduce(jnp.add, shares)


def _scattered(
    segment: Segment, index: int, entered: list[tuple[Array, Array]]
) -> tuple[Array, Array]:
    """Waves of a layer that a segment sends to the right and to the left."""

    def leaving(way: int) -> Array:
        terms = [
            _applied(maps[way][0], f) + _applied(maps[way][1], g)
            for maps, (f, g) in zip(segment.maps[index], entered, strict=True)
        ]
        return functools.reduce(jnp.add, terms)

    return leaving(0), leaving(1)


def _pooled(segment: Segment, entered: list[tuple[Array, Array]]) -> list[Array]:
    return [
        _applied(left, f) + _applied(right, g)
        for (left, right), (f, g) in zip(segment.pooled, entered, strict=True)
    ]


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
    wave = jnp.zeros_like(next(waves for waves in sent if waves is not None))
    entering, phases = [], []
    before: Phase | None = None  # over all elements so far
    for waves, phase in zip(sent, through, strict=True):
        entering.append(wave)
        phases.append(before)
        wave = passed(phase, wave)
        wave = wave if waves is None else wave + waves
        before = phase if before is None else turn_phase(before, phase)
    around = passed(closing, wave)
    return [
        wave + (around if phase is None else passed(phase, around))
        for wave, phase in zip(entering, phases, strict=True)
    ]
