"""Sums of exponentials and hierarchical off-diagonal low-rank matrices."""

from .exponentials import SumOfExponentials as SumOfExponentials
from .toeplitz import circulant_matvec as circulant_matvec
from .toeplitz import ExponentialToeplitz as ExponentialToeplitz
from .toeplitz import toeplitz_matvec as toeplitz_matvec
