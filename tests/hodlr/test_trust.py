"""Programs that once gave wrong numbers without a word, each with others of its kind."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hodlr
from hodlr import ExponentialToeplitz, SumOfExponentials
from hodlr.accuracy_cases import cases
from lanes import later
from random_matrices import dense, epsilon, from_exponentials

FORMS = {"exponential": lambda A: A, "hierarchical": from_exponentials}


@eqx.filter_jit
def _answers(A, b, definite):
    F = hodlr.factorise(A, positive_definite=definite)
    return F.slogdet(), F.solve(b)


def _symmetric(k, n, diagonal):
    return ExponentialToeplitz(n, k, k.conj(), diagonal)


# Positive definite covariances, finely sampled


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_log_determinants_of_finely_sampled_decays(form, definite):
    """det = (1 - p²)^(n-1) for one decay without noise; else Cholesky's."""
    n, b = 300, np.zeros(300)
    for p, noise in (
        (np.exp(-1e-3), 1e-6), (1 - 1e-6, 1e-8), (1 - 1e-8, 0.0), (1 - 1e-10, 0.0), (1e-9 - 1, 0.0),
    ):  # fmt: skip
        A = _symmetric(SumOfExponentials([1.0], [p]), n, 1.0 + noise)
        (sign, logabs), _ = _answers(FORMS[form](A), b, definite)
        gap = 1 - abs(p)
        right = (n - 1) * np.log1p(-p * p)
        if noise:
            right = 2 * np.sum(np.log(np.diag(np.linalg.cholesky(np.asarray(dense(A))))))
        assert sign == 1
        assert abs(float(logabs) - right) <= 5 * n * epsilon("float64") / gap


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_log_determinants_in_single_precision_and_complex(dtype):
    n = 300
    for gap in (1e-1, 1e-3) if dtype == "float32" else (1e-4, 1e-9):
        p = np.exp(-gap) * (np.exp(0.3j) if "complex" in dtype else 1.0)
        p = np.asarray(p, dtype)
        A = _symmetric(SumOfExponentials([np.asarray(1.0, dtype)], [p]), n, np.asarray(1.0, dtype))
        size = abs(p.astype(complex)) ** 2
        (sign, logabs), _ = _answers(A, np.zeros(n, dtype), True)
        right = (n - 1) * np.log1p(-size)
        assert sign == 1 and abs(float(logabs) - right) <= 5 * n * epsilon(dtype) / gap


