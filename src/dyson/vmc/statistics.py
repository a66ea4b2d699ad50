"""Means of Markov chains with honest error bars.

A series is an array of shape (n_chains, n_steps), real or complex, one row per chain; the functions
can be compiled. The integrated autocorrelation time counts steps per independent sample,

    τ = 1 + 2 Σ_{t≥1} ρ(t),

so it is 1 for independent samples (in chains of finite length n, lag t enters with weight 1 - t/n),
and n_chains·n_steps/τ is the effective number of them.

References: C. J. Geyer, Statistical Science 7, 473 (1992), section 3.3 (initial monotone sequence);
A. Vehtari et al., Bayesian Analysis 16, 667 (2021) (split R̂, autocorrelation over several chains).
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int8

_MIN_BATCHES = 32
# The most that one look at an error bar lets the number of samples grow by: an early one is rough.
_GROWTH = 4
MIN_STEPS_SPLIT = 4


class DiagnosticWarning(UserWarning):
    """The samples do not tell how good they are."""


class Estimate(NamedTuple):
    """The mean of a series and what is known of its quality; NaN is "not known"."""

    mean: Inexact[Array, ""]
    error: Float[Array, ""]
    """One standard deviation of `mean`, autocorrelation included."""
    variance: Float[Array, ""]
    """Of a single sample: ⟨|x - mean|²⟩."""
    tau: Float[Array, ""]
    effective_samples: Float[Array, ""]
    r_hat: Float[Array, ""]


def estimate_mean(
    series: Inexact[Array, "chains steps"], weights: Float[Array, "chains steps"] | None = None
) -> Estimate:
    """Mean, error bar, variance, τ, effective sample size and split R̂ of a series.

    With ``weights`` the mean is Σ w x / Σ w, its error is that of the linear part of this quotient,
    and the variance is that of the weighted distribution.

    τ is the larger of two estimates: Geyer's initial sequence, which is sharp for long chains and
    sees a drift common to all chains; and the spread of batch means, which is sharp for many short
    chains and makes no assumption on the correlations. Taking the larger errs on the side of a
    longer error bar, by about a tenth for well-mixed series. Two limits: a constant series has
    error 0, τ = 1 and R̂ = 1; with a single step per chain the chains are taken as independent and
    R̂ is not defined (NaN).

    Cost O(chains · steps · log steps).
    """
    if weights is not None:
        return _weighted(series, weights)
    centred, mean = _centre(series)
    variance = jnp.mean(jnp.abs(centred) ** 2)
    tau = jnp.maximum(_geyer_time(centred, variance), _batch_time(centred, variance))
    # A constant series carries no noise at all: any τ describes it, 1 says so most plainly.
    tau = jnp.where(variance > 0, tau, 1)
    effective = jnp.where(tau > 0, series.size / jnp.where(tau > 0, tau, 1), jnp.inf)
    estimate = Estimate(
        mean=mean,
        error=jnp.sqrt(variance * tau / series.size),
        variance=variance,
        tau=tau,
        effective_samples=effective,
        r_hat=split_r_hat(series),
    )
    return if_moved(jnp.asarray(series.size > 1), estimate)


def _weighted(
    series: Inexact[Array, "chains steps"], weights: Float[Array, "chains steps"]
) -> Estimate:
    shares = weights / jnp.mean(weights)
    counts = shares.astype(series.dtype)
    shifted = series - series[0, 0]
    mean = series[0, 0] + jnp.mean(counts * shifted)
    linear = counts * (series - mean)
    estimate = estimate_mean(mean + linear)
    variance = jnp.mean(shares * jnp.abs(series - mean) ** 2)
    return estimate._replace(mean=mean, variance=variance)


def moved(
    spins: Int8[Array, "chains steps n_sites"], acceptance: Float[Array, "chains steps"]
) -> Bool[Array, ""]:
    """Whether samples can say anything of their spread: some move was accepted, and not all of them
    are the same configuration.  Chains that are flipped as a whole and do not move otherwise stay
    where they are up to a symmetry: flips of all spins are not counted in the acceptance."""
    return (jnp.max(acceptance) > 0) & jnp.any(spins != spins[:1, :1])


def if_moved(moved: Bool[Array, ""], estimate: Estimate) -> Estimate:
    """The estimate, of which only the mean is known where the chains did not move."""
    known = {
        name: jnp.where(moved, value, jnp.nan)
        for name, value in estimate._asdict().items()
        if name != "mean"
    }
    return estimate._replace(**known)


def split_r_hat(series: Inexact[Array, "chains steps"]) -> Float[Array, ""]:
    """R̂ over the halves of all chains: 1 when they agree, larger when they differ or drift.

    Infinite when every half is constant but they differ (frozen chains); NaN with fewer than four
    steps, which leave nothing to split.
    """
    centred, _ = _centre(series)
    chains, steps = series.shape
    if steps < MIN_STEPS_SPLIT:
        return jnp.full((), jnp.nan, dtype=centred.real.dtype)
    half = steps // 2
    halves = jnp.concatenate([centred[:, :half], centred[:, steps - half :]])
    # Shifting first makes the deviations of a constant half exactly zero.
    shifted = halves - halves[:, :1]
    offsets = jnp.mean(shifted, axis=1, keepdims=True)
    means = halves[:, :1] + offsets
    within = jnp.sum(jnp.abs(shifted - offsets) ** 2) / (2 * chains * (half - 1))
    between = jnp.sum(jnp.abs(means - jnp.mean(means)) ** 2) / (2 * chains - 1)
    total = (half - 1) / half * within + between
    ratio = total / jnp.where(within > 0, within, 1)
    return jnp.where(within > 0, jnp.sqrt(ratio), jnp.where(total > 0, jnp.inf, 1))


def v_score(
    n_sites: int,
    energy: Float[Array, ""],
    variance: Float[Array, ""],
    energy_infinity: Float[Array, ""] | float = 0.0,
) -> Float[Array, ""]:
    """V-score n·Var(E_loc)/(E - E_∞)², all totals; smaller is better and 0 is an eigenstate.

    E_∞ = Tr H / 2^n is `hamiltonian.trace_per_dimension`, which makes the score independent of
    constants added to H. D. Wu et al., Science 386, 296 (2024).
    """
    return n_sites * variance / (energy - energy_infinity) ** 2


def _centre(series: Array) -> tuple[Array, Array]:
    """The series minus its mean, and the mean. A constant series becomes exactly zero."""
    if series.ndim != 2 or 0 in series.shape:
        raise ValueError(
            f"a series has the non-empty shape (n_chains, n_steps), got {series.shape}; "
            "write series[None] for a single chain"
        )
    if not jnp.issubdtype(series.dtype, jnp.inexact):
        raise TypeError(f"a series holds real or complex numbers, got {series.dtype}")
    # Shifting by one of the values first keeps the digits that a mean of large numbers would lose.
    shifted = series - series[0, 0]
    offset = jnp.mean(shifted)
    return shifted - offset, series[0, 0] + offset


def _geyer_time(centred: Array, variance: Array) -> Array:
    steps = centred.shape[1]
    # Twice the length, so that the circular correlation of the transform does not wrap around. Lag
    # t occurs only steps - t times, which is the weight that it has in the square of a chain's sum.
    # The common mean was subtracted, so that chains which disagree stay correlated for ever.
    spectrum = jnp.fft.fft(centred, n=2 * steps, axis=1)
    products = jnp.fft.ifft(jnp.mean(jnp.abs(spectrum) ** 2, axis=0))[:steps].real
    correlation = products / (steps * jnp.where(variance > 0, variance, 1))
    # Sums of neighbouring pairs are positive and decreasing for a reversible chain: stop at the
    # first pair that is not positive, and flatten what rises, both of which can only be noise.
    correlation = jnp.pad(correlation, (0, steps % 2))
    pairs = correlation[::2] + correlation[1::2]
    positive = jnp.cumprod(jnp.where(pairs > 0, 1, 0)).astype(pairs.dtype)
    return 2 * jnp.sum(jnp.minimum.accumulate(pairs) * positive) - 1


def _batch_time(centred: Array, variance: Array) -> Array:
    """τ from the spread of batch means; a batch is a chain, or a part of one when there are few."""
    chains, steps = centred.shape
    per_chain = min(steps, -(-_MIN_BATCHES // chains))
    length = steps // per_chain
    means = jnp.mean(centred[:, : per_chain * length].reshape(chains * per_chain, length), axis=1)
    if means.size == 1:
        return jnp.ones_like(variance)
    spread = jnp.sum(jnp.abs(means - jnp.mean(means)) ** 2) / (means.size - 1)
    return length * spread / jnp.where(variance > 0, variance, 1)


def samples_needed(drawn: int, error: float, until: float) -> int:
    """How many samples in all bring an error bar that is ``error`` now down to ``until``, a little
    more than it says."""
    factor = min(_GROWTH, max(1.1, 1.1 * (error / until) ** 2))
    return math.ceil(factor * drawn)
