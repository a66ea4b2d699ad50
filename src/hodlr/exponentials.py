"""Sums of exponentials k(r) = Σ_m w_m λ_m^r on the lags r = 0, 1, 2, …

These are the kernels whose matrices have low-rank off-diagonal blocks: with a block boundary p
between column j and row i, λ^(i-j) = λ^(i-p) · λ^(p-j) separates, so m modes give rank m, whatever
the size.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike


def promote(*arrays: Any) -> list[Array]:
    """Cast arrays and Python numbers to their common inexact dtype, under every promotion setting
    of jax."""
    converted = [
        jnp.asarray(a) if not isinstance(a, (bool, int, float, complex)) else a for a in arrays
    ]
    strong = [
        np.dtype(a.dtype) for a in converted if not isinstance(a, (bool, int, float, complex))
    ]
    real_default = np.dtype(jnp.zeros(()).dtype)
    inexact = [d for d in strong if jnp.issubdtype(d, jnp.inexact)]
    dtype = inexact[0] if inexact else real_default
    for other in inexact[1:]:
        dtype = np.promote_types(dtype, other)
    if any(isinstance(a, complex) for a in converted):
        dtype = np.promote_types(dtype, np.complex64)
    return [jnp.asarray(a).astype(dtype) for a in converted]


def check_finite(name: str, *arrays: Array) -> None:
    """Refuse NaN and infinity in arrays whose values are known (traced arrays pass unchecked)."""
    for array in arrays:
        if not isinstance(array, Tracer) and not np.all(np.isfinite(np.asarray(array))):
            raise ValueError(f"{name} must be finite, but holds NaN or infinity.")


@jax.custom_jvp
def integer_power(base: Array, exponent: Array) -> Array:
    """base**exponent for integer exponents ≥ 0, with 0**0 = 1; the arrays broadcast.

    The relative error is about exponent·eps, that is, the conditioning of the power itself. The
    derivative is exponent·base**(exponent - 1) without any logarithm, so it is right at base 0 and
    at exponent 0.
    """
    real_dtype = jnp.finfo(base.dtype).dtype
    power = exponent.astype(real_dtype)
    odd = (exponent % 2).astype(bool)
    if jnp.issubdtype(base.dtype, jnp.complexfloating):
        size = jnp.power(jnp.abs(base), power)
        angle = jnp.angle(base) * power
        return jax.lax.complex(size * jnp.cos(angle), size * jnp.sin(angle))
    size = jnp.power(jnp.abs(base), power)
    return jnp.where(odd & (base < 0), -size, size)


@integer_power.defjvp
def _integer_power_jvp(primals, tangents):
    base, exponent = primals
    value = integer_power(base, exponent)
    slope = exponent.astype(base.dtype) * integer_power(base, jnp.maximum(exponent - 1, 0))
    return value, slope * tangents[0]


class SumOfExponentials(eqx.Module):
    """The kernel k(r) = Σ_m weights[m] · poles[m]**r for integer lags r ≥ 0.

    Both arrays have shape (modes,) and one real or complex dtype. The poles lie in the closed unit
    disc: a kernel that grows with distance has no stable factors. Real kernels that oscillate are
    conjugate pairs of poles (see `real`), or one negative pole when the sign alternates.
    """

    weights: Array
    poles: Array

    def __init__(self, weights: ArrayLike, poles: ArrayLike):
        weights, poles = promote(weights, poles)
        if weights.ndim != 1 or poles.ndim != 1 or weights.shape != poles.shape:
            raise ValueError(
                "SumOfExponentials needs weights and poles of one shape (modes,), but got "
                f"{weights.shape} and {poles.shape}; for a single mode write [w], [pole]."
            )
        check_finite("weights and poles of a SumOfExponentials", weights, poles)
        if not isinstance(poles, Tracer) and poles.size:
            largest = float(np.max(np.abs(np.asarray(poles))))
            if largest > 1 + 1e-6:
                raise ValueError(
                    "the poles of a SumOfExponentials must satisfy |pole| <= 1, but one has "
                    f"modulus {largest:.6g}; "
                    "a kernel that grows with distance has no stable form."
                )
        self.weights, self.poles = weights, poles

    @property
    def modes(self) -> int:
        """Number of exponentials."""
        return self.weights.shape[-1]

    @property
    def dtype(self):
        return self.weights.dtype

    def __call__(self, r: ArrayLike) -> Array:
        """k(r) for an integer array r ≥ 0 of any shape; O(modes · r.size), relative error about
        max(r)·eps."""
        r = jnp.asarray(r)
        if not jnp.issubdtype(r.dtype, jnp.integer):
            raise TypeError(
                f"SumOfExponentials is evaluated at integer lags, but got dtype {r.dtype}."
            )
        if self.modes == 0:
            return jnp.zeros(r.shape, self.dtype)
        return jnp.tensordot(integer_power(self.poles, r[..., None]), self.weights, axes=1)

    def __add__(self, other: "SumOfExponentials") -> "SumOfExponentials":
        """(k + k')(r) = k(r) + k'(r); the modes of both."""
        if not isinstance(other, SumOfExponentials):
            return NotImplemented
        weights, poles, other_weights, other_poles = promote(
            self.weights, self.poles, other.weights, other.poles
        )
        return SumOfExponentials(
            jnp.concatenate([weights, other_weights]), jnp.concatenate([poles, other_poles])
        )

    def __mul__(self, other):
        """(k · k')(r) = k(r) · k'(r) with modes·modes' modes, or scaling by a number."""
        if isinstance(other, SumOfExponentials):
            weights, poles, other_weights, other_poles = promote(
                self.weights, self.poles, other.weights, other.poles
            )
            return SumOfExponentials(
                (weights[:, None] * other_weights[None, :]).reshape(-1),
                (poles[:, None] * other_poles[None, :]).reshape(-1),
            )
        if isinstance(other, (str, bytes)) or not jnp.isscalar(other):
            return NotImplemented
        weights, poles, factor = promote(self.weights, self.poles, other)
        return SumOfExponentials(weights * factor, poles)

    __rmul__ = __mul__

    def __neg__(self) -> "SumOfExponentials":
        return SumOfExponentials(-self.weights, self.poles)

    def __sub__(self, other: "SumOfExponentials") -> "SumOfExponentials":
        if not isinstance(other, SumOfExponentials):
            return NotImplemented
        return self + (-other)

    def delay(self, lags: int) -> "SumOfExponentials":
        """The kernel r ↦ k(r + lags), that is, with `lags` ≥ 0 further steps between source and
        receiver."""
        if isinstance(lags, int) and lags < 0:
            raise ValueError(f"delay needs lags >= 0, but got {lags}: λ**lags would grow.")
        return SumOfExponentials(
            self.weights * integer_power(self.poles, jnp.asarray(lags)), self.poles
        )

    def periodic(self, n: int) -> "SumOfExponentials":
        """The kernel r ↦ Σ_{p ≥ 0} k(r + p·n): all images on a ring of n sites, w → w/(1 - λⁿ).

        Needs λⁿ ≠ 1; the relative error grows like eps/|1 - λⁿ|.
        """
        if n < 1:
            raise ValueError(f"periodic needs a ring of n >= 1 sites, but got {n}.")
        return SumOfExponentials(self.weights / ring_closure(self.poles, n), self.poles)

    def conj(self) -> "SumOfExponentials":
        """The kernel r ↦ conj(k(r))."""
        return SumOfExponentials(jnp.conj(self.weights), jnp.conj(self.poles))

    @property
    def real(self) -> "SumOfExponentials":
        """The kernel r ↦ Re k(r) as conjugate pairs of modes (the same kernel when it is already
        real).

        A damped oscillation ρ^r cos(ωr + φ) is Re[e^(iφ) (ρ e^(iω))^r]: two modes.
        """
        if not jnp.issubdtype(self.dtype, jnp.complexfloating):
            return self
        half = SumOfExponentials(self.weights * 0.5, self.poles)
        return half + half.conj()


def ring_closure(poles: Array, n: int) -> Array:
    """1 - λⁿ, by which one pass around a ring of n sites is closed to all passes; refuses λⁿ =
    1."""
    closure = 1 - integer_power(poles, jnp.asarray(n))
    if not isinstance(closure, Tracer) and np.any(np.asarray(closure) == 0):
        raise ValueError(
            f"a pole with λ**n = 1 (n = {n}) cannot be closed to a ring: the sum over all images "
            "diverges."
        )
    return closure


def smooth_length(n: int) -> int:
    """The smallest even number ≥ n without prime factors above 5: a length with a fast Fourier
    transform."""
    n = max(n, 2)
    best = 2 ** math.ceil(math.log2(n))
    for fives in range(math.ceil(math.log(n, 5)) + 1):
        for threes in range(math.ceil(math.log(n, 3)) + 1):
            odd = 5**fives * 3**threes
            best = min(best, odd * 2 ** max(1, math.ceil(math.log2(max(n / odd, 1)))))
    return best