@pytest.mark.parametrize("definite", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_solutions_with_finely_sampled_decays(form, definite):
    n = 300
    for gap, noise in ((1e-3, 1e-6), (1e-6, 1e-8), (1e-8, 1e-10)):
        A = _symmetric(SumOfExponentials([1.0], [np.exp(-gap)]), n, 1.0 + noise)
        full = np.asarray(dense(A))
        factor = np.linalg.cholesky(full)
        y = factor @ np.random.default_rng(0).normal(size=n)
        x = np.linalg.solve(factor.T, np.linalg.solve(factor, y))
        _, ours = _answers(FORMS[form](A), y, definite)
        bound = 10 * epsilon("float64") * np.linalg.cond(full)
        assert np.linalg.norm(ours - x) <= bound * np.linalg.norm(x)
        assert abs(y @ ours - y @ x) <= 1e-4 * abs(y @ x)


# Matrices whose leading blocks are singular


@pytest.mark.parametrize("case", ["given", "mirrored", "complex"])
def test_a_ring_that_is_singular_when_cut(case):
    n, b = 200, np.random.default_rng(0).normal(size=200)
    weight = -3.0j if case == "complex" else -3.0
    pole = 0.5j if case == "complex" else 0.5
    kernels = SumOfExponentials([weight], [pole]), SumOfExponentials([0.0], [pole])
    if case == "mirrored":
        kernels = kernels[::-1]
    for diagonal in (1.0, np.ones(n)):
        A = ExponentialToeplitz(n, *kernels, diagonal, periodic=True)
        full = np.asarray(dense(A))
        (sign, logabs), x = _answers(A, b, False)
        exact = np.linalg.solve(full, b)
        assert np.linalg.norm(x - exact) <= 1e-13 * np.linalg.cond(full) * np.linalg.norm(exact)
        exact_sign, exact_logabs = np.linalg.slogdet(full)
        assert abs(sign - exact_sign) <= 1e-10 and abs(logabs - exact_logabs) <= 1e-10


def test_shifts_beside_an_eigenvalue_of_a_leading_block():
    n, k = 100, SumOfExponentials([1.0, 0.5], [0.9, -0.3])
    full = np.asarray(dense(_symmetric(k, n, 0.0)))
    for size in (13, 16, 32):
        shift = np.linalg.eigvalsh(full[:size, :size])[size - 1] - 1e-6
        exact = full - shift * np.eye(n)
        for form in FORMS.values():
            matrix = form(_symmetric(k, n, np.asarray(-shift)))
            (sign, logabs), _ = _answers(matrix, np.zeros(n), False)
            exact_sign, exact_logabs = np.linalg.slogdet(exact)
            assert sign == exact_sign
            assert abs(logabs - exact_logabs) <= 1e-13 * n * np.linalg.cond(exact)


def test_many_random_shifts():
    n, k = 1000, SumOfExponentials([1.0, 0.3], [0.99, 0.5])
    values = np.linalg.eigvalsh(np.asarray(dense(_symmetric(k, n, 0.0))))
    shifts = np.random.default_rng(0).uniform(*np.quantile(values, [0.05, 0.95]), size=40)

    @jax.jit
    def logabs(shifts):
        return jax.lax.map(lambda e: hodlr.slogdet(_symmetric(k, n, -e))[1], shifts)

    exact = np.sum(np.log(np.abs(values - shifts[:, None])), axis=1)
    np.testing.assert_allclose(logabs(shifts), exact, atol=1e-8)


@pytest.mark.parametrize(
    "n, diagonal, weights",
    [
        (100, 0.0, [1.0, 0.5]),
        (100, 1e-8, [1.0, 0.5]),
        later(130, 0.0, [1.0, 0.5]),
        (100, 0.0, [1.0 + 0.5j, 0.5j]),
    ],
)
def test_skew_matrices(n, diagonal, weights):
    k = SumOfExponentials(weights, [0.9, -0.3])
    A = ExponentialToeplitz(n, k, -k.conj(), diagonal)
    full, b = np.asarray(dense(A)), np.ones(n)
    exact_sign, exact_logabs = np.linalg.slogdet(full)
    exact = np.linalg.solve(full, b)
    bound = 1e-14 * np.linalg.cond(full)
    for form in FORMS.values():
        (sign, logabs), x = _answers(form(A), b, False)
        assert abs(sign - exact_sign) <= bound and abs(logabs - exact_logabs) <= bound
        assert np.linalg.norm(x - exact) <= bound * np.linalg.norm(exact)


# Matrices whose entries fall off exponentially: singular values as small as nothing else in them


def _falling(seed, n, kind):
    rng = np.random.default_rng(seed)
    lower, upper = (
        SumOfExponentials(rng.normal(size=2), rng.uniform(-0.99, 0.99, 2)) for _ in range(2)
    )
    diagonal = np.full(n, rng.normal())
    if kind == "leaves":
        diagonal = np.where(np.arange(n) % 32 < 16, 0.0, diagonal)
    if kind == "varying":
        diagonal = rng.normal(size=n) * 10 ** rng.uniform(-3, 1, n)
    return ExponentialToeplitz(n, lower, upper, diagonal)


@eqx.filter_jit
def _unchecked(A, b):
    F = hodlr.factorise(A)
    x, info = hodlr.solve_with_info(A, b)
    return F.unchecked(b), F.unchecked(b, transpose=True), F.condition, x, info.backward_error


@eqx.filter_jit
def _checked(A, b):
    F = hodlr.factorise(A)
    return F.solve(b), F.slogdet()


_slogdet = eqx.filter_jit(hodlr.slogdet)


@pytest.mark.parametrize("form", ["exponential", later("hierarchical")])
def test_solutions_are_those_of_a_matrix_close_by_or_refused(form):
    """Elimination used to drop what was left of b beside a pivot that rounds to zero: solutions
    without a correct digit looked like those of a regular matrix, condition number included."""
    n, eps, refused = 100, epsilon("float64"), 0
    b = np.random.default_rng(1).normal(size=n)
    for seed, kind in (
        (3, "constant"), (38, "constant"), (9, "constant"), (42, "constant"),
        (10, "leaves"), (18, "leaves"), (38, "leaves"), (31, "leaves"),
        (26, "varying"), (38, "varying"), (40, "varying"), (16, "varying"), (56, "varying"),
    ):  # fmt: skip
        A = FORMS[form](_falling(seed, n, kind))
        full = np.asarray(dense(A))
        values = np.linalg.svd(full)[1]
        x, y, condition, again, error = _unchecked(A, b)
        np.testing.assert_array_equal(x, again)
        if condition < np.inf:  # no pivot is zero
            assert error <= 20 * eps
            for a, solution in ((full, x), (full.T, y)):
                size = values[0] * np.linalg.norm(solution) + np.linalg.norm(b)
                assert np.linalg.norm(b - a @ solution) <= 20 * eps * size
        if values[-1] <= 2 * eps * values[0]:
            refused += 1
            with pytest.raises(RuntimeError, match="singular to working precision"):
                jax.block_until_ready(_checked(A, b))
            try:
                sign, logabs = _slogdet(A)
            except RuntimeError:
                continue
            assert sign == 0 and logabs == -np.inf
        else:
            assert 0.03 <= condition * values[-1] / values[0] <= 3
            assert np.all(np.isfinite(_checked(A, b)[0]))
    assert refused == 8


@pytest.mark.parametrize("leaf_size", [60, later(20)])
def test_where_elements_grow_reflections_eliminate(leaf_size):
    """Wilkinson's matrix: with row pivots its last column doubles from row to row."""
    n = 60
    full = np.eye(n) - np.tril(np.ones((n, n)), -1)
    full[:, -1] = 1
    b = np.random.default_rng(0).normal(size=n)
    x, y, condition, _, error = _unchecked(hodlr.from_dense(full, leaf_size=leaf_size), b)
    assert error <= 20 * epsilon("float64") and condition <= 1.01 * np.linalg.cond(full)
    np.testing.assert_allclose(full @ x, b, atol=1e-12)
    np.testing.assert_allclose(full.T @ y, b, atol=1e-12)

    # Beside one that does not grow, each has the answers that it has alone.
    other = full + 3 * np.eye(n)
    batch = [hodlr.from_dense(a, leaf_size=leaf_size, rank=20) for a in (other, full)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batch)
    solutions = jax.vmap(lambda A: _unchecked(A, b)[:2])(both)
    for a, answers in zip((other, full), zip(*solutions, strict=True), strict=True):
        np.testing.assert_allclose(a @ answers[0], b, atol=1e-12)
        np.testing.assert_allclose(a.T @ answers[1], b, atol=1e-12)


@pytest.mark.parametrize("n, modes", [(37, 1), later(37, 2), later(48, 3), later(33, 3)])
def test_signs_of_determinants_in_chunks_of_any_number(n, modes):
    rng = np.random.default_rng(n)
    signs = set()
    for _ in range(6):
        lower, upper = (
            SumOfExponentials(rng.normal(size=modes), rng.uniform(-0.9, 0.9, modes))
            for _ in range(2)
        )
        A = ExponentialToeplitz(n, lower, upper, rng.normal(size=n))
        sign, logabs = _checked(A, np.ones(n))[1]
        exact_sign, exact = np.linalg.slogdet(np.asarray(dense(A)))
        signs.add(exact_sign)
        assert sign == exact_sign
        np.testing.assert_allclose(logabs, exact, atol=1e-8)
    assert len(signs) == 2


# Refusals


@pytest.mark.parametrize("form", ["exponential", later("hierarchical")])
def test_a_matrix_that_is_not_definite_is_refused_with_its_pivot(form):
    k = SumOfExponentials([1.0], [0.9])
    diagonal = np.full(150, 1.1)
    diagonal[117] = 0.2
    A = FORMS[form](_symmetric(k, 150, diagonal))
    with pytest.raises(ValueError, match="pivot 117 is -"):
        hodlr.factorise(A, positive_definite=True)
    (_, logabs), x = _answers(A, np.ones(150), True)
    assert np.isnan(logabs) and np.all(np.isnan(x[117:]))


def test_noise_alone_as_the_diagonal_gets_a_hint():
    k = SumOfExponentials([1.0], [0.9])
    with pytest.raises(ValueError, match="kernel at lag 0 plus the noise"):
        hodlr.factorise(_symmetric(k, 150, np.full(150, 0.01)), positive_definite=True)


def test_a_matrix_that_is_not_its_own_adjoint_is_refused():
    k = SumOfExponentials([1.0], [0.9])
    with pytest.raises(ValueError, match=r"A\.H differs from A"):
        hodlr.factorise(ExponentialToeplitz(50, k, k * 0.5, 3.0), positive_definite=True)


def test_info_on_a_singular_matrix_raises_nothing():
    """A pivot that is exactly zero: the solution is not finite, and the information says so."""
    A = ExponentialToeplitz(
        6, SumOfExponentials([0.0], [0.5]), SumOfExponentials([0.0], [0.5]), 0.0
    )
    x, info = hodlr.solve_with_info(hodlr.from_exponentials(A, leaf_size=3), np.ones(6))
    assert not np.all(np.isfinite(x))
    assert info.growth == np.inf and info.backward_error == np.inf


def test_log_determinants_keep_their_digits_in_single_precision():
    """A thousand pivots: rounding adds up like a random walk, not like the number of sites."""
    kinds = ("skew", "indefinite", "non-symmetric")
    chosen = [
        case.matrix
        for case in cases()
        if case.kind in kinds and case.matrix.n == 1000 and case.matrix.dtype == jnp.float32
    ]
    tried = 0
    for matrix in chosen:
        factorisation = hodlr.factorise(matrix)
        if float(factorisation.condition) > 1e6:
            continue  # refused in single precision, and rightly so
        single = float(factorisation.slogdet()[1])
        double = np.linalg.slogdet(np.asarray(matrix @ np.eye(1000, dtype=np.float32), float))[1]
        # the numbers that are given are rounded, the same on all sites
        assert abs(single - double) < 1000 * np.finfo(np.float32).eps * 1.5
        tried += 1
    assert tried >= 3
