"""Algebra of structured matrices against the same algebra of arrays, for all pairs of operand
types."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from lanes import later
from random_matrices import (
    brute_force,
    dense,
    epsilon,
    from_dense,
    from_exponentials,
    random_toeplitz,
)

# Larger than the default leaves of 64, with which two exponential matrices meet as HODLR; and with
# padding.
N, LEAF = 70, 18
matmul = eqx.filter_jit(hodlr.matmul)


@eqx.filter_jit
def _all_pairs(matrices, d, u):
    out = {}
    for a, left in matrices.items():
        for b, right in matrices.items():
            out[f"{a} {b}"] = [
                m.to_dense()
                for m in (left + right, left - right, left @ right, hodlr.hadamard(left, right))
            ]
        out[a] = [
            left.to_dense(),
            hodlr.scale(left, d, 2 * d).to_dense(),
            hodlr.low_rank_update(left, u, 2 * u).to_dense(),
            hodlr.add_diagonal(left, d).to_dense(),
            (left * 2.5).to_dense(),
        ]
        out[f"{a} norms"] = hodlr.frobenius_norm(left), hodlr.norm_estimate(left)
    return out


@pytest.mark.parametrize(
    "dtype", ["complex64", later("float64"), later("float32"), later("complex128")]
)
def test_all_pairs_against_arrays(dtype):
    """The references are computed from the definitions, in double precision."""
    rng = np.random.default_rng(0)
    matrices = {
        name: random_toeplitz(rng, N, dtype=dtype, periodic=name == "ring", largest=0.95)
        for name in ("open", "ring")
    }
    if dtype == "float64":
        # Real with complex, the promotion that strict promotion forbids to arrays.
        matrices["complex"] = random_toeplitz(rng, N, dtype="complex128")
    arrays = {name: brute_force(m) for name, m in matrices.items()}
    full = brute_force(random_toeplitz(rng, N, (2, 1), dtype)).astype(dtype)
    matrices["hodlr"] = from_dense(full, rank=3, leaf_size=LEAF)
    arrays["hodlr"] = full.astype(np.promote_types(dtype, "float64"))
    d, u = rng.normal(size=N).astype(dtype), rng.normal(size=(N, 2)).astype(dtype)
    results = _all_pairs(matrices, d, u)
    d, u = (x.astype(arrays["hodlr"].dtype) for x in (d, u))

    def check(result, exact, scale, what):
        error = np.linalg.norm(np.asarray(result) - exact) / (epsilon(dtype) * scale)
        assert error <= 50, (what, error)

    norm = np.linalg.norm
    for a, left in arrays.items():
        for b, right in arrays.items():
            verbs = {
                "+": (left + right, norm(abs(left) + abs(right))),
                "-": (left - right, norm(abs(left) + abs(right))),
                "@": (left @ right, norm(abs(left) @ abs(right))),
                "hadamard": (left * right, norm(left * right)),
            }
            for result, verb in zip(results[f"{a} {b}"], verbs, strict=True):
                assert result.dtype == np.promote_types(matrices[a].dtype, matrices[b].dtype)
                check(result, *verbs[verb], (a, verb, b))
        exact = [
            left,
            np.diag(d) @ left @ np.diag(2 * d),
            left + 2 * u @ u.T,
            left + np.diag(d),
            2.5 * left,
        ]
        for which, (result, reference) in enumerate(zip(results[a], exact, strict=True)):
            check(result, reference, norm(left) + norm(reference), (a, which))
        frobenius, spectral = results[f"{a} norms"]
        np.testing.assert_allclose(float(frobenius), norm(left), rtol=1e-5)
        assert 0.8 <= float(spectral) / norm(left, 2) <= 1 + 1e-5


def test_the_product_of_symmetric_matrices_is_not_symmetric():
    rng = np.random.default_rng(4)
    parts = []
    for _ in range(2):
        m = random_toeplitz(rng, N)
        parts.append(hodlr.ExponentialToeplitz(N, m.lower, m.lower, rng.normal(size=N)))
    product = np.asarray(dense(matmul(*parts)))
    assert np.linalg.norm(product - product.T) > 0.1 * np.linalg.norm(product)


def test_compress_reports_its_error_exactly():
    rng = np.random.default_rng(1)
    a, b = (from_exponentials(random_toeplitz(rng, 40), leaf_size=10) for _ in range(2))
    product = matmul(a, b)
    assert product.ranks == (6, 9)
    smaller, info = eqx.filter_jit(hodlr.compress)(product, rank=4)
    error = np.linalg.norm(dense(smaller) - dense(product))
    np.testing.assert_allclose(info.error, error, rtol=1e-6)
    assert error > 1e-6
    sharp, sharp_info = hodlr.compress(eqx.filter_jit(hodlr.add)(product, product), tol=1e-12)
    assert all(r <= 6 for r in sharp.ranks[:1]) and sharp_info.ranks == sharp.ranks
    np.testing.assert_allclose(dense(sharp), 2 * dense(product), atol=1e-10)
    truncated = hodlr.matmul(a, b, tol=1e-3)
    assert sum(truncated.ranks) < sum(product.ranks)
    assert np.linalg.norm(dense(truncated) - dense(product)) <= 1e-3 * np.linalg.norm(
        dense(product)
    )


def test_products_differentiate():
    rng = np.random.default_rng(2)
    a, b = (from_exponentials(random_toeplitz(rng, 12), leaf_size=6) for _ in range(2))
    right = dense(b)

    def structured(shift):
        return jnp.sum(jnp.sin(hodlr.matmul(hodlr.add_diagonal(a, shift), b, rank=6).to_dense()))

    def exact(shift):
        return jnp.sum(jnp.sin((dense(a) + shift * jnp.eye(12)) @ right))

    np.testing.assert_allclose(
        jax.jit(jax.grad(structured))(0.3), jax.jit(jax.grad(exact))(0.3), rtol=1e-8
    )


def test_refused_operands():
    a = random_toeplitz(np.random.default_rng(0), 8)
    with pytest.raises(TypeError, match="from_dense"):
        hodlr.add(np.eye(8), a)
    with pytest.raises(ValueError, match="same leaf_size"):
        from_exponentials(a, leaf_size=2) + from_exponentials(a, leaf_size=4)
    with pytest.raises(ValueError, match="sizes"):
        hodlr.matmul(a, hodlr.from_dense(np.eye(9)))
    with pytest.raises(ValueError, match=r"\(8,\)"):
        hodlr.scale(a, np.ones(7), np.ones(8))
    with pytest.raises(ValueError, match=r"\(8, k\)"):
        hodlr.low_rank_update(a, np.ones((7, 1)), np.ones((7, 1)))
    with pytest.raises(ValueError, match="add_diagonal"):
        hodlr.add_diagonal(a, np.ones(7))
