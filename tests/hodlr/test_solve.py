"""Direct solution against numpy: solve, log-determinant, inverse, derivatives, singular input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from hodlr import SumOfExponentials
from lanes import later
from random_matrices import brute_force, epsilon, from_dense, from_exponentials, random_toeplitz


@eqx.filter_jit
def _everything(matrix, b):
    f = hodlr.factorise(matrix)
    imaginary = jax.lax.complex(jnp.zeros_like(b.real), b.real)
    solutions = {
        "plain": f.solve(b),
        "vector": f.solve(b[:, 0])[:, None],
        "transpose": f.solve(b, transpose=True),
        "conj": f.solve(b, conj=True, refinements=1),
        "adjoint": f.inverse().H @ b,
        "complex": f.solve(imaginary),
        "checked": hodlr.solve(matrix, b),
    }
    return solutions, f.slogdet(), f.inverse_diagonal(), f.residual(f.solve(b), b)


@pytest.mark.parametrize(
    "n, dtype, periodic, noise, form",
    [
        (1, "float64", False, False, "exponential"),
        (7, "complex128", True, False, "exponential"),
        # rings are eliminated along the chain where the diagonal varies
        later(37, "float64", True, True, "exponential"),
        (50, "complex64", True, True, "exponential"),
        later(33, "float32", False, True, "hodlr"),
        later(50, "complex64", True, False, "hodlr"),
        later(37, "float64", True, False, "hodlr"),
        later(33, "float32", False, True, "exponential"),
        later(50, "complex64", True, False, "exponential"),
        later(37, "float64", True, False, "exponential"),
        later(1, "float64", False, False, "hodlr"),
        (7, "complex128", True, False, "hodlr"),
        later(37, "float64", True, True, "hodlr"),
        later(50, "complex64", True, True, "hodlr"),
    ],
)
def test_against_numpy(n, dtype, periodic, noise, form):
    rng = np.random.default_rng(n)
    matrix = random_toeplitz(
        rng, n, dtype=dtype, periodic=periodic, largest=0.9, noise=noise, diagonal=-3.0
    )
    full = brute_force(matrix)
    b = rng.normal(size=(n, 2)).astype(dtype)
    if form == "hodlr":
        matrix = from_exponentials(matrix, leaf_size=13)
    solutions, (sign, logabs), diagonal, residual = _everything(matrix, b)
    exact = np.linalg.solve(full, b)
    views = {
        "plain": exact,
        "vector": exact[:, :1],
        "transpose": np.linalg.solve(full.T, b),
        "conj": np.linalg.solve(full.conj(), b),
        "adjoint": np.linalg.solve(full.conj().T, b),
        "complex": np.linalg.solve(full, 1j * b.real),
        "checked": exact,
    }
    scale = 50 * epsilon(dtype) * np.linalg.cond(full)
    for name, reference in views.items():
        assert np.linalg.norm(np.asarray(solutions[name]) - reference) <= scale * np.linalg.norm(
            reference
        ), name
    exact_sign, exact_logabs = np.linalg.slogdet(full)
    assert abs(complex(sign) - exact_sign) <= scale * n
    assert abs(float(logabs) - exact_logabs) <= scale * n
    exact_diagonal = np.diag(np.linalg.inv(full))
    assert np.linalg.norm(np.asarray(diagonal) - exact_diagonal) <= scale * np.linalg.norm(
        exact_diagonal
    )
    assert float(residual) <= scale


@pytest.mark.parametrize("dtype", ["float64", later("complex128")])
@pytest.mark.parametrize(
    "form", ["general", later("hodlr"), later("ring"), later("positive"), later("irregular")]
)
def test_right_sides_more_precise_than_the_matrix(form, dtype):
    """They keep their type, solutions have the precision of the matrix, and refined ones their
    own."""
    kernel = SumOfExponentials(np.float32([1, 1]), np.float32([0.5, 0.9]))
    ring = form == "ring"
    A = hodlr.ExponentialToeplitz(37, kernel, kernel, np.float32(3), ring)
    if form == "hodlr":
        A = hodlr.from_exponentials(A, leaf_size=13)
    if form == "irregular":
        times = np.float32(np.sort(np.random.default_rng(0).uniform(size=37)))
        A = hodlr.Covariance(times, hodlr.kernels.Matern(np.float32(0.3)), np.float32(1))
    positive = form in ("positive", "irregular")
    full = np.asarray(A.to_dense(), np.float64)
    b = np.random.default_rng(1).normal(size=(37, 2)).astype(dtype)
    b = b + 1j * b[::-1] if dtype == "complex128" else b
    assert A.dtype == np.float32 and b.dtype == dtype

    @jax.jit
    def answers(b):
        F = hodlr.factorise(A, positive_definite=positive)
        halves = (F.half_solve(b), F.half_product(b)) if positive else ()
        return F.solve(b), F.solve(b[:, 0], transpose=True), halves

    x, y, halves = jax.tree.map(np.asarray, answers(b))
    assert {a.dtype for a in (x, y, *halves)} == {np.dtype(dtype)}
    np.testing.assert_allclose(full @ x, b, atol=1e-4)
    np.testing.assert_allclose(full.T @ y, b[:, 0], atol=1e-4)
    if positive:
        lower = np.linalg.cholesky(full)
        np.testing.assert_allclose(halves[0], np.linalg.solve(lower, b), atol=1e-4)
        np.testing.assert_allclose(halves[1], lower @ b, atol=1e-4)
    if form == "general":
        again = hodlr.factorise(A).solve(b, refinements=2)
        np.testing.assert_allclose(full @ np.asarray(again), b, atol=1e-12)


@pytest.mark.parametrize("form", ["exponential", later("hodlr")])
def test_derivatives_against_finite_differences(form):
    rng = np.random.default_rng(3)
    base = random_toeplitz(rng, 17, periodic=True, noise=True)
    b = jnp.asarray(rng.normal(size=17))
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)) * 0.1, base)

    def moved(t):
        matrix = jax.tree.map(lambda a, d: a + t * d, base, direction)
        return hodlr.from_exponentials(matrix, leaf_size=5) if form == "hodlr" else matrix

    @jax.jit
    def value(t):
        f = hodlr.factorise(moved(t))
        return jnp.sum(f.solve(b) ** 2) + f.slogdet()[1]

    h = 1e-4
    first = (value(h) - value(-h)) / (2 * h)
    second = (value(h) - 2 * value(0.0) + value(-h)) / h**2

    @jax.jit  # as one program: they have much in common
    def derivatives(t):
        return jax.grad(value)(t), jax.jvp(value, (t,), (1.0,))[1], jax.grad(jax.grad(value))(t)

    gradient, tangent, curvature = derivatives(0.0)
    np.testing.assert_allclose(gradient, first, rtol=1e-6)
    np.testing.assert_allclose(tangent, first, rtol=1e-6)
    np.testing.assert_allclose(curvature, second, rtol=1e-3)


@pytest.mark.parametrize("n", [1, 5, 100, later(2), later(33), later(64), later(200)])
def test_determinants_of_random_complex_matrices(n):
    """Phase and logarithm, for HODLR matrices of full rank and for exponential ones. A relative
    change eps of the matrix turns log det by up to eps·‖A⁻¹‖·‖A‖ (Frobenius norms); elimination
    without pivots between the blocks makes that of its worst diagonal block count."""
    rng = np.random.default_rng(n)
    full = rng.normal(size=(n, n)) + 1j * rng.normal(size=(n, n))
    ring = random_toeplitz(rng, n, dtype="complex128", periodic=True, diagonal=1.0)

    # Two programs: batched LAPACK calls that do not depend on one another may never return
    # (see `hodlr.lowrank.in_turn`).
    determinant = eqx.filter_jit(hodlr.slogdet)
    random = from_dense(full, rank=n, leaf_size=60)
    results = determinant(random), determinant(ring)
    for (sign, logabs), exact in zip(results, (full, brute_force(ring)), strict=True):
        exact_sign, exact_logabs = np.linalg.slogdet(exact)
        size = -(-n // 2 ** max(0, int(np.ceil(np.log2(n / 60)))))
        worst = 0.0
        while size < 2 * n:
            starts = range(0, n, size)
            blocks = [exact[s : s + size, s : s + size] for s in starts]
            worst = max(worst, *(np.linalg.cond(block, "fro") for block in blocks), 0.0)
            size *= 2
        bound = 50 * epsilon("complex128") * worst
        error = abs(complex(sign) - exact_sign), abs(float(logabs) - exact_logabs)
        assert max(error) <= bound
        np.testing.assert_allclose(abs(complex(sign)), 1, rtol=1e-12)


@pytest.mark.parametrize(
    "form, dtype",
    [
        ("exponential", "float64"),
        later("hodlr", "complex128"),
        later("exponential", "complex128"),
        later("hodlr", "float64"),
    ],
)
def test_gradients_of_solutions_and_determinants(form, dtype):
    """With respect to every array of the matrix, one by one: central differences along a random
    direction against the gradient, of a HODLR matrix not made of exponentials too."""
    rng = np.random.default_rng(5)
    matrix = random_toeplitz(rng, 13, dtype=dtype, noise=True, largest=0.9)
    if form == "hodlr":
        matrix = hodlr.from_dense(brute_force(matrix), rank=2, leaf_size=4)

    def random_like(a):
        return (rng.normal(size=a.shape) * (1 + 1j if "complex" in dtype else 1)).astype(dtype)

    b, weights = (jnp.asarray(random_like(np.zeros(13)).astype(dtype)) for _ in range(2))

    def values(matrix):
        f = hodlr.factorise(matrix)
        sign, logabs = f.slogdet()
        return jnp.stack([logabs, jnp.angle(sign), jnp.real(jnp.sum(weights * f.solve(b)))])

    arrays, structure = jax.tree.flatten(matrix)
    directions = [jnp.asarray(0.3 * random_like(a).astype(dtype)) for a in arrays]

    @jax.jit
    def both(which, t):
        def moved(t):
            moves = [
                a + (jnp.where(which == k, t, 0.0).astype(dtype)) * d
                for k, (a, d) in enumerate(zip(arrays, directions, strict=True))
            ]
            return values(jax.tree.unflatten(structure, moves))

        return moved(t), jax.jacrev(moved)(t)

    h = 1e-4
    for which in range(len(arrays)):
        after, before = both(which, jnp.asarray(h))[0], both(which, jnp.asarray(-h))[0]
        numerical = (after - before) / (2 * h)
        slope = both(which, jnp.asarray(0.0))[1]
        assert np.max(np.abs(numerical)) > 1e-3
        np.testing.assert_allclose(slope, numerical, rtol=1e-5, atol=1e-6)


def test_vmap_over_whole_matrices():
    rng = np.random.default_rng(6)
    members = [random_toeplitz(rng, 20, periodic=True) for _ in range(3)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    b = jnp.asarray(rng.normal(size=20))
    both = eqx.filter_jit(
        eqx.filter_vmap(
            lambda m: (hodlr.solve(m, b), hodlr.solve(hodlr.from_exponentials(m, leaf_size=5), b))
        )
    )
    fast, general = both(batch)
    for one, x, y in zip(members, fast, general, strict=True):
        exact = np.linalg.solve(brute_force(one), b)
        np.testing.assert_allclose(x, exact, atol=1e-10)
        np.testing.assert_allclose(y, exact, atol=1e-10)


def test_phase_of_the_determinant_differentiates():
    rng = np.random.default_rng(8)
    matrix = random_toeplitz(rng, 11, dtype="complex128")
    full = brute_force(matrix)

    def phase(t):
        sign, _ = hodlr.slogdet(hodlr.add_diagonal(matrix, t + 0j))
        return jnp.angle(sign)

    exact = np.trace(np.linalg.inv(full)).imag
    np.testing.assert_allclose(jax.jit(jax.grad(phase))(0.0), exact, rtol=1e-10)


def test_singular_input_is_refused_or_reported():
    flat = SumOfExponentials([1.0], [1.0])
    ones = hodlr.ExponentialToeplitz(24, flat, flat, 1.0)
    b = np.random.default_rng(0).normal(size=24)
    for matrix in (ones, from_exponentials(ones, leaf_size=12)):
        with pytest.raises(Exception, match="singular to working precision"):
            eqx.filter_jit(hodlr.solve)(matrix, b)
        x, info = eqx.filter_jit(hodlr.solve_with_info)(matrix, b)
        assert not (info.backward_error < 1e-8 and info.growth < 1e12)
        assert not np.max(np.abs(x)) < 1e10 or not np.all(np.isfinite(x))
    steep = SumOfExponentials([1.0], [1 - 1e-16])
    nearly = hodlr.ExponentialToeplitz(24, steep, steep, 1.0)
    for function in (lambda A: hodlr.slogdet(A)[1], lambda A: jnp.sum(hodlr.solve(A, b))):
        with pytest.raises(Exception, match="singular to working precision"):
            eqx.filter_jit(eqx.filter_grad(function))(nearly)  # derivatives need A⁻¹ too
    sign, logabs = eqx.filter_jit(hodlr.slogdet)(hodlr.from_dense(np.diag([1.0, 0.0, 2.0])))
    assert sign == 0 and logabs == -np.inf


def test_small_pivots_inside_the_leaves_cost_no_digits():
    """Elimination without pivots between the leaves lost seven digits here."""
    rng = np.random.default_rng(1)
    full = rng.normal(size=(16, 16))
    full[np.arange(16), np.arange(16)] = 1e-7
    matrix = from_dense(full, rank=8, leaf_size=1)  # all ranks
    b = rng.normal(size=16)
    exact = np.linalg.solve(full, b)
    bound = 10 * epsilon("float64") * np.linalg.cond(full) * np.linalg.norm(exact)

    @eqx.filter_jit
    def solutions(matrix, b):
        f = hodlr.factorise(matrix)
        return [f.solve(b, refinements=refinements) for refinements in (0, 2)]

    for solution in solutions(matrix, b):
        assert np.linalg.norm(solution - exact) <= bound


def test_refused_input():
    matrix = random_toeplitz(np.random.default_rng(0), 5)
    with pytest.raises(TypeError, match="from_dense"):
        hodlr.factorise(np.eye(3))
    with pytest.raises(ValueError, match="must have shape"):
        eqx.filter_jit(hodlr.factorise)(matrix).solve(np.ones(4))
    with pytest.raises(ValueError, match="NaN or infinity"):
        hodlr.solve(matrix, np.full(5, np.nan))
