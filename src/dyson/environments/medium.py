"""The constant part of every block, as the waves of a segment see it.

In each mode of a mixer one wave runs to the right and one to the left.  ``f``, arriving at token k,
gathers the sources u before it, ``g`` those behind it, and the mixer reads

    f_k = sum_{j<k} lambda^(k-j) u_j,      y_k = Re[c (f_k + g_k)] + kappa u_k,
    kappa = local + sum Re c,              leaving a token: f -> lambda (f + u).

The site sees the two directions alike, so nothing below knows which one a wave runs in.

A wave is a tuple of real arrays (features * modes, ..., chains): one for real poles, the real and
the imaginary part for complex ones.  Real arrays and the chains as the contiguous axis keep every
loop a plain vectorised one.  A linear map *from* waves is a tuple with one entry per part of the
wave it acts on; each entry has the structure of the result, with the columns as its second axis.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.mixers import Mixer
from dyson.networks import Block, DysonNet

# One real array or several: the parts of a wave.
Wave = tuple[Array, ...]
# Per part of the wave it acts on, an array or a wave with the columns as second axis.
WaveMap = tuple[Any, ...]


class Propagator(eqx.Module):
    """Waves of one block.

    pole, weight: the exponentials of the mixer, parts of shape (features * modes,).
    kappa: response to the source of the same token.
    scattered, offset: u = scattered @ h + offset + c.   mix_out: W_out.
    """

    pole: Wave
    weight: Wave
    kappa: Float[Array, " features"]
    scattered: Float[Array, "features features"]
    offset: Float[Array, " features"]
    mix_out: Float[Array, "features features"]
    mixer: Mixer
    modes: int = eqx.field(static=True)

    def __init__(self, block: Block):
        sums = block.mixer.exponentials()
        self.pole, self.weight = parts(sums.poles), parts(sums.weights)
        self.kappa = block.mixer.local + jnp.sum(jnp.real(sums.weights), axis=1)
        self.scattered = block.mix_scattered
        self.offset = -block.mix_scattered @ block.act_shift
        self.mix_out = block.mix_out
        self.mixer = block.mixer
        self.modes = sums.poles.shape[1]

    def power(self, exponents: Array) -> Wave:
        """``lambda^r``: parts (features * modes, exponents)."""
        return parts(self.mixer.powers(exponents))

    def expand(self, u: Array, axis: int = 0) -> Array:
        """Channels to modes."""
        return u if self.modes == 1 else jnp.repeat(u, self.modes, axis=axis)

    def fold(self, x: Array, axis: int = 0) -> Array:
        """Sum of the modes of each channel."""
        if self.modes == 1:
            return x
        shape = (*x.shape[:axis], x.shape[axis] // self.modes, self.modes, *x.shape[axis + 1 :])
        return jnp.sum(x.reshape(shape), axis=axis + 1)

    def heard(self, wave: Wave) -> Array:
        """``Re[c wave]``, (features, ...): the part of y that comes from elsewhere."""
        return self.fold(real_product(self.weight, wave))

    def heard_columns(self, coefficient: Any, factor: Wave | None = None) -> WaveMap:
        """``coefficient @ Re[c factor .]`` as a map from waves; coefficient (rows, features, B)."""
        weight = self.weight if factor is None else turn(factor, self.weight)
        signs = (1, -1)
        return tuple(
            jax.tree.map(lambda a: self.expand(a, axis=1) * w[:, None], coefficient)  # noqa: B023
            for w in (sign * part for sign, part in zip(signs, weight, strict=False))
        )

    def sent(self, u: Array, factor: Wave | None = None) -> Wave:
        """``lambda factor u``: the wave a source (features, ..., B) sends to the next token."""
        pole = self.pole if factor is None else turn(factor, self.pole)
        expanded = self.expand(u)
        return tuple(_as_rows(part, expanded) * expanded for part in pole)

    def sent_into(self, response: WaveMap) -> Any:
        """``response @ lambda u`` as coefficients (rows, features, B) of the sources u."""
        terms = (
            jax.tree.map(lambda a: a * part[:, None], rows)  # noqa: B023
            for rows, part in zip(response, self.pole, strict=True)
        )
        total = functools.reduce(add, terms)
        return jax.tree.map(lambda a: self.fold(a, axis=1), total)

    def turned_columns(self, response: WaveMap) -> WaveMap:
        """``response @ lambda``: the same map of waves one token further away."""
        if len(self.pole) == 1:
            real = self.pole[0][:, None]
            return (jax.tree.map(lambda a: a * real, response[0]),)
        real, imag = (part[:, None] for part in self.pole)
        return (
            jax.tree.map(lambda a, b: a * real + b * imag, *response),
            jax.tree.map(lambda a, b: b * real - a * imag, *response),
        )


class Medium(eqx.Module):
    """A network as its segments see it; made once per set of parameters.

    head: (outputs, features), real and imaginary rows of the head times the pooling scale.
    """

    layers: tuple[Propagator, ...]
    head: Float[Array, "outputs features"]

    def __init__(self, model: DysonNet):
        self.layers = tuple(map(Propagator, model.blocks))
        self.head = model.head.weight.reshape(-1, model.features) * model.pool_scale


def parts(x: Array) -> Wave:
    """Real arrays (features * modes, ...) of one array (features, modes, ...)."""
    x = x.reshape(-1, *x.shape[2:])
    return (jnp.real(x), jnp.imag(x)) if jnp.iscomplexobj(x) else (x,)


def turn(factor: Wave, wave: Wave) -> Wave:
    """Product of a factor (features * modes,) with every column of a wave, part by part."""
    rows = tuple(_as_rows(part, wave[0]) for part in factor)
    if len(rows) == 1:
        return (rows[0] * wave[0],)
    return (rows[0] * wave[0] - rows[1] * wave[1], rows[0] * wave[1] + rows[1] * wave[0])


def real_product(factor: Wave, wave: Wave) -> Array:
    """Real part of the product."""
    rows = tuple(_as_rows(part, wave[0]) for part in factor)
    return rows[0] * wave[0] if len(rows) == 1 else rows[0] * wave[0] - rows[1] * wave[1]


def add(*trees: Any) -> Any:
    """Sum of arrays or tuples of arrays."""
    return jax.tree.map(lambda *leaves: functools.reduce(jnp.add, leaves), *trees)


def product(coefficients: Any, x: Array) -> Any:
    """``sum_b coefficients[:, b, chain] x[b, ..., chain]`` for each row array.

    With the chains last this is no product of matrices to XLA on the CPU: a reduction is the
    fastest way to a vector, a written-out sum the fastest way to several columns.
    """

    def one(a: Array) -> Array:
        if x.ndim == 2:
            return jnp.sum(a * x, axis=1)
        return functools.reduce(jnp.add, (a[:, b, None] * x[b] for b in range(x.shape[0])))

    return jax.tree.map(one, coefficients)


def shared_product(matrix: Array, x: Array) -> Array:
    """``matrix @ x`` for x (features, ..., chains) as one matrix product for all chains."""
    return (matrix @ x.reshape(x.shape[0], -1)).reshape(matrix.shape[0], *x.shape[1:])


def stored(waves: list[Wave]) -> list[Wave]:
    """The same waves, computed once and kept.

    XLA on the CPU would compute a wave anew for every row of every map applied to it (it fuses the
    sums behind it into the loop over the rows, and drops optimization barriers first).  The result
    of a matrix product is kept, so this is one, with the identity: five times faster at depth 2.
    """
    flat = [part for wave in waves for part in wave]
    joined = jnp.concatenate(flat, axis=1)
    identity = jnp.eye(joined.shape[0], dtype=joined.dtype)
    kept = jnp.matmul(identity, joined, precision=jax.lax.Precision.HIGHEST)
    pieces = iter(jnp.split(kept, len(flat), axis=1))
    return [tuple(next(pieces) for _ in wave) for wave in waves]


def applied(response: WaveMap, wave: Wave) -> Any:
    """A map from waves at work: one product per part of the wave."""
    return add(*(product(rows, part) for rows, part in zip(response, wave, strict=True)))


def _as_rows(row: Array, like: Array) -> Array:
    return row.reshape(row.shape[0], *(1,) * (like.ndim - 1))
