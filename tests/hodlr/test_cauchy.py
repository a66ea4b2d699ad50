"""Toeplitz systems against dense solution, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from lanes import later
from random_matrices import epsilon


def _random(rng, n, dtype):
    a = rng.normal(size=n)
    return (a + 1j * rng.normal(size=n) if "complex" in dtype else a).astype(dtype)


def _dense(column, row):
    lag = np.subtract.outer(np.arange(len(column)), np.arange(len(column)))
    return np.where(lag >= 0, column[np.maximum(lag, 0)], row[np.maximum(-lag, 0)])


@pytest.mark.parametrize(
    "n, dtype",
    [(1, "float64"), (61, "float32"), (60, "complex128"), later(2, "float64"),
     later(257, "complex64"), later(500, "float64")],
)  # fmt: skip
def test_against_dense_solution(n, dtype):
    """Not symmetric, not definite, with a zero diagonal: leading blocks are singular."""
    rng, eps = np.random.default_rng(n), epsilon(dtype)
    solve = jax.jit(hodlr.solve_toeplitz)
    for diagonal in (None, 0.0, 1e-9):
        column, row = _random(rng, n, dtype), _random(rng, n, dtype)
        if diagonal is not None and n > 1:
            column[0] = diagonal
        b = np.stack([_random(rng, n, dtype) for _ in range(2)], axis=1)
        wide = np.complex128 if "complex" in dtype else np.float64
        full = _dense(column, row).astype(wide)
        x = np.asarray(solve(column, row, b))
        assert x.dtype == dtype
        exact = np.linalg.solve(full, b)
        assert np.linalg.norm(full @ x - b) <= 100 * eps * np.linalg.norm(full, 2) * np.linalg.norm(
            x
        )
        bound = 100 * eps * np.linalg.cond(full)
        assert np.linalg.norm(x - exact) <= bound * np.linalg.norm(exact)


def test_derivatives_and_batches():
    rng = np.random.default_rng(0)
    n = 31
    arrays = [jnp.asarray(rng.normal(size=(3, n))) for _ in range(3)]

    def value(solve):
        return lambda *arrays: jnp.sum(jnp.sin(jax.vmap(solve)(*arrays)))

    def dense(column, row, b):
        lag = np.subtract.outer(np.arange(n), np.arange(n))
        below, above = column[np.maximum(lag, 0)], row[np.maximum(-lag, 0)]
        return jnp.linalg.solve(jnp.where(lag >= 0, below, above), b)

    ours, theirs = (
        jax.jit(jax.grad(value(f), argnums=(0, 1, 2)))(*arrays)
        for f in (hodlr.solve_toeplitz, dense)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7 * np.max(np.abs(b)))


def test_singular_matrices_and_wrong_shapes_are_refused():
    ones = np.ones(31)
    with pytest.raises(RuntimeError, match="singular to working precision"):
        jax.jit(jax.grad(lambda b: jnp.sum(hodlr.solve_toeplitz(ones, ones, b))))(ones)
    with pytest.raises(ValueError, match="one shape"):
        hodlr.solve_toeplitz(ones, ones[:-1], ones)
    with pytest.raises(ValueError, match="must have shape"):
        hodlr.solve_toeplitz(ones, ones, ones[:-1])
