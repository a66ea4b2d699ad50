"""What all structured matrices share: operands of every kind, entries, the diagonal, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from lanes import later
from random_matrices import brute_force, random_toeplitz

A = random_toeplitz(np.random.default_rng(0), 9, noise=True)
FORMS = [A, hodlr.from_exponentials(A, leaf_size=3)]
FULL = brute_force(A)


@pytest.mark.parametrize("form", FORMS, ids=["exponential", "hodlr"])
def test_operands_of_every_kind(form):
    x = np.arange(9.0)
    for operand in (x, jnp.asarray(x), list(x), tuple(x), np.arange(9)):
        np.testing.assert_allclose(form @ operand, FULL @ x, atol=1e-12)
        np.testing.assert_allclose(operand @ form, x @ FULL, atol=1e-12)
    rows = np.random.default_rng(1).normal(size=(2, 9))
    np.testing.assert_allclose(rows @ form, rows @ FULL, atol=1e-12)
    for factor in (2, np.int64(2), np.float32(2.0), jnp.asarray(2.0)):
        np.testing.assert_allclose((form * factor).to_dense(), FULL * 2, atol=1e-12)
        np.testing.assert_allclose((factor * form).to_dense(), FULL * 2, atol=1e-12)
        np.testing.assert_allclose((form / factor).to_dense(), FULL / 2, atol=1e-12)
    np.testing.assert_allclose((-form - form).to_dense(), -2 * FULL, atol=1e-12)
    np.testing.assert_allclose(hodlr.diagonal(form), np.diag(FULL), atol=1e-12)


def test_pairs_of_types():
    first, second = FORMS
    for a in FORMS:
        for b in FORMS:
            np.testing.assert_allclose((a @ b).to_dense(), FULL @ FULL, atol=1e-11)
            np.testing.assert_allclose((a + b).to_dense(), 2 * FULL, atol=1e-12)
            np.testing.assert_allclose(hodlr.hadamard(a, b).to_dense(), FULL**2, atol=1e-11)
    assert isinstance(first + first, hodlr.ExponentialToeplitz)
    assert isinstance(first + second, hodlr.HODLR)


@pytest.mark.parametrize("form", FORMS, ids=["exponential", "hodlr"])
def test_refused_operands(form):
    for i, j, name in ((9, 0, "row 9"), (0, -1, "column -1")):
        with pytest.raises(IndexError, match=name):
            form.entries(i, j)
    with pytest.raises(TypeError, match="integer"):
        form.entries(0.5, 0)
    with pytest.raises(ValueError, match=r"\(9,\)"):
        form @ np.ones(8)
    with pytest.raises(ValueError, match=r"\(k, 9\)"):
        np.ones((9, 2)) @ form
    for wrong in ("text", None):
        with pytest.raises(TypeError):
            form @ wrong
        with pytest.raises(TypeError):
            form * wrong
    with pytest.raises(TypeError, match="from_dense"):
        hodlr.diagonal(FULL)


@pytest.mark.parametrize("form", [FORMS[0], later(FORMS[1])], ids=["exponential", "hodlr"])
def test_logdet_and_half_solutions(form):
    definite = hodlr.matmul(form, form.T)
    full = FULL @ FULL.T
    F = jax.jit(lambda m: hodlr.factorise(m, positive_definite=True))(definite)
    b = np.random.default_rng(2).normal(size=(9, 2))
    lower = np.linalg.cholesky(full)
    np.testing.assert_allclose(F.logdet(), np.linalg.slogdet(full)[1], rtol=1e-12)
    np.testing.assert_allclose(F.half_solve(b), np.linalg.solve(lower, b), rtol=1e-9)
    np.testing.assert_allclose(F.half_product(b), lower @ b, rtol=1e-9)
    np.testing.assert_allclose(F.solve(b), np.linalg.solve(full, b), rtol=1e-8)
    np.testing.assert_allclose(F.inverse_diagonal(), np.diag(np.linalg.inv(full)), rtol=1e-8)
    F = hodlr.factorise(form)
    exact_sign, exact = np.linalg.slogdet(FULL)
    np.testing.assert_allclose(F.logdet(), exact if exact_sign > 0 else np.nan, rtol=1e-12)
