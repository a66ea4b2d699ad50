"""What surrounds a window: the references of windows and of pairs.

The chain is cut into cores (:mod:`dyson.scattering.partition`).  All that a window needs to know of
the rest is how the rest answers the waves that leave it: the exterior, joined from the segments of
the reference configuration.

Source: Theorem 1 of arXiv:2603.11189, in terms of waves instead of link tensors.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int, Int8

from dyson import scattering as env
from dyson.networks import DysonNet

# Pieces whose segments are made side by side.
PIECES_AT_ONCE = 8


class Tables(eqx.Module):
    """What the mixers do along the pieces of a partition; depends on the parameters alone.

    mixers: along the whole chain.   head, body: the overlap with the window before, and the rest,
    of the stretch from the start of one window to the start of the next.   window: a whole one.
    The last ones are shorter.   end: what is left of an open chain.
    """

    medium: env.Medium
    mixers: tuple[env.Chunks, ...]
    parts: env.Partition
    head: tuple[env.Transfer, ...]
    body: tuple[env.Transfer, ...]
    last_body: tuple[env.Transfer, ...]
    window: tuple[env.Transfer, ...]
    last_window: tuple[env.Transfer, ...]
    end: tuple[env.Transfer, ...]


def tables_of(model: DysonNet, parts: env.Partition) -> Tables:
    medium, margin, window = env.Medium(model), parts.margin, parts.window
    stretch = parts.core - margin
    body, last_body = env.open_transfers(medium, [stretch, parts.last - margin], stretch)
    window, last_window = env.window_transfers(medium, [window, parts.last + margin], window)
    (head,) = env.open_transfers(medium, [margin], margin)
    (end,) = env.open_transfers(medium, [parts.half], parts.half)
    return Tables(
        medium, env.chunks_of(medium), parts, head, body, last_body, window, last_window, end
    )


class Windows(eqx.Module):
    """One reference configuration, cut into windows; the last axis of activations is the window.

    mixed: per layer W_out y of the tokens of every window.
    """

    spins: Int8[Array, " n_sites"]
    theta: Inexact[Array, " hidden"]
    log_psi: Inexact[Array, ""]
    patterns: Int[Array, "window count"]
    tokens: env.LocalFeatures
    mixed: tuple[Float[Array, "features tokens windows"], ...]


class OfWindows(eqx.Module):
    """A cache that is made of the windows of its reference, and of more."""

    windows: eqx.AbstractVar[Windows]

    @property
    def spins(self) -> Int8[Array, " n_sites"]:
        return self.windows.spins

    @property
    def theta(self) -> Inexact[Array, " hidden"]:
        return self.windows.theta

    @property
    def log_psi(self) -> Inexact[Array, ""]:
        return self.windows.log_psi


class Surroundings(OfWindows):
    """The cache of one reference configuration: windows and all that lies around each."""

    windows: Windows
    exterior: env.Segment


class Pieces(NamedTuple):
    """Segments between the starts of windows, stacked: head, body, and both joined."""

    head: env.Segment
    body: env.Segment
    whole: env.Segment


def surroundings_of(
    model: DysonNet, spins: Int8[Array, " n_sites"], tables: Tables
) -> Surroundings:
    """One forward pass, the segments of all pieces, and the exteriors of all windows.

    O(n_tokens): at depth 2 O(features^3 + features^2 waves) per token and O(waves^2) per window;
    with more layers O(waves^3) per window for each triple of them.
    """
    windows = windows_of(model, spins, tables)
    return Surroundings(windows, exteriors(tables, windows.tokens.sites))


def windows_of(model: DysonNet, spins: Int8[Array, " n_sites"], tables: Tables) -> Windows:
    """One forward pass, cut into windows; O(n_tokens)."""
    parts, patterns = tables.parts, model.patterns(spins)
    phi, h = model.embed(patterns)
    layers, embedded, mixed = [], h, []
    for block, layer, mixer in zip(model.blocks, tables.medium.layers, tables.mixers, strict=True):
        local = block.local(phi)
        drive = local.sources + layer.offset[:, None]
        layers.append((phi, local.inputs, local.convolved, drive, local.gates))
        mixed.append(block.mix_out @ mixer(block.driven(h, local.sources)))
        phi, h = phi + local.sources, h + local.gates * mixed[-1]
    theta = model.head.theta(model.pooled(h))
    features = env.LocalFeatures(embedded, *(tuple(x) for x in zip(*layers, strict=True)))
    return Windows(
        spins,
        theta,
        model.head.log_amplitude(theta),
        parts.windows(patterns),
        jax.tree.map(parts.windows, features),
        tuple(map(parts.windows, mixed)),
    )


def pieces_of(tables: Tables, tokens: env.Site) -> Pieces:
    """Of the first ``core`` tokens of every window."""
    parts = tables.parts
    batches = -(-parts.count // PIECES_AT_ONCE)
    each = -(-parts.count // batches)
    indices = np.minimum(np.arange(batches * each), parts.count - 1).reshape(batches, each)

    def some(which: Array) -> tuple[env.Segment, env.Segment]:
        here = at(which, tokens)
        head = env.segment_of(tables.medium, tables.head, _cut(here, 0, parts.margin))
        body = env.segment_of(tables.medium, tables.body, _cut(here, parts.margin, parts.core))
        return _stacked(head, each), _stacked(body, each)

    head, body = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:])[: parts.count],
        jax.lax.map(some, jnp.asarray(indices, jnp.int32)),
    )
    if parts.last != parts.core:
        last = _cut(jax.tree.map(lambda x: x[..., -1:], tokens), parts.margin, parts.core)
        last = _stacked(env.segment_of(tables.medium, tables.last_body, last), 1)
        body = jax.tree.map(lambda x, y: jnp.concatenate([x[:-1], y]), body, last)
    return Pieces(head, body, jax.vmap(env.join)(head, body))


def _cut(tokens: env.Site, start: int, end: int) -> env.Site:
    return jax.tree.map(lambda x: x[:, start:end], tokens)


class Sides(NamedTuple):
    """The pieces, and what lies to either side of the windows, stacked.

    before: all to the left of a window.   beheaded: the same without the head of the first piece,
    which the window of the last core of a ring covers.   behind: all to the right of a window.
    """

    pieces: Pieces
    before: env.Segment
    beheaded: env.Segment
    behind: env.Segment


def sides_of(tables: Tables, tokens: env.Site) -> Sides:
    """Joined piece by piece from either end of the chain, all growing segments side by side."""
    parts = tables.parts
    pieces = pieces_of(tables, tokens)
    nothing = env.no_segment(tables.medium, 1).silent
    left_end, right_end = nothing, nothing
    if not parts.periodic:
        left_end = env.no_segment(tables.medium, 1, outside=True).silent
        if parts.half:  # the last tokens: no window starts behind them
            last = jax.tree.map(lambda x: x[..., -1:], tokens)
            last = _cut(last, parts.last, parts.last + parts.half)
            right_end = env.segment_of(tables.medium, tables.end, last).silent

    def grow(segments: Any, items: Any) -> tuple[Any, Any]:
        (before, beheaded, further), (whole, beheaded_whole, last) = segments, items
        left = _together(before, beheaded, last)
        right = _together(whole, beheaded_whole, further)
        joined = jax.vmap(env.join)(left, right)
        return env.unstacked(joined, 3), segments

    first_body = jax.tree.map(
        lambda x, y: jnp.concatenate([y[:1], x[1:]]), pieces.whole, pieces.body
    )
    from_right = jax.tree.map(lambda x: x[::-1], pieces.whole)
    start, items = (left_end, nothing, right_end), (pieces.whole, first_body, from_right)
    _, (before, beheaded, further) = jax.lax.scan(grow, start, items)
    further = jax.tree.map(lambda x: x[: parts.count - 1][::-1], further)
    behind = jax.vmap(env.join)(jax.tree.map(lambda x: x[1:], pieces.body), further)
    behind = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), behind, nothing)
    return Sides(pieces, before, beheaded, behind)


def exteriors(tables: Tables, tokens: env.Site) -> env.Segment:
    """The exteriors of all windows: what lies behind joined with what lies before, around the ring
    or through what lies outside an open chain."""
    sides = sides_of(tables, tokens)
    before = sides.before
    if tables.parts.periodic:
        before = jax.tree.map(
            lambda x, y: jnp.concatenate([x[:-1], y[-1:]]), before, sides.beheaded
        )
    around = jax.vmap(env.join)(sides.behind, before)
    return env.Segment(around.through, tuple(x[:, 0] for x in around.excited), None)


def _together(*segments: env.Segment) -> env.Segment:
    return jax.tree.map(lambda *x: jnp.stack(x), *segments)


def at(which: Int[Array, " windows"], tree: Any, axis: int = -1) -> Any:
    """Some entries along the axis of the windows."""
    return jax.tree.map(lambda x: jnp.take(x, which, axis=axis, mode="clip"), tree)


def _stacked(segments: env.Segment, count: int) -> env.Segment:
    """From a batch of pieces to pieces with a batch of one, for changes: how waves are answered
    does not depend on the sources of the reference itself."""
    excited = tuple(x[:, None] for x in segments.excited)
    through = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), segments.through)
    return env.Segment(through, excited, None)
