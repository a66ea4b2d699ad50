"""Exact evaluation of a window of tokens within what surrounds it, and of changes in it."""

import functools
from collections.abc import Iterable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from dyson.environments.medium import (
    Medium,
    Transfer,
    by_channel,
    numbered,
    shared_product,
    transfers,
)
from dyson.environments.segment import Segment, Site
from dyson.networks import DysonNet


class Exterior(eqx.Module):
    """All of the chain but a window, as the window sees it.

    maps[l][m], m < l: from the waves of layer m that leave the window to those of layer l that come
      back.  sent[l]: what comes if nothing leaves.  Waves are numbered (2, parts, features, modes).
      The transfer along the window is closed, so waves that only pass by are not counted again.
    pooled, pooled_sent: share of head @ sum_t h_t.
    """

    maps: tuple[tuple[Float[Array, "batch waves lower"], ...], ...]
    sent: tuple[Float[Array, "batch waves 1"], ...]
    pooled: tuple[Float[Array, "batch outputs waves"], ...]
    pooled_sent: Float[Array, "batch outputs 1"]

    def coming(self, index: int, leaving: list[Array]) -> Array:
        """Waves of layer ``index`` > 0 that the leaving ones of lower layers excite outside."""
        return _sum(_applied(x, out) for x, out in zip(self.maps[index], leaving, strict=True))

    def outputs(self, leaving: list[Array]) -> Array:
        """What the leaving waves of all layers add to the pooled outputs of the head."""
        return _sum(_applied(x, out) for x, out in zip(self.pooled, leaving, strict=True))


def exterior_of(segment: Segment) -> Exterior:
    """The exterior of a window made of the segment from its right end on to its left end: around
    the ring, or through what lies outside an open chain."""
    columns = lambda ends: jnp.concatenate(ends, axis=2)  # noqa: E731
    rows = lambda directions: jnp.concatenate(directions, axis=1)  # noqa: E731
    return Exterior(
        tuple(tuple(rows(list(map(columns, x))) for x in maps) for maps in segment.maps),
        tuple(map(rows, segment.sent)),
        tuple(map(columns, segment.pooled)),
        segment.pooled_sent,
    )


def _applied(response: Array, leaving: Array) -> Array:
    """A map (batch, rows, waves) of waves (waves, ..., batch)."""
    return jnp.einsum("nij,j...n->i...n", response, leaving)


def _sum(terms: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


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
    medium: Medium, transfers: tuple[Transfer, ...], exterior: Exterior, tokens: Site
) -> tuple[tuple[Array, ...], Float[Array, "outputs batch"]]:
    """W_out y of the tokens of a window in every layer, and ``head @ sum_t h^(L)_t`` of the chain.

    The window may be of the length of the chain.  O(length^2 features + length features^2) and one
    application of each map of the exterior, independent of the rest.
    """
    h, mixed, leaving = tokens.embedded, [], []
    for index, (layer, mixing, drive, gate) in enumerate(
        zip(medium.layers, transfers, tokens.drives, tokens.gates, strict=True)
    ):
        u = shared_product(layer.scattered, h) + drive
        coming = exterior.sent[index][..., 0].T
        if index:
            coming = coming + exterior.coming(index, leaving)
        y, out = mixing(jnp.concatenate([u, by_channel(coming, mixing.through)], axis=1))
        mixed.append(shared_product(layer.mix_out, y))
        leaving.append(numbered(out, mixing.through))
        h = h + gate * mixed[-1]
    total = medium.head @ jnp.sum(h, axis=1) + exterior.outputs(leaving)
    total = total + exterior.pooled_sent[..., 0].T
    return tuple(mixed), total


def changed(
    medium: Medium,
    transfers: tuple[Transfer, ...],
    exterior: Exterior,
    gates: tuple[Array, ...],
    mixed: tuple[Array, ...],
    change: Site,
    where: tuple[Array, int] | None = None,
) -> tuple[tuple[Array, ...], Float[Array, "outputs *moves batch"]]:
    """What ``mixed`` and the pooled outputs of :func:`settled` gain by a change of the tokens.

    ``change`` holds the differences of all local features on the window, (features, tokens, ...,
    batch): any number of moves side by side.  They may be known to vanish but ``where``: at
    ``where[1]`` tokens from ``where[0]`` on.  Only differences are followed, so that ratios are
    accurate also where log psi is large.
    """
    h, changes, leaving = change.embedded, [], []
    for index, (layer, mixing) in enumerate(zip(medium.layers, transfers, strict=True)):
        drive, gate = change.drives[index], change.gates[index]
        if where is not None and not index:
            # only the columns of the changed tokens
            here = lambda x: jax.lax.dynamic_slice_in_dim(x, *where, axis=1)  # noqa: E731
            y, out = mixing(shared_product(layer.scattered, here(h)) + here(drive), where[0])
        else:
            u = shared_product(layer.scattered, h) + drive
            coming = [exterior.coming(index, leaving)] if index else []
            coming = [by_channel(x, mixing.through) for x in coming]
            y, out = mixing(jnp.concatenate([u, *coming], axis=1))
        y = shared_product(layer.mix_out, y)
        h = h + gates[index] * y + gate * (mixed[index] + y)
        changes.append(y)
        leaving.append(numbered(out, mixing.through))
    total = shared_product(medium.head, jnp.sum(h, axis=1)) + exterior.outputs(leaving)
    return tuple(changes), total


def log_psi(
    model: DysonNet, outputs: Float[Array, "outputs chains"]
) -> Inexact[Array, " chains"]:
    """log psi from the pooled outputs of the head."""
    hidden = model.head.bias.shape[1]

    def one(rows: Array) -> Array:
        theta = model.head.combine(rows.reshape(-1, hidden) + model.head.bias)
        return model.head.log_amplitude(theta)

    return jax.vmap(one, in_axes=-1)(outputs)
