"""Theorem 1 with link tensors: the updates of one and two blocks."""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.abacus.bound import NetworkUpdates, changes_of_all_tokens, place
from dyson.abacus.costs import link_numbers
from dyson.abacus.links.offsets import EveryToken, OneMove
from dyson.abacus.links.recurrence import scatter
from dyson.abacus.links.reference import (
    Reference,
    ReferenceTables,
    build_reference,
    chain_of,
    link_bandwidth,
    reference_tables,
)
from dyson.networks import DysonNet
from dyson.networks.head import from_parts
from dyson.scattering import half_window


@final
class LinkUpdates(NetworkUpdates):
    """Moves of ``span`` neighbouring tokens of one or two blocks."""

    network: DysonNet
    tables: ReferenceTables
    span: int = eqx.field(static=True)

    def __init__(self, network: DysonNet, span: int):
        self.network, self.span = network, span
        self.tables = reference_tables(network, span)

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> Reference:
        return build_reference(self.network, spins, self.tables)

    def change(self, cache: Reference, sites: Int[Array, " flips"]) -> Inexact[Array, " hidden"]:
        model, chain = self.network, chain_of(self.network)
        fits, base, masks = place(model, self.span, sites)
        view = OneMove(chain, base)
        phi, h = {}, {}
        # a ring shorter than the span meets its tokens several times
        for o in sorted({chain.offset(o) for o in range(self.span)}):
            first = (base + o) % chain.n_tokens * model.token_size
            spins = jax.lax.dynamic_slice_in_dim(cache.spins, first, model.token_size)
            pattern = model.patterns(spins)
            mask = masks[o % chain.n_tokens if chain.periodic else o]
            phi[o], h[o] = _embedding_change(model, pattern, pattern ^ mask)
            if not chain.periodic:
                phi[o], h[o] = (jnp.where(view.exists(o), x, 0) for x in (phi[o], h[o]))
        change = scatter(model, self.tables, cache, view, phi, h)[..., 0]
        return from_parts(jnp.where(fits, change, jnp.nan))

    def changes(self, cache: Reference) -> Inexact[Array, "n_sites hidden"]:
        model, chain = self.network, chain_of(self.network)
        patterns = chain.filled(model.patterns(cache.spins))
        view = EveryToken(chain, half_window(model))

        def flips_of(bit: Int[Array, ""]) -> Inexact[Array, "n_tokens hidden"]:
            phi, h = _embedding_change(model, patterns, patterns ^ bit.astype(patterns.dtype))
            change = scatter(model, self.tables, cache, view, {0: phi}, {0: h})
            return jax.vmap(from_parts, in_axes=-1)(change[..., : chain.n_tokens])

        return changes_of_all_tokens(model, flips_of)

    def numbers_per_token(self) -> int:
        return link_numbers(self.network, link_bandwidth(self.network, self.span))


def _embedding_change(model: DysonNet, before: Array, after: Array) -> tuple[Array, Array]:
    (phi0, h0), (phi1, h1) = model.embed_anywhere(before), model.embed_anywhere(after)
    return phi1 - phi0, h1 - h0
