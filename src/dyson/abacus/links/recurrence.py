"""The recurrence of Theorem 1: a local change as an impurity in the medium of the reference.

The change of the linear stream is split into a part S on the window and a radiated part.  With
the sources v^(l) = dc^(l) + W~^(l) S^(l-1) (Theorem 1 of arXiv:2603.11189)

    dy^(l) = G^(l) v^(l) + Lambda v^(1) if l = 2                           on the window
    S^(l)  = S^(l-1) + dD^(l) * W_out (y0^(l) + dy^(l))
    dtheta = W_head sum_t S^(L)_t + sum_l T^(l) v^(l)

For one or two blocks (deeper networks: :mod:`dyson.abacus.windows`).  Everything is written
per window offset, so one text serves a single move and all of them at once.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from dyson.abacus.links.offsets import Chain, View
from dyson.abacus.links.reference import Layer, Reference, ReferenceTables, chain_of
from dyson.networks import Block, DysonNet

# Changes by window offset, each of shape (features, tokens seen by the view).
Change = dict[int, Array]


def scatter(
    model: DysonNet,
    tables: ReferenceTables,
    reference: Reference,
    view: View,
    phi: Change,
    h: Change,
) -> Array:
    """Change of theta, (parts, hidden, tokens of the view), for new embeddings on the window.

    ``phi`` and ``h`` hold the changes of the two embeddings at each offset of the move.
    """
    chain = chain_of(model)
    local, sources = h, []
    for index, (block, layer) in enumerate(zip(model.blocks, reference.layers, strict=True)):
        gates, emitted = _local_changes(block, layer, chain, view, phi)
        sources.append(_add(emitted, {o: block.mix_scattered @ s for o, s in local.items()}))
        received = _propagate(tables.near[index], chain, tuple(gates), sources[index])
        if index:
            assert reference.links is not None
            linked = _through_links(reference.links, chain, view, tuple(gates), sources[0])
            received = _add(received, linked)
        scattered = {
            o: change * (view.at(layer.mixed, o) + block.mix_out @ received[o])
            for o, change in gates.items()
        }
        local = _add(local, scattered)
        phi = _add(phi, emitted)
    pooled = model.pool_scale * _total(list(local.values()))
    total = jnp.einsum("pkd,dt->pkt", model.head.weight, pooled)
    for row, source in zip(reference.readouts, sources, strict=True):
        for offset, v in source.items():
            total = total + view.contract(row, offset, v)
    return total


def _local_changes(
    block: Block, layer: Layer, chain: Chain, view: View, phi: Change
) -> tuple[Change, Change]:
    """Changes of the gates D (on the window of phi) and of the sources c (dilated by the reach)."""
    window = tuple(phi)
    before = {o: view.at(layer.phi, o) for o in window}
    new_inputs, new_gates = _side_by_side(block, {o: before[o] + phi[o] for o in window})
    inside = {o: view.exists(o) for o in window} if not chain.periodic else {}

    def change(new: Change, old: Array) -> Change:
        changes = {o: new[o] - view.at(old, o) for o in window}
        return {o: jnp.where(inside[o], c, 0) if inside else c for o, c in changes.items()}

    inputs, gates = change(new_inputs, layer.local.inputs), change(new_gates, layer.local.gates)
    emitted = {}
    for o in chain.dilate(window, block.reach):
        convolved = view.at(layer.local.convolved, o)
        for tap in range(-block.reach, block.reach + 1):
            neighbour = chain.offset(o + tap)
            if neighbour in inputs:
                convolved = convolved + block.taps[:, tap + block.reach, None] * inputs[neighbour]
        source = jax.nn.silu(convolved) - view.at(layer.local.sources, o)
        emitted[o] = source if chain.periodic else jnp.where(view.exists(o), source, 0)
    return gates, emitted


def _side_by_side(block: Block, phi: Change) -> tuple[Change, Change]:
    """``block.split`` of all offsets in one matrix product."""
    width = next(iter(phi.values())).shape[-1]
    inputs, gates = block.split(jnp.concatenate(list(phi.values()), axis=-1))
    pieces = [slice(i * width, (i + 1) * width) for i in range(len(phi))]
    return (
        {o: inputs[:, piece] for o, piece in zip(phi, pieces, strict=True)},
        {o: gates[:, piece] for o, piece in zip(phi, pieces, strict=True)},
    )


def _propagate(kernel: Array, chain: Chain, targets: tuple[int, ...], source: Change) -> Change:
    """``G v`` between offsets of the window: the kernel at a few short lags."""
    lag = lambda i, j: abs(chain.offset(i - j))
    return {i: _total([kernel[:, lag(i, j), None] * v for j, v in source.items()]) for i in targets}


def _through_links(
    links: tuple[Array, ...], chain: Chain, view: View, targets: tuple[int, ...], source: Change
) -> Change:
    """``Lambda v``: contracted offset by offset, so that every link is read once."""
    bandwidth = len(links) // 2
    pairs: list[list[tuple[int, int]]] = [[] for _ in links]
    for i in targets:
        for j in source:
            pairs[chain.offset(j - i) + bandwidth].append((i, j))
    return view.through(links, pairs, source)


def _total(terms: list[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def _add(first: Change, second: Change) -> Change:
    """Sum of two changes on the union of their windows."""
    union = dict(first)
    for offset, change in second.items():
        union[offset] = union[offset] + change if offset in union else change
    return {o: union[o] for o in sorted(union)}
