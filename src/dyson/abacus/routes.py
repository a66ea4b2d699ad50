"""The ways to evaluate local updates of a DysonNet, one class each, and which one serves when."""

import abc
from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, Int, Int8

from dyson.abacus import pairs, surroundings
from dyson.abacus.links import chunk_length, link_inputs
from dyson.abacus.pairs import Pairs
from dyson.abacus.partition import Partition, partition_of
from dyson.abacus.reference import (
    Reference,
    ReferenceTables,
    build_reference,
    chain_of,
    link_bandwidth,
    reference_tables,
)
from dyson.abacus.scatter import scatter
from dyson.abacus.surroundings import Surroundings
from dyson.abacus.windows import EveryToken, OneMove
from dyson.networks import DysonNet
from dyson.scattering import half_window
from dyson.spins import flip

# Multiply-adds in the time that a loop takes over a layer and slot, whatever is computed there.
STEP = 170_000
# Moves side by side where the flips of all sites are evaluated one by one.
FLIPS_AT_ONCE = 64


class Route(eqx.Module):
    """Changes of theta, the arguments of the head, against a reference configuration.

    Static: what depends on the parameters is in the tables, what depends on the configuration in
    the reference, which has the fields ``spins``, ``theta`` and ``log_psi`` whatever the route.
    """

    @abc.abstractmethod
    def tables(self, model: DysonNet) -> Any:
        """What all references of a network share; None if there is nothing."""

    @abc.abstractmethod
    def reference(self, model: DysonNet, tables: Any, spins: Int8[Array, " n_sites"]) -> Any:
        """The cache of a configuration."""

    @abc.abstractmethod
    def change(
        self, model: DysonNet, tables: Any, reference: Any, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " hidden"]:
        """Of one move; NaN if it does not fit."""

    @abc.abstractmethod
    def numbers_per_token(self, model: DysonNet) -> int:
        """Estimated size of a reference and of the evaluation of all single flips."""

    @abc.abstractmethod
    def pays(self, model: DysonNet) -> bool:
        """Whether the moves of a reference cost less than as many forward passes."""

    def changes(
        self, model: DysonNet, tables: Any, reference: Any
    ) -> Inexact[Array, "n_sites hidden"]:
        """Of the flips of all sites; one by one where a route has nothing better."""
        sites = jnp.arange(model.n_sites, dtype=jnp.int32)
        one = lambda site: self.change(model, tables, reference, site[None])  # noqa: E731
        return jax.lax.map(one, sites, batch_size=min(FLIPS_AT_ONCE, model.n_sites))


def _of_all_tokens(
    model: DysonNet, flips_of: Callable[[Int[Array, ""]], Inexact[Array, "n_tokens hidden"]]
) -> Inexact[Array, "n_sites hidden"]:
    """Flips of all sites from those of one spin of every token, given as a bit of the pattern of a
    token: all tokens side by side, their spins in turn."""
    bits = 2 ** jnp.arange(model.token_size - 1, -1, -1, dtype=jnp.int32)
    if model.token_size == 1:
        return flips_of(bits[0])
    by_bit = jax.lax.map(flips_of, bits)
    return jnp.swapaxes(by_bit, 0, 1).reshape(-1, by_bit.shape[-1])


def route_of(model: DysonNet, span: int | None) -> Route:
    """For moves of ``span`` neighbouring tokens: links up to two blocks, else windows, two of them
    for pairs at any distance (no span); forward passes on chains that the windows would cover."""
    half, chain = half_window(model), {"periodic": model.periodic}
    if span is None:
        parts = pairs.pair_partition(model.n_tokens, half, **chain)
        return ByForwardPass(None) if parts is None else ByTwoWindows(parts)
    if model.depth <= 2:
        return ByLinks(span)
    parts = partition_of(model.n_tokens, half, span, **chain)
    return ByForwardPass(span) if parts is None else ByWindows(parts)


