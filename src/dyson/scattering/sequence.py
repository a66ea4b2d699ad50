"""The whole chain as windows and segments one after the other: changes in windows far apart."""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.scattering.medium import (
    Medium,
    Phase,
    Transfer,
    by_channel,
    numbered,
    passed,
    shared_product,
    turn_phase,
)
from dyson.scattering.segment import Segment, Site


class Stretch(eqx.Module):
    """A window of tokens that change.

    transfers: along it, not closed around the ring (:func:`open_transfers`).
    gates, mixed: per layer D and W_out y before the change.   change: of all local features.
    """

    transfers: tuple[Transfer, ...]
    gates: tuple[Float[Array, "features tokens batch"], ...]
    mixed: tuple[Float[Array, "features tokens batch"], ...]
    change: Site

    @property
    def through(self) -> tuple[Phase, ...]:
        return tuple(transfer.through for transfer in self.transfers)


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
    # per segment what has been excited in the layers to come and in the pooled outputs
    excited: dict[int, Array] = {}
    for index, layer in enumerate(medium.layers):
        sent: list[tuple[Array, Array] | None] = [None] * len(elements)
        for i, waves in excited.items():
            width = elements[i].through[index].size
            sent[i] = waves[:width], waves[width : 2 * width]
            excited[i] = waves[2 * width :]
        heard = {}
        for i, window in windows.items():
            mixing = window.transfers[index]
            u = shared_product(layer.scattered, streams[i]) + window.change.drives[index]
            heard[i], out = mixing(u)
            right, left = jnp.split(numbered(out, mixing.through), 2)
            sent[i] = right, left
        through = [element.through[index] for element in elements]
        arriving = _arriving(sent, through, closing[index])
        for i, element in enumerate(elements):
            if isinstance(element, Segment):
                more = element.excites(index, jnp.concatenate(arriving[i]))
                excited[i] = excited[i] + more if i in excited else more
        for i, window in windows.items():
            mixing, gate = window.transfers[index], window.change.gates[index]
            incoming = by_channel(jnp.concatenate(arriving[i]), mixing.through)
            y = heard[i] + jnp.einsum("ftw,fwn->ftn", mixing.heard, incoming)
            y = shared_product(layer.mix_out, y)
            streams[i] = streams[i] + window.gates[index] * y + gate * (window.mixed[index] + y)
    shares = [medium.head @ jnp.sum(h, axis=1) for h in streams.values()]
    return functools.reduce(jnp.add, [*shares, *excited.values()])


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
