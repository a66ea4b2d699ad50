"""Couplings of a chain that decay with the distance like a power."""

import math
import operator

import numpy as np


def checked_size(n_sites: int) -> int:
    """A number of sites; `ValueError` below one."""
    n_sites = operator.index(n_sites)
    if n_sites < 1:
        raise ValueError(f"n_sites must be at least 1, got {n_sites}")
    return n_sites


def check_finite(**values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}")


def power_law_couplings(
    n_sites: int, coupling: float, exponent: float, *, periodic: bool, kac: bool
) -> np.ndarray:
    """`coupling` / (Ñ r^exponent) by the difference |i-j| of two sites, (n_sites,); entry 0 is
    zero and an infinite exponent keeps the nearest neighbours only.

    r = min(|i-j|, n-|i-j|) on a ring, |i-j| on an open chain. With `kac`, Ñ = 1 + Σ_j r_0j^-α over
    the sites j ≠ 0, which keeps the energy extensive for α <= 1; otherwise Ñ = 1.
    """
    exponent = float(exponent)
    if not exponent > 0:
        raise ValueError(
            f"exponent must be greater than 0, got {exponent:g}; "
            "write math.inf for nearest-neighbour couplings"
        )
    separation = np.arange(n_sites, dtype=float)
    distance = np.minimum(separation, n_sites - separation) if periodic else separation
    decay = np.zeros(n_sites)
    decay[1:] = distance[1:] == 1 if math.isinf(exponent) else distance[1:] ** -exponent
    return float(coupling) * decay / (1 + decay.sum() if kac else 1.0)
