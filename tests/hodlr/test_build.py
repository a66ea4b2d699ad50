"""Construction of HODLR matrices: exact from exponentials, from dense, from entries, from
operators."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

import hodlr
from hodlr import ExponentialToeplitz, SumOfExponentials
from lanes import later
from random_matrices import brute_force, dense, from_exponentials, random_toeplitz


def _numerical_rank(block):
    values = np.linalg.svd(block, compute_uv=False)
    return int(np.sum(values > 1e-11 * values[0]))


def _well_separated(n, modes, periodic, conjugate=False):
    """Poles so far apart, and so far from zero, that every mode stands out of round-off in every
    block: the singular values of a block of m modes lie well above 1e-11 of the largest."""
    angles = np.array([0.3, 2.8, -1.7])[:modes]
    lower, upper = (
        SumOfExponentials(np.ones(modes), size * np.exp(1j * (angles + turn)))
        for size, turn in ((0.9, 0.0), (0.85, 0.8))
    )
    if conjugate:
        lower = SumOfExponentials([np.exp(0.4j)], [0.9 * np.exp(1.1j)]).real
        upper = SumOfExponentials([np.exp(1j)], [0.85 * np.exp(2j)]).real
    return ExponentialToeplitz(n, lower, upper, 2.0, periodic)


def _by_definition(matrix):
    """The matrix by numpy; the images of a ring are summed as geometric series."""
    n = matrix.n
    lag = np.arange(n)[:, None] - np.arange(n)

    def side(kernel, lag):
        weights, poles = np.asarray(kernel.weights), np.asarray(kernel.poles)
        if matrix.periodic:
            values = (poles ** np.arange(1, n + 1)[:, None]) @ (weights / (1 - poles**n))
            return values[(lag - 1) % n]
        values = (poles ** np.arange(n)[:, None]) @ weights
        return np.where(lag > 0, values[np.abs(lag)], 0)

    return side(matrix.lower, lag) + side(matrix.upper, -lag) + 2.0 * np.eye(n)


@pytest.mark.parametrize("n", [1, 2, 7, 64, 100, later(1943)])
@pytest.mark.parametrize("modes, conjugate", [(1, False), (2, False), (3, False), (2, True)])
@pytest.mark.parametrize("periodic", [False, True])
def test_the_rank_of_every_off_diagonal_block_is_the_number_of_modes(n, modes, conjugate, periodic):
    """Definition 2, Proposition 3 and Remark 4: rank m in an open chain and 2m on a ring, two for a
    conjugate pair, less only where the block is smaller; and the exact form holds no more.

    On a ring the way round must be seen too: λⁿ, what a mode has lost after one turn, is below
    round-off on long rings, where the poles are moved towards the unit circle.
    """
    matrix = _well_separated(n, modes, periodic, conjugate)
    if periodic and n > 10:

        def closer(kernel):
            poles = np.asarray(kernel.poles)
            return SumOfExponentials(kernel.weights, poles * np.abs(poles) ** (7 / n - 1))

        matrix = ExponentialToeplitz(n, closer(matrix.lower), closer(matrix.upper), 2.0, True)
    full, expected = _by_definition(matrix), modes * (2 if periodic else 1)
    full = full.real if conjugate else full
    built = eqx.filter_eval_shape(lambda m: hodlr.from_exponentials(m, leaf_size=8), matrix)
    assert set(built.ranks) <= {expected}
    size = built.tree.padded
    while size > built.tree.leaf_size or size > 1 and n <= 8:
        half = -(-size // 2)
        for start in range(0, n, size):
            a, b = slice(start, start + half), slice(start + half, start + size)
            for block in (full[a, b], full[b, a]):
                if min(block.shape):
                    assert _numerical_rank(block) == min(expected, *block.shape)
        size = half


def test_a_damped_oscillation_has_rank_two():
    """Remark 4: ρ^r cos(ωr + φ) is a conjugate pair of poles."""
    kernel = SumOfExponentials([np.exp(0.4j)], [0.9 * np.exp(1.1j)]).real
    matrix = ExponentialToeplitz(64, kernel, kernel, 1.0)
    full = brute_force(matrix)
    assert np.max(np.abs(full.imag)) < 1e-15
    assert _numerical_rank(full.real[:32, 32:]) == 2
    assert set(from_exponentials(matrix, leaf_size=16).ranks) == {2}


@pytest.mark.parametrize("n", [1, later(2), 7, later(64), 100, later(1943)])
@pytest.mark.parametrize("periodic", [False, True])
def test_from_exponentials_is_exact(n, periodic):
    matrix = random_toeplitz(np.random.default_rng(n), n, periodic=periodic, noise=n == 7)
    built = from_exponentials(matrix, leaf_size=16)
    exact = dense(matrix) if n > 100 else brute_force(matrix)
    assert np.max(np.abs(dense(built) - exact)) <= 1e-13
    if n == 1943:
        stored = sum(a.size for a in jax.tree.leaves(built))
        assert stored <= 2 * 2 * n * max(built.ranks) + built.tree.leaf_size**2 + 4 * n


@eqx.filter_jit
def _views(matrix, x):
    sites = jnp.arange(matrix.shape[0])
    return {
        "entries": matrix.entries(sites[:, None], sites[None, :]),
        "transpose": matrix.T.to_dense().T,
        "adjoint": jnp.conj(matrix.H.to_dense().T),
        "unshared": matrix.unshared().to_dense(),
        "product": matrix @ jnp.eye(matrix.shape[0], dtype=matrix.dtype),
        "vector": jnp.stack([matrix @ x, matrix.T.T @ x], axis=1),
        "diagonal": jnp.diag(matrix.diagonal()),
        "trace": matrix.trace(),
    }


@pytest.mark.parametrize(
    "n, leaf_size, dtype",
    [
        (1, 3, "float64"),
        (29, 8, "complex128"),
        later(1, 3, "complex128"),
        later(29, 8, "float64"),
    ],
)
def test_from_dense_and_views(n, leaf_size, dtype):
    rng = np.random.default_rng(n)
    full = np.asarray(dense(random_toeplitz(rng, n, dtype=dtype, periodic=True)))
    built = hodlr.from_dense(full, leaf_size=leaf_size)
    x = rng.normal(size=n).astype(dtype)
    views = _views(built, x)
    np.testing.assert_allclose(views.pop("vector")[:, 0], full @ x, atol=1e-11)
    np.testing.assert_allclose(views.pop("trace"), np.trace(full), atol=1e-11)
    np.testing.assert_allclose(views.pop("diagonal"), np.diag(np.diag(full)), atol=1e-12)
    for name, view in views.items():
        np.testing.assert_allclose(view, full, atol=1e-11, err_msg=name)


def test_from_dense_meets_its_tolerance():
    x = np.linspace(0, 1, 60)
    full = 1 / (0.05 + np.abs(x[:, None] - x[None, :] ** 1.1))
    errors = []
    for tol in (1e-3, 1e-6):
        built = hodlr.from_dense(full, tol=tol, leaf_size=15)
        errors.append(np.linalg.norm(dense(built) - full) / np.linalg.norm(full))
        assert errors[-1] <= tol
    assert errors[1] < errors[0]


def test_from_dense_differentiates_at_repeated_singular_values():
    """The identity off the diagonal has equal singular values, where the derivative of an SVD is
    infinite."""
    full = jnp.asarray(np.kron([[0.0, 1.0], [1.0, 0.0]], np.eye(4)) + np.diag(np.arange(8.0)))
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(8, 8)))
    slope = jax.grad(
        lambda a: jnp.sum(weights * hodlr.from_dense(a, rank=4, leaf_size=4).to_dense())
    )(full)
    np.testing.assert_allclose(slope, weights, atol=1e-12)


def _log_kernel(i, j):
    s, t = (2 * jnp.pi / 80 * k.astype(float) for k in (i, j))
    x, y, u, v = 2 * jnp.cos(s), jnp.sin(s), 2 * jnp.cos(t), jnp.sin(t)
    distance = (x - u) ** 2 + (y - v) ** 2
    return jnp.where(i == j, 1.0, -0.5 * jnp.log(jnp.where(i == j, 1.0, distance)))


def test_from_entries_meets_its_tolerance_and_reports_it():
    built, info = hodlr.from_entries(_log_kernel, 80, tol=1e-8, leaf_size=20, key=jax.random.key(0))
    sites = np.arange(80)
    full = np.asarray(_log_kernel(sites[:, None] + 0 * sites, sites + 0 * sites[:, None]))
    assert np.linalg.norm(dense(built) - full) <= 1e-7 * np.linalg.norm(full)
    assert info.error <= 1e-8
    assert info.ranks == built.ranks


@pytest.mark.parametrize("n", [later(250), 203])
def test_from_entries_on_a_closed_curve_finds_the_corners(n):
    """Both ends of a ring are neighbours, so the outermost blocks are singular at two corners; with
    203 points one of these corners lies inside the padding."""

    def entries(i, j):
        s, t = (2 * jnp.pi / n * k.astype(float) for k in (i, j))
        x, y = 1.5 * (jnp.cos(s) - jnp.cos(t)), jnp.sin(s) - jnp.sin(t)
        return jnp.where(i == j, 1.0, -0.5 * jnp.log(jnp.where(i == j, 1.0, x**2 + y**2)))

    built, info = hodlr.from_entries(entries, n, tol=1e-10, leaf_size=64, key=jax.random.key(0))
    site = jnp.arange(n)
    full = np.asarray(entries(*jnp.broadcast_arrays(site[:, None], site[None, :])))
    error = np.linalg.norm(dense(built) - full) / np.linalg.norm(full)
    assert error <= 1e-10
    assert error / 3 <= info.error <= 3 * error
    values = np.linalg.svd(full[: built.tree.half(0), built.tree.half(0) :], compute_uv=False)
    assert built.ranks[0] <= np.sum(values > 1e-12 * np.linalg.norm(full))


def test_from_entries_reports_a_miss():
    def rough(i, j):
        return jnp.cos(((i * 7919 + j * j * 104729) % 1009).astype(float))

    with pytest.raises(ValueError, match="finite"):
        hodlr.from_entries(
            lambda i, j: jnp.where(i == j, 1.0, jnp.nan),
            40,
            tol=1e-6,
            leaf_size=8,
            key=jax.random.key(0),
        )
    _, info = hodlr.from_entries(rough, 64, rank=4, leaf_size=32, key=jax.random.key(0))
    assert info.error > 0.1


def test_from_entries_within_a_tolerance_never_misses_in_silence():
    """Single entries far apart in blocks of zeros: the search rarely meets one, the random entries
    that measure the error do."""
    rng = np.random.default_rng(0)
    full = np.eye(512)
    row, column = rng.integers(0, 256, size=(2, 10))
    full[row, 256 + column] = full[256 + column, row] = 10.0
    spikes = jnp.asarray(full)
    with pytest.raises(ValueError, match="cross approximation missed: relative error"):
        hodlr.from_entries(
            lambda i, j: spikes[i, j],
            512,
            tol=1e-3,
            leaf_size=256,
            key=jax.random.key(0),
            n_checks=100_000,
        )


def test_from_entries_reaches_its_tolerance_at_full_rank():
    """Random blocks need as many crosses as they have rows. Some blocks get there while the search
    in others has met nothing more: those are searched again, from more probes."""
    full = np.random.default_rng(0).normal(size=(64, 64))
    table = jnp.asarray(full)
    built, info = hodlr.from_entries(
        lambda i, j: table[i, j], 64, tol=1e-6, leaf_size=16, key=jax.random.key(0)
    )
    assert built.ranks == (32, 16)
    assert np.linalg.norm(dense(built) - full) <= 1e-6 * np.linalg.norm(full)
    assert info.error <= 1e-6


def test_from_entries_differentiates():
    def loss(scale):
        built, _ = hodlr.from_entries(
            lambda i, j: jnp.exp(-scale * jnp.abs(i - j).astype(float)),
            40,
            rank=2,
            leaf_size=10,
            key=jax.random.key(1),
        )
        return jnp.sum(jnp.sin(built.to_dense()))

    sites = jnp.arange(40)

    def exact(scale):
        return jnp.sum(
            jnp.sin(jnp.exp(-scale * jnp.abs(sites[:, None] - sites[None, :]).astype(float)))
        )

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.3), jax.grad(exact)(0.3), rtol=1e-9)


@pytest.mark.parametrize("dtype", [later("float64"), "complex128"])
def test_from_operator(dtype):
    matrix = random_toeplitz(np.random.default_rng(5), 37, dtype=dtype, periodic=True)
    operator = hodlr.HODLROperator(matrix)
    built, info = jax.jit(
        lambda op: hodlr.from_operator(op, rank=5, leaf_size=10, key=jax.random.key(0))
    )(operator)
    assert np.max(np.abs(dense(built) - dense(matrix))) <= 1e-11
    assert info.error <= 1e-12


def test_from_operator_reports_a_rank_too_small():
    operator = hodlr.HODLROperator(random_toeplitz(np.random.default_rng(5), 30))
    build = jax.jit(
        lambda op: hodlr.from_operator(
            op, rank=1, oversampling=0, leaf_size=15, key=jax.random.key(0)
        )
    )
    assert build(operator)[1].error > 1e-4


def test_refused_input():
    with pytest.raises(ValueError, match="square"):
        hodlr.from_dense(np.ones((3, 4)))
    with pytest.raises(ValueError, match="NaN"):
        hodlr.from_dense(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="not both"):
        hodlr.from_dense(np.eye(3), rank=1, tol=0.1)
    with pytest.raises(ValueError, match="rank >= 1"):
        hodlr.from_dense(np.eye(3), rank=0)
    with pytest.raises(TypeError, match="rank= there"):
        jax.jit(lambda a: hodlr.from_dense(a, tol=0.1))(np.eye(8))
    with pytest.raises(ValueError, match="leaf_size"):
        hodlr.from_dense(np.eye(3), leaf_size=0)
    with pytest.raises(ValueError, match="must have shape"):
        hodlr.from_dense(np.eye(3)) @ np.ones(4)
    with pytest.raises(TypeError, match="floating-point"):
        hodlr.from_entries(lambda i, j: i + j, 5, rank=1, key=jax.random.key(0))
    assert lineax.is_symmetric(hodlr.HODLROperator(hodlr.from_dense(np.eye(3)))) is False