@final
class ByLinks(Route):
    """Theorem 1 with link tensors: one or two blocks."""

    span: int = eqx.field(static=True)

    def tables(self, model: DysonNet) -> ReferenceTables:
        return reference_tables(model, self.span)

    def reference(
        self, model: DysonNet, tables: ReferenceTables, spins: Int8[Array, " n_sites"]
    ) -> Reference:
        return build_reference(model, spins, tables)

    def change(
        self,
        model: DysonNet,
        tables: ReferenceTables,
        reference: Reference,
        sites: Int[Array, " flips"],
    ) -> Inexact[Array, " hidden"]:
        fits, base = _place(model, self.span, sites)
        masks = _masks(model, self.span, base, sites)
        chain, size = chain_of(model), model.token_size
        view = OneMove(chain, base)
        phi, h = {}, {}
        # a ring shorter than the span meets its tokens several times
        for o in sorted({chain.offset(o) for o in range(self.span)}):
            token = (base + o) % chain.n_tokens
            spins = jax.lax.dynamic_slice_in_dim(reference.spins, token * size, size)
            pattern = model.patterns(spins)
            mask = masks[o % chain.n_tokens if chain.periodic else o]
            phi[o], h[o] = _embedding_change(model, pattern, pattern ^ mask)
            if not chain.periodic:
                phi[o], h[o] = (jnp.where(view.exists(o), x, 0) for x in (phi[o], h[o]))
        change = scatter(model, tables, reference, view, phi, h)[..., 0]
        return model.head.combine(jnp.where(fits, change, jnp.nan))

    def changes(
        self, model: DysonNet, tables: ReferenceTables, reference: Reference
    ) -> Inexact[Array, "n_sites hidden"]:
        chain = chain_of(model)
        patterns = chain.filled(model.patterns(reference.spins))
        view = EveryToken(chain, half_window(model))

        def flips_of(bit: Int[Array, ""]) -> Inexact[Array, "n_tokens hidden"]:
            phi, h = _embedding_change(model, patterns, patterns ^ bit.astype(patterns.dtype))
            change = scatter(model, tables, reference, view, {0: phi}, {0: h})
            return jax.vmap(model.head.combine, in_axes=-1)(change[..., : chain.n_tokens])

        return _of_all_tokens(model, flips_of)

    def numbers_per_token(self, model: DysonNet) -> int:
        features, numbers = model.features, _activations(model)
        if model.depth == 2:
            width = link_bandwidth(model, self.span)
            links = 4 * (2 * width + 1)  # and what they are made of
            numbers += links * features**2
            chunk = chunk_length(model.n_tokens, width)
            numbers += 2 * features**2 * link_inputs(model.blocks, width, chunk) // chunk
        return numbers

    def pays(self, model: DysonNet) -> bool:
        if model.depth == 1:
            return True
        width = link_bandwidth(model, self.span)
        chunk = chunk_length(model.n_tokens, width)
        links = (2 * width + 1) * model.features**2 * link_inputs(model.blocks, width, chunk)
        return links < 4 * _forward_pass(model)


@final
class ByWindows(Route):
    """Windows within what surrounds them: every depth."""

    parts: Partition

    def tables(self, model: DysonNet) -> surroundings.Tables:
        return surroundings.tables_of(model, self.parts)

    def reference(
        self, model: DysonNet, tables: surroundings.Tables, spins: Int8[Array, " n_sites"]
    ) -> Surroundings:
        return surroundings.surroundings_of(model, spins, tables)

    def change(
        self,
        model: DysonNet,
        tables: surroundings.Tables,
        reference: Surroundings,
        sites: Int[Array, " flips"],
    ) -> Inexact[Array, " hidden"]:
        fits, base = _place(model, self.parts.span, sites)
        masks = _masks(model, self.parts.span, base, sites)
        change = surroundings.one_move(model, tables, reference, base, masks)
        return model.head.combine(jnp.where(fits, change, jnp.nan))

    def changes(
        self, model: DysonNet, tables: surroundings.Tables, reference: Surroundings
    ) -> Inexact[Array, "n_sites hidden"]:
        def flips_of(bit: Int[Array, ""]) -> Inexact[Array, "n_tokens hidden"]:
            flips = surroundings.every_flip(model, tables, reference, bit)
            return jax.vmap(model.head.combine)(flips)

        return _of_all_tokens(model, flips_of)

    def numbers_per_token(self, model: DysonNet) -> int:
        # about eight segments per window, in the making or kept
        return 8 * _segment(model) // self.parts.core + _activations(model)

    def pays(self, model: DysonNet) -> bool:
        waves, couples, triples = _waves(model)
        joins = (48 * triples * waves**3 + 100 * couples * waves**2) // self.parts.core
        width = self.parts.window
        flips = model.depth * width * model.features * (2 * model.features + width)
        # few windows side by side leave the steps from slot to slot dearer than their arithmetic
        steps = STEP * model.depth // self.parts.count
        return joins + flips + steps < _forward_pass(model)


