"""Centred samples: the metric S = X^T X of the state, the force X^T eps, and their solver.

    X = sqrt(p) (O - <O>),    eps = sqrt(p) (E_loc - <E>),

with p what each sample counts (1 / samples, or its weight over their sum) and means over p; real
and imaginary parts are stacked as rows, always in float64: the Gram matrix of a float32 network
loses the small eigenvalues that carry the last digits of the energy.
"""

import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Inexact

# Parameters that change log psi so many times less than the one that changes it most, no more
# than round-off of single precision, are not magnified further.
LEAST_SCALE = 1e-5


def check_precision() -> None:
    """RuntimeError where jax computes in single precision."""
    if jnp.zeros(()).dtype != jnp.float64:
        raise RuntimeError(
            "natural gradient needs float64: call jax.config.update('jax_enable_x64', True) at the "
            "start of the program; the network may stay in float32 (dtype=jnp.float32)"
        )


def shares(weights: Float[Array, " samples"] | None, samples: int) -> Float[Array, " samples"]:
    """The weights with sum one, in the widest precision that jax computes in; all alike if none
    are given."""
    if weights is None:
        return jnp.full((samples,), 1 / samples)
    wide = weights.astype(jnp.zeros(()).dtype)
    return wide / jnp.sum(wide)


def centred_samples(
    derivatives: Float[Array, "samples parts parameters"],
    energies: Inexact[Array, " samples"],
    share: Float[Array, " samples"],
) -> tuple[Float[Array, "rows parameters"], Float[Array, " rows"]]:
    """X and eps."""
    check_precision()
    x, eps = _by_parts(derivatives, energies, share)
    return x.reshape(eps.size, -1), eps.reshape(-1)


def _by_parts(
    derivatives: Float[Array, "samples parts parameters"],
    energies: Inexact[Array, " samples"],
    share: Float[Array, " samples"],
) -> tuple[Float[Array, "samples parts parameters"], Float[Array, "samples parts"]]:
    """X and eps in any precision, real and imaginary parts side by side."""
    parts = [jnp.real(energies), jnp.imag(energies)][: derivatives.shape[1]]
    return centred(derivatives, share), centred(jnp.stack(parts, axis=1), share)


def mean(values: Float[Array, "samples ..."], share: Float[Array, " samples"]) -> Array:
    """The mean over the samples, in the widest precision that jax computes in."""
    return jnp.tensordot(share, values.astype(share.dtype), axes=1)


def centred(values: Float[Array, "samples ..."], share: Float[Array, " samples"]) -> Array:
    """Values less their mean over the samples, times the root of what each sample counts, in the
    widest precision that jax computes in."""
    wide = values.astype(share.dtype)
    root = jnp.sqrt(share).reshape(-1, *[1] * (values.ndim - 1))
    return (wide - mean(wide, share)) * root


def scales(x: Float[Array, "rows parameters"]) -> Float[Array, " parameters"]:
    """By how much log psi changes with each parameter: the roots of the diagonal of S, those of
    parameters without an effect kept from zero."""
    squares = jnp.sum(x**2, axis=0)
    roots = jnp.sqrt(squares + LEAST_SCALE**2 * jnp.max(squares))
    return jnp.where(roots > 0, roots, 1)


def solve_positive(matrix: Array, eta: Array, vector: Array) -> Array:
    """(matrix + eta)^-1 vector for a positive semidefinite matrix, by Cholesky."""
    shifted = matrix + eta * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    operator = lx.MatrixLinearOperator(shifted, lx.positive_semidefinite_tag)
    # A failed solve is not hidden: it leaves NaN, which the VMC step reports with its advice.
    return lx.linear_solve(operator, vector, lx.Cholesky(), throw=False).value


def energy_gradient(
    derivatives: Float[Array, "samples parts parameters"],
    energies: Inexact[Array, " samples"],
    weights: Float[Array, " samples"] | None = None,
) -> Float[Array, " parameters"]:
    """The gradient of the energy, 2 X^T eps: what first-order optimisers follow, in any
    precision."""
    x, eps = _by_parts(derivatives, energies, shares(weights, energies.size))
    return 2 * jnp.einsum("spn,sp->n", x, eps)
