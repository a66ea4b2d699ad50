"""Laws that hold for every shape, leaf size, rank, number of modes, dtype and boundary condition;
and what is not finite is refused everywhere."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hodlr
from random_matrices import (
    DTYPES,
    brute_force,
    epsilon,
    from_exponentials,
    random_sum,
    random_toeplitz,
)

# Every new shape is compiled anew: few examples, each one program, as many as conftest.py says.


@given(
    n=st.integers(1, 23),
    leaf_size=st.integers(4, 25),
    modes=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dtype=st.sampled_from(DTYPES),
    periodic=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_build_and_solve_for_every_shape(n, leaf_size, modes, dtype, periodic, seed):
    rng = np.random.default_rng(seed)
    matrix = random_toeplitz(rng, n, modes, dtype, periodic, diagonal=8.0, largest=0.7)
    full = brute_force(matrix)
    bound = 50 * epsilon(dtype) * np.linalg.norm(full) * n
    x = jnp.asarray(rng.normal(size=n).astype(dtype))

    @eqx.filter_jit
    def both(matrix, x):
        built = hodlr.from_exponentials(matrix, leaf_size=leaf_size)
        products = [form @ x for form in (matrix, built)]
        solutions = [
            hodlr.factorise(form).solve(b)
            for form, b in zip((matrix, built), products, strict=True)
        ]
        return built.tree, built.to_dense(), products, solutions

    tree, built, products, solutions = both(matrix, x)
    assert np.max(np.abs(np.asarray(built) - full)) <= bound
    assert tree.padded - n < max(2**tree.depth, 1)
    for b, again in zip(products, solutions, strict=True):
        assert b.dtype == dtype
        assert np.max(np.abs(again - x)) <= 50 * epsilon(dtype) * np.linalg.cond(full) * n


def _random(rng, shape, dtype):
    values = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return (values if "complex" in dtype else values.real).astype(dtype)


def _discarded(full, tree, rank):
    """Norm of what the best approximation of this rank leaves out, block by block."""
    padded = np.pad(full, (0, tree.padded - tree.n))
    total = 0.0
    for level in range(tree.depth):
        s = tree.half(level)
        for start in range(0, tree.padded, 2 * s):
            a, b = slice(start, start + s), slice(start + s, start + 2 * s)
            for block in (padded[a, b], padded[b, a]):
                total += np.sum(np.linalg.svd(block, compute_uv=False)[rank:] ** 2)
    return np.sqrt(total)


@given(
    n=st.integers(1, 24),
    leaf_size=st.integers(1, 12),
    rank=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
def test_from_dense_at_a_rank_is_the_best_approximation(n, leaf_size, rank, dtype, seed):
    rng = np.random.default_rng(seed)
    full, x = _random(rng, (n, n), dtype), _random(rng, (n, 2), dtype)

    @jax.jit
    def build(full, x):
        built = hodlr.from_dense(full, rank=rank, leaf_size=leaf_size)
        dominant = hodlr.add_diagonal(built, 6.0 * n**0.5)
        b = dominant @ x
        y = hodlr.factorise(dominant).solve(b)
        return built, built.to_dense(), built @ x, jnp.linalg.norm(b - dominant @ y), b

    built, approximation, product, residual, b = build(full, x)
    exact, size = np.asarray(approximation, complex), np.linalg.norm(full)
    error, best = np.linalg.norm(exact - full), _discarded(full, built.tree, rank)
    assert abs(error - best) <= 50 * epsilon(dtype) * size
    assert all(r == min(rank, built.tree.half(level)) for level, r in enumerate(built.ranks))
    assert product.dtype == dtype
    bound = 50 * epsilon(dtype) * size * np.linalg.norm(x)
    assert np.linalg.norm(np.asarray(product) - exact @ x) <= bound
    # The diagonal exceeds the norm of the rest, about 2·√n: well conditioned.
    assert float(residual) <= 50 * epsilon(dtype) * np.linalg.norm(b)


@pytest.mark.exhaustive
@given(
    n=st.integers(1, 24),
    leaf_size=st.integers(2, 12),
    tol=st.sampled_from([1e-1, 1e-2, 1e-4]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**16),
)
def test_from_dense_at_a_tolerance_stays_within_it(n, leaf_size, tol, dtype, seed):
    rng = np.random.default_rng(seed)
    decay = 0.3 ** np.abs(np.arange(n)[:, None] - np.arange(n))
    full = (_random(rng, (n, n), dtype) * decay).astype(dtype)
    built = hodlr.from_dense(full, tol=tol, leaf_size=leaf_size)
    error = np.linalg.norm(np.asarray(built.to_dense()) - full)
    assert error <= (tol + 50 * epsilon(dtype)) * np.linalg.norm(full)


@given(
    modes=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    turn=st.integers(1, 30),
    lags=st.integers(0, 5),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    seed=st.integers(0, 2**16),
)
def test_exponentials_are_closed_under_sum_product_and_ring(modes, turn, lags, dtypes, seed):
    rng = np.random.default_rng(seed)
    k, other = (random_sum(rng, m, d, largest=0.9) for m, d in zip(modes, dtypes, strict=True))

    def exact(kernel, r):
        weights, poles = (np.asarray(a, complex) for a in (kernel.weights, kernel.poles))
        return (poles ** np.asarray(r)[..., None]) @ weights

    r = np.arange(9)

    @eqx.filter_jit
    def closed(k, other):
        results = k + other, k - other, k * other, k.delay(lags), k.periodic(turn), k.conj()
        return [kernel(r) for kernel in results]

    images = exact(k, r + turn * np.arange(600)[:, None]).sum(0)
    first, second = exact(k, r), exact(other, r)
    references = first + second, first - second, first * second, exact(k, r + lags), images
    weight = [np.sum(np.abs(np.asarray(kernel.weights, complex))) for kernel in (k, other)]
    gap = np.min(np.abs(1 - np.asarray(k.poles, complex) ** turn), initial=1.0)
    sizes = sum(weight), sum(weight), weight[0] * weight[1], weight[0], weight[0] / gap**2
    both = np.promote_types(*dtypes)
    results = closed(k, other)
    for result, reference, size in zip(results, references, sizes, strict=False):
        assert result.dtype in (both, k.dtype)
        # λ^r has the relative error r·eps, at most 14 of them.
        worst = max(epsilon(d) for d in (both, *dtypes))
        assert np.max(np.abs(np.asarray(result) - reference)) <= 50 * worst * size
    assert np.max(np.abs(np.asarray(results[-1]) - first.conj())) <= (
        50 * epsilon(dtypes[0]) * weight[0]
    )
    assert (k * other).modes == modes[0] * modes[1] and (k + other).modes == sum(modes)


def _spoilt(values, bad, where):
    values = np.array(values, complex if isinstance(bad, complex) else float)
    values.flat[where % values.size] = bad
    return values


KERNEL = hodlr.SumOfExponentials([1.0, 0.5], [0.5, -0.3])
MATRIX = hodlr.ExponentialToeplitz(6, KERNEL, KERNEL, 4.0)
KEY = jax.random.key(0)


def _broken(matrix, bad, where):
    """The same matrix with one number replaced behind the back of its constructor."""
    arrays, structure = jax.tree.flatten(matrix)
    which = where % len(arrays)
    arrays[which] = jnp.asarray(_spoilt(arrays[which], bad, where))
    return jax.tree.unflatten(structure, arrays)


_factorised = eqx.filter_jit(hodlr.factorise)


def _hodlr():
    return from_exponentials(MATRIX, leaf_size=3)


# Each takes a number that is not finite and where it stands.
REFUSALS = {
    "from_dense": lambda bad, at: hodlr.from_dense(_spoilt(np.eye(5), bad, at), rank=1),
    "from_entries": lambda bad, at: hodlr.from_entries(
        lambda i, j: jnp.asarray(_spoilt(np.eye(6), bad, at))[i, j],
        6,
        rank=1,
        leaf_size=6,
        key=KEY,
    ),
    "from_operator": lambda bad, at: hodlr.from_operator(
        lineax.MatrixLinearOperator(jnp.asarray(_spoilt(np.eye(4), bad, at))),
        rank=1,
        leaf_size=4,
        key=KEY,
    ),
    "weights": lambda bad, at: hodlr.SumOfExponentials(_spoilt(np.ones(3), bad, at), np.ones(3)),
    "poles": lambda bad, at: hodlr.SumOfExponentials(np.ones(3), _spoilt(np.ones(3), bad, at)),
    "diagonal": lambda bad, at: hodlr.ExponentialToeplitz(
        5, KERNEL, KERNEL, _spoilt(np.ones(5), bad, at)
    ),
    "fit samples": lambda bad, at: hodlr.fit_exponentials(
        _spoilt(np.ones(7), bad, at), 7, tol=1e-3
    ),
    "fit function": lambda bad, at: hodlr.fit_exponentials(
        lambda r: _spoilt(1.0 / r, bad, at), 7, tol=1e-3
    ),
    "fit power law": lambda bad, at: hodlr.fit_power_law(abs(bad), 7, tol=1e-3),
    "factorise": lambda bad, at: hodlr.factorise(_broken(MATRIX, bad, at)),
    "factorise hodlr": lambda bad, at: hodlr.factorise(_broken(_hodlr(), bad, at)),
    "right-hand side": lambda bad, at: _factorised(MATRIX).solve(_spoilt(np.ones(6), bad, at)),
    "solve": lambda bad, at: hodlr.solve(MATRIX, _spoilt(np.ones((6, 2)), bad, at)),
    "low_rank_update": lambda bad, at: hodlr.low_rank_update(
        MATRIX, _spoilt(np.ones((6, 1)), bad, at), np.ones((6, 1))
    ),
    "scale": lambda bad, at: hodlr.scale(MATRIX, np.ones(6), _spoilt(np.ones(6), bad, at)),
    "add_diagonal": lambda bad, at: hodlr.add_diagonal(MATRIX, _spoilt(np.ones(6), bad, at)),
}


@pytest.mark.parametrize("builder", REFUSALS)
@given(
    bad=st.sampled_from([np.nan, np.inf, -np.inf, complex(0, np.nan), complex(np.inf, 1)]),
    where=st.integers(0, 47),
)
def test_what_is_not_finite_is_refused(builder, bad, where):
    with pytest.raises(ValueError, match="finite"):
        REFUSALS[builder](bad, where)
