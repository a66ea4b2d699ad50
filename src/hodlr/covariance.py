"""Covariances of kernels at sorted, irregular times, and Gaussian processes on them, in O(n)."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike

from hodlr.cholesky import answers, factor
from hodlr.chunks import Chunks, Waves, transposed
from hodlr.direct import factorise, why_not_definite
from hodlr.exponentials import check_finite, promote
from hodlr.kernels import AbstractKernel
from hodlr.lowrank import pairwise_sum
from hodlr.structured import AbstractStructured

# Sites of a chunk in products and predictions, as in `hodlr.cholesky`.
_CHUNK = 16


class Covariance(AbstractStructured):
    """A[i, j] = kernel(t_i - t_j) + noise_i (i = j), for times t_0 ≤ t_1 ≤ … (n,); they may repeat.

    Arguments:
      times: sorted; that is looked at when the matrix is made, but not while a function is traced:
        there, unsorted ones make NaN.
      kernel: of `hodlr.kernels`.
      noise: the variance of the noise of each point, a number or (n,).
      observed: (n,) of bool, where there are data; None for everywhere. A point that is not
        observed stands apart, with the row and column of the identity, whatever is added or scaled:
        it changes no determinant, and no solution where y is 0. So series of different lengths can
        share one shape.

    O(n·(16 + r)) for a product, O(n·(16 + r)²) for `factorise(A, positive_definite=True)`, with the
    r states of the kernel.
    """

    times: Array
    kernel: AbstractKernel
    noise: Array
    observed: Array | None

    def __init__(
        self,
        times: ArrayLike,
        kernel: AbstractKernel,
        noise: ArrayLike = 0.0,
        observed: ArrayLike | None = None,
    ):
        times, noise, *_ = promote(times, noise, *jax.tree.leaves(kernel))
        if times.ndim != 1 or times.shape[0] < 1 or noise.shape not in ((), times.shape):
            raise ValueError(
                "Covariance needs times (n,) and noise that is a number or (n,), but got "
                f"{times.shape} and {noise.shape}."
            )
        if jnp.issubdtype(times.dtype, jnp.complexfloating):
            raise ValueError(
                "Covariance needs real times, noises and hyperparameters, but got complex ones."
            )
        check_finite("the times and noises of a Covariance", times, noise)
        if not isinstance(times, Tracer) and np.any(np.diff(np.asarray(times)) < 0):
            raise ValueError(
                "the times of a Covariance must be sorted: with order = np.argsort(times), give "
                "times[order], noise[order] and y[order]."
            )
        if observed is not None:
            observed = jnp.asarray(observed)
            if observed.shape != times.shape or observed.dtype != bool:
                raise ValueError(
                    f"observed must be of bool and have shape {times.shape}, but got "
                    f"{observed.dtype} {observed.shape}; write observed=np.isfinite(y)."
                )
        self.times, self.kernel, self.noise, self.observed = times, kernel, noise, observed

    @property
    def n(self) -> int:
        return self.times.shape[0]

    @property
    def dtype(self) -> Any:
        return self.times.dtype

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n, self.n)

    @property
    def redundant_waves(self) -> bool:
        return False

    def chunks(self, smallest: int) -> Chunks:
        """The states of the kernel are the waves."""
        kernel, n = self.kernel, self.n
        states = kernel.sending(self.times[0]).shape[0]
        size = min(n, max(smallest, 2 ** max(states - 1, 0).bit_length()))
        count = -(-n // size)
        # After the end, times stand still.
        times = jnp.pad(self.times, (0, count * size - n), mode="edge").reshape(count, size)
        noise = jnp.pad(jnp.broadcast_to(self.noise, (n,)), (0, count * size - n))
        first = times[:, 0]
        following = jnp.append(first[1:], times[-1, -1])
        enter = kernel.reading(times - first[:, None])
        leave = kernel.sending(following[:, None] - times)
        through = kernel.propagator(following - first)
        blocks = kernel(times[:, :, None] - times[:, None, :])
        blocks = blocks + noise.reshape(count, size, 1) * jnp.eye(size, dtype=self.dtype)
        if self.observed is not None:
            here = jnp.pad(self.observed, (0, count * size - n)).reshape(count, size, 1)
            enter, leave = jnp.where(here, enter, 0), jnp.where(here, leave, 0)
            identity = jnp.eye(size, dtype=self.dtype)
            blocks = jnp.where(here & transposed(here), blocks, identity)
        waves = Waves(enter, leave, through)
        return Chunks.of(blocks, waves, waves, n)

    def _columns_product(self, x: Array) -> Array:
        chunks = self.chunks(_CHUNK)
        y = chunks.product(chunks.split(x.reshape(self.n, -1)))
        return y.reshape(chunks.padded, -1)[: self.n].reshape(x.shape)

    def _entries(self, i: Array, j: Array) -> Array:
        noise = jnp.broadcast_to(self.noise, (self.n,))
        value = self.kernel(self.times[i] - self.times[j]) + jnp.where(i == j, noise[i], 0)
        if self.observed is None:
            return value
        return jnp.where(self.observed[i] & self.observed[j], value, jnp.where(i == j, 1.0, 0.0))

    def _dense(self) -> Array:
        sites = jnp.arange(self.n)
        return self._entries(sites[:, None], sites)

    @property
    def T(self) -> "Covariance":
        return self

    def conj(self) -> "Covariance":
        return self

    def _scaled(self, factor: Any) -> "Covariance":
        return Covariance(self.times, self.kernel * factor, self.noise * factor, self.observed)

    def plus_diagonal(self, d: Array) -> "Covariance":
        return Covariance(self.times, self.kernel, self.noise + d, self.observed)


@why_not_definite.register
def _(A: Covariance) -> str:
    noise = float(jnp.min(A.noise))
    if noise < 0:
        return f" Its noise is down to {noise:.3g}: noises are variances, not below 0."
    if noise == 0 and np.any(np.diff(np.asarray(A.times)) == 0):
        return " Times repeat without noise: their rows are the same; give noise > 0."
    return ""


class Posterior(eqx.Module):
    """A Gaussian process of mean zero, given data at its times.

    `log_likelihood`: -(yᵀ A⁻¹ y + log det A + n log 2π)/2 of the n points that are observed."""

    covariance: Covariance
    weights: Array
    log_likelihood: Array

    def predict(self, times: ArrayLike) -> tuple[Array, Array]:
        """Mean and variance of the process (without noise) at times (m,) in any order; O((n + m)·
        (16 + r)²)."""
        (times,) = promote(times)
        if times.ndim != 1:
            raise ValueError(
                f"predict needs times (m,), but got shape {times.shape}; write [time] for one."
            )
        return _predict(self.covariance, self.weights, times)


def condition(covariance: Covariance, y: ArrayLike) -> Posterior:
    """The process given y (n,), of mean zero, at the times of its covariance; y is not looked at
    where it is not observed (it may be NaN there)."""
    (y,) = promote(y)
    count = covariance.n
    if y.shape != (count,):
        raise ValueError(f"condition needs y of shape ({count},), but got {y.shape}.")
    if covariance.observed is None:
        check_finite("y without observed=np.isfinite(y) in its Covariance", y)
    else:
        y = jnp.where(covariance.observed, y, 0)
        count = jnp.sum(covariance.observed.astype(y.dtype))
    factorisation = factorise(covariance, positive_definite=True)
    weights = factorisation.solve(y)
    total = pairwise_sum(y * weights) + factorisation.logdet() + count * math.log(2 * math.pi)
    return Posterior(covariance, weights, -total / 2)


@jax.jit  # one program: outside jit its operations would be compiled one by one, for seconds
def _predict(A: Covariance, weights: Array, times: Array) -> tuple[Array, Array]:
    n, m = A.n, times.shape[0]
    merged = jnp.concatenate([A.times, times.astype(A.dtype)])
    order = jnp.argsort(merged, stable=True)
    place = jnp.zeros(n + m, order.dtype).at[order].set(jnp.arange(n + m))
    observed = jnp.ones(n, bool) if A.observed is None else A.observed
    data = jnp.append(observed, jnp.zeros(m, bool))[order].astype(A.dtype)
    noise = jnp.append(jnp.broadcast_to(A.noise, (n,)), jnp.zeros(m, A.dtype))[order]
    whole = Covariance(merged[order], A.kernel)
    mean = whole @ jnp.append(weights, jnp.zeros(m, A.dtype))[order]
    variance = A.kernel(jnp.zeros((), A.dtype)) - _explained(whole, data, noise)
    return mean[place[n:]], variance[place[n:]]


def _explained(whole: Covariance, data: Array, noise: Array) -> Array:
    """kᵀ A⁻¹ k at every site of `whole`, for the covariances k of the site with the data and the
    matrix A of the data alone: sites that are none are cut off from the waves.

    With S, P, Γ and D of the factorised chunks (see `hodlr.cholesky`), a site that reads e, sends l
    and has covariances k with its own chunk explains

        e S eᵀ + r D⁻¹ r - u P u,      r = k - E S eᵀ,      u = l - Φ S eᵀ - Γ r

    by the data before its chunk, in it, and after it.
    """
    chunks = whole.chunks(_CHUNK)
    (data, noise) = (chunks.split(a[:, None]) for a in (data, noise))
    both = data * transposed(data)
    identity = jnp.eye(both.shape[-1], dtype=both.dtype)
    blocks = both * chunks.blocks + (1 - data + noise * data) * identity
    enter, leave, through = chunks.lower
    waves = Waves(enter * data, leave * data, through)
    masked = Chunks(blocks, waves, waves)
    triangle = factor(masked)
    inverse, gain, answer = answers(masked, triangle)
    arriving = triangle.state @ transposed(enter)
    missing = data * chunks.blocks - waves.enter @ arriving
    onward = transposed(leave) - through @ arriving - gain @ missing
    before = jnp.sum(transposed(enter) * arriving, axis=1)
    inside = jnp.sum((inverse @ missing) ** 2, axis=1)
    after = -jnp.sum(onward * (answer @ onward), axis=1)
    return (before + inside + after).reshape(-1)[: whole.n]
