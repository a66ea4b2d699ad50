"""Fitting kernels by sums of exponentials, with a certificate measured on the grid.

The fits run on the host in double precision (numpy), outside jit: choosing the number of terms is a
decision about values. What comes back is a `SumOfExponentials` and a `FitInfo` of errors on every
lag 1 … n.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import ArrayLike

from hodlr.exponentials import SumOfExponentials, check_finite, smooth_length

# Lags at which a kernel is evaluated at a time.
_BATCH = 2**16


class FitInfo(NamedTuple):
    """Certificate of a fit: `terms`, and the largest errors over all lags r = 1 … n, each one
    evaluated.

    `max_abs_error` = max |fit(r) - k(r)|, `max_rel_error` = max |fit(r) - k(r)|/|k(r)|, of the sum
    that was returned, evaluated in its own dtype.
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


def _error(weights: np.ndarray, poles: np.ndarray, samples: np.ndarray) -> float:
    """Largest error of the sum as its dtype holds it: measured in double precision, and with the
    rounding of its terms."""
    dtype = _dtype_of(weights, poles)
    weights, poles = weights.astype(dtype), poles.astype(dtype)
    rounding = 2 * float(jnp.finfo(dtype).eps) * float(np.sum(np.abs(weights * poles)))
    error = _evaluate(weights.astype(complex), poles.astype(complex), len(samples)) - samples
    return float(np.max(np.abs(error))) + rounding


def _dtype_of(*arrays: np.ndarray) -> np.dtype:
    """Jax's default for real or complex numbers."""
    default = np.dtype(jnp.zeros(()).dtype)
    wide = any(np.iscomplexobj(a) for a in arrays)
    return np.dtype(np.result_type(default, np.complex64)) if wide else default


def returned(
    weights: np.ndarray, poles: np.ndarray, samples: np.ndarray
) -> tuple[SumOfExponentials, FitInfo]:
    """The kernel to be returned, and its certificate: what *it* gives at every lag, in its own
    dtype."""
    poles = poles / np.maximum(np.abs(poles), 1.0)
    dtype = _dtype_of(weights, poles)
    kernel = SumOfExponentials(jnp.asarray(weights, dtype), jnp.asarray(poles, dtype))
    largest = relative = 0.0
    for start in range(0, len(samples), _BATCH):
        exact = samples[start : start + _BATCH]
        lags = jnp.arange(start + 1, start + 1 + len(exact))
        error = np.abs(np.asarray(_values(kernel, lags)) - exact)
        size = np.abs(exact)
        largest = max(largest, float(np.max(error)))
        relative = max(relative, float(np.max(error / np.where(size > 0, size, np.inf))))
    return kernel, FitInfo(len(weights), largest, relative)


_values = jax.jit(lambda kernel, lags: kernel(lags))


def fewest_terms(
    fit: Callable[[int], tuple[np.ndarray, np.ndarray]],
    samples: np.ndarray,
    tol: float,
    first: int,
    most: int,
) -> tuple[tuple[SumOfExponentials, FitInfo] | None, float]:
    """The fit with the fewest terms that meets tol, searched from `first` up until one does or down
    until one does not; and the least error seen."""
    best, reached, terms = None, np.inf, first
    while 1 <= terms <= most:
        weights, poles = fit(terms)
        error = _error(weights, poles, samples)
        if error <= tol:
            kernel, info = returned(weights, poles, samples)
            error = info.max_abs_error
        reached = min(reached, error)
        if error <= tol:
            best = kernel, info
            if terms > first:  # one less has been tried
                break
            terms -= 1
        elif best is None:
            terms += 1
        else:
            break
    return best, reached


def check_fit(n: int, tol: float) -> None:
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"the fit needs an integer number of lags n >= 1, but got {n!r}.")
    if not tol > 0:
        raise ValueError(f"the fit needs an absolute tolerance tol > 0, but got {tol!r}.")


