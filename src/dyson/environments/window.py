"""Exact evaluation of a window of tokens between a prefix and a suffix of the chain."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from dyson.environments.medium import Medium, Propagator, Wave, add, shared_product, stored, turn
from dyson.environments.segment import Segment, Site
from dyson.networks import DysonNet


def outputs_between(
    medium: Medium, prefix: Segment, window: Site, suffix: Segment, n_tokens: int
) -> Float[Array, "outputs chains"]:
    """``head @ sum_t h^(L)_t`` of the chain prefix | window | suffix.

    Layer by layer: the waves F and G that enter the window from the left and from the right are
    known once the layers below are,

        F = (P + lambda^p S' + lambda^(p+s) W) / (1 - lambda^n)        on the ring,

    with P sent by the prefix, S' by the suffix through the origin and W by the window, p and s the
    lengths of prefix and suffix; F = P on an open chain.  Then the tokens of the window are
    evaluated exactly and the next layer follows.

    Cost O(length^2 features + length features^2) and one application of each map of the two
    segments, independent of ``n_tokens``.  The window may be empty, which closes the ring.
    """
    periodic = bool(prefix.far)
    h = window.embedded
    into_prefix, into_suffix = ([], []), ([], [])
    into_ends, into_origin = zip(into_prefix, into_suffix, strict=True)
    for index, (layer, drive, gate) in enumerate(
        zip(medium.layers, window.drives, window.gates, strict=True)
    ):
        u = shared_product(layer.scattered, h) + drive
        powers = layer.power(jnp.arange(h.shape[1] + 1))
        to_right, to_left = sent_out(layer, powers, u)
        from_left = prefix.near[index](*into_prefix)
        from_right = suffix.near[index](*into_suffix)
        if periodic:
            t_prefix, t_suffix = prefix.transmission[index], suffix.transmission[index]
            around_right = suffix.far[index](*into_suffix)
            around_left = prefix.far[index](*into_prefix)
            rest = turn(t_prefix, t_suffix)
            closing = _closing(layer, n_tokens)
            from_left = turn(
                closing, add(from_left, turn(t_prefix, around_right), turn(rest, to_right))
            )
            from_right = turn(
                closing, add(from_right, turn(t_suffix, around_left), turn(rest, to_left))
            )
        whole = tuple(part[:, -1] for part in powers)
        out_right = add(turn(whole, from_left), to_right)
        out_left = add(turn(whole, from_right), to_left)
        waves = [from_left, from_right, out_left, out_right]
        if periodic:
            waves.append(add(around_right, turn(t_suffix, out_right)))
            waves.append(add(around_left, turn(t_prefix, out_left)))
        from_left, from_right, *waves = stored(waves)
        for into, wave in zip((*into_ends, *into_origin), waves, strict=False):
            into.append(wave)
        y = within(layer, u) + layer.heard(_through(powers, from_left, from_right))
        h = h + gate * shared_product(layer.mix_out, y)
    inside = medium.head @ jnp.sum(h, axis=1)
    return inside + prefix.pooled(*into_prefix) + suffix.pooled(*into_suffix)


def log_psi(
    model: DysonNet, outputs: Float[Array, "outputs chains"]
) -> Inexact[Array, " chains"]:
    """log psi from the pooled outputs of the head."""
    hidden = model.head.bias.shape[1]

    def one(rows: Array) -> Array:
        theta = model.head.combine(rows.reshape(-1, hidden) + model.head.bias)
        return model.head.log_amplitude(theta)

    return jax.vmap(one, in_axes=-1)(outputs)


def within(layer: Propagator, u: Array) -> Array:
    """The mixer between the tokens of the window, all lags from 0 to length - 1."""
    length = u.shape[1]
    if length == 0:
        return u
    kernel = layer.mixer.kernel(jnp.arange(length), length, periodic=False)
    lags = jnp.abs(jnp.arange(length)[:, None] - jnp.arange(length))
    toeplitz = kernel[:, lags]
    terms = [toeplitz[:, :, j, None] * u[:, j, None] for j in range(length)]
    return add(*terms)


def sent_out(layer: Propagator, powers: Wave, u: Array) -> tuple[Wave, Wave]:
    """Waves leaving the window to the right and to the left, from sources (features, length, B)."""
    expanded = layer.expand(u)
    to_right = tuple(jnp.sum(part[:, :0:-1, None] * expanded, axis=1) for part in powers)
    to_left = tuple(jnp.sum(part[:, 1:, None] * expanded, axis=1) for part in powers)
    return to_right, to_left


def _through(powers: Wave, from_left: Wave, from_right: Wave) -> Wave:
    """``f + g`` at each token of the window, from the waves that enter it."""
    right = tuple(part[:, :-1, None] for part in powers)
    left = tuple(part[:, ::-1] for part in right)
    f = tuple(part[:, None] for part in from_left)
    g = tuple(part[:, None] for part in from_right)
    return add(_times(right, f), _times(left, g))


def _times(factor: Wave, wave: Wave) -> Wave:
    if len(factor) == 1:
        return (factor[0] * wave[0],)
    return (
        factor[0] * wave[0] - factor[1] * wave[1],
        factor[0] * wave[1] + factor[1] * wave[0],
    )


def _closing(layer: Propagator, n_tokens: int) -> Wave:
    """``1 / (1 - lambda^n)``: once around the ring and again."""
    once = tuple(part[:, 0] for part in layer.power(jnp.array([n_tokens])))
    if len(once) == 1:
        return (1 / (1 - once[0]),)
    real, imag = 1 - once[0], -once[1]
    size = real**2 + imag**2
    return (real / size, -imag / size)

