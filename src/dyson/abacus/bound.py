"""Bound updates of a DysonNet: changes of theta, the arguments of the head, and of projections."""

import abc
from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, Int, Int8

from dyson.batching import in_chunks
from dyson.networks import DysonNet, Projection
from dyson.spins import flip
from dyson.updates.protocol import BoundUpdates, Proposal, parameter_bytes

# Moves side by side where the flips of all sites are evaluated one by one.
FLIPS_AT_ONCE = 64


class AbacusUpdates(BoundUpdates):
    """Updates that go through what a move adds to theta, against a reference configuration.

    Changes of several moves of the same reference may be added before :meth:`log_ratio`: that
    neglects how one flip screens the waves of the next, which is small for moves far apart (the
    screened typewriter of arXiv:2603.11189).
    """

    @abc.abstractmethod
    def change(self, cache: Any, sites: Int[Array, " flips"]) -> Inexact[Array, " *images_hidden"]:
        """What a move adds to theta, exactly: (hidden,), or (images, hidden) for a projected
        network; NaN if the move does not fit."""

    @abc.abstractmethod
    def log_ratio(
        self, cache: Any, change: Inexact[Array, " *images_hidden"]
    ) -> Inexact[Array, ""]:
        """log psi minus that of the reference, from the change of theta; O(hidden)."""

    @eqx.filter_jit
    def propose(self, cache: Any, sites: Int[Array, " flips"]) -> Proposal:
        return Proposal(sites, self.log_ratio(cache, self.change(cache, sites)))

    def commit(self, cache: Any, proposal: Proposal) -> Any:
        return self.init(flip(self.spins(cache), proposal.sites))

    def log_psi(self, cache: Any) -> Inexact[Array, ""]:
        return cache.log_psi


class NetworkUpdates(AbacusUpdates):
    """Of a DysonNet alone.  A cache has the fields ``spins``, ``theta`` and ``log_psi``."""

    network: eqx.AbstractVar[DysonNet]

    @abc.abstractmethod
    def changes(self, cache: Any) -> Inexact[Array, "n_sites hidden"]:
        """Changes of theta by the flips of all sites."""

    @abc.abstractmethod
    def numbers_per_token(self) -> int:
        """Estimated size of a cache and of the evaluation of all single flips."""

    def log_ratio(self, cache: Any, change: Inexact[Array, " hidden"]) -> Inexact[Array, ""]:
        return self.network.head.log_ratio(cache.theta, change)

    def spins(self, cache: Any) -> Int8[Array, " n_sites"]:
        return cache.spins

    @eqx.filter_jit
    def single_flips(self, cache: Any) -> Inexact[Array, " n_sites"]:
        return jax.vmap(lambda change: self.log_ratio(cache, change))(self.changes(cache))

    def bytes_per_sample(self) -> int:
        return self.numbers_per_token() * self.network.n_tokens * parameter_bytes(self.network)


class ProjectedReference(eqx.Module):
    """Caches of all images of a projected network, stacked, and the projected amplitude."""

    images: Any
    log_psi: Inexact[Array, ""]


@final
class ProjectedUpdates(AbacusUpdates):
    """Of a projection, from the updates of the network within: one cache per image."""

    projection: Projection
    updates: NetworkUpdates

    @eqx.filter_jit
    def init(self, spins: Int8[Array, " n_sites"]) -> ProjectedReference:
        # one after the other: the links of one image fill the processor's cache
        images = jax.lax.map(self.updates.init, self.projection.images(spins))
        return ProjectedReference(images, self.projection.combine(images.log_psi))

    def change(
        self, cache: ProjectedReference, sites: Int[Array, " flips"]
    ) -> Inexact[Array, "images hidden"]:
        return jax.vmap(self.updates.change)(cache.images, self.projection.image_sites(sites))

    def log_ratio(
        self, cache: ProjectedReference, change: Inexact[Array, "images hidden"]
    ) -> Inexact[Array, ""]:
        ratios = jax.vmap(self.updates.log_ratio)(cache.images, change)
        return self.projection.log_ratio(cache.images.log_psi, ratios, cache.log_psi)

    def spins(self, cache: ProjectedReference) -> Int8[Array, " n_sites"]:
        return cache.images.spins[0]

    @eqx.filter_jit
    def single_flips(self, cache: ProjectedReference) -> Inexact[Array, " n_sites"]:
        sites = jnp.arange(self.projection.n_sites, dtype=jnp.int32)[:, None]
        moved = jax.vmap(self.projection.image_sites)(sites)[..., 0].T
        changes = jax.vmap(lambda image, order: self.updates.changes(image)[order])
        ratio = lambda change: self.log_ratio(cache, change)
        return jax.vmap(ratio, in_axes=1)(changes(cache.images, moved))

    def bytes_per_sample(self) -> int:
        return self.projection.n_images * self.updates.bytes_per_sample()


def changes_one_by_one(updates: NetworkUpdates, cache: Any) -> Inexact[Array, "n_sites hidden"]:
    """Changes of theta by the flips of all sites, where there is no better way."""
    sites = jnp.arange(updates.network.n_sites, dtype=jnp.int32)[:, None]
    return in_chunks(lambda move: updates.change(cache, move), sites, FLIPS_AT_ONCE)


def changes_of_all_tokens(
    model: DysonNet, flips_of: Callable[[Int[Array, ""]], Inexact[Array, "n_tokens hidden"]]
) -> Inexact[Array, "n_sites hidden"]:
    """Flips of all sites from those of one spin of every token, given as a bit of the pattern of a
    token: all tokens side by side, their spins in turn."""
    bits = 2 ** jnp.arange(model.token_size - 1, -1, -1, dtype=jnp.int32)
    if model.token_size == 1:
        return flips_of(bits[0])
    by_bit = jax.lax.map(flips_of, bits)
    return jnp.swapaxes(by_bit, 0, 1).reshape(-1, by_bit.shape[-1])


def place(
    model: DysonNet, span: int, sites: Int[Array, " flips"]
) -> tuple[Bool[Array, ""], Int[Array, ""], Int[Array, " span"]]:
    """Whether the sites lie in ``span`` neighbouring tokens, the first of these tokens, and which
    spins of them are flipped, as bits of their patterns."""
    size, n_tokens = model.token_size, model.n_tokens
    tokens = jnp.where(sites < 0, sites[0], sites) // size
    apart = (tokens - tokens[:, None]) % n_tokens  # [base, token]
    reaches = jnp.max(apart, axis=1)
    if model.periodic:
        fits, base = jnp.min(reaches) < span, tokens[jnp.argmin(reaches)]
    else:
        fits, base = (jnp.max(tokens) - jnp.min(tokens)) < span, jnp.min(tokens)
    token = (base + jnp.arange(span, dtype=sites.dtype)) % n_tokens
    here = token[:, None] * size + jnp.arange(size, dtype=sites.dtype)
    flips = jnp.sum((here[..., None] == sites) & (sites >= 0), axis=2, dtype=sites.dtype) % 2
    return fits, base, flips @ (2 ** jnp.arange(size - 1, -1, -1, dtype=sites.dtype))


def check_pair(sites: Int[Array, " flips"]) -> None:
    """Refuse moves of more than two flips."""
    if sites.shape[0] > 2:
        raise ValueError(
            "AbacusPairs: a move is one or two flips at any distance, got an array of "
            f"{sites.shape[0]} sites; write dyson.Abacus(span=k) for more flips within k sites"
        )
