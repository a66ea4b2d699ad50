"""A mixer's kernel for training and its sum of exponentials are the same Green's function."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from compiling import quick_jit
from dyson import S4, S4D, Abacus, DysonNet, Mixer, PowerLaw, RealPoles
from dyson.spins import flip, random_spins
from hodlr import ExponentialToeplitz, SumOfExponentials
from lanes import later

KINDS = [S4, S4D, PowerLaw, RealPoles]
SIZES = [(1, 1), (2, 3), (13, 2)]
FIRST = {
    (S4, False, (2, 3)),
    (S4D, True, (2, 3)),
    (S4D, False, (13, 2)),
    (PowerLaw, True, (13, 2)),
    (RealPoles, False, (1, 1)),
}


@pytest.mark.parametrize(
    "mixer, periodic, n, modes",
    [
        (pytest.param if (mixer, periodic, size) in FIRST else later)(mixer, periodic, *size)
        for mixer in KINDS
        for periodic in (True, False)
        for size in SIZES
    ],
)
def test_kernel_is_the_matrix_of_its_exponentials(mixer, periodic, n, modes):
    def matrix_of(exponentials, local):
        both_ways = exponentials.real
        diagonal = local + jnp.sum(both_ways.weights.real)
        return ExponentialToeplitz(n, both_ways, both_ways, diagonal, periodic).to_dense()

    @quick_jit
    def both(key):
        m = mixer(3, modes, n, dtype=jnp.float64, key=key)
        kernel = m.kernel(jnp.arange(n), n, periodic=periodic)
        return kernel, jax.vmap(matrix_of)(m.exponentials(), m.local)

    kernel, matrices = both(jax.random.key(n))
    assert kernel.shape == (3, n) and kernel.dtype == jnp.float64
    lags = np.abs(np.arange(n)[:, None] - np.arange(n))
    np.testing.assert_allclose(np.asarray(kernel)[:, lags], matrices, atol=1e-12)


@pytest.mark.parametrize("mixer", [S4D, RealPoles, PowerLaw])
def test_poles_stay_inside_the_unit_circle(mixer):
    make = lambda key: mixer(4, 2, 1000, dtype=jnp.float32, key=key)
    m = quick_jit(make)(jax.random.key(0))

    @quick_jit
    def poles_and_kernels(extreme):
        kernels = [
            extreme.kernel(jnp.arange(1000), 1000, periodic=periodic) for periodic in (True, False)
        ]
        return extreme.exponentials().poles, kernels

    for scale in (-50.0, 50.0):
        parameters, static = eqx.partition(m, eqx.is_inexact_array)
        extreme = eqx.combine(jax.tree.map(lambda x, s=scale: x * s, parameters), static)
        poles, kernels = poles_and_kernels(extreme)
        assert np.abs(poles).max() < 1
        assert np.all(np.isfinite(kernels))


@pytest.mark.parametrize("mixer", [S4D, RealPoles])
def test_start_covers_uniform_and_staggered_order(mixer):
    m = mixer(8, 1, 64, dtype=jnp.float64, key=jax.random.key(1))
    poles = np.asarray(m.exponentials().poles).real[:, 0]
    assert (poles[::2] > 0).all() and (poles[1::2] < 0).all()
    lengths = -1 / np.log(np.abs(poles))
    assert lengths.min() > 0.9 and lengths.max() < 16.1


@pytest.mark.parametrize("power", [1, 2])
def test_power_laws_are_as_good_as_they_say(power):
    m = PowerLaw(3, 2, 200, dtype=jnp.float64, key=jax.random.key(2))
    m = eqx.tree_at(
        lambda m: (m.amplitudes, m.local), m, (jnp.eye(2)[jnp.array([power - 1] * 3)], jnp.zeros(3))
    )
    lags = np.arange(1, 200)
    kernel = np.asarray(m.kernel(jnp.arange(200), 200, periodic=False))[:, 1:]
    signs = np.stack([lags**0, (-1.0) ** lags, lags**0])
    error = np.abs(kernel * signs - lags ** -float(power)).max()
    assert error <= m.errors[power - 1] + 1e-12 and max(m.errors) <= 1e-7


@pytest.mark.parametrize("modes", [1, later(4), later(8)])
def test_s4_starts_at_hippo(modes):
    """The state follows Legendre polynomials: at one channel with step h the transition is that of
    the bilinear rule for the HiPPO-LegS matrix, up to the basis."""
    m = S4(2, modes, 64, dtype=jnp.float64, key=jax.random.key(3))
    n = np.arange(modes)
    root = np.sqrt(2 * n + 1.0)
    hippo = -np.tril(np.outer(root, root), -1) - np.diag(n + 1.0)
    for channel, step in enumerate(np.exp(np.asarray(m.log_step))):
        half = step / 2 * hippo
        transition = np.linalg.solve(np.eye(modes) - half, np.eye(modes) + half)
        expected = np.linalg.eigvals(transition)
        poles = np.asarray(m.exponentials().poles[channel])
        distances = np.abs(poles[:, None] - expected)
        # eigenvalues of a matrix that is far from normal are known to fewer digits
        assert distances.min(0).max() < 1e-7 and distances.min(1).max() < 1e-7
        assert np.abs(poles).max() < 1


def test_s4_kernel_has_derivatives_without_eigenvalues():
    m = quick_jit(lambda key: S4(2, 3, 8, dtype=jnp.float64, key=key))(jax.random.key(4))
    parameters, static = eqx.partition(m, eqx.is_inexact_array)

    def energy(parameters):
        kernel = eqx.combine(parameters, static).kernel(jnp.arange(8), 8, periodic=True)
        return jnp.sum(kernel**2)

    # compiled: finite differences evaluate it several times
    check_grads(jax.jit(energy), (parameters,), order=1, modes=["rev"], rtol=1e-5)


class Decays(Mixer):
    """A mixer of one's own, as the docstring of `dyson.Mixer` has it."""

    log_rate: jax.Array
    weights: jax.Array
    local: jax.Array

    def __init__(self, features, modes, n_tokens, *, dtype, key):
        shape = (features, modes)
        self.log_rate = jax.random.normal(key, shape, dtype)
        self.weights = jnp.ones(shape, dtype) / modes
        self.local = jnp.zeros(features, dtype)

    def exponentials(self):
        poles = jnp.exp(-jnp.exp(self.log_rate))
        return jax.vmap(SumOfExponentials)(self.weights, poles)

    def powers(self, r):
        rate = jnp.exp(self.log_rate)[..., None]
        return jnp.exp(-rate * r.astype(rate.dtype))


