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

# Rows of a multiple of so many tokens all begin in the same sets of a cache, which do not hold one
# entry of every row; such rows get eight entries more, which keeps them aligned.
ALIASED = 512

# Pairs (target, source) of window offsets that one link connects, for every link of a band.
Pairs = list[list[tuple[int, int]]]

# Bands of up to this many offsets are contracted without a loop: depth 2 with kernel 3.
WRITTEN_OUT = 5


class Chain(eqx.Module):
    """The chain of tokens on which offsets are counted."""

    n_tokens: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    @property
    def width(self) -> int:
        """Tokens for which rows of arrays have room when all tokens are looked at.  What they hold
        behind the chain means nothing."""
        return self.n_tokens + (8 if self.n_tokens % ALIASED == 0 else 0)

    def filled(self, x: Array) -> Array:
        """Arrays (..., tokens) with rows of this width; what is behind them is cut off."""
        beyond = max(self.width - x.shape[-1], 0)
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, beyond)])[..., : self.width]

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
        """Largest offset between two tokens within ``reach`` in all of the same span."""
        widest = reach + span - 1
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

    def through(self, links: Sequence[Array], pairs: Pairs, source: dict[int, Array]) -> dict:
        """Links times sources at every target: one small matrix product per target."""
        by_target: dict[int, list[tuple[Array, int]]] = {}
        for link, members in zip(links, pairs, strict=True):
            for i, j in members:
                by_target.setdefault(i, []).append((link, j))
        received = {}
        for i, terms in by_target.items():
            matrix = jnp.concatenate([self.at(link, i)[..., 0] for link, _ in terms], axis=1)
            received[i] = matrix @ jnp.concatenate([source[j] for _, j in terms])
        return received


class EveryToken(eqx.Module):
    """The same, with every token as the base: offsets are rotations of the arrays, up to
    ``margin`` tokens, which come out with rows of the width of the chain."""

    chain: Chain
    margin: int = eqx.field(static=True)

    def at(self, x: Array, offset: int) -> Array:
        # one framed copy serves all offsets: its slices are read where they are used
        n, width = self.chain.n_tokens, self.chain.width
        around = [(0, 0)] * (x.ndim - 1) + [(self.margin, self.margin + width - n)]
        framed = jnp.pad(x[..., :n], around, mode="wrap")
        start = self.margin + offset
        return framed[..., start : start + width]

    def exists(self, offset: int) -> Array:
        tokens = jnp.arange(self.chain.width) + offset
        return (tokens >= 0) & (tokens < self.chain.n_tokens)

    def contract(self, link: Array, row: int, vector: Array) -> Array:
        # Rotating the vector to the link's token moves less memory than rotating the link.
        return self.at(contract(link, self.at(vector, -row)), row)

    def through(self, links: Sequence[Array], pairs: Pairs, source: dict[int, Array]) -> dict:
        """Links times sources at every target, offset by offset, so that each link is read once.

        Wide bands run as a loop over offsets with all targets side by side, absent ones filled
        with zeros: compile time counts there, and written out it grows with pairs and features.
        """
        received: dict[int, Array] = {}
        if len(links) <= WRITTEN_OUT:
            # at the token of the link; shifted to that of the move when all is added up
            for link, members in zip(links, pairs, strict=True):
                for i, j in members:
                    product = contract(link, self.at(source[j], -i))
                    received[i] = received[i] + product if i in received else product
            return {i: self.at(total, i) for i, total in received.items()}
        targets = sorted({i for members in pairs for i, _ in members})
        absent = jnp.zeros_like(next(iter(source.values())))
        vectors = []
        for members in pairs:
            partner = dict(members)
            rolled = [self.at(source[partner[i]], -i) if i in partner else absent for i in targets]
            vectors.append(jnp.stack(rolled))

        def add(total, offset):
            link, vector = offset
            # (targets, features, tokens) at once, written out over the features of the source
            terms = (link[:, b] * vector[:, b, None] for b in range(link.shape[1]))
            return functools.reduce(jnp.add, terms, total), None

        start = jnp.zeros_like(jnp.stack([absent] * len(targets)))
        total = jax.lax.scan(add, start, (jnp.stack(links), jnp.stack(vectors)))[0]
        return {i: self.at(x, i) for i, x in zip(targets, total, strict=True)}


View = OneMove | EveryToken
