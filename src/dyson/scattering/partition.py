"""How a chain of tokens is cut into windows: which moves are evaluated where."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

# Tokens of a core at least.  Fewer: more segments to join; more: larger windows.
SHORTEST = 24


class Partition(eqx.Module):
    """Cores of ``core`` tokens one after the other, the last one of ``last``; around each core a
    window that holds all tokens whose features a move in the core changes.

    A move starts at a token of the core and reaches ``span`` tokens: the window begins ``half``
    tokens before the core and ends ``half + span - 1`` behind it.  Consecutive windows overlap in
    ``margin`` tokens.
    """

    n_tokens: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    half: int = eqx.field(static=True)
    span: int = eqx.field(static=True)
    core: int = eqx.field(static=True)

    @property
    def margin(self) -> int:
        return 2 * self.half + self.span - 1

    @property
    def count(self) -> int:
        return -(-self.n_tokens // self.core)

    @property
    def last(self) -> int:
        return self.n_tokens - (self.count - 1) * self.core

    @property
    def window(self) -> int:
        """Tokens of a window; that of the last core fills ``last + margin`` of them."""
        return self.core + self.margin

    def windows(self, x: Array) -> Array:
        """Arrays over tokens (..., n_tokens) as (..., window, count).

        Beyond the ends of an open chain, and where the last window has slots to spare, is nothing.
        """
        around = [(0, 0)] * (x.ndim - 1)
        behind = self.margin - self.half
        mode = "wrap" if self.periodic else "constant"
        framed = jnp.pad(x, (*around, (self.half, behind)), mode=mode)
        spare = (self.count + 1) * self.core - framed.shape[-1]
        framed = jnp.pad(framed, (*around, (0, spare)))
        rows = framed.reshape(*x.shape[:-1], self.count + 1, self.core)
        whole = [rows[..., :-1, :], rows[..., 1:, : self.margin]]
        return jnp.swapaxes(jnp.concatenate(whole, axis=-1), -1, -2)


def partition_of(
    n_tokens: int, half: int, span: int, *, periodic: bool, shortest: int = SHORTEST
) -> Partition | None:
    """Cores no shorter than ``shortest`` and longer than the overlap of windows; None for a chain
    that one window nearly covers.

    The last core must hold the overlap as well.  Cores that divide the chain need no special
    case, so the first such length up to one and a half times the shortest is taken.
    """
    margin = 2 * half + span - 1
    shortest = max(shortest, margin + 1)
    fits = [
        core
        for core in range(shortest, n_tokens - max(margin, 1) + 1)
        if n_tokens % core == 0 or n_tokens % core >= margin
    ]
    if not fits:
        return None
    even = [core for core in fits if n_tokens % core == 0 and 2 * core <= 3 * shortest]
    return Partition(n_tokens, periodic, half, span, (even or fits)[0])
