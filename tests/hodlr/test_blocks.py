"""Solutions of batches of small blocks against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hodlr.blocks import solve_blocks
from random_matrices import DTYPES, epsilon


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_against_numpy(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(6, 7, 7)), rng.normal(size=(6, 7, 3))
    if "complex" in dtype:
        a = a + 1j * rng.normal(size=a.shape)
    a, b = a.astype(dtype), b.astype(dtype)
    x = jax.jit(solve_blocks)(a, b)
    bound = 50 * epsilon(dtype) * np.max(np.linalg.cond(a))
    exact = np.linalg.inv(a)
    assert np.max(np.abs(x - exact @ b)) <= bound * np.max(np.abs(exact @ b))


def test_the_residual_of_a_nearly_singular_block_is_small():
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    a, b = (q * np.logspace(0, -15, 12)) @ q.T, rng.normal(size=(12, 2))
    x = np.asarray(solve_blocks(jnp.asarray(a), jnp.asarray(b)))
    assert np.linalg.norm(a @ x - b) <= 1e-14 * np.linalg.norm(a) * np.linalg.norm(x)


def test_derivatives_of_blocks():
    rng = np.random.default_rng(2)
    a, change = (jnp.asarray(rng.normal(size=(3, 4, 4))) for _ in range(2))
    b = jnp.asarray(rng.normal(size=(3, 4, 2)))

    def value(t):
        return jnp.sum(solve_blocks(a + t * change, b) ** 2)

    def exact(t):
        return jnp.sum(jnp.linalg.solve(a + t * change, b) ** 2)

    for order in (jax.grad, jax.hessian):
        np.testing.assert_allclose(
            jax.jit(order(value))(0.0), jax.jit(order(exact))(0.0), rtol=1e-8
        )
