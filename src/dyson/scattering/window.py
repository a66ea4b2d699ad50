"""Exact evaluation of a window of tokens within what surrounds it, and of changes in it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int

from dyson.networks import DysonNet
from dyson.networks.blocks import Stream
from dyson.networks.head import from_parts
from dyson.scattering.medium import (
    Medium,
    Transfer,
    by_channel,
    numbered,
    shared_product,
    transfers,
)
from dyson.scattering.segment import Segment, Site


def window_transfers(
    medium: Medium, lengths: Sequence[int], slots: int
) -> tuple[tuple[Transfer, ...], ...]:
    """Per length the transfers along a window, closed around the ring if the chain is one."""
    ring = medium.n_tokens if medium.periodic else None
    return transfers(medium, lengths, slots, ring=ring)


def open_transfers(
    medium: Medium, lengths: Sequence[int], slots: int
) -> tuple[tuple[Transfer, ...], ...]:
    """Per length the transfers along a stretch that becomes a segment."""
    return transfers(medium, lengths, slots)


def settled(
    medium: Medium, transfers: tuple[Transfer, ...], exterior: Segment, tokens: Site
) -> tuple[tuple[Array, ...], Float[Array, "outputs batch"]]:
    """W_out y of the tokens of a window in every layer, and ``head @ sum_t h^(L)_t`` of the chain.

    ``exterior`` is the segment from the right end of the window on to its left end: around the
    ring, or through what lies outside an open chain.  The transfers along the window are closed, so
    waves that only pass by outside are not counted again.

    The window may be of the length of the chain.  O(length^2 features + length features^2) and one
    application of each map of the exterior, independent of the rest.
    """
    assert exterior.sent is not None
    h, mixed, outside = tokens.embedded, [], exterior.sent[..., 0].T
    for index, (layer, mixing, drive, gate) in enumerate(
        zip(medium.layers, transfers, tokens.drives, tokens.gates, strict=True)
    ):
        u = shared_product(layer.scattered, h) + drive
        coming, outside = _next_layer(outside, mixing)
        y, out = mixing(jnp.concatenate([u, coming], axis=1))
        mixed.append(shared_product(layer.mix_out, y))
        outside = outside + exterior.excites(index, numbered(out, mixing.through))
        h = h + gate * mixed[-1]
    return tuple(mixed), medium.head @ jnp.sum(h, axis=1) + outside


# What the gates of a window have added to the linear stream so far, and the waves that come in, by
# channel; None in the first layer.
Beyond = tuple[Array, Array] | None


class Window(NamedTuple):
    """A window before it changes: per layer the transfers along it, D, and W_out y of its tokens;
    and what surrounds it."""

    transfers: tuple[Transfer, ...]
    gates: tuple[Float[Array, "features tokens windows"], ...]
    mixed: tuple[Float[Array, "features tokens windows"], ...]
    exterior: Segment


def changed(
    medium: Medium, window: Window, change: Site, slot: Int[Array, ""]
) -> tuple[tuple[Array, ...], Float[Array, "outputs batch"]]:
    """What ``mixed`` and the pooled outputs of :func:`settled` gain by a change of some tokens.

    ``change`` holds the differences of the local features of neighbouring tokens, from ``slot`` on;
    (features, tokens, batch).  Only differences are followed, so that ratios are accurate also
    where log psi is large.

    Cost as that of :func:`settled`.
    """
    changes = []

    def layer(index: int, h: Array, beyond: Beyond) -> tuple[Array, Array, Array]:
        h, radiated, y, out = _scattered(medium, window, index, change, slot, h, beyond)
        changes.append(y)
        return h, radiated, out

    h, radiated, outside = _layer_by_layer(window, layer, change.embedded)
    stream = jnp.sum(h, axis=1) + jnp.sum(radiated, axis=1)
    return tuple(changes), medium.head @ stream + outside


def changed_by_each(
    medium: Medium, window: Window, changes: Site, slots: Int[Array, " moves"]
) -> Float[Array, "outputs batch moves"]:
    """What the pooled outputs of :func:`settled` gain by each of several moves, stacked along the
    first axis of ``changes``.

    In every layer one move after the other is followed in the window, then all of them at once
    outside.
    """

    def layer(index: int, h: Array, beyond: Beyond) -> tuple[Array, Array, Array]:
        if beyond is not None:
            beyond = beyond[0], jnp.moveaxis(beyond[1], -1, 0)

        def follow(item: Any) -> tuple[Array, Array, Array]:
            h, radiated, _, out = _scattered(medium, window, index, *item)
            return h, radiated, out

        h, radiated, out = jax.lax.map(follow, (changes, slots, h, beyond))
        return h, radiated, jnp.moveaxis(out, 0, -1)

    h, radiated, outside = _layer_by_layer(window, layer, changes.embedded)
    stream = jnp.sum(h, axis=2) + jnp.sum(radiated, axis=2)
    return shared_product(medium.head, jnp.moveaxis(stream, 0, -1)) + outside


def _layer_by_layer(
    window: Window, layer: Callable[..., tuple[Array, Array, Array]], h: Stream
) -> tuple[Array, Array, Array]:
    """Through all layers of the window and of what surrounds it: the change of the linear stream
    in the two parts of :func:`_scattered`, and that of the pooled outputs by what is outside.

    ``layer`` takes its index and what arrives; it returns the new change and the waves that leave.
    """
    h, radiated, out = layer(0, h, None)
    outside = window.exterior.excites(0, numbered(out, window.transfers[0].through))
    for index, transfer in enumerate(window.transfers[1:], start=1):
        coming, outside = _next_layer(outside, transfer)
        h, radiated, out = layer(index, h, (radiated, coming))
        outside = outside + window.exterior.excites(index, numbered(out, transfer.through))
    return h, radiated, outside


def _scattered(
    medium: Medium,
    window: Window,
    index: int,
    change: Site,
    slot: Int[Array, ""],
    h: Stream,
    beyond: Beyond,
) -> tuple[Array, Array, Array, Array]:
    """A change in one layer.  In the words of Theorem 1, S is ``h``, W~ ``layer.scattered``, dc
    ``change.drives``, dD ``change.gates``, W_out y ``window.mixed`` and W_out dy what is returned
    as y.

    The change of the linear stream is that of the changed tokens, ``h``, and what the gates of the
    window have added to it everywhere, as in :mod:`dyson.abacus.links.recurrence`.  Returns both,
    the change of W_out y and the waves that leave, by channel.
    """
    layer, transfer = medium.layers[index], window.transfers[index]
    gate = change.gates[index]
    y, out = transfer(shared_product(layer.scattered, h) + change.drives[index], slot)
    if beyond is not None:
        radiated, coming = beyond
        u = shared_product(layer.scattered, radiated)
        more_y, more_out = transfer(jnp.concatenate([u, coming], axis=1))
        y, out = y + more_y, out + more_out
    y = shared_product(layer.mix_out, y)
    here = window.mixed[index] + y
    h = h + gate * jax.lax.dynamic_slice_in_dim(here, slot, gate.shape[1], axis=1)
    more = window.gates[index] * y
    return h, more if beyond is None else beyond[0] + more, y, out


def _next_layer(outside: Array, transfer: Transfer) -> tuple[Array, Array]:
    """Of what has been excited outside, the waves that come in next, by channel, and the rest."""
    count = 2 * transfer.through.size
    return by_channel(outside[:count], transfer.through), outside[count:]


def log_psi(model: DysonNet, outputs: Float[Array, "outputs chains"]) -> Inexact[Array, " chains"]:
    """log psi from the pooled outputs of the head."""
    hidden = model.head.bias.shape[1]

    def one(rows: Array) -> Array:
        theta = from_parts(rows.reshape(-1, hidden) + model.head.bias)
        return model.head.log_amplitude(theta)

    return jax.vmap(one, in_axes=-1)(outputs)