@final
class ByTwoWindows(Route):
    """One or two flips anywhere: two windows and the segments between and around them."""

    parts: Partition

    def tables(self, model: DysonNet) -> pairs.Tables:
        return pairs.tables_of(model, self.parts)

    def reference(
        self, model: DysonNet, tables: pairs.Tables, spins: Int8[Array, " n_sites"]
    ) -> Pairs:
        return pairs.pairs_of(model, spins, tables)

    def change(
        self, model: DysonNet, tables: pairs.Tables, reference: Pairs, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " hidden"]:
        _check_pair(sites)
        return model.head.combine(pairs.pair_change(model, tables, reference, sites))

    def numbers_per_token(self, model: DysonNet) -> int:
        levels = 4 + self.parts.count.bit_length()
        return levels * _segment(model) // self.parts.core + _activations(model)

    def pays(self, model: DysonNet) -> bool:
        width = 3 * self.parts.core + 2 * self.parts.margin
        _, couples, _ = _waves(model)
        windows = model.depth * width * model.features * (4 * model.features + width)
        return 4 * (windows + 4 * _segment(model)) < _forward_pass(model)


class Whole(eqx.Module):
    """The reference where windows would cover the chain: moves take a forward pass."""

    spins: Int8[Array, " n_sites"]
    theta: Inexact[Array, " hidden"]
    log_psi: Inexact[Array, ""]


@final
class ByForwardPass(Route):
    """Small chains."""

    span: int | None = eqx.field(static=True)

    def tables(self, model: DysonNet) -> None:
        return None

    def reference(
        self, model: DysonNet, tables: None, spins: Int8[Array, " n_sites"]
    ) -> Whole:
        theta = model.theta(spins)
        return Whole(spins, theta, model.head.log_amplitude(theta))

    def change(
        self, model: DysonNet, tables: None, reference: Whole, sites: Int[Array, " flips"]
    ) -> Inexact[Array, " hidden"]:
        change = model.theta(flip(reference.spins, sites)) - reference.theta
        if self.span is None:
            _check_pair(sites)
            return change
        fits, _ = _place(model, self.span, sites)
        return jnp.where(fits, change, jnp.nan)

    def numbers_per_token(self, model: DysonNet) -> int:
        return model.n_sites * _activations(model)

    def pays(self, model: DysonNet) -> bool:
        return False


def _place(
    model: DysonNet, span: int, sites: Int[Array, " flips"]
) -> tuple[Bool[Array, ""], Int[Array, ""]]:
    """Whether the sites lie in ``span`` neighbouring tokens, and the first of these tokens."""
    tokens = jnp.where(sites < 0, sites[0], sites) // model.token_size
    apart = (tokens - tokens[:, None]) % model.n_tokens  # [base, token]
    reaches = jnp.max(apart, axis=1)
    if model.periodic:
        return jnp.min(reaches) < span, tokens[jnp.argmin(reaches)]
    return (jnp.max(tokens) - jnp.min(tokens)) < span, jnp.min(tokens)


def _masks(
    model: DysonNet, span: int, base: Int[Array, ""], sites: Int[Array, " flips"]
) -> Int[Array, " span"]:
    """Which spins of the tokens from the base on are flipped, as bits of their patterns."""
    size = model.token_size
    token = (base + jnp.arange(span, dtype=sites.dtype)) % model.n_tokens
    here = token[:, None] * size + jnp.arange(size, dtype=sites.dtype)
    flips = jnp.sum((here[..., None] == sites) & (sites >= 0), axis=2, dtype=sites.dtype) % 2
    return flips @ (2 ** jnp.arange(size - 1, -1, -1, dtype=sites.dtype))


def _check_pair(sites: Int[Array, " flips"]) -> None:
    if sites.shape[0] > 2:
        raise ValueError(
            "Abacus: with span=None a move is one or two flips at any distance, got an array of "
            f"{sites.shape[0]} sites; write Abacus(span=k) for more flips within k tokens"
        )


def _embedding_change(model: DysonNet, before: Array, after: Array) -> tuple[Array, Array]:
    (phi0, h0), (phi1, h1) = model.embed(before), model.embed(after)
    return phi1 - phi0, h1 - h0


def _waves(model: DysonNet) -> tuple[int, int, int]:
    """Real waves of a layer in one direction; couples and triples of layers."""
    weights = model.blocks[0].mixer.exponentials().weights
    waves, depth = weights.size * (2 if jnp.iscomplexobj(weights) else 1), model.depth
    return waves, depth * (depth - 1) // 2, depth * (depth - 1) * (depth - 2) // 6


def _segment(model: DysonNet) -> int:
    """Numbers of a segment."""
    waves, couples, _ = _waves(model)
    outputs = model.head.weight.shape[0] * model.head.weight.shape[1]
    return 4 * couples * waves**2 + 2 * model.depth * (outputs + 1) * waves


def _activations(model: DysonNet) -> int:
    """Numbers per token of the readouts and of the activations of a few evaluations."""
    parts, hidden, features = model.head.weight.shape
    return 4 * model.depth * parts * hidden * features + 100 * model.depth * features


def _forward_pass(model: DysonNet) -> int:
    """Multiply-adds."""
    return 4 * model.depth * model.features**2 * model.n_tokens
