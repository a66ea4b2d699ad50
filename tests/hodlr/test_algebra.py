"""Algebra of structured matrices against the same algebra of arrays, for all pairs of operand
types."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from random_matrices import DTYPES, epsilon, random_toeplitz

N, LEAF = 19, 5
dense = eqx.filter_jit(lambda matrix: matrix.to_dense())


@eqx.filter_jit
def _all_pairs(matrices, d, u):
    out = {}
    for a, left in matrices.items():
        for b, right in matrices.items():
            out[f"{a} {b}"] = [
                hodlr.add(left, right).to_dense(),
                hodlr.subtract(left, right).to_dense(),
                hodlr.matmul(left, right).to_dense(),
                hodlr.hadamard(left, right).to_dense(),
            ]
        out[a] = [
            hodlr.scale(left, d, 2 * d).to_dense(),
            hodlr.low_rank_update(left, u, 2 * u).to_dense(),
            hodlr.add_diagonal(left, d).to_dense(),
            (left * 2.5).to_dense(),
        ]
        out[f"{a} norms"] = hodlr.frobenius_norm(left), hodlr.norm_estimate(left)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_pairs_against_arrays(dtype):
    rng = np.random.default_rng(0)
    opened, ring = (random_toeplitz(rng, N, dtype=dtype, periodic=p) for p in (False, True))
    full = np.asarray(dense(random_toeplitz(rng, N, (2, 1), dtype)))
    matrices = {
        "open": opened,
        "ring": ring,
        "hodlr": hodlr.from_dense(full, rank=3, leaf_size=LEAF),
    }
    if dtype == "float64":
        # Real with complex, the promotion that strict promotion forbids to arrays.
        matrices["complex"] = random_toeplitz(rng, N, dtype="complex128")
    d, u = rng.normal(size=N).astype(dtype), rng.normal(size=(N, 2)).astype(dtype)
    results = _all_pairs(matrices, d, u)
    arrays = {name: np.asarray(dense(m)) for name, m in matrices.items()}
    np.testing.assert_allclose(
        arrays["hodlr"], full, atol=50 * epsilon(dtype) * np.linalg.norm(full)
    )

    def check(result, exact, scale, what):
        assert np.max(np.abs(np.asarray(result) - exact)) <= 50 * epsilon(dtype) * scale, what

    for a, left in arrays.items():
        for b, right in arrays.items():
            exact = [left + right, left - right, left @ right, left * right]
            size = np.linalg.norm(left), np.linalg.norm(right)
            scales = [sum(size), sum(size), size[0] * size[1], size[0] * size[1]]
            for result, *rest in zip(results[f"{a} {b}"], exact, scales, strict=True):
                check(result, *rest, (a, b))
        exact = [
            np.diag(d) @ left @ np.diag(2 * d),
            left + 2 * u @ u.T,
            left + np.diag(d),
            2.5 * left,
        ]
        for result, reference in zip(results[a], exact, strict=True):
            check(result, reference, np.linalg.norm(left) + np.linalg.norm(reference), a)
        frobenius, spectral = results[f"{a} norms"]
        np.testing.assert_allclose(frobenius, np.linalg.norm(left), rtol=1e-5)
        assert 0.8 <= spectral / np.linalg.norm(left, 2) <= 1 + 1e-5


def test_the_product_of_symmetric_matrices_is_not_symmetric():
    rng = np.random.default_rng(4)
    parts = []
    for _ in range(2):
        m = random_toeplitz(rng, N)
        parts.append(hodlr.ExponentialToeplitz(N, m.lower, m.lower, rng.normal(size=N)))
    product = np.asarray(dense(hodlr.matmul(*parts)))
    assert np.linalg.norm(product - product.T) > 0.1 * np.linalg.norm(product)


def test_compress_reports_its_error_exactly():
    rng = np.random.default_rng(1)
    a, b = (hodlr.from_exponentials(random_toeplitz(rng, 40), leaf_size=10) for _ in range(2))
    product = hodlr.matmul(a, b)
    assert product.ranks == (6, 9)
    smaller, info = hodlr.compress(product, rank=4)
    error = np.linalg.norm(dense(smaller) - dense(product))
    np.testing.assert_allclose(info.error, error, rtol=1e-6)
    assert error > 1e-6
    sharp, sharp_info = hodlr.compress(hodlr.add(product, product), tol=1e-12)
    assert all(r <= 6 for r in sharp.ranks[:1]) and sharp_info.ranks == sharp.ranks
    np.testing.assert_allclose(dense(sharp), 2 * dense(product), atol=1e-10)
    truncated = hodlr.matmul(a, b, tol=1e-3)
    assert sum(truncated.ranks) < sum(product.ranks)
    assert np.linalg.norm(dense(truncated) - dense(product)) <= 1e-3 * np.linalg.norm(
        dense(product)
    )


def test_products_differentiate():
    rng = np.random.default_rng(2)
    a, b = (hodlr.from_exponentials(random_toeplitz(rng, 12), leaf_size=6) for _ in range(2))
    right = dense(b)

    def structured(shift):
        return jnp.sum(jnp.sin(hodlr.matmul(hodlr.add_diagonal(a, shift), b, rank=6).to_dense()))

    def exact(shift):
        return jnp.sum(jnp.sin((dense(a) + shift * jnp.eye(12)) @ right))

    np.testing.assert_allclose(jax.jit(jax.grad(structured))(0.3), jax.grad(exact)(0.3), rtol=1e-8)


def test_refused_operands():
    a = random_toeplitz(np.random.default_rng(0), 8)
    with pytest.raises(TypeError, match="from_dense"):
        hodlr.add(np.eye(8), a)
    with pytest.raises(ValueError, match="same leaf_size"):
        hodlr.from_dense(np.eye(8), leaf_size=2) + hodlr.from_dense(np.eye(8), leaf_size=4)
    with pytest.raises(ValueError, match="sizes"):
        hodlr.matmul(a, hodlr.from_dense(np.eye(9)))
    with pytest.raises(ValueError, match=r"\(8,\)"):
        hodlr.scale(a, np.ones(7), np.ones(8))
    with pytest.raises(ValueError, match=r"\(8, k\)"):
        hodlr.low_rank_update(a, np.ones((7, 1)), np.ones((7, 1)))
    with pytest.raises(ValueError, match="add_diagonal"):
        hodlr.add_diagonal(a, np.ones(7))
