"""Factorisation of an exponential matrix in O(n·modes²), through its nested bases.

A segment of the chain is known to its surroundings by what it does to the modes that cross it. Let
the columns of U be their incoming shapes, λ^(i - start) for the modes of `lower` and μ^(end - i)
for those of `upper`, and those of V their outgoing ones, w λ^(end - j) and w' μ^(j - start). If α
arrives from outside, the segment solves A x = b - U α and sends s = Vᵀ x = g - G α with g = Vᵀ A⁻¹
b and G = Vᵀ A⁻¹ U, a square of size k, the number of modes.

Two neighbours make one segment by exchanging what they send: c crosses to the right in the modes of
`lower`, a to the left in those of `upper`, and t = (c, a) obeys one k×k system. This is the
composition of two scattering matrices. All segments of one length are composed at once, so the
depth is log₂ n; a ring closes the last one on itself.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hodlr.exponentials import SumOfExponentials, integer_power, ring_closure
from hodlr.factor import AbstractFactorisation, BlockInverse
from hodlr.toeplitz import ExponentialToeplitz
from hodlr.tree import Tree

# Leaves of this size balance the dense solves on them against the number of compositions.
_LEAF = 16


class _Join(eqx.Module):
    """The composition of the neighbouring pairs of one level: t = exchange(sent) - respond · α."""

    system: BlockInverse
    forth: Array
    back: Array
    respond: Array
    onward: Array
    arrive: Array

    def exchange(self, sent: Array) -> Array:
        """t = (c, a) with c + forth · a = sent_f and a + back · c = sent_b, by eliminating c."""
        m = self.forth.shape[-2]
        a = self.system.solve(sent[:, m:] - self.back @ sent[:, :m])
        return jnp.concatenate([sent[:, :m] - self.forth @ a, a], axis=1)

    def send(self, g: Array, forward: np.ndarray) -> tuple[Array, Array]:
        """The exchange t without arrivals (pairs, k, columns), and what the pair then sends."""
        left, right = g[0::2], g[1::2]
        t = self.exchange(jnp.where(forward, left, right))
        return t, jnp.where(forward, right, left) + self.onward @ t

    def receive(self, t: Array, alpha: Array, forward: np.ndarray) -> Array:
        """What arrives at the 2·pairs children when alpha arrives at the pairs."""
        exchanged = self.arrive[..., None] * alpha + t - self.respond @ alpha
        left = jnp.where(forward, alpha, exchanged)
        right = jnp.where(forward, exchanged, alpha)
        return jnp.stack([left, right], axis=1).reshape(2 * alpha.shape[0], *alpha.shape[1:])


class ExponentialFactorisation(AbstractFactorisation):
    """A factorised `ExponentialToeplitz`, open or ring, with k modes in all.

    Factorising costs O(n·(k² + 16 k + 16²)) operations and O(n·(k + 16)) numbers, a solve O(n·(k +
    16)) per column.
    """

    matrix: ExponentialToeplitz
    leaf: BlockInverse
    outgoing: Array
    solved: Array
    joins: tuple[_Join, ...]
    closing: Array | None
    ring: BlockInverse | None

    def __init__(self, matrix: ExponentialToeplitz):
        self.matrix = matrix
        lower, upper, n = matrix.lower, matrix.upper, matrix.n
        nothing = SumOfExponentials(jnp.zeros(1, matrix.dtype), jnp.zeros(1, matrix.dtype))
        lower, upper = (k if k.modes else nothing for k in (lower, upper))
        tree = self._tree
        poles = jnp.concatenate([lower.poles, upper.poles])
        weights = jnp.concatenate([lower.weights, upper.weights])
        forward = np.arange(poles.shape[0]) < lower.modes

        site = np.arange(tree.leaf_size)
        counts = np.clip(n - tree.leaf_size * np.arange(tree.n_leaves), 0, tree.leaf_size)
        inside = site < counts[:, None]
        table = integer_power(poles, jnp.arange(tree.leaf_size + 1)[:, None])
        from_left = table[np.broadcast_to(site, inside.shape)]
        to_right = table[np.where(inside, counts[:, None] - site, 0)]
        incoming = jnp.where(inside[..., None], jnp.where(forward, from_left, to_right), 0)
        outgoing = jnp.where(
            inside[..., None], jnp.where(forward, to_right, from_left) * weights, 0
        )

        bare = ExponentialToeplitz(tree.leaf_size, lower, upper, jnp.zeros((), matrix.dtype))
        noise = jnp.broadcast_to(matrix.diagonal, (n,))
        noise = jnp.pad(noise, (0, tree.padded - n), constant_values=1).reshape(inside.shape)
        both = inside[:, :, None] & inside[:, None, :]
        blocks = jnp.where(both, bare.to_dense(), 0) + noise[:, :, None] * np.eye(
            tree.leaf_size, dtype=noise.dtype
        )
        self.leaf = BlockInverse(blocks)
        self.solved = self.leaf.solve(incoming)
        # Stored transposed: products with transposes are slow in XLA.
        self.outgoing = jnp.swapaxes(outgoing, -1, -2)

        response = self.outgoing @ self.solved
        through = table[counts]
        joins = []
        for _ in range(tree.depth):
            join, response, through = jax.lax.optimization_barrier(
                _compose(response, through, forward)
            )
            joins.append(join)
        self.joins = tuple(joins)
        self.closing = self.ring = None
        if matrix.periodic:
            # After one turn what was sent arrives, and again after each further turn: α = s/(1 -
            # λⁿ).
            self.closing = (1 / ring_closure(poles, n))[:, None]
            self.ring = BlockInverse(
                self.closing * response + np.eye(poles.shape[0], dtype=noise.dtype)
            )

    @property
    def _tree(self) -> Tree:
        return Tree.of(self.matrix.n, _LEAF)

    def _solve(self, b: Array) -> Array:
        tree, n = self._tree, self.matrix.n
        columns = b.shape[-1]
        b = jnp.pad(b, ((0, tree.padded - n), (0, 0))).reshape(
            tree.n_leaves, tree.leaf_size, columns
        )
        forward = (np.arange(self.outgoing.shape[-2]) < max(self.matrix.lower.modes, 1))[:, None]
        x = self.leaf.solve(b)
        sent = self.outgoing @ x
        exchanges = []
        for join in self.joins:
            # Without a barrier XLA may fuse the levels and recompute each one for both its uses.
            t, sent = jax.lax.optimization_barrier(join.send(sent, forward))
            exchanges.append(t)
        arriving = jnp.zeros_like(sent)
        if self.ring is not None and self.closing is not None:
            arriving = self.ring.solve(self.closing * sent)
        for join, t in zip(reversed(self.joins), reversed(exchanges), strict=True):
            arriving = jax.lax.optimization_barrier(join.receive(t, arriving, forward))
        return (x - self.solved @ arriving).reshape(tree.padded, columns)[:n]

    def _blocks(self) -> list[BlockInverse]:
        closing = [] if self.ring is None else [self.ring]
        return [self.leaf, *(join.system for join in self.joins), *closing]


def _compose(response: Array, through: Array, forward: np.ndarray) -> tuple[_Join, Array, Array]:
    """Compose neighbours: responses G (segments, k, k) and transmissions λ^length (segments, k) of
    the pairs.

    With f the modes running forward (`lower`) and b those running back (`upper`), and left and
    right segment l and r:

        c + G_l[f,b] a = g_l[f] - G_l[f,f] α_f - G_l[f,b] τ_r α_b           sent s_f = g_r[f] + (τ_r
        - G_r[f,f]) c + … a + G_r[b,f] c = g_r[b] - G_r[b,f] τ_l α_f - G_r[b,b] α_b           sent
        s_b = g_l[b] + (τ_l - G_l[b,b]) a + …
    """
    left, right = response[0::2], response[1::2]
    left_through, right_through = through[0::2], through[1::2]
    same = forward[:, None] == forward[None, :]
    inner = jnp.where(forward[:, None], left, right)
    outer = jnp.where(forward[:, None], right, left)
    arrive = jnp.where(forward, left_through, right_through)
    leave = jnp.where(forward, right_through, left_through)
    identity = jnp.eye(forward.size, dtype=response.dtype)
    m = int(forward.sum())
    forth, back = inner[:, :m, m:], inner[:, m:, :m]
    system = BlockInverse(identity[m:, m:] - back @ forth)
    onward = jnp.where(same, identity * leave[:, None, :] - outer, 0)
    join = _Join(system, forth, back, jnp.zeros_like(outer), onward, arrive)
    respond = join.exchange(jnp.where(same, inner, inner * arrive[:, None, :]))
    join = _Join(system, forth, back, respond, onward, arrive)
    joined = jnp.where(same, outer * arrive[:, None, :], outer) + onward @ respond
    return join, joined, left_through * right_through
