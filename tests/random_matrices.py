"""Random matrices for the tests: never symmetric, and dense reference forms by their definition."""

import equinox as eqx
import numpy as np

import hodlr
from hodlr import ExponentialToeplitz, SumOfExponentials

# One program each, where calls as they stand would compile one for every operation.
from_dense = eqx.filter_jit(hodlr.from_dense)
from_exponentials = eqx.filter_jit(hodlr.from_exponentials)
dense = eqx.filter_jit(lambda matrix: matrix.to_dense())

DTYPES = ["float32", "float64", "complex64", "complex128"]


def random_sum(rng, modes, dtype="float64", largest=0.98):
    """A sum of exponentials with poles anywhere in the disc of radius `largest`, of either sign."""
    weights, poles = rng.normal(size=modes), rng.uniform(-largest, largest, modes)
    if "complex" in dtype:
        weights = weights * np.exp(2j * np.pi * rng.uniform(size=modes))
        poles = poles * np.exp(2j * np.pi * rng.uniform(size=modes))
    return SumOfExponentials(weights.astype(dtype), poles.astype(dtype))


def random_toeplitz(
    rng, n, modes=(3, 2), dtype="float64", periodic=False, diagonal=4.0, noise=False, largest=0.98
):
    lower, upper = (random_sum(rng, m, dtype, largest) for m in modes)
    on_diagonal = np.asarray(diagonal, dtype)
    if noise:
        on_diagonal = (diagonal + rng.uniform(size=n)).astype(dtype)
    return ExponentialToeplitz(n, lower, upper, on_diagonal, periodic)


def brute_force(matrix):
    """The matrix entry by entry from the definition, in double precision; images are summed for a
    ring."""
    n = matrix.n
    lower, upper = (
        [
            (complex(w), complex(p))
            for w, p in zip(np.asarray(k.weights), np.asarray(k.poles), strict=True)
        ]
        for k in (matrix.lower, matrix.upper)
    )
    diagonal = np.broadcast_to(np.asarray(matrix.diagonal), (n,))
    out = np.zeros((n, n), complex)
    turns = range(1, 4000) if matrix.periodic else ()
    for i in range(n):
        for j in range(n):
            out[i, j] = diagonal[i] if i == j else 0
            out[i, j] += sum(w * p ** (i - j) for w, p in lower if i > j)
            out[i, j] += sum(w * p ** (j - i) for w, p in upper if i < j)
    lag = np.arange(n)[:, None] - np.arange(n)[None, :]
    for turn in turns:
        terms = sum(w * p ** (lag + turn * n) for w, p in lower)
        terms = terms + sum(w * p ** (turn * n - lag) for w, p in upper)
        out += terms
        if np.max(np.abs(terms)) < 1e-18:
            break
    return out if np.iscomplexobj(np.asarray(diagonal)) else out.real


def epsilon(dtype):
    return float(np.finfo(dtype).eps)