@pytest.mark.parametrize("periodic", [True, False])
def test_a_mixer_of_ones_own_has_exact_updates(periodic):
    options = {"features": 4, "hidden": 2, "modes": 2, "periodic": periodic, "mixer": Decays}
    model = DysonNet(9, depth=2, key=jax.random.key(0), **options)
    spins = random_spins(jax.random.key(1), 9)

    @quick_jit
    def both(model, spins):
        updates = Abacus().bind(model)
        ratios = updates.single_flips(updates.init(spins))
        moved = jax.vmap(flip, (None, 0))(spins, jnp.arange(9)[:, None])
        return ratios, jax.vmap(model)(moved) - model(spins)

    np.testing.assert_allclose(*both(model, spins), atol=1e-12)
    with pytest.raises(ValueError, match="or a class derived from dyson.Mixer, got 'laplace'"):
        DysonNet(4, mixer="laplace", key=jax.random.key(0))
    with pytest.raises(TypeError, match="expected mixer to make a dyson.Mixer, got tuple"):
        DysonNet(4, mixer=lambda *_, **__: (), key=jax.random.key(0))


@pytest.mark.parametrize("mixer", ["s4d", later("real"), later("s4"), later("power_law")])
def test_a_key_gives_one_network_whatever_jax_computes_in(mixer):
    options = {"features": 4, "hidden": 2, "modes": 2, "mixer": mixer, "token_size": 2}
    networks = []
    for x64 in (True, False):
        with jax.enable_x64(x64):
            model = DysonNet(8, dtype=jnp.float32, key=jax.random.key(3), **options)
            networks.append([np.asarray(x) for x in jax.tree.leaves(model)])
            networks[-1].append(np.asarray(random_spins(jax.random.key(4), (5, 7))))
    for one, other in zip(*networks, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
