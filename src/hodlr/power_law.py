"""Fits of power laws 1/r^α by sums of exponentials with positive weights."""

import math

import jax.numpy as jnp
import numpy as np

from hodlr.exponentials import SumOfExponentials
from hodlr.fit import FitInfo, check_fit, fewest_terms, least_squares


def fit_power_law(alpha: float, n: int, *, tol: float) -> tuple[SumOfExponentials, FitInfo]:
    """1/r^alpha on r = 1 … n to the absolute error tol, with poles in (0, 1) and positive weights.

    1/r^α = 1/Γ(α) ∫ exp(α s - r eˢ) ds by the trapezoidal rule is a sum of many exponentials; its
    symmetric realisation is truncated in balanced coordinates over the n lags (poles stay in (0,
    1), weights positive), and poles and weights are refined by least squares whose weights are
    raised where the error is largest. The fewest terms that meet tol are kept; about 10 … 30,
    growing with log n and log 1/tol. Takes about half a second at n = 10⁵. The sum has jax's
    default dtype; what that dtype cannot hold within tol is refused.
    """
    check_fit(n, tol)
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"fit_power_law needs a finite exponent alpha > 0, but got {alpha!r}.")
    samples = np.arange(1, n + 1, dtype=float) ** -alpha
    rates, source, values, vectors = _balanced_power_law(alpha, n, tol)
    # Twice the tail of the Hankel singular values bounds the error: a start, a little too
    # optimistic.
    tails = 2 * np.cumsum(values[::-1])[::-1]
    terms = max(1, int(np.argmax(np.append(tails, 0.0) <= 20 * tol)))
    lags = np.unique(np.round(np.geomspace(1, n, min(n, 500))).astype(int))

    def fit(count: int) -> tuple[np.ndarray, np.ndarray]:
        start = _truncated_rates(rates, source, vectors[:, :count])
        return _in_dtype(*_refined(*start, lags, samples[lags - 1], tol), lags, samples)

    best, reached = fewest_terms(fit, samples, tol, terms, len(values))
    if best is None:
        raise ValueError(
            f"no sum of exponentials came within tol = {tol:.1e} of 1/r^{alpha} on 1..{n}; the "
            f"best error was {reached:.1e}. Raise tol, or use double precision "
            '(jax.config.update("jax_enable_x64", True)) where that is off.'
        )
    return best


def _in_dtype(weights, poles, lags, samples):
    """Poles as the dtype to be returned holds them, and weights for those: in single precision, an
    error of a pole near 1 is one of the whole tail. Double precision needs no such care."""
    dtype = np.dtype(jnp.zeros(()).dtype)
    if dtype == np.float64:
        return weights, poles
    held = np.unique(np.minimum(poles.astype(dtype).astype(float), 1.0))
    fitted = least_squares(held, lags, samples[lags - 1], dtype)
    return (fitted, held) if np.all(fitted > 0) else (weights, poles)


def _balanced_power_law(alpha: float, n: int, tol: float):
    """Nodes of the trapezoidal rule as rates x (poles e^-x) and sources b, 1/r^α = Σ b² e^(-x
    (r-1)), with the eigenvalues and eigenvectors of their Gramian Σ_{r < n} b_i b_j e^(-(x_i + x_j)
    r), largest first."""
    step = 0.25
    first = (math.log(1e-2 * tol) + math.lgamma(alpha + 1)) / alpha - 1
    last = math.log(60 + max(0.0, -math.log(tol)))
    s = np.arange(math.floor(first / step), math.ceil(last / step) + 1) * step
    rates = np.exp(s)
    source = np.sqrt(step * np.exp(alpha * s - rates - math.lgamma(alpha)))
    pairs = rates[:, None] + rates[None, :]
    gramian = source[:, None] * source[None, :] * np.expm1(-n * pairs) / np.expm1(-pairs)
    values, vectors = np.linalg.eigh(gramian)
    return rates, source, np.maximum(values[::-1], 0), vectors[:, ::-1]


def _truncated_rates(rates: np.ndarray, source: np.ndarray, basis: np.ndarray):
    """Rates and lag-one weights of the realisation projected on `basis`. 1 - λ is projected rather
    than λ: poles near 1 keep their digits."""
    gaps, rotation = np.linalg.eigh(basis.T @ (-np.expm1(-rates)[:, None] * basis))
    gaps = np.clip(gaps, 1e-300, 1 - 1e-15)
    return -np.log1p(-gaps), (rotation.T @ (basis.T @ source)) ** 2


def _refined(rates, weights, lags, samples, tol, steps: int = 40):
    """Weights and poles by damped Gauss-Newton steps on log rates and log weights, reweighted
    towards the largest error."""
    log_rates, log_weights, r = np.log(rates), np.log(np.maximum(weights, 1e-300)), lags - 1.0
    importance, damping = np.full(len(lags), 1.0 / len(lags)), 1e-3

    def terms_and_error(log_rates, log_weights):
        terms = np.exp(log_weights - np.exp(log_rates) * r[:, None])
        return terms, terms.sum(1) - samples

    terms, error = terms_and_error(log_rates, log_weights)
    best = (np.max(np.abs(error)), log_rates, log_weights)
    for _ in range(steps):
        if best[0] < 0.98 * tol:
            break
        root = np.sqrt(importance)[:, None]
        jacobian = np.concatenate([terms, -terms * np.exp(log_rates) * r[:, None]], axis=1) * root
        scale = np.linalg.norm(jacobian, axis=0) + 1e-300
        size = 2 * len(log_rates)
        system = np.concatenate([jacobian / scale, damping * np.eye(size)])
        target = np.concatenate([-error * root[:, 0], np.zeros(size)])
        # The triangular factor of [system, target] holds the least-squares solution.
        triangle = _triangular_factor(np.column_stack([system, target]))
        step = np.linalg.solve(triangle[:size, :size], triangle[:size, size]) / scale
        step = np.clip(step, -0.5, 0.5)
        weights_step, rates_step = np.split(step, 2)
        trial = (log_rates + rates_step, log_weights + weights_step)
        trial_terms, trial_error = terms_and_error(*trial)
        if importance @ trial_error**2 <= importance @ error**2:
            (log_rates, log_weights), terms, error = trial, trial_terms, trial_error
            damping = max(damping / 5, 1e-14)
        else:
            damping = min(damping * 10, 1.0)
        largest = np.max(np.abs(error))
        if largest < best[0]:
            best = (largest, log_rates, log_weights)
        importance = importance * (np.abs(error) / largest + 0.03) if largest > 0 else importance
        importance = importance / importance.sum()
    poles = np.exp(-np.exp(best[1]))
    return np.exp(best[2]) / poles, poles


def _triangular_factor(tall: np.ndarray) -> np.ndarray:
    """R of a QR factorisation, from those of blocks of twice as many rows as columns, again and
    again: blocks so small stay on one core, where threads would cost more than they bring."""
    width = tall.shape[1]
    while len(tall) > 2 * width:
        blocks = -(-len(tall) // (2 * width))
        padded = np.zeros((blocks * 2 * width, width))
        padded[: len(tall)] = tall
        small = np.linalg.qr(padded.reshape(blocks, 2 * width, width), mode="r")
        tall = np.asarray(small).reshape(-1, width)
    return np.asarray(np.linalg.qr(tall, mode="r"))
