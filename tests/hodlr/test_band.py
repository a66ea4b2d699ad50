"""product_band against the definition: the dense product, entry by entry."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hodlr import ExponentialToeplitz, SumOfExponentials
from hodlr.band import product_band, product_cores, toeplitz_product_band
from lanes import later
from random_matrices import dense as dense_of


def half_of(sizes, more):
    """(n, bandwidth, complex_poles, periodic): every pair of values now, all of them later, and
    more sizes."""
    return [
        (later if index >= len(sizes) or (index + complex_poles + periodic) % 2 else pytest.param)(
            *size, complex_poles, periodic
        )
        for index, size in enumerate(sizes + more)
        for complex_poles in (False, True)
        for periodic in (False, True)
    ]


def random_kernel(rng, modes, complex_poles, radius=1.0):
    poles = radius * rng.uniform(-0.99, 0.99, modes)
    weights = rng.normal(size=modes)
    if complex_poles:
        poles = poles * np.exp(1j * rng.uniform(0, 2 * np.pi, modes))
        weights = weights + 1j * rng.normal(size=modes)
    return SumOfExponentials(jnp.asarray(weights), jnp.asarray(poles))


def random_operator(rng, n, modes, complex_poles, periodic, site_diagonal=False):
    diagonal = rng.normal(size=n) if site_diagonal else rng.normal()
    lower, upper = (random_kernel(rng, m, complex_poles) for m in modes)
    return ExponentialToeplitz(n, lower, upper, jnp.asarray(diagonal), periodic)


def band_of(dense, bandwidth, periodic):
    n = len(dense)
    band = np.zeros((n, 2 * bandwidth + 1), dense.dtype)
    for i in range(n):
        for d in range(-bandwidth, bandwidth + 1):
            if periodic or 0 <= i + d < n:
                band[i, bandwidth + d] = dense[i, (i + d) % n]
    return band


@pytest.mark.parametrize(
    "n, bandwidth, complex_poles, periodic", half_of([(1, 2), (3, 4), (40, 5)], [(2, 1), (7, 3)])
)
def test_band_is_the_band_of_the_dense_product(n, bandwidth, complex_poles, periodic):
    rng = np.random.default_rng(n * 10 + bandwidth)
    G2 = random_operator(rng, n, (3, 2), complex_poles, periodic, site_diagonal=True)
    G1 = random_operator(rng, n, (1, 2), complex_poles, periodic)
    m = rng.normal(size=n)
    dense = np.asarray(dense_of(G2)) @ np.diag(m) @ np.asarray(dense_of(G1))
    band = eqx.filter_jit(product_band)(G2, jnp.asarray(m), G1, bandwidth)
    scale = np.abs(dense_of(G2)).sum() * np.abs(m).max() * np.abs(dense_of(G1)).max()
    np.testing.assert_allclose(band, band_of(dense, bandwidth, periodic), atol=1e-14 * scale)


@pytest.mark.parametrize(
    "n, bandwidth, periodic",
    [
        (1, 1, True),
        (6, 2, False),
        (97, 3, True),
        later(1, 1, False),
        later(6, 2, True),
        later(97, 3, False),
    ],
)
def test_any_toeplitz_kernel(n, bandwidth, periodic):
    rng = np.random.default_rng(n)
    lags = n if periodic else 2 * n - 1
    g2, g1, m = rng.normal(size=lags), rng.normal(size=lags), rng.normal(size=n)
    lag = np.arange(n)[:, None] - np.arange(n)
    index = lag % n if periodic else lag + n - 1
    dense = g2[index] @ np.diag(m) @ g1[index]
    band = eqx.filter_jit(toeplitz_product_band)(
        *map(jnp.asarray, (g2, m, g1)), bandwidth, periodic=periodic
    )
    np.testing.assert_allclose(band, band_of(dense, bandwidth, periodic), atol=1e-12 * n)


def test_cores_are_stable_next_to_the_unit_circle_and_at_zero():
    n = 500
    poles = jnp.array([0.0, 1e-300, 1 - 1e-12, -1.0])
    kernel = SumOfExponentials(jnp.ones(4), poles)
    G = ExponentialToeplitz(n, kernel, kernel, jnp.asarray(0.5))
    m = jnp.asarray(np.random.default_rng(0).normal(size=n))
    left, right = eqx.filter_jit(product_cores)(G, m, G)
    assert left.shape == right.shape == (n, 4, 4)
    assert np.all(np.isfinite(left)) and np.all(np.isfinite(right))
    dense = np.asarray(dense_of(G)) @ np.diag(m) @ np.asarray(dense_of(G))
    band = eqx.filter_jit(product_band)(G, m, G, 3)
    np.testing.assert_allclose(band, band_of(dense, 3, False), atol=1e-10)


@pytest.mark.parametrize("periodic", [False, True])
def test_derivatives_match_the_dense_product(periodic):
    rng = np.random.default_rng(3)
    n = 9
    G2, G1 = (random_operator(rng, n, (2, 1), False, periodic) for _ in range(2))
    m = jnp.asarray(rng.normal(size=n))
    weights = jnp.asarray(rng.normal(size=(n, 5)))

    def by_band(arguments):
        return jnp.sum(weights * product_band(*arguments, 2))

    def by_dense(arguments):
        A, m, B = arguments
        dense = A.to_dense() @ jnp.diag(m) @ B.to_dense()
        rows = jnp.arange(n)[:, None]
        columns = rows + jnp.arange(-2, 3)
        inside = periodic | ((columns >= 0) & (columns < n))
        return jnp.sum(jnp.where(inside, weights * dense[rows, columns % n], 0))

    fast, slow = (
        eqx.filter_jit(eqx.filter_grad(loss))((G2, m, G1)) for loss in (by_band, by_dense)
    )
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(
    "n, bandwidth, complex_poles, periodic", half_of([(1, 1), (2, 3), (40, 2)], [(3, 1), (7, 9)])
)
def test_band_of_a_product_of_three(n, bandwidth, complex_poles, periodic):
    rng = np.random.default_rng(n + bandwidth)
    modes = (2, 1), (1, 2), (0, 2)
    G3, G2, G1 = (random_operator(rng, n, k, complex_poles, periodic, n == 7) for k in modes)
    m2, m1 = jnp.asarray(rng.normal(size=(2, n)))
    fast = eqx.filter_jit(product_band)(G3, m2, G2, m1, G1, bandwidth=bandwidth)
    parts = [np.asarray(dense_of(G)) for G in (G3, G2, G1)]
    dense = parts[0] @ np.diag(m2) @ parts[1] @ np.diag(m1) @ parts[2]
    sizes = [abs(part) for part in parts]
    scale = np.max(sizes[0] @ np.diag(abs(m2)) @ sizes[1] @ np.diag(abs(m1)) @ sizes[2])
    np.testing.assert_allclose(fast, band_of(dense, bandwidth, periodic), atol=1e-13 * scale)


def test_four_operators():
    rng = np.random.default_rng(0)
    operators = [random_operator(rng, 9, (1, 1), False, True) for _ in range(4)]
    weights = [jnp.asarray(rng.normal(size=9)) for _ in range(3)]
    dense = np.asarray(dense_of(operators[0]))
    factors = [operators[0]]
    for m, G in zip(weights, operators[1:], strict=True):
        dense = dense @ np.diag(m) @ np.asarray(dense_of(G))
        factors += [m, G]
    fast = eqx.filter_jit(product_band)(*factors, 2)
    np.testing.assert_allclose(fast, band_of(dense, 2, True), atol=1e-12 * np.abs(dense).max())


@pytest.mark.parametrize("periodic", [False, True])
def test_derivatives_of_a_product_of_three_against_finite_differences(periodic):
    rng = np.random.default_rng(4)
    n = 7
    G3, G2, G1 = (random_operator(rng, n, (1, 2), False, periodic, True) for _ in range(3))
    m2, m1 = jnp.asarray(rng.normal(size=(2, n)))
    arguments = G3, m2, G2, m1, G1
    weights = jnp.asarray(rng.normal(size=(n, 3)))
    directions = jax.tree.map(lambda a: 0.1 * jnp.asarray(rng.normal(size=a.shape)), arguments)

    @jax.jit
    def along(t):
        moved = jax.tree.map(lambda a, d: a + t * d, arguments, directions)
        return jnp.sum(weights * jnp.sin(product_band(*moved, bandwidth=1)))

    h = 1e-4
    # The fourth-order difference: its own error is below the tolerance.
    difference = (8 * (along(h) - along(-h)) - along(2 * h) + along(-2 * h)) / (12 * h)
    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), difference, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("periodic", [False, True])
def test_what_the_band_computes_grows_linearly(periodic):
    def computed(n):
        kernel = SumOfExponentials([1.0, 0.5], [0.9, -0.4])
        G = ExponentialToeplitz(n, kernel, kernel, jnp.asarray(1.0), periodic)
        program = jax.make_jaxpr(lambda m: product_band(G, m, G, 2))(jnp.ones(n)).jaxpr
        shapes = [out.aval.shape for equation in program.eqns for out in equation.outvars]
        return sum(int(np.prod(shape)) for shape in shapes)

    assert computed(4096) <= 4.3 * computed(1024)


@pytest.mark.exhaustive
def test_vmap_over_the_weights_between():
    rng = np.random.default_rng(5)
    G2, G1 = (random_operator(rng, 11, (1, 1), False, False) for _ in range(2))
    m = jnp.asarray(rng.normal(size=(3, 11)))
    together = jax.vmap(lambda row: product_band(G2, row, G1, 1))(m)
    one_by_one = jnp.stack([product_band(G2, row, G1, 1) for row in m])
    np.testing.assert_allclose(together, one_by_one, atol=1e-13)


def test_misuse_is_named():
    rng = np.random.default_rng(7)
    ring, chain = (random_operator(rng, 5, (1, 1), False, p) for p in (True, False))
    m = jnp.ones(5)
    with pytest.raises(ValueError, match="equal sizes, got 5, \\(4,\\) and 5"):
        product_band(chain, jnp.ones(4), chain, 1)
    with pytest.raises(TypeError, match="weights between them"):
        product_band(chain, m, 1)
    with pytest.raises(ValueError, match="same boundary"):
        product_band(ring, m, chain, 1)
    with pytest.raises(ValueError, match="bandwidth >= 0, got -1"):
        product_band(chain, m, chain, -1)
    with pytest.raises(ValueError, match="open operators"):
        product_cores(ring, m, ring)
    with pytest.raises(ValueError, match="kernels of shape \\(5,\\)"):
        toeplitz_product_band(jnp.ones(9), m, jnp.ones(9), 1, periodic=True)
