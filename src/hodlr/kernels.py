"""Stationary kernels of time as sums of exponentials in real form, k(τ) = h · Φ(τ) v for τ ≥ 0.

Φ(τ) is the propagator of a linear system of r states, Φ(τ + τ') = Φ(τ) Φ(τ'), all of its entries
bounded: a decay has one state, a damped oscillation two, a Matérn kernel of order 3/2 two and of
5/2 three. Sums put systems side by side, products take all pairs of states, so a real kernel stays
real. Hyperparameters are arrays: they may be traced and differentiated.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from hodlr.exponentials import promote


class AbstractKernel(eqx.Module):
    """k(τ) = h · Φ(τ) v: `k(τ)` for lags of either sign, `k + k'`, `k * k'`, and with numbers
    `2.0 * k`, `k / 2.0`, `k + 2.0` (a number added is a `Constant`)."""

    @abc.abstractmethod
    def value(self, lag: Array) -> Array:
        """k(τ) for lags τ ≥ 0 of any shape."""

    @abc.abstractmethod
    def reading(self, lag: Array) -> Array:
        """h Φ(τ) (…, r) for lags τ ≥ 0."""

    @abc.abstractmethod
    def sending(self, lag: Array) -> Array:
        """Φ(τ) v (…, r) for lags τ ≥ 0."""

    @abc.abstractmethod
    def propagator(self, lag: Array) -> Array:
        """Φ(τ) (…, r, r) for lags τ ≥ 0."""

    def __call__(self, lag: ArrayLike) -> Array:
        return self.value(jnp.abs(jnp.asarray(lag)))

    def __add__(self, other: Any) -> "AbstractKernel":
        if isinstance(other, int) and other == 0:  # what `sum` starts from
            return self
        other = _kernel(other)
        return NotImplemented if other is None else Sum(self, other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> "AbstractKernel":
        other = _kernel(other)
        return NotImplemented if other is None else Product(self, other)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "AbstractKernel":
        return self * (1 / divisor) if jnp.isscalar(divisor) else NotImplemented


def _kernel(x: Any) -> "AbstractKernel | None":
    """An operand as a kernel, or None for what is none."""
    if isinstance(x, AbstractKernel):
        return x
    return Constant(x) if jnp.isscalar(x) else None


def _array(x: ArrayLike) -> Array:
    return promote(x)[0]


def _check_number(kernel: AbstractKernel, name: str, *, least: float | None = None) -> None:
    """Hyperparameters are single numbers, and where they are known not less than the least."""
    value, owner = getattr(kernel, name), type(kernel).__name__
    if jnp.ndim(value):
        raise ValueError(
            f"{owner} needs a number for {name}, but got an array of shape {jnp.shape(value)}; "
            "write one kernel for each, or go over them by jax.vmap."
        )
    if least is not None and not isinstance(value, Tracer) and float(value) < least:
        raise ValueError(f"{owner} needs {name} ≥ {least:g}, but got {float(value):g}.")


class Constant(AbstractKernel):
    """k(τ) = variance."""

    variance: Array = eqx.field(converter=_array)

    def __check_init__(self):
        _check_number(self, "variance")

    def value(self, lag: Array) -> Array:
        return jnp.broadcast_to(self.variance, lag.shape)

    def reading(self, lag: Array) -> Array:
        return jnp.ones((*lag.shape, 1), lag.dtype)

    def sending(self, lag: Array) -> Array:
        return jnp.broadcast_to(self.variance, (*lag.shape, 1))

    def propagator(self, lag: Array) -> Array:
        return jnp.ones((*lag.shape, 1, 1), lag.dtype)


class Oscillation(AbstractKernel):
    """k(τ) = e^(-rate τ) (cosine cos(frequency τ) + sine sin(frequency τ)), the damped oscillator;
    frequency in radians per unit of time.

    Positive definite where |sine · frequency| ≤ cosine · rate. With rate 0 and no sine, a cosine
    for ever: times a decay, a quasi-periodic kernel.
    """

    cosine: Array = eqx.field(converter=_array)
    sine: Array = eqx.field(converter=_array)
    rate: Array = eqx.field(converter=_array)
    frequency: Array = eqx.field(converter=_array)

    def __check_init__(self):
        for name in ("cosine", "sine", "frequency"):
            _check_number(self, name)
        _check_number(self, "rate", least=0)

    def value(self, lag: Array) -> Array:
        turn = self.frequency * lag
        wave = self.cosine * jnp.cos(turn) + self.sine * jnp.sin(turn)
        return jnp.exp(-self.rate * lag) * wave

    def _turned(self, lag: Array) -> tuple[Array, Array]:
        """The two different entries of Φ."""
        size, turn = jnp.exp(-self.rate * lag), self.frequency * lag
        return size * jnp.cos(turn), size * jnp.sin(turn)

    def reading(self, lag: Array) -> Array:
        return jnp.stack(self._turned(lag), -1)

    def sending(self, lag: Array) -> Array:
        c, s = self._turned(lag)
        return jnp.stack([c * self.cosine + s * self.sine, c * self.sine - s * self.cosine], -1)

    def propagator(self, lag: Array) -> Array:
        c, s = self._turned(lag)
        return jnp.stack([jnp.stack([c, s], -1), jnp.stack([-s, c], -1)], -2)


class Matern(AbstractKernel):
    """The Matérn kernel with unit variance, of order 1/2 (Ornstein-Uhlenbeck: e^(-τ/length)), 3/2
    or 5/2: with x = √(2·order) τ/length, e^(-x) times 1, 1 + x, or 1 + x + x²/3."""

    length: Array = eqx.field(converter=_array)
    order: float = eqx.field(static=True, default=1.5)

    def __check_init__(self):
        if self.order not in (0.5, 1.5, 2.5):
            raise ValueError(f"Matern needs an order of 0.5, 1.5 or 2.5, but got {self.order}.")
        _check_number(self, "length", least=0)

    @property
    def _states(self) -> int:
        return int(self.order + 0.5)

    def _scaled(self, lag: Array) -> Array:
        return math.sqrt(2 * self.order) * lag / self.length

    def value(self, lag: Array) -> Array:
        x = self._scaled(lag)
        polynomial = (1.0, 1 + x, 1 + x + x**2 / 3)[self._states - 1]
        return jnp.exp(-x) * polynomial

    def reading(self, lag: Array) -> Array:
        return self.propagator(lag)[..., 0, :]

    def sending(self, lag: Array) -> Array:
        # Covariances of the state (value, derivatives in units of x) with the value.
        source = jnp.asarray([1.0, 0.0, -1 / 3][: self._states], lag.dtype)
        return self.propagator(lag) @ source

    def propagator(self, lag: Array) -> Array:
        x = self._scaled(lag)[..., None, None]
        # The companion matrix of (1 + s)^states, plus 1: nilpotent.
        companion = ([[-1.0]], [[0.0, 1], [-1, -2]], [[0.0, 1, 0], [0, 0, 1], [-1, -3, -3]])
        identity = jnp.eye(self._states, dtype=x.dtype)
        nilpotent = jnp.asarray(companion[self._states - 1], x.dtype) + identity
        return jnp.exp(-x) * (identity + nilpotent * x + nilpotent @ nilpotent * (x**2 / 2))


def decay(length: ArrayLike) -> Matern:
    """e^(-τ/length), the kernel of an Ornstein-Uhlenbeck process."""
    return Matern(length, 0.5)


class Sum(AbstractKernel):
    """k + k'; the states of both."""

    first: AbstractKernel
    second: AbstractKernel

    def value(self, lag: Array) -> Array:
        return self.first.value(lag) + self.second.value(lag)

    def reading(self, lag: Array) -> Array:
        return jnp.concatenate([self.first.reading(lag), self.second.reading(lag)], axis=-1)

    def sending(self, lag: Array) -> Array:
        return jnp.concatenate([self.first.sending(lag), self.second.sending(lag)], axis=-1)

    def propagator(self, lag: Array) -> Array:
        a, b = self.first.propagator(lag), self.second.propagator(lag)
        r, s = a.shape[-1], b.shape[-1]
        none = [(0, 0)] * lag.ndim
        above = jnp.pad(a, [*none, (0, 0), (0, s)])
        return jnp.concatenate([above, jnp.pad(b, [*none, (0, 0), (r, 0)])], axis=-2)


class Product(AbstractKernel):
    """k · k'; all pairs of states."""

    first: AbstractKernel
    second: AbstractKernel

    def value(self, lag: Array) -> Array:
        return self.first.value(lag) * self.second.value(lag)

    def reading(self, lag: Array) -> Array:
        return _pairs(self.first.reading(lag), self.second.reading(lag))

    def sending(self, lag: Array) -> Array:
        return _pairs(self.first.sending(lag), self.second.sending(lag))

    def propagator(self, lag: Array) -> Array:
        a, b = self.first.propagator(lag), self.second.propagator(lag)
        both = a[..., :, None, :, None] * b[..., None, :, None, :]
        size = a.shape[-1] * b.shape[-1]
        return both.reshape(*lag.shape, size, size)


def _pairs(a: Array, b: Array) -> Array:
    """All products of the last axes (…, r) and (…, s), (…, r·s)."""
    return (a[..., :, None] * b[..., None, :]).reshape(*a.shape[:-1], -1)
