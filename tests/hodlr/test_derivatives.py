"""Second derivatives, alone and within a scan, against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import hodlr
from hodlr import ExponentialToeplitz, SumOfExponentials
from hodlr.lasting import Lasting
from lanes import later

N = 40  # three chunks
DIAGONAL = jnp.asarray(3 + 0.3 * np.random.default_rng(0).normal(size=N))
B = jnp.asarray(np.random.default_rng(1).normal(size=N))
POINT = jnp.asarray([0.7, 0.4, 0.8, 0.35, 1.1])
FORMS = {
    "exponential": lambda A: A,
    "hierarchical": lambda A: hodlr.from_exponentials(A, leaf_size=10),
}


def _matrix(p):
    k = SumOfExponentials(p[:2], p[2:4])
    return ExponentialToeplitz(N, k, k, p[4] * DIAGONAL)


def _scanned(f):
    return lambda p: lax.scan(
        lambda total, s: (total + f(p * (1 + 0.1 * s)), None), 0.0, jnp.arange(2.0)
    )[0]


def _added(f):
    return lambda p: f(p) + f(p * 1.1)


def _second(f):
    """Value, gradient and their derivatives."""
    return jax.jit(jax.jacfwd(jax.value_and_grad(f)))(POINT)


def _same(fast, slow):
    for a, b in zip(_second(_scanned(fast)), _second(_added(slow)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.max(jnp.abs(b))))


@pytest.mark.parametrize("form, definite", [("exponential", True), later("hierarchical", False)])
def test_second_derivatives_of_log_determinants_in_a_scan(form, definite):
    def fast(p):
        return hodlr.factorise(FORMS[form](_matrix(p)), positive_definite=definite).slogdet()[1]

    _same(fast, lambda p: jnp.linalg.slogdet(_matrix(p).to_dense())[1])


def test_second_derivatives_of_half_solutions_in_a_scan():
    def fast(p):
        F = hodlr.factorise(_matrix(p), positive_definite=True)
        return jnp.sum(jnp.sin(F.half_solve(B))) + jnp.sum(jnp.sin(F.half_product(B)))

    def slow(p):
        lower = jnp.linalg.cholesky(_matrix(p).to_dense())
        half = jax.scipy.linalg.solve_triangular(lower, B, lower=True)
        return jnp.sum(jnp.sin(half)) + jnp.sum(jnp.sin(lower @ B))

    _same(fast, slow)


@pytest.mark.parametrize("dtype", ["float64", later("complex128")])
def test_derivatives_of_half_solutions_of_hierarchical_matrices(dtype):
    """Finely sampled, condition 1e7: d(L⁻¹ b) = -tril(M) L⁻¹ b and d(L z) = L tril(M) z with
    M = L⁻¹ dA L⁻ᴴ and half of its diagonal."""
    gap, rng = 1e-5, np.random.default_rng(0)
    poles = np.exp(-gap * np.array([1.0, 7.0]) * (1 + (0.5j if dtype == "complex128" else 0)))
    noise = 0.1 * gap * 10 ** rng.uniform(0, 2, 2 * N)
    b = jnp.asarray(rng.normal(size=2 * N).astype(dtype))

    def matrix(t):
        k = SumOfExponentials(jnp.asarray([1.0, 0.5], dtype) * (1 + t), jnp.asarray(poles))
        diagonal = jnp.asarray((1.5 + noise).astype(dtype)) * (1 + t / 3)
        return ExponentialToeplitz(2 * N, k, k.conj(), diagonal)

    def halves(t):
        A = hodlr.from_exponentials(matrix(t), leaf_size=16)
        F = hodlr.factorise(A, positive_definite=True)
        return jnp.stack([F.half_solve(b), F.half_product(b)])

    one = jnp.ones((), dtype)
    changes = jax.jit(lambda: jax.jvp(halves, (0 * one,), (one,))[1])()
    dense = jax.jit(lambda: jax.jvp(lambda t: matrix(t).to_dense(), (0 * one,), (one,)))
    full, moved = map(np.asarray, dense())
    lower = np.linalg.cholesky(full)
    middle = np.linalg.solve(lower, np.linalg.solve(lower, moved).conj().T).conj().T
    half = np.tril(middle, -1) + np.diag(np.diag(middle)) / 2
    exact = -half @ np.linalg.solve(lower, b), lower @ half @ b
    bound = 10 * float(jnp.finfo(dtype).eps) * np.linalg.cond(full)
    for change, right in zip(changes, exact, strict=True):
        assert np.linalg.norm(change - right) <= bound * np.linalg.norm(right)
    weights = jnp.asarray(rng.normal(size=(2, 2 * N)))
    slope = jax.jit(jax.grad(lambda t: jnp.sum(weights * jnp.real(halves(t.astype(dtype))))))(0.0)
    np.testing.assert_allclose(slope, np.sum(weights * np.real(changes)), rtol=1e-9)
    gradient = jax.grad(lambda t: jnp.sum(jnp.real(halves(t.astype(dtype)))))
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        jax.eval_shape(jax.grad(gradient), 0.0)


# A rule of its own: f(x, y) with y = x² held constant


@Lasting
def _product(x, y):
    return {"value": x * y}


@_product.derivative
def _(value, primals, tangents):
    return jax.jvp(lambda x: {"value": x**3}, (primals[0],), (tangents[0],))[1]


def test_a_rule_lasts_under_every_transformation():
    def f(x):
        return _product(x, lax.stop_gradient(x) ** 2)["value"]

    def second(f):
        return jax.jacfwd(jax.grad(f))

    x = jnp.asarray(1.5)
    routes = {
        "plain": f,
        "jit": jax.jit(f),
        "scan": lambda x: lax.scan(lambda c, _: (c + f(x), None), 0.0, None, length=2)[0] / 2,
        "map": lambda x: lax.map(f, x[None])[0],
        "vmap": lambda x: jax.vmap(f)(jnp.stack([x, x]))[1],
        "one axis": lambda x: jax.vmap(_product, (None, 0))(x, lax.stop_gradient(x)[None] ** 2)[
            "value"
        ][0],
        "checkpoint": jax.checkpoint(f),
    }
    for name, route in routes.items():
        derivatives = route, jax.grad(route), second(route), jax.grad(jax.grad(route))
        values = lambda x: [f(x) for f in derivatives]  # noqa: B023
        found = (values if name == "plain" else jax.jit(values))(x)
        np.testing.assert_allclose(found, [x**3, 3 * x**2, 6 * x, 6 * x], err_msg=name)
