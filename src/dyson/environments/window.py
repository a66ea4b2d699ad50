"""Exact evaluation of a window of tokens within what surrounds it, and of changes in it."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from dyson.environments.medium import Medium, Transfer, shared_product, transfer
from dyson.environments.segment import Map, Segment, Site, product
from dyson.networks import DysonNet


class Exterior(eqx.Module):
    """All of the chain but a window, as the window sees it.

    maps[l][m], m < l: from the waves of layer m that leave the window to those of layer l that come
      back.  sent[l]: what comes if nothing leaves.  Waves in the order of a ``Transfer``; that of
      the window is closed, so waves that only pass by are not counted again.
    pooled, pooled_sent: share of head @ sum_t h_t.
    """

    maps: tuple[tuple[Float[Array, "waves lower batch"], ...], ...]
    sent: tuple[Float[Array, "features waves batch"], ...]
    pooled: tuple[Float[Array, "outputs waves batch"], ...]
    pooled_sent: Float[Array, "outputs batch"]

    def coming(self, index: int, leaving: list[Array]) -> Array:
        """Waves of layer ``index`` that the leaving ones of lower layers excite outside; none for
        the first layer."""
        waves = self.sent[index]
        total = jnp.zeros((waves.shape[0] * waves.shape[1], leaving[0].shape[-1]), waves.dtype)
        for response, out in zip(self.maps[index], leaving, strict=False):
            total = total + product(response, out.reshape(-1, out.shape[-1]))
        return total.reshape(*waves.shape[:2], -1)

    def outputs(self, leaving: list[Array]) -> Array:
        """What the leaving waves of all layers add to the pooled outputs of the head."""
        terms = (
            product(response, out.reshape(-1, out.shape[-1]))
            for response, out in zip(self.pooled, leaving, strict=True)
        )
        return sum(terms, jnp.zeros((), self.pooled_sent.dtype))


def exterior_of(segment: Segment, features: int) -> Exterior:
    """The exterior of a window made of the segment from its right end on to its left end: around
    the ring, or through what lies outside an open chain."""

    def columns(ends: tuple[Array, Array]) -> Array:
        """Two of (rows, waves, batch) as (rows, 2 * waves, batch) in the order of channels."""
        rows, _, batch = ends[0].shape
        split = [x.reshape(rows, features, -1, batch) for x in ends]
        return jnp.concatenate(split, axis=2).reshape(rows, -1, batch)

    def rows(directions: Sequence[Array]) -> Array:
        split = [x.reshape(features, -1, *x.shape[1:]) for x in directions]
        return jnp.concatenate(split, axis=1)

    def both(response: Map) -> Array:
        by_row = rows([columns(ends) for ends in response])
        return by_row.reshape(-1, *by_row.shape[2:])

    return Exterior(
        tuple(tuple(map(both, maps)) for maps in segment.maps),
        tuple(map(rows, segment.sent)),
        tuple(map(columns, segment.pooled)),
        segment.pooled_sent,
    )


def window_transfers(medium: Medium, length: int, slots: int) -> tuple[Transfer, ...]:
    """The transfers along a window, closed around the ring if the chain is one."""
    ring = medium.n_tokens if medium.periodic else None
    return tuple(transfer(layer, length, slots, ring=ring) for layer in medium.layers)


def open_transfers(medium: Medium, length: int, slots: int) -> tuple[Transfer, ...]:
    """The transfers along a stretch that becomes a segment."""
    return tuple(transfer(layer, length, slots) for layer in medium.layers)


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
        coming = exterior.sent[index]
        if index:
            coming = coming + exterior.coming(index, leaving)
        y, out = mixing(jnp.concatenate([u, coming], axis=1))
        mixed.append(shared_product(layer.mix_out, y))
        leaving.append(out)
        h = h + gate * mixed[-1]
    total = medium.head @ jnp.sum(h, axis=1) + exterior.pooled_sent + exterior.outputs(leaving)
    return tuple(mixed), total


def changed(
    medium: Medium,
    transfers: tuple[Transfer, ...],
    exterior: Exterior,
    mixed: tuple[Array, ...],
    old: Site,
    new: Site,
    where: tuple[Array, int],
) -> tuple[tuple[Array, ...], Float[Array, "outputs batch"]]:
    """What ``mixed`` and the pooled outputs of :func:`settled` gain when the tokens change from
    ``old`` to ``new`` between ``where[0]`` and ``where[0] + where[1]``.

    Only differences are followed, so that ratios are accurate also where log psi is large.
    """
    start, length = where
    h, changes, leaving = None, [], []
    for index, (layer, mixing) in enumerate(zip(medium.layers, transfers, strict=True)):
        drive = new.drives[index] - old.drives[index]
        if h is None:
            # only the sources at the changed tokens: these columns alone
            part = lambda x: jax.lax.dynamic_slice_in_dim(x, start, length, 1)  # noqa: E731
            h = new.embedded - old.embedded
            u = shared_product(layer.scattered, part(h)) + part(drive)
            columns = jax.lax.dynamic_slice_in_dim(mixing.matrix, start, length, 2)
            both = jnp.einsum("foi,fin->fon", columns, u)
            y, out = both[:, : mixing.slots], both[:, mixing.slots :]
        else:
            u = shared_product(layer.scattered, h) + drive
            y, out = mixing(jnp.concatenate([u, exterior.coming(index, leaving)], axis=1))
        change = shared_product(layer.mix_out, y)
        h = h + new.gates[index] * (mixed[index] + change) - old.gates[index] * mixed[index]
        changes.append(change)
        leaving.append(out)
    total = medium.head @ jnp.sum(h, axis=1) + exterior.outputs(leaving)
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
