"""Fitting kernels by sums of exponentials, with a certificate measured on the grid.

The fits run on the host in double precision (numpy), outside jit: choosing the number of terms is a
decision about values. What comes back is a `SumOfExponentials` and a `FitInfo` of errors on every
lag 1 … n.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from hodlr.exponentials import SumOfExponentials, check_finite, smooth_length


class FitInfo(NamedTuple):
    """Certificate of a fit: `terms`, and the largest errors over all lags r = 1 … n, each one
    evaluated.

    `max_abs_error` = max |fit(r) - k(r)|, `max_rel_error` = max |fit(r) - k(r)|/|k(r)|; both in
    double precision.
    """

    terms: int
    max_abs_error: float
    max_rel_error: float


class TruncationInfo(NamedTuple):
    """`terms` kept, and `bound` ≥ |error(r)| at every lag r ≥ 1: twice the sum of the discarded
    singular values."""

    terms: int
    bound: float


def _evaluate(weights: np.ndarray, poles: np.ndarray, n: int) -> np.ndarray:
    """The sum on the lags 1 … n: with r = 1 + a + b·stride the powers are λ^(1+a) · λ^(b·stride),
    and their sum over the modes is one matrix product instead of n·modes powers."""
    stride = math.isqrt(n - 1) + 1
    steps = np.arange(stride)[:, None]
    return ((weights * poles ** (stride * steps)) @ (poles ** (1 + steps)).T).reshape(-1)[:n]


def _certificate(weights: np.ndarray, poles: np.ndarray, samples: np.ndarray) -> FitInfo:
    error = np.abs(_evaluate(weights, poles, len(samples)) - samples)
    size = np.abs(samples)
    relative = np.max(error / np.where(size > 0, size, np.inf)) if np.any(size > 0) else 0.0
    return FitInfo(len(weights), float(np.max(error)), float(relative))


def _fewest_terms(
    fit: Callable[[int], tuple[np.ndarray, np.ndarray]],
    samples: np.ndarray,
    tol: float,
    first: int,
    most: int,
) -> tuple[tuple[np.ndarray, np.ndarray, FitInfo] | None, float]:
    """The fit with the fewest terms that meets tol, searched from `first` up until one does or down
    until one does not; and the least error seen."""
    best, reached, terms = None, np.inf, first
    while 1 <= terms <= most:
        weights, poles = fit(terms)
        info = _certificate(weights, poles, samples)
        reached = min(reached, info.max_abs_error)
        if info.max_abs_error <= tol:
            best = weights, poles, info
            if terms > first:  # one less has been tried
                break
            terms -= 1
        elif best is None:
            terms += 1
        else:
            break
    return best, reached


def _as_sum(weights: np.ndarray, poles: np.ndarray) -> SumOfExponentials:
    poles = poles / np.maximum(np.abs(poles), 1.0)
    return SumOfExponentials(jnp.asarray(weights), jnp.asarray(poles))


def _check(n: int, tol: float) -> None:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"the fit needs an integer number of lags n >= 1, but got {n!r}.")
    if not tol > 0:
        raise ValueError(f"the fit needs an absolute tolerance tol > 0, but got {tol!r}.")


# Power laws


def fit_power_law(alpha: float, n: int, *, tol: float) -> tuple[SumOfExponentials, FitInfo]:
    """1/r^alpha on r = 1 … n to the absolute error tol, with poles in (0, 1) and positive weights.

    1/r^α = 1/Γ(α) ∫ exp(α s - r eˢ) ds by the trapezoidal rule is a sum of many exponentials; its
    symmetric realisation is truncated in balanced coordinates over the n lags (poles stay in (0,
    1), weights positive), and poles and weights are refined by least squares whose weights are
    raised where the error is largest. The fewest terms that meet tol are kept; about 10 … 30,
    growing with log n and log 1/tol. Takes about half a second at n = 10⁵.
    """
    _check(n, tol)
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
        return _refined(*start, lags, samples[lags - 1], tol)

    best, _ = _fewest_terms(fit, samples, tol, terms, len(values))
    if best is None:
        raise ValueError(
            f"no fit of 1/r^{alpha} on 1..{n} reaches tol = {tol:.1e} in double precision."
        )
    return _as_sum(best[0], best[1]), best[2]


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


# Any kernel


def fit_exponentials(
    kernel: Callable[[np.ndarray], ArrayLike] | ArrayLike,
    n: int,
    *,
    tol: float,
    max_terms: int = 60,
) -> tuple[SumOfExponentials, FitInfo]:
    """A sum of exponentials within the absolute error tol of a kernel on the lags 1 … n; real or
    complex.

    kernel: a function of the integer array 1 … n, or its values there, shape (n,). The poles are
    those of the signal subspace of the Hankel matrix k(i + j + 1) (ESPRIT: Roy, Kailath, IEEE
    Trans. ASSP 37, 984, 1989), found with fast Fourier products in O(n·terms·log n), the weights by
    least squares on all lags; the number of terms is the smallest tried that meets tol. Real
    kernels give real sums where all poles are real, else conjugate pairs. A kernel with a long tail
    on many scales is better served by `fit_power_law` or by a coarser tol: the fit fails with the
    error it reached, and never returns one above tol.
    """
    _check(n, tol)
    lags = np.arange(1, n + 1)
    samples = np.asarray(kernel(lags) if callable(kernel) else kernel)
    if samples.shape != (n,):
        raise ValueError(
            f"fit_exponentials needs values at the lags 1..{n}, shape ({n},), but got "
            f"{samples.shape}."
        )
    samples = samples.astype(complex if np.iscomplexobj(samples) else float)
    check_finite("the kernel to fit", jnp.asarray(samples))
    if np.max(np.abs(samples)) <= tol:
        zero = np.zeros(1, samples.dtype)
        return _as_sum(zero, zero), _certificate(zero, zero, samples)
    if n == 1:
        weights, poles = samples, np.ones(1, samples.dtype)
        return _as_sum(weights, poles), _certificate(weights, poles, samples)
    left, values = _hankel_subspace(samples, min(max_terms, n // 2 + n % 2, n - n // 2))
    floor = values[0] * 1e-15 * math.sqrt(n)
    # Discarding the tail Σ σ gives an error of that order; the search starts a little below.
    tails = np.cumsum(values[::-1])[::-1]
    first = max(1, int(np.argmax(np.append(tails, 0.0) <= 10 * tol)) - 2)
    most = max(first, int(np.sum(values > floor)))
    best, reached = _fewest_terms(
        lambda terms: _from_subspace(left[:, :terms], samples), samples, tol, first, most
    )
    if best is None and n <= max_terms:
        # Any n values are a sum of n exponentials: their discrete Fourier transform.
        poles = np.exp(2j * np.pi * np.arange(n) / n)
        weights = np.fft.fft(samples) / n / poles
        best = weights, poles, _certificate(weights, poles, samples)
    if best is not None and best[2].max_abs_error <= tol:
        return _as_sum(best[0], best[1]), best[2]
    raise ValueError(
        f"no sum of at most {max_terms} exponentials came within tol = {tol:.1e} of the kernel; "
        "the best error was "
        f"{reached:.1e}. Raise tol or max_terms, or fit a smoother kernel."
    )


def _hankel_subspace(samples: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Leading left singular vectors (rows, count) and values of H[i, j] = samples[i + j] by
    subspace iteration."""
    n = len(samples)
    columns = n // 2
    rows = n - columns + 1 if columns else 1
    if n <= 600:
        hankel = samples[np.arange(rows)[:, None] + np.arange(columns)[None, :]]
        left, values, _ = np.linalg.svd(hankel, full_matrices=False)
        return left[:, :count], values[:count]
    length = smooth_length(n + max(rows, columns))
    transform = np.fft.fft(samples, length)[:, None]

    def product(x: np.ndarray, size: int) -> np.ndarray:
        # H x is a correlation: reversed, it is a convolution with the samples.
        full = np.fft.ifft(transform * np.fft.fft(x[::-1], length, axis=0), axis=0)
        out = full[len(x) - 1 : len(x) - 1 + size]
        return out if np.iscomplexobj(samples) else out.real

    rng = np.random.default_rng(0)
    basis = rng.standard_normal((columns, count + 10)).astype(samples.dtype)
    for _ in range(2):
        basis, _ = np.linalg.qr(product(basis, rows))
        basis, _ = np.linalg.qr(np.conj(product(np.conj(basis), columns)))
    image, _ = np.linalg.qr(product(basis, rows))
    small = np.conj(product(np.conj(image), columns))
    left, values, _ = np.linalg.svd(np.conj(small.T), full_matrices=False)
    return (image @ left)[:, :count], values[:count]


