"""Sums of exponentials and hierarchical off-diagonal low-rank (HODLR) matrices in JAX.

A *sum of exponentials* is a kernel k(r) = Σ_m w_m λ_m^r on the lags r = 0, 1, 2, …  Two of them and
a diagonal make the matrix

    A[i, j] = lower(i - j)  for i > j,     upper(j - i)  for i < j,     diagonal  for i = j,

an `ExponentialToeplitz`; on a ring every entry also sums over all images, that is, i - j + p·n for
all turns p. Because λ^(i-j) = λ^(i-p) λ^(p-j) for every boundary p between j and i, a block of A
that does not touch the diagonal has the rank of the number of modes (twice that on a ring),
whatever its size.

A *HODLR matrix* is any matrix with that property: the indices are halved again and again, and at
every level the two blocks beside the diagonal are products of thin factors,

    A[first, second] = U₁ V₂ᵀ,     A[second, first] = U₂ V₁ᵀ,

down to dense leaves. Products, solutions and determinants then take O(n logᵏ n) operations.

A worked example, with one mode of weight 1 below the diagonal and weight 2 above it:

    >>> from hodlr import ExponentialToeplitz, SumOfExponentials, factorise, from_exponentials
    >>> A = ExponentialToeplitz(
    ...     4, SumOfExponentials([1.0], [0.5]), SumOfExponentials([2.0], [0.5]), 3.0
    ... )
    >>> print(A.to_dense())
    [[3.    1.    0.5   0.25 ]
     [0.5   3.    1.    0.5  ]
     [0.25  0.5   3.    1.   ]
     [0.125 0.25  0.5   3.   ]]
    >>> from_exponentials(A, leaf_size=2).ranks
    (1,)
    >>> F = factorise(A)
    >>> x = F.solve([1.0, 0.0, 0.0, 0.0])
    >>> sign, logabs = F.slogdet()

Everything is a pytree of arrays with static sizes and ranks: it works under `jax.jit`, `jax.vmap`
(over whole matrices), `jax.grad` and `jax.jvp`. Choosing ranks by a tolerance (`tol=`) needs
values, and so does fitting kernels; both happen outside `jit`.

Which file is which:

    structured       what every matrix can do: `@ + - * / .T .H`, entries, shape, dtype
    exponentials     sums of exponentials;   kernels: those of Gaussian processes
    toeplitz         products, and the matrix of a two-sided sum;   circulant: rings solved directly
    cauchy           any Toeplitz system, solved in O(n²)
    quasiseparable   products of such matrices;   band: bands of products
    covariance       irregular times and Gaussian processes
    matrix, tree     the HODLR matrix and its halving;   lowrank, blocks: batches of small matrices
    build, sampling  HODLR from arrays and exponentials; from entries and products (`cross`)
    algebra          sums, products, compression of HODLR matrices
    fit, power_law   kernels as sums of exponentials, with a certificate
    direct           factorise, solve, slogdet;   factor: what every factorisation offers
    chunks           a matrix as dense chunks and waves between them, which is what is factorised
                     by cholesky (positive definite) and elimination (any)
    lineax_adapter   operators and solvers for lineax
    bench, accuracy  measurements;   accuracy_cases: the matrices of its table
"""

from hodlr import kernels as kernels
from hodlr.algebra import CompressInfo as CompressInfo
from hodlr.algebra import add as add
from hodlr.algebra import add_diagonal as add_diagonal
from hodlr.algebra import compress as compress
from hodlr.algebra import frobenius_norm as frobenius_norm
from hodlr.algebra import hadamard as hadamard
from hodlr.algebra import low_rank_update as low_rank_update
from hodlr.algebra import matmul as matmul
from hodlr.algebra import norm_estimate as norm_estimate
from hodlr.algebra import scale as scale
from hodlr.algebra import subtract as subtract
from hodlr.band import product_band as product_band
from hodlr.build import from_dense as from_dense
from hodlr.build import from_exponentials as from_exponentials
from hodlr.cauchy import solve_toeplitz as solve_toeplitz
from hodlr.covariance import Covariance as Covariance
from hodlr.covariance import Posterior as Posterior
from hodlr.covariance import condition as condition
from hodlr.direct import SolveInfo as SolveInfo
from hodlr.direct import factorise as factorise
from hodlr.direct import slogdet as slogdet
from hodlr.direct import solve as solve
from hodlr.direct import solve_with_info as solve_with_info
from hodlr.exponentials import SumOfExponentials as SumOfExponentials
from hodlr.exponentials import integer_power as integer_power
from hodlr.factor import AbstractFactorisation as AbstractFactorisation
from hodlr.factor import Inverse as Inverse
from hodlr.fit import FitInfo as FitInfo
from hodlr.fit import TruncationInfo as TruncationInfo
from hodlr.fit import fit_exponentials as fit_exponentials
from hodlr.fit import truncate as truncate
from hodlr.lineax_adapter import HODLROperator as HODLROperator
from hodlr.lineax_adapter import HODLRSolver as HODLRSolver
from hodlr.matrix import HODLR as HODLR
from hodlr.power_law import fit_power_law as fit_power_law
from hodlr.sampling import BuildInfo as BuildInfo
from hodlr.sampling import from_entries as from_entries
from hodlr.sampling import from_operator as from_operator
from hodlr.structured import AbstractStructured as AbstractStructured
from hodlr.structured import diagonal as diagonal
from hodlr.toeplitz import ExponentialToeplitz as ExponentialToeplitz
from hodlr.toeplitz import circulant_matvec as circulant_matvec
from hodlr.toeplitz import toeplitz_matvec as toeplitz_matvec
