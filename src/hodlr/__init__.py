"""Sums of exponentials and hierarchical off-diagonal low-rank matrices."""

from hodlr.band import product_band as product_band
from hodlr.build import from_dense as from_dense
from hodlr.build import from_exponentials as from_exponentials
from hodlr.exponentials import SumOfExponentials as SumOfExponentials
from hodlr.matrix import HODLR as HODLR
from hodlr.sampling import BuildInfo as BuildInfo
from hodlr.sampling import from_entries as from_entries
from hodlr.sampling import from_operator as from_operator
from hodlr.toeplitz import ExponentialToeplitz as ExponentialToeplitz
from hodlr.toeplitz import circulant_matvec as circulant_matvec
from hodlr.toeplitz import toeplitz_matvec as toeplitz_matvec