def _from_subspace(left: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and poles of the signal whose Hankel matrix has these left singular vectors."""
    poles = np.linalg.eigvals(np.linalg.lstsq(left[:-1], left[1:], rcond=None)[0])
    poles = poles / np.maximum(np.abs(poles), 1.0)
    real = not np.iscomplexobj(samples)
    if real and not np.any(np.abs(poles.imag) > 1e-12):
        poles = poles.real
    lags = np.arange(1, len(samples) + 1)
    vandermonde = poles[None, :] ** lags[:, None]
    weights = np.linalg.lstsq(vandermonde, samples.astype(vandermonde.dtype), rcond=1e-15)[0]
    return weights, poles


# Truncation


def truncate(
    kernel: SumOfExponentials, *, terms: int | None = None, tol: float | None = None
) -> tuple[SumOfExponentials, TruncationInfo]:
    """Fewer exponentials by balanced truncation, with its a-priori bound on every lag r ≥ 1.
    O(modes³).

    With the Hankel singular values σ of the infinite chain, |error(r)| ≤ 2 Σ_discarded σ (Glover,
    Int. J. Control 39, 1115, 1984). Give `terms`, or `tol` for the fewest terms with a bound ≤ tol.
    All |poles| < 1.
    """
    if (terms is None) == (tol is None):
        raise ValueError("truncate takes exactly one of terms= and tol=.")
    weights, poles = np.asarray(kernel.weights), np.asarray(kernel.poles)
    complex_input = np.iscomplexobj(weights)
    if np.max(np.abs(poles), initial=0.0) >= 1:
        raise ValueError(
            "truncate needs all poles inside the unit circle: the bound sums over all lags."
        )
    source = np.sqrt(weights.astype(complex) * poles)
    gramian = source[:, None] * source.conj() / (1 - poles[:, None] * poles.conj())
    reach = _square_root(gramian)
    # The realisation is complex symmetric, so the observability Gramian is the conjugate of this
    # one.
    left, values, right = np.linalg.svd(reach.T @ reach)
    bounds = 2 * np.append(np.cumsum(values[::-1])[::-1], 0.0)
    keep = terms if terms is not None else int(np.argmax(bounds <= tol))
    keep = min(max(keep, 1), int(np.sum(values > values[0] * 1e-15)) or 1)
    scale = np.sqrt(np.maximum(values[:keep], 1e-300))
    into = reach @ right[:keep].conj().T / scale
    out = (reach @ left[:, :keep].conj()) / scale
    new_poles, vectors = np.linalg.eig(out.T @ (poles[:, None] * into))
    inputs = np.linalg.solve(vectors, out.T @ source)
    new_weights = (source @ into @ vectors) * inputs / new_poles
    if not complex_input and not np.any(np.abs(np.imag(new_poles)) > 1e-12):
        new_weights, new_poles = np.real(new_weights), np.real(new_poles)
    dtype = np.result_type(new_weights.dtype, np.asarray(kernel.weights).dtype)
    result = _as_sum(new_weights.astype(dtype), new_poles.astype(dtype))
    return result, TruncationInfo(keep, float(bounds[keep]))


def _square_root(gramian: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(gramian)
    return vectors * np.sqrt(np.maximum(values, 0))