def least_squares(poles, lags, samples, dtype) -> np.ndarray:
    """Weights for given poles, as `dtype` will hold them: weights that cancel cost their rounding,
    as much as they cost accuracy."""
    vandermonde = poles[None, :] ** lags[:, None]
    ridge = 4 * float(jnp.finfo(dtype).eps) * math.sqrt(len(lags))
    size = len(poles)
    system = np.concatenate([vandermonde, ridge * np.eye(size)])
    target = np.concatenate([samples.astype(system.dtype), np.zeros(size, system.dtype)])
    return np.linalg.lstsq(system, target, rcond=1e-15)[0]


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
    check_fit(n, tol)
    lags = np.arange(1, n + 1)
    samples = kernel(lags) if callable(kernel) else kernel
    if isinstance(samples, Tracer):
        raise TypeError(
            "fit_exponentials chooses the number of terms from the values of the kernel and cannot "
            "run inside jit, vmap or grad; fit outside, and differentiate what was fitted."
        )
    samples = np.asarray(samples)
    if samples.shape != (n,):
        raise ValueError(
            f"fit_exponentials needs values at the lags 1..{n}, shape ({n},), but got "
            f"{samples.shape}."
        )
    samples = samples.astype(complex if np.iscomplexobj(samples) else float)
    check_finite("the kernel to fit", jnp.asarray(samples))
    if np.max(np.abs(samples)) <= tol:
        zero = np.zeros(1, samples.dtype)
        return returned(zero, zero, samples)
    if n == 1:
        return returned(samples, np.ones(1, samples.dtype), samples)
    left, values = _hankel_subspace(samples, min(max_terms, n // 2 + n % 2, n - n // 2))
    floor = values[0] * 1e-15 * math.sqrt(n)
    # Discarding the tail Σ σ gives an error of that order; the search starts a little below.
    tails = np.cumsum(values[::-1])[::-1]
    first = max(1, int(np.argmax(np.append(tails, 0.0) <= 10 * tol)) - 2)
    # A few more than the subspace holds: close poles part for the price of more of them.
    held = max(1, int(np.sum(values > floor)))
    most = min(max(first, held) + 6, max_terms, n)
    best, reached = fewest_terms(
        lambda terms: _from_subspace(left[:, : min(terms, held)], samples, terms),
        samples,
        tol,
        first,
        most,
    )
    if best is None and n <= max_terms:
        # Any n values are a sum of n exponentials: their discrete Fourier transform.
        poles = np.exp(2j * np.pi * np.arange(n) / n)
        best = returned(np.fft.fft(samples) / n / poles, poles, samples)
    if best is not None and best[1].max_abs_error <= tol:
        return best
    raise ValueError(
        f"no sum of at most {max_terms} exponentials came within tol = {tol:.1e} of the kernel; "
        "the best error was "
        f"{reached:.1e}. Raise tol or max_terms, fit a smoother kernel, or use double precision "
        '(jax.config.update("jax_enable_x64", True)) where that is off.'
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


def _from_subspace(basis: np.ndarray, samples: np.ndarray, terms: int):
    """Weights and poles of the signal whose Hankel matrix has these left singular vectors, at most
    `terms`.

    Poles that nearly coincide (a Matérn kernel has one of order two or three) take weights that
    cancel, and the rounding of the sum grows with them; then poles spread around the same places,
    and more of them, do better."""
    poles = np.linalg.eigvals(np.linalg.lstsq(basis[:-1], basis[1:], rcond=None)[0])
    poles = poles / np.maximum(np.abs(poles), 1.0)
    lags = np.arange(1, len(samples) + 1)

    def fit(poles):
        if not np.iscomplexobj(samples) and not np.any(np.abs(poles.imag) > 1e-12):
            poles = np.real(poles)
        dtype = _dtype_of(poles, samples)
        poles = poles.astype(dtype).astype(np.result_type(dtype, float))
        some = lags if len(lags) < 2000 else np.unique(np.round(np.geomspace(1, len(lags), 2000)))
        some = some.astype(int)
        exact = np.linalg.lstsq(poles[None, :] ** lags[:, None], samples + 0 * poles[0], 1e-15)[0]
        candidates = [exact, least_squares(poles, some, samples[some - 1], dtype)]
        errors = [_error(weights, poles, samples) for weights in candidates]
        best = int(np.argmin(errors))
        return errors[best], candidates[best], poles

    best = fit(poles)
    if not np.iscomplexobj(samples):
        best = min([best, *map(fit, _spread(poles, len(samples), terms))], key=lambda f: f[0])
    return best[1], best[2]


def _spread(poles: np.ndarray, n: int, terms: int):
    """Real poles in place of a cluster of them, around its middle and ever wider apart."""
    apart = np.abs(poles[:, None] - poles) + np.eye(len(poles))
    close = np.min(apart, axis=1) < 0.02
    middle = float(np.mean(np.real(poles[close]))) if np.any(close) else 0.0
    if not middle > 0 or np.any(np.abs(poles[close] - middle) > 0.1):
        return
    others = poles[~close]
    count = terms - len(others)
    rate = max(-math.log(min(middle, 1.0)), 1 / n)
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    for width in np.geomspace(1e-4, 1, 25):
        yield np.concatenate([np.exp(-rate * (1 + width * nodes)), others])


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
    dtype = np.asarray(kernel.weights).dtype
    weights, poles = _merged(kernel)
    complex_input = np.iscomplexobj(weights)
    if np.max(np.abs(poles), initial=0.0) >= 1:
        raise ValueError(
            "truncate needs all poles inside the unit circle: the bound sums over all lags."
        )
    if len(poles) == 0:
        zero = jnp.zeros(1, dtype)
        return SumOfExponentials(zero, zero), TruncationInfo(1, 0.0)
    # In units of the largest weight, whatever they are.
    unit = np.max(np.abs(weights))
    source = np.sqrt((weights / unit).astype(complex) * poles)
    gramian = source[:, None] * source.conj() / (1 - poles[:, None] * poles.conj())
    reach = _square_root(gramian)
    # The realisation is complex symmetric, so the observability Gramian is the conjugate of this
    # one.
    left, values, right = np.linalg.svd(reach.T @ reach)
    bounds = 2 * unit * np.append(np.cumsum(values[::-1])[::-1], 0.0)
    keep = terms if terms is not None else int(np.argmax(bounds <= tol))
    keep = min(max(keep, 1), int(np.sum(values > values[0] * 1e-15)) or 1)
    scale = np.sqrt(np.maximum(values[:keep], 1e-300))
    into = reach @ right[:keep].conj().T / scale
    out = (reach @ left[:, :keep].conj()) / scale
    new_poles, vectors = np.linalg.eig(out.T @ (poles[:, None] * into))
    # A pole at 0 is a kernel that lives at lag 1 alone: the smallest that has powers does as well.
    new_poles = np.where(np.abs(new_poles) < 1e-12, 1e-12, new_poles)
    inputs = np.linalg.solve(vectors, out.T @ source)
    new_weights = unit * (source @ into @ vectors) * inputs / new_poles
    if not complex_input and not np.any(np.abs(np.imag(new_poles)) > 1e-12):
        new_weights, new_poles = np.real(new_weights), np.real(new_poles)
    dtype = np.result_type(dtype, np.complex64) if np.iscomplexobj(new_poles) else dtype
    held = new_weights.astype(dtype), new_poles.astype(dtype)
    rounding = _moved(new_weights, new_poles, *held)
    return SumOfExponentials(*held), TruncationInfo(keep, float(bounds[keep]) + rounding)


def _merged(kernel: SumOfExponentials) -> tuple[np.ndarray, np.ndarray]:
    """Weights and poles in double precision, equal poles once, without those that make nothing."""
    weights, poles = np.asarray(kernel.weights), np.asarray(kernel.poles)
    wide = complex if np.iscomplexobj(weights) else float
    poles, where = np.unique(poles, return_inverse=True)
    total = np.zeros(len(poles), wide)
    np.add.at(total, where, weights.astype(wide))
    alive = (total != 0) & (poles != 0)
    return total[alive], poles[alive].astype(wide)


def _moved(weights, poles, held_weights, held_poles) -> float:
    """A bound, at every lag, of what a sum changes when its weights and poles are rounded."""
    size = np.minimum(np.maximum(np.abs(poles), np.abs(held_poles)), 1 - 1e-16)
    # max over r of r m^(r-1)
    slope = np.maximum(1.0, 1 / (math.e * size * -np.log(size)))
    change = np.abs(held_weights - weights) * size + np.abs(weights * (held_poles - poles)) * slope
    return float(np.sum(change))


def _square_root(gramian: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(gramian)
    return vectors * np.sqrt(np.maximum(values, 0))
