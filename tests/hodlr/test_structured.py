"""What all structured matrices share: operands of every kind, entries, the diagonal, refusals."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from lanes import later
from random_matrices import brute_force, from_exponentials, random_toeplitz

A = random_toeplitz(np.random.default_rng(0), 9, noise=True)
FORMS = [A, from_exponentials(A, leaf_size=3)]
FULL = brute_force(A)


@pytest.mark.parametrize("form", FORMS, ids=["exponential", "hodlr"])
def test_operands_of_every_kind(form):
    x = np.arange(9.0)
    operands = x, jnp.asarray(x), list(x), tuple(x), np.arange(9)
    factors = 2, np.int64(2), np.float32(2.0), jnp.asarray(2.0)
    rows = np.random.default_rng(1).normal(size=(2, 9))

    @eqx.filter_jit
    def everything(form):
        products = [(form @ operand, operand @ form) for operand in operands]
        scaled = [(form * factor, factor * form, form / factor) for factor in factors]
        scaled = [[each.to_dense() for each in forms] for forms in scaled]
        return products, scaled, rows @ form, (-form - form).to_dense(), hodlr.diagonal(form)

    products, scaled, several, negative, diagonal = everything(form)
    for right, left in products:
        np.testing.assert_allclose(right, FULL @ x, atol=1e-12)
        np.testing.assert_allclose(left, x @ FULL, atol=1e-12)
    for once, again, divided in scaled:
        np.testing.assert_allclose(once, FULL * 2, atol=1e-12)
        np.testing.assert_allclose(again, FULL * 2, atol=1e-12)
        np.testing.assert_allclose(divided, FULL / 2, atol=1e-12)
    np.testing.assert_allclose(several, rows @ FULL, atol=1e-12)
    np.testing.assert_allclose(negative, -2 * FULL, atol=1e-12)
    np.testing.assert_allclose(diagonal, np.diag(FULL), atol=1e-12)


def test_pairs_of_types():
    @eqx.filter_jit
    def results(a, b):
        verbs = a @ b, a + b, hodlr.hadamard(a, b)
        return a + b, [result.to_dense() for result in verbs]

    for a in FORMS:
        for b in FORMS:
            total, (product, dense, entrywise) = results(a, b)
            np.testing.assert_allclose(product, FULL @ FULL, atol=1e-11)
            np.testing.assert_allclose(dense, 2 * FULL, atol=1e-12)
            np.testing.assert_allclose(entrywise, FULL**2, atol=1e-11)
            fast = a is b is FORMS[0]
            assert isinstance(total, hodlr.ExponentialToeplitz if fast else hodlr.HODLR)


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
    full = FULL @ FULL.T
    b = np.random.default_rng(2).normal(size=(9, 2))

    @eqx.filter_jit
    def everything(form, b):
        F = hodlr.factorise(hodlr.matmul(form, form.T), positive_definite=True)
        halves = F.half_solve(b), F.half_product(b)
        indefinite = hodlr.factorise(form).logdet()
        return F.logdet(), *halves, F.solve(b), F.inverse_diagonal(), indefinite

    logdet, half_solution, half_product, solution, diagonal, indefinite = everything(form, b)
    lower = np.linalg.cholesky(full)
    np.testing.assert_allclose(logdet, np.linalg.slogdet(full)[1], rtol=1e-12)
    np.testing.assert_allclose(half_solution, np.linalg.solve(lower, b), rtol=1e-9)
    np.testing.assert_allclose(half_product, lower @ b, rtol=1e-9)
    np.testing.assert_allclose(solution, np.linalg.solve(full, b), rtol=1e-8)
    np.testing.assert_allclose(diagonal, np.diag(np.linalg.inv(full)), rtol=1e-8)
    exact_sign, exact = np.linalg.slogdet(FULL)
    np.testing.assert_allclose(indefinite, exact if exact_sign > 0 else np.nan, rtol=1e-12)


@pytest.mark.parametrize("other", [2.0, np.eye(9), jnp.ones(9), [1.0] * 9])
def test_sums_with_what_is_no_structured_matrix_say_what_to_write(other):
    for add in (lambda a, b: a + b, lambda a, b: b + a):
        with pytest.raises(TypeError, match="write hodlr.add_diagonal|concatenate list"):
            add(A, other)
    assert sum([A]) is A


def test_inverses_from_both_sides_and_of_structured_matrices():
    inverse = hodlr.factorise(A).inverse()
    rows = np.random.default_rng(2).normal(size=(2, 9))
    np.testing.assert_allclose(rows @ inverse @ FULL, rows, atol=1e-10)
    with pytest.raises(TypeError, match=r"write inverse @ B.to_dense\(\)"):
        inverse @ A
