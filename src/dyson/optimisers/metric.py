"""Centred samples: the metric S = X^T X of the state, the force X^T eps, and their solver.

    X = (O - <O>) / sqrt(B),    eps = (E_loc - <E>) / sqrt(B),

real and imaginary parts stacked as rows, always in float64: the Gram matrix of a float32 network
loses the small eigenvalues that carry the last digits of the energy.
"""

import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Inexact


def centred_samples(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> tuple[Float[Array, "rows parameters"], Float[Array, " rows"]]:
    """X and eps."""
    samples, parts, _ = derivatives.shape
    x = centred(derivatives)
    e = energies.astype(np.promote_types(energies.dtype, np.float64))
    eps = jnp.stack([jnp.real(e), jnp.imag(e)][:parts], axis=1)
    return x.reshape(samples * parts, -1), centred(eps).reshape(-1)


def centred(values: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
    """Values less their mean over the samples, divided by the root of their number, in float64."""
    wide = values.astype(jnp.float64)
    if wide.dtype != jnp.float64:
        raise RuntimeError(
            "natural gradient needs float64: call jax.config.update('jax_enable_x64', True) at the "
            "start of the program; the network may stay in float32 (dtype=jnp.float32)"
        )
    return (wide - jnp.mean(wide, axis=0)) * values.shape[0] ** -0.5


def solve_positive(matrix: Array, eta: Array, vector: Array) -> Array:
    """(matrix + eta)^-1 vector for a positive semidefinite matrix, by Cholesky."""
    shifted = matrix + eta * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    operator = lx.MatrixLinearOperator(shifted, lx.positive_semidefinite_tag)
    # A failed solve is not hidden: it leaves NaN, which the VMC step reports with its advice.
    return lx.linear_solve(operator, vector, lx.Cholesky(), throw=False).value


def force(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> Float[Array, " parameters"]:
    """Half the gradient of the energy, X^T eps: what first-order optimisers follow."""
    x, eps = centred_samples(derivatives, energies)
    return x.T @ eps
