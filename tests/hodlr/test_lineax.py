"""HODLROperator and HODLRSolver under lineax: questions, transformations, preconditioning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import hodlr
from lanes import later
from random_matrices import brute_force, from_exponentials, random_toeplitz

N = 18


def _matrix(form, dtype="float64"):
    matrix = random_toeplitz(np.random.default_rng(0), N, dtype=dtype, periodic=True)
    return from_exponentials(matrix, leaf_size=6) if form == "hodlr" else matrix


def _solve(matrix, b):
    return lx.linear_solve(hodlr.HODLROperator(matrix), b, hodlr.HODLRSolver()).value


FORMS = pytest.mark.parametrize("form", ["exponential", "hodlr"])
FORMS_AND_TYPES = pytest.mark.parametrize(
    "form, dtype",
    [
        ("exponential", "float64"),
        later("hodlr", "complex128"),
        later("exponential", "complex128"),
        later("hodlr", "float64"),
    ],
)


@FORMS_AND_TYPES
def test_the_operator_answers_every_question(form, dtype):
    matrix = _matrix(form, dtype)
    full = brute_force(_matrix("exponential", dtype))
    operator = hodlr.HODLROperator(matrix)
    np.testing.assert_allclose(operator.as_matrix(), full, atol=1e-12)
    np.testing.assert_allclose(operator.T.as_matrix(), full.T, atol=1e-12)
    np.testing.assert_allclose(lx.conj(operator).as_matrix(), full.conj(), atol=1e-12)
    np.testing.assert_allclose(lx.diagonal(operator), np.diag(full), atol=1e-12)
    for part, offset in zip(lx.tridiagonal(operator), (0, -1, 1), strict=True):
        np.testing.assert_allclose(part, np.diag(full, offset), atol=1e-12)
    assert lx.linearise(operator) is operator and lx.materialise(operator) is operator
    assert operator.in_structure() == operator.out_structure() == jax.ShapeDtypeStruct((N,), dtype)
    questions = {
        lx.is_symmetric: lx.symmetric_tag,
        lx.is_diagonal: lx.diagonal_tag,
        lx.is_tridiagonal: lx.tridiagonal_tag,
        lx.has_unit_diagonal: lx.unit_diagonal_tag,
        lx.is_lower_triangular: lx.lower_triangular_tag,
        lx.is_upper_triangular: lx.upper_triangular_tag,
        lx.is_positive_semidefinite: lx.positive_semidefinite_tag,
        lx.is_negative_semidefinite: lx.negative_semidefinite_tag,
    }
    for question, tag in questions.items():
        assert question(operator) is False
        assert question(hodlr.HODLROperator(matrix, tag)) is True
    definite = hodlr.HODLROperator(matrix, (lx.positive_semidefinite_tag,))
    assert lx.is_symmetric(definite) is (dtype == "float64")


@FORMS_AND_TYPES
def test_solve_under_every_transformation(form, dtype):
    matrix = _matrix(form, dtype)
    rng = np.random.default_rng(1)
    b, db = (jnp.asarray(rng.normal(size=N).astype(dtype)) for _ in range(2))
    dense = jnp.asarray(brute_force(_matrix("exponential", dtype)))
    exact = jnp.linalg.solve(dense, b)
    np.testing.assert_allclose(eqx.filter_jit(_solve)(matrix, b), exact, atol=1e-11)
    many = eqx.filter_jit(eqx.filter_vmap(_solve, in_axes=(None, 0)))(matrix, jnp.stack([b, db]))
    np.testing.assert_allclose(many[1], jnp.linalg.solve(dense, db), atol=1e-11)
    batch = jax.tree.map(lambda a: jnp.stack([a, a]), matrix)
    np.testing.assert_allclose(
        eqx.filter_jit(eqx.filter_vmap(_solve, in_axes=(0, None)))(batch, b)[1], exact, atol=1e-11
    )

    def shifted(solver):
        def value(t):
            shift = t.astype(dtype)
            x = solver(shift, b + shift * db)
            return jnp.sum(jnp.abs(x) ** 2)

        return value

    fast = shifted(lambda t, rhs: _solve(hodlr.add_diagonal(matrix, t), rhs))
    slow = shifted(lambda t, rhs: jnp.linalg.solve(dense + t * jnp.eye(N, dtype=dtype), rhs))
    at = jnp.asarray(0.2)

    def derivatives(f):
        return jax.jit(
            lambda t: (jax.grad(f)(t), jax.jvp(f, (t,), (jnp.ones(()),))[1], jax.hessian(f)(t))
        )

    found, expected = derivatives(fast)(at), derivatives(slow)(at)
    np.testing.assert_allclose(found[:2], expected[0], rtol=1e-9)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-8)
    transpose = jax.linear_transpose(lambda v: _solve(matrix, v), b)
    transposed = jax.jit(transpose)(db)[0]
    np.testing.assert_allclose(transposed, jnp.linalg.solve(dense.T, db), atol=1e-11)


@pytest.mark.exhaustive
def test_the_inverse_is_a_preconditioner():
    kernel = hodlr.SumOfExponentials([1.0], [0.98])
    matrix = hodlr.ExponentialToeplitz(200, kernel, kernel, 1.001)
    rough = hodlr.ExponentialToeplitz(200, kernel, kernel, 1.002)
    b = jnp.asarray(np.random.default_rng(0).normal(size=200))
    inverse = hodlr.factorise(rough).inverse()
    exact = hodlr.solve(matrix, b)
    for solver, tag in (
        (lx.CG(1e-10, 1e-10), lx.positive_semidefinite_tag),
        (lx.GMRES(1e-10, 1e-10), ()),
    ):
        operator = hodlr.HODLROperator(matrix, tag)
        options = {"preconditioner": hodlr.HODLROperator(inverse, tag)}
        helped = lx.linear_solve(operator, b, solver, options=options)
        np.testing.assert_allclose(helped.value, exact, atol=1e-6)
        assert helped.stats["num_steps"] <= 15


@eqx.filter_jit
def _solution(matrix, b, throw):
    return lx.linear_solve(hodlr.HODLROperator(matrix), b, hodlr.HODLRSolver(), throw=throw)


@pytest.mark.parametrize("gap", [0.0, 1e-15])
@FORMS
def test_a_singular_matrix_is_a_failure(form, gap):
    """Exactly singular, and so nearly that no digit is left: all entries alike but for 1e-15."""
    flat = hodlr.SumOfExponentials([1.0], [1.0])
    matrix = hodlr.ExponentialToeplitz(N, flat, flat, 1.0 + gap)
    if form == "hodlr":
        matrix = from_exponentials(matrix, leaf_size=6)
    b = jnp.asarray(np.random.default_rng(0).normal(size=N))
    assert _solution(matrix, b, False).result == lx.RESULTS.singular
    with pytest.raises(Exception, match="singular"):
        _solution(matrix, b, True)


def test_a_hard_but_solvable_matrix_reports_its_numbers():
    flat = hodlr.SumOfExponentials([1.0], [1.0])
    operator = hodlr.HODLROperator(hodlr.ExponentialToeplitz(N, flat, flat, 1.0 + 1e-6))
    b = jnp.asarray(np.random.default_rng(0).normal(size=N))
    solution = _solution(operator.matrix, b, True)
    error, growth = solution.stats["backward_error"], solution.stats["growth"]
    full, x = np.asarray(operator.as_matrix()), np.asarray(solution.value)
    size = np.linalg.norm(full, 2) * np.linalg.norm(x)
    np.testing.assert_allclose(growth, size / np.linalg.norm(b), rtol=0.2)
    assert 1e6 < growth < 1e8
    exact = np.linalg.norm(full @ x - b) / (size + np.linalg.norm(b))
    assert error <= 1e-12 and abs(error - exact) <= 0.2 * exact + 1e-15


def test_refused_operators():
    with pytest.raises(TypeError, match="from_dense"):
        hodlr.HODLROperator(np.eye(3))
    with pytest.raises(ValueError, match="from_operator"):
        lx.linear_solve(lx.MatrixLinearOperator(jnp.eye(3)), jnp.ones(3), hodlr.HODLRSolver())
