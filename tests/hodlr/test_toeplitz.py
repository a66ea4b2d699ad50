"""Toeplitz and circulant products and ExponentialToeplitz against their definitions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hodlr import ExponentialToeplitz, SumOfExponentials, circulant_matvec, toeplitz_matvec
from lanes import later
from random_matrices import DTYPES, brute_force, epsilon, random_sum, random_toeplitz

toeplitz = jax.jit(toeplitz_matvec)
circulant = jax.jit(circulant_matvec)
LENGTHS = [1, 2, 63, 67, 128]


@pytest.mark.parametrize(
    "n, dtype",
    [
        (later if (LENGTHS.index(n) + DTYPES.index(dtype)) % 2 else pytest.param)(n, dtype)
        for n in LENGTHS
        for dtype in DTYPES
    ],
)
def test_products_against_dense(n, dtype):
    rng = np.random.default_rng(n)
    column, row, x = (rng.normal(size=s) for s in [n, n, (n, 3)])
    if "complex" in dtype:
        column, x = column + 1j * rng.normal(size=n), x * np.exp(1j)
    column, row, x = column.astype(dtype), row.astype(dtype), x.astype(dtype)
    lag = np.arange(n)[:, None] - np.arange(n)[None, :]
    dense = np.where(lag >= 0, column[np.maximum(lag, 0)], row[np.maximum(-lag, 0)])
    bound = 50 * epsilon(dtype) * np.linalg.norm(dense) * np.linalg.norm(x)
    product = toeplitz(column, row, x)
    assert product.dtype == dtype
    assert np.max(np.abs(product - dense @ x)) <= bound
    ring = column[lag % n]
    assert np.max(np.abs(circulant(column, x[:, 0]) - ring @ x[:, 0])) <= bound


def test_products_batch_and_differentiate():
    rng = np.random.default_rng(0)
    column, x = jnp.asarray(rng.normal(size=(4, 71))), jnp.asarray(rng.normal(size=(5, 4, 71)))

    @jax.jit
    def energy(column, x):
        y = jax.vmap(jax.vmap(circulant_matvec), in_axes=(None, 0))(column, x)
        return jnp.sum(jnp.sin(y))

    slope = jax.jit(jax.grad(energy))(column, x)
    direction = jnp.asarray(rng.normal(size=column.shape))
    step = 1e-6
    difference = energy(column + step * direction, x) - energy(column - step * direction, x)
    np.testing.assert_allclose(jnp.sum(slope * direction), difference / (2 * step), rtol=1e-6)


@eqx.filter_jit
def _everything(matrix, x):
    sites = jnp.arange(matrix.n)
    return {
        "dense": matrix.to_dense(),
        "entries": matrix.entries(sites[:, None], sites[None, :]),
        "transpose": matrix.T.to_dense().T,
        "adjoint": jnp.conj(matrix.H.to_dense()).T,
    }, {
        "fft": matrix.matvec_fft(x),
        "scan": matrix.matvec_scan(x),
        "matmul": matrix @ x,
        "vector": (matrix @ x[:, 0])[:, None],
    }


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(
    "n, dtype",
    [(1, "float64"), (2, "complex128"), (7, "float32"), (131, "complex64"), (130, "float64")],
)
def test_exponential_toeplitz_against_its_definition(n, dtype, periodic):
    rng = np.random.default_rng(n)
    matrix = random_toeplitz(rng, n, dtype=dtype, periodic=periodic, noise=n % 2 == 0)
    exact = brute_force(matrix)
    x = rng.normal(size=(n, 2)).astype(dtype)
    forms, products = _everything(matrix, x)
    for name, form in forms.items():
        error = np.max(np.abs(np.asarray(form) - exact))
        assert error <= 50 * epsilon(dtype) * np.linalg.norm(exact), name
    for name, product in products.items():
        reference = exact @ x[:, : product.shape[1]]
        error = np.max(np.abs(np.asarray(product) - reference))
        assert error <= 50 * epsilon(dtype) * np.linalg.norm(exact) * np.linalg.norm(x), name


def test_scan_keeps_small_outputs_beside_large_ones():
    kernel = SumOfExponentials([1.0], [0.01])
    matrix = ExponentialToeplitz(200, kernel, kernel, 1.0)
    x = np.zeros(200)
    x[0] = 1.0
    product = jax.jit(lambda m, x: m.matvec_scan(x))(matrix, x)
    np.testing.assert_allclose(product[1:100], 0.01 ** np.arange(1, 100), rtol=1e-12)


def test_vmap_over_whole_operators():
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.normal(size=20))
    members = [random_toeplitz(rng, 20, periodic=True) for _ in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    together = eqx.filter_jit(eqx.filter_vmap(lambda m: m @ x))(batch)
    for one, product in zip(members, together, strict=True):
        np.testing.assert_allclose(product, brute_force(one) @ x, atol=1e-11)


def test_refused_input():
    k = random_sum(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match="n >= 1"):
        ExponentialToeplitz(0, k, k, 1.0)
    with pytest.raises(TypeError, match="SumOfExponentials"):
        ExponentialToeplitz(3, 1.0, k, 1.0)
    with pytest.raises(ValueError, match="diagonal"):
        ExponentialToeplitz(3, k, k, np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        ExponentialToeplitz(3, k, k, np.inf)
    with pytest.raises(ValueError, match="must have shape"):
        ExponentialToeplitz(3, k, k, 1.0) @ np.ones(4)
    with pytest.raises(ValueError, match="must have shape"):
        toeplitz_matvec(np.ones(3), np.ones(3), np.ones(4))
