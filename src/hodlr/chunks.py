"""A matrix in chunks of sites: dense blocks on the diagonal, and waves that carry the rest.

With the sites of a chain cut into chunks c = 0 … T - 1 of b sites each, the blocks are

    A[c, c]  = blocks[c]
    A[c, c'] = E[c] Φ[c-1] ⋯ Φ[c'+1] L[c']ᵀ        c > c'     (`lower`)
    A[c', c] = (the same with the waves of `upper`)ᵀ

for `enter` E and `leave` L (T, b, r) and `through` Φ (T, r, r). So a wave f of r numbers runs from
chunk to chunk: a chunk c reads E[c] f, and sends on Φ[c] f + L[c]ᵀ x. Exponential kernels on chains
and rings, sums of exponentials at irregular points, and hierarchical matrices all have this form,
with as many waves as they have modes, or ranks above a leaf; what is known of it, products and
factorisations in O(n·(b + r)²), is written once for all of them.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


class Waves(NamedTuple):
    """What crosses the boundaries of chunks in one direction: enter, leave (T, b, r), through
    (T, r, r). Nothing leaves the last chunk."""

    enter: Array
    leave: Array
    through: Array

    def ended(self) -> "Waves":
        """The same waves, with nothing leaving the last chunk."""
        return Waves(self.enter, self.leave.at[-1].set(0), self.through.at[-1].set(0))

    def balanced(self) -> "Waves":
        """The same product of generators with entering and leaving shapes of one size, mode by
        mode: what elimination rounds is then relative to the entries that a mode makes."""
        enter, leave = (
            jnp.max(jnp.abs(lax.stop_gradient(a)), axis=(0, 1), initial=0)
            for a in (self.enter, self.leave)
        )
        both = (enter > 0) & (leave > 0)
        scale = jnp.sqrt(jnp.where(both, leave, 1)) / jnp.sqrt(jnp.where(both, enter, 1))
        scale = scale.astype(self.enter.dtype)
        through = self.through * (scale / scale[:, None])
        return Waves(self.enter * scale, self.leave / scale, through)

    def conj(self) -> "Waves":
        return Waves(*map(jnp.conj, self))


class Chunks(NamedTuple):
    """The blocks on the diagonal (T, b, b), and the waves of the two triangles."""

    blocks: Array
    lower: Waves
    upper: Waves

    @classmethod
    def of(cls, blocks: Array, lower: Waves, upper: Waves, n: int) -> "Chunks":
        """From generators on T·b ≥ n sites: those beyond n are cut off, with `size` on their
        diagonal."""
        shape = blocks.shape[:2]
        inside = (jnp.arange(shape[0] * shape[1]) < n).reshape(shape)

        def cut(waves: Waves) -> Waves:
            enter, leave = (jnp.where(inside[..., None], a, 0) for a in waves[:2])
            return Waves(enter, leave, waves.through).ended().balanced()

        identity = jnp.eye(shape[1], dtype=blocks.dtype)
        both = inside[:, :, None] & inside[:, None, :]
        bare = cls(jnp.where(both, blocks, 0), cut(lower), cut(upper))
        size = bare.size().astype(blocks.dtype)
        return bare._replace(blocks=jnp.where(both, bare.blocks, size * identity))

    @property
    def padded(self) -> int:
        return self.blocks.shape[0] * self.blocks.shape[1]

    def split(self, x: Array) -> Array:
        """Columns (n, k) chunk by chunk (T, b, k), with zeros beyond n."""
        rest = self.padded - x.shape[0]
        return jnp.pad(x, ((0, rest), (0, 0))).reshape(*self.blocks.shape[:2], x.shape[-1])

    def size(self) -> Array:
        """About the largest entry, as a power of four; constant under differentiation."""
        waves = [jnp.max(jnp.abs(a)) ** 2 for w in (self.lower, self.upper) for a in w[:2]]
        largest = jnp.stack([jnp.max(jnp.abs(self.blocks)), *waves])
        largest = jnp.max(lax.stop_gradient(largest))
        return 4 ** jnp.round(jnp.log2(jnp.where(largest > 0, largest, 1)) / 2)

    def scaled(self, size: Array) -> "Chunks":
        """The matrix over `size`, a power of four."""
        size = size.astype(self.blocks.dtype)
        root = jnp.sqrt(size)
        lower, upper = (
            Waves(w.enter / root, w.leave / root, w.through) for w in (self.lower, self.upper)
        )
        return Chunks(self.blocks / size, lower, upper)

    def from_lower(self) -> "Chunks":
        """The Hermitian matrix with the same lower triangle."""
        below = jnp.tril(self.blocks, -1)
        middle = jnp.real(jnp.diagonal(self.blocks, axis1=-2, axis2=-1)).astype(below.dtype)
        identity = jnp.eye(below.shape[-1], dtype=below.dtype)
        blocks = below + jnp.conj(transposed(below)) + middle[..., None] * identity
        return Chunks(blocks, self.lower, self.lower.conj())

    def observed(self) -> "Chunks":
        """The same matrix, its lower waves in coordinates in which what they make of all later
        sites has orthonormal columns.

        The ranks of a hierarchical matrix are waves that say nearly the same, and what cancels
        between them may grow; in these coordinates no wave is larger than the entries it makes."""

        def step(after: Array, site):
            enter, leave, through = site
            q, now = jnp.linalg.qr(jnp.concatenate([enter, after @ through]))
            size = enter.shape[0]
            return now, Waves(q[:size], leave @ after.T, q[size:])

        nothing = jnp.zeros_like(self.lower.through[0])
        lower = lax.scan(step, nothing, self.lower, reverse=True)[1]
        return Chunks(self.blocks, lower, lower.conj())

    def conj(self) -> "Chunks":
        return Chunks(jnp.conj(self.blocks), self.lower.conj(), self.upper.conj())

    @property
    def T(self) -> "Chunks":
        return Chunks(jnp.swapaxes(self.blocks, -1, -2), self.upper, self.lower)

    @property
    def H(self) -> "Chunks":
        return self.conj().T

    def product(self, x: Array) -> Array:
        """A x for columns chunk by chunk (T, b, k); O(n·(b + r)) each."""
        lower, upper = self.lower, self.upper
        down = run(lower.through, transposed(lower.leave) @ x)
        up = run(transposed(upper.through), transposed(upper.enter) @ x, reverse=True)
        return self.blocks @ x + lower.enter @ down + upper.leave @ up


def run(through: Array, sent: Array, reverse: bool = False) -> Array:
    """The waves f (T, r, k) that arrive at every chunk, f⁺ = Φ f + what the chunk sends."""

    def step(wave: Array, site):
        through, sent = site
        return through @ wave + sent, wave

    return lax.scan(step, jnp.zeros_like(sent[0]), (through, sent), reverse=reverse)[1]


def transposed(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)
