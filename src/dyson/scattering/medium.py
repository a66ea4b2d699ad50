"""The part of the medium that no configuration changes, as waves that cross a cut see it.

In each mode of a mixer one wave runs to the right and one to the left.  ``f``, arriving at token k,
gathers the sources u before it, ``g`` those behind it, and the mixer reads

    f_k = sum_{j<k} lambda^(k-j) u_j,      y_k = Re[c (f_k + g_k)] + kappa u_k,
    kappa = local + sum Re c,              leaving a token: f -> lambda (f + u).

Waves are real numbers: the real and the imaginary part of complex ones.  Activations of tokens
have the batch, chains or pieces of the chain, as their last axis, so that dense layers are one
matrix product and every loop runs over contiguous memory.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dyson.mixers import Mixer
from dyson.networks import Block, DysonNet

# Powers of the poles, real and imaginary part.
Phase = Float[Array, "parts features modes"]


class Propagator(eqx.Module):
    """Waves of one block.

    scattered, offset: u = scattered @ h + offset + c.   mix_out: W_out.
    """

    mixer: Mixer
    scattered: Float[Array, "features features"]
    offset: Float[Array, " features"]
    mix_out: Float[Array, "features features"]

    def __init__(self, block: Block):
        self.mixer = block.mixer
        self.scattered = block.mix_scattered
        self.offset = -block.mix_scattered @ block.act_shift
        self.mix_out = block.mix_out

    @property
    def unchanged(self) -> Phase:
        """lambda^0, for which no mixer need be evaluated."""
        weights = jax.eval_shape(lambda: self.mixer.exponentials().weights)
        return phase_of(jnp.ones(weights.shape, weights.dtype))


class Medium(eqx.Module):
    """A network as its segments see it; made once per set of parameters.

    head: (outputs, features), real and imaginary rows of the head times the pooling scale.
    """

    layers: tuple[Propagator, ...]
    head: Float[Array, "outputs features"]
    n_tokens: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    def __init__(self, model: DysonNet):
        self.layers = tuple(map(Propagator, model.blocks))
        self.head = model.head.weight.reshape(-1, model.features) * model.pool_scale
        self.n_tokens, self.periodic = model.n_tokens, model.periodic


class Transfer(eqx.Module):
    """What a mixer does along a stretch of tokens.

    matrix: per channel from (sources of the tokens, waves coming in at the left and right end) to
      (y of the tokens, waves going out to the right and left); either has 2 * parts * modes waves.
    through: lambda^length.
    """

    matrix: Float[Array, "features outputs inputs"]
    through: Phase

    @property
    def slots(self) -> int:
        """Tokens that the matrix has room for."""
        return self.matrix.shape[1] - 2 * self.through[:, 0].size

    @property
    def kernel(self) -> Float[Array, "features tokens tokens"]:
        return self.matrix[:, : self.slots, : self.slots]

    @property
    def heard(self) -> Float[Array, "features tokens waves"]:
        """y of the tokens for waves coming in."""
        return self.matrix[:, : self.slots, self.slots :]

    def within(self, u: Float[Array, "features tokens *rest"]) -> Array:
        """y of the tokens for sources u."""
        return jnp.einsum("fts,fs...->ft...", self.kernel, u)

    def leaving(self, u: Float[Array, "features tokens *rest"]) -> Array:
        """Outgoing waves (features, waves, ...) for sources u."""
        return jnp.einsum("fws,fs...->fw...", self.matrix[:, self.slots :, : self.slots], u)

    def __call__(
        self, inputs: Float[Array, "features inputs *rest"], first: Array | int = 0
    ) -> tuple[Array, Array]:
        """y of the tokens and outgoing waves, (features, tokens, ...) and (features, waves, ...).

        ``inputs`` are sources of the tokens from the ``first`` one on, or sources of all tokens
        followed by the incoming waves.
        """
        matrix = jax.lax.dynamic_slice_in_dim(self.matrix, first, inputs.shape[1], axis=2)
        both = jnp.einsum("foi,fi...->fo...", matrix, inputs)
        return both[:, : self.slots], both[:, self.slots :]


def transfer(
    layer: Propagator, length: Int[Array, ""], slots: int, *, ring: int | None = None
) -> Transfer:
    """The transfer along ``length`` tokens in the first of ``slots``; the other slots neither send
    nor hear anything, whatever they hold.

    In a ``ring`` of so many tokens a wave may go around any number of times before it is heard or
    counted as going out, which multiplies by 1 / (1 - lambda^n).  O(features * slots^2).
    """
    # evaluated once, (features, modes, r)
    steps = jnp.arange(slots + 2)
    if ring is None:
        powers = waves = layer.mixer.powers(steps)
        closing = jnp.ones_like(powers[..., :1])
    else:
        powers, around, closing = layer.mixer.powers_around(jnp.minimum(steps, ring), ring)
        waves = closing * (powers + around)
    weights = layer.mixer.exponentials().weights[..., None]
    kernel = layer.mixer.kernel_from(steps[:slots], waves[..., :slots])
    slot = jnp.arange(slots)
    lags = jnp.abs(slot[:, None] - slot)
    inside = slot < length
    kernel = jnp.where(inside[:, None] & inside, kernel[:, lags], 0)
    # distance of a slot from the left end and from the right end of the stretch
    left = powers[..., :slots]
    right = powers[..., jnp.clip(length - 1 - slot, 0, slots)]
    near = [closing * jnp.where(inside, x, 0) for x in (left, right)]
    one = powers[..., 1:2]
    sent = _by_direction([one * near[1], one * near[0]])
    heard = _by_direction([weights * x for x in near])
    if heard.shape[2] == 2:  # Re[c z] = Re c Re z - Im c Im z
        heard = heard * jnp.array([1, -1], heard.dtype)[:, None, None]
    features, waves = sent.shape[0], 2 * sent.shape[2] * sent.shape[3]
    through = powers[..., length]
    passing = jax.vmap(lambda x: _passing(parts(x)))(closing[..., 0] * through)
    matrix = jnp.concatenate(
        [
            jnp.concatenate([kernel, sent.reshape(features, waves, slots)], axis=1),
            jnp.concatenate(
                [jnp.swapaxes(heard.reshape(features, waves, slots), 1, 2), passing], axis=1
            ),
        ],
        axis=2,
    )
    return Transfer(matrix, phase_of(through))


def transfers(
    medium: Medium, lengths: Sequence[int], slots: int, *, ring: int | None = None
) -> tuple[tuple[Transfer, ...], ...]:
    """Of every length along every layer."""
    numbers = jnp.asarray(lengths)
    of_layer = lambda layer: jax.vmap(lambda length: transfer(layer, length, slots, ring=ring))(
        numbers
    )
    return unstacked(for_each_layer(of_layer, medium.layers), len(lengths))


def for_each_layer(function: Callable[[Any], Any], layers: Sequence[Any]) -> tuple:
    """``function`` of every layer, one after the other: the compiler sees it once, and does not
    repeat its powers of poles wherever the results are used."""
    together = jax.lax.map(function, jax.tree.map(lambda *x: jnp.stack(x), *layers))
    return unstacked(together, len(layers))


def unstacked(tree: Any, count: int) -> tuple:
    """The entries along the first axis."""
    pick = lambda index: jax.tree.map(lambda x: x[index], tree)
    return tuple(map(pick, range(count)))


def _by_direction(waves: list[Array]) -> Array:
    """Per direction (features, modes, slots): (features, 2, parts, modes, slots)."""
    return jnp.moveaxis(parts(jnp.stack(waves, axis=1)), -1, 2)


def _passing(once: Float[Array, "modes parts"]) -> Float[Array, "waves waves"]:
    """The product with a phase as a matrix for the waves of one channel in both directions."""
    phase = once.T[:, None]
    identity = jnp.eye(once.size, dtype=once.dtype)
    matrix = turn(phase, identity[None])[0]
    return jnp.kron(jnp.eye(2, dtype=once.dtype), matrix)


def phase_of(powers: Array) -> Phase:
    """Powers of the poles (features, modes) as real numbers."""
    return jnp.moveaxis(parts(powers), -1, 0)


def parts(x: Array) -> Array:
    """Real and imaginary part on a new last axis; one part if the array is real."""
    pieces = [jnp.real(x), jnp.imag(x)] if jnp.iscomplexobj(x) else [x]
    return jnp.stack(pieces, axis=-1)


def turn(phase: Phase, waves: Float[Array, "batch waves columns"]) -> Array:
    """Product of a phase with waves numbered (parts, features, modes)."""
    real, other = (x.reshape(phase.shape[0], -1, 1) for x in _factors(phase))
    split = waves.reshape(waves.shape[0], *real.shape[:2], waves.shape[2])
    turned = real * split
    if phase.shape[0] == 2:
        # exchanging the parts, unlike stacking new ones, leaves one loop to XLA
        turned = turned + other * split[:, ::-1]
    return turned.reshape(waves.shape)


def passed(phase: Phase, wave: Float[Array, "waves rows"]) -> Array:
    """One set of waves behind a phase."""
    return turn(phase, wave[None])[0]


def turn_phase(first: Phase, second: Phase) -> Phase:
    """Product of two phases."""
    return turn(first, second.reshape(1, -1, 1)).reshape(second.shape)


def turn_columns(response: Float[Array, "batch rows waves"], phase: Phase) -> Array:
    """A map of waves that act after a phase: the transpose of a turn."""
    real, other = (x.reshape(phase.shape[0], -1) for x in _factors(phase))
    split = response.reshape(*response.shape[:2], *real.shape)
    turned = real * split
    if phase.shape[0] == 2:
        turned = turned - other * split[:, :, ::-1]
    return turned.reshape(response.shape)


def _factors(phase: Phase) -> tuple[Array, Array]:
    """Factors of a part itself and of the other part."""
    if phase.shape[0] == 1:
        return phase, phase
    real, imag = phase[:1], phase[1:]
    return jnp.concatenate([real, real]), jnp.concatenate([-imag, imag])


def numbered(waves: Array, phase: Phase) -> Array:
    """Waves of each channel (features, waves, ...) as (2, parts, features, modes), flat."""
    split = waves.reshape(waves.shape[0], 2, phase.shape[0], phase.shape[2], *waves.shape[2:])
    return jnp.moveaxis(split, 0, 2).reshape(-1, *waves.shape[2:])


def by_channel(waves: Array, phase: Phase) -> Array:
    """The inverse of :func:`numbered`."""
    split = waves.reshape(2, *phase.shape, *waves.shape[1:])
    return jnp.moveaxis(split, 2, 0).reshape(phase.shape[1], -1, *waves.shape[1:])


def shared_product(matrix: Array, x: Array) -> Array:
    """``matrix @ x`` for x (features, ..., batch) as one matrix product for all."""
    return (matrix @ x.reshape(x.shape[0], -1)).reshape(matrix.shape[0], *x.shape[1:])
