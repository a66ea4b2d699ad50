"""Centred samples: the metric S = X^T X of the state, the force X^T eps, and their solver.

    X = (O - <O>) / sqrt(B),    eps = (E_loc - <E>) / sqrt(B),

real and imaginary parts stacked as rows, always in float64: the Gram matrix of a float32 network
loses the small eigenvalues that carry the last digits of the energy.
"""

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Inexact


def check_precision() -> None:
    """RuntimeError where jax computes in single precision."""
    if jnp.zeros(()).dtype != jnp.float64:
        raise RuntimeError(
            "natural gradient needs float64: call jax.config.update('jax_enable_x64', True) at the "
            "start of the program; the network may stay in float32 (dtype=jnp.float32)"
        )


def centred_samples(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> tuple[Float[Array, "rows parameters"], Float[Array, " rows"]]:
    """X and eps."""
    check_precision()
    x, eps = _by_parts(derivatives, energies)
    return x.reshape(eps.size, -1), eps.reshape(-1)


def _by_parts(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> tuple[Float[Array, "samples parts parameters"], Float[Array, "samples parts"]]:
    """X and eps in any precision, real and imaginary parts side by side."""
    parts = [jnp.real(energies), jnp.imag(energies)][: derivatives.shape[1]]
    return centred(derivatives), centred(jnp.stack(parts, axis=1))


def centred(values: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
    """Values less their mean over the samples, divided by the root of their number, in the widest
    precision that jax computes in."""
    wide = values.astype(jnp.zeros(()).dtype)
    return (wide - jnp.mean(wide, axis=0)) * values.shape[0] ** -0.5


def solve_positive(matrix: Array, eta: Array, vector: Array) -> Array:
    """(matrix + eta)^-1 vector for a positive semidefinite matrix, by Cholesky."""
    shifted = matrix + eta * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    operator = lx.MatrixLinearOperator(shifted, lx.positive_semidefinite_tag)
    # A failed solve is not hidden: it leaves NaN, which the VMC step reports with its advice.
    return lx.linear_solve(operator, vector, lx.Cholesky(), throw=False).value


def energy_gradient(
    derivatives: Float[Array, "samples parts parameters"], energies: Inexact[Array, " samples"]
) -> Float[Array, " parameters"]:
    """The gradient of the energy, 2 X^T eps: what first-order optimisers follow, in any
    precision."""
    x, eps = _by_parts(derivatives, energies)
    return 2 * jnp.einsum("spn,sp->n", x, eps)
