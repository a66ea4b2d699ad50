"""Which tokens a local move touches in each layer, as static offsets from its base token.

A move changes the embedding of the tokens S.  In layer l the gates D change on S dilated by
(l-1) q and the sources c on S dilated by l q, with q the reach of the local convolution.
Every layer has its own windows.

Two views evaluate the same formulas: ``OneMove`` at one base token (a dynamic position), and
``EveryToken`` with all tokens as base at once, where looking at an offset is a shifted array.
"""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


class Chain(eqx.Module):
    """The chain of tokens on which offsets are counted."""

    n_tokens: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    def offset(self, o: int) -> int:
        """The representative of an offset: on a ring, the one of smallest modulus."""
        if not self.periodic:
            return o
        half = (self.n_tokens - 1) // 2
        return (o + half) % self.n_tokens - half

    def dilate(self, window: Sequence[int], reach: int) -> tuple[int, ...]:
        """All tokens within ``reach`` of the window; on a small ring each token once."""
        wide = {self.offset(o + step) for o in window for step in range(-reach, reach + 1)}
        return tuple(sorted(wide))

    def bandwidth(self, span: int, reach: int) -> int:
        """Largest offset between two tokens that a link of neighbouring layers connects."""
        widest = 2 * reach + span - 1
        return min(widest, self.n_tokens // 2) if self.periodic else widest


def contract(matrix: Array, vector: Array) -> Array:
    """``sum_b matrix[..., b, t] vector[b, t]``, one product per token.

    Written out over b: XLA on the CPU then reads contiguous tokens and keeps the sum in registers,
    four to eight times faster than its reduction over an axis that is not the last.
    """
    terms = (matrix[..., b, :] * vector[b] for b in range(vector.shape[0]))
    return functools.reduce(jnp.add, terms)


class OneMove(eqx.Module):
    """Arrays over tokens (..., tokens) seen from one base token: width-one slices."""

    chain: Chain
    base: Int[Array, ""]

    def at(self, x: Array, offset: int) -> Array:
        position = (self.base + offset) % self.chain.n_tokens
        return jax.lax.dynamic_slice_in_dim(x, position, 1, axis=-1)

    def exists(self, offset: int) -> Array:
        """Whether the token is on the chain."""
        token = self.base + offset
        return ((token >= 0) & (token < self.chain.n_tokens))[None]

    def contract(self, link: Array, row: int, vector: Array) -> Array:
        """``sum_b link[a, b] vector[b]`` with the link of the token at offset ``row``."""
        return contract(self.at(link, row), vector)


class EveryToken(eqx.Module):
    """The same, with every token as the base: offsets are rotations of the arrays."""

    chain: Chain

    def at(self, x: Array, offset: int) -> Array:
        return jnp.roll(x, -offset, axis=-1)

    def exists(self, offset: int) -> Array:
        tokens = jnp.arange(self.chain.n_tokens) + offset
        return (tokens >= 0) & (tokens < self.chain.n_tokens)

    def contract(self, link: Array, row: int, vector: Array) -> Array:
        # Rotating the vector to the link's token moves less memory than rotating the link.
        product = contract(link, jnp.roll(vector, row, axis=-1))
        return jnp.roll(product, -row, axis=-1)


View = OneMove | EveryToken
