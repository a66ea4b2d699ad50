"""The network against its equations, written out token by token."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import DysonNet, SpinFlip, Translations
from dyson.networks.head import log_cosh, smooth_log_cosh
from dyson.spins import flip, random_spins
from lanes import later
from random_networks import distance_on_the_circle, random_network


def by_the_equations(model, spins):
    """log psi with explicit sums over tokens and pairs of tokens, in numpy."""
    n, size, periodic = model.n_tokens, model.token_size, model.periodic
    silu = lambda x: x / (1 + np.exp(-x))
    phi, h = [], []
    for t in range(n):
        bits = (np.asarray(spins[t * size : (t + 1) * size]) < 0).astype(int)
        pattern = int("".join(map(str, bits)), 2)
        here = 0 if model.embed_sites is None else np.asarray(model.embed_sites)[:, t]
        phi.append(np.asarray(model.embed_local)[:, pattern] + here)
        h.append(np.asarray(model.embed_linear)[:, pattern])
    for raw in model.blocks:
        block = jax.tree.map(np.asarray, raw)
        features = block.features
        modes = raw.mixer.exponentials()
        weights, poles = np.asarray(modes.weights), np.asarray(modes.poles)
        a, gate = [], []
        for p in phi:
            centred = p - p.mean()
            normed = centred / np.sqrt((centred**2).mean() + 1e-6)
            both = block.dense @ (normed * block.norm_scale + block.norm_shift) + block.dense_bias
            a.append(both[:features])
            gate.append(silu(both[features:]))
        c = []
        for t in range(n):
            total = np.array(block.taps_bias)
            for tap in range(-block.reach, block.reach + 1):
                if periodic or 0 <= t + tap < n:
                    total = total + block.taps[:, tap + block.reach] * a[(t + tap) % n]
            c.append(silu(total))
        u = [block.mix_in @ ((h[t] - block.act_shift) * block.act_scale) + c[t] for t in range(n)]
        y = []
        for i in range(n):
            total = block.mixer.local * u[i]
            for j in range(n):
                r = abs(i - j)
                waves = poles**r
                if periodic:
                    waves = (poles**r + poles ** (n - r)) / (1 - poles**n)
                total = total + (weights * waves).sum(1).real * u[j]
            y.append(total)
        h = [h[t] + gate[t] * (block.mix_out @ y[t]) for t in range(n)]
        phi = [phi[t] + c[t] for t in range(n)]
    pooled = np.sqrt(n) * np.mean(h, axis=0)
    weight, bias = np.asarray(model.head.weight), np.asarray(model.head.bias)
    theta = weight @ pooled + bias
    phases = 0 if len(theta) == 1 else 1j * theta[1] * np.tanh(theta[0])
    return (np.log(np.cosh(theta[0])) + phases).sum()


SIZES = [(1, 1, 3, False), (7, 1, 3, True), (8, 2, 5, False), (8, 4, 3, False)]


@pytest.mark.parametrize(
    "n_sites, token_size, kernel_size, complex_head, mixer, periodic",
    [
        (pytest.param if (index + periodic + (mixer == "real")) % 2 else later)(
            *size, mixer, periodic
        )
        for index, size in enumerate(SIZES)
        for mixer in ("s4d", "real")
        for periodic in (True, False)
    ],
)
def test_forward_pass(mixer, periodic, n_sites, token_size, kernel_size, complex_head):
    model = random_network(
        n_sites,
        seed=n_sites,
        token_size=token_size,
        kernel_size=kernel_size,
        complex_head=complex_head,
        mixer=mixer,
        periodic=periodic,
        site_embedding=token_size == 4,
    )
    apply = eqx.filter_jit(model)
    for spins in np.random.default_rng(0).choice([-1, 1], (3, n_sites)).astype(np.int8):
        expected = by_the_equations(model, spins)
        assert distance_on_the_circle(apply(jnp.asarray(spins)), expected) < 1e-10


def test_log_cosh_is_stable_and_even():
    x = jnp.array([0.0, 1e-9, 0.3, -2.0, 700.0, -1e4])
    np.testing.assert_allclose(log_cosh(x), np.logaddexp(x, -x) - np.log(2), rtol=1e-13, atol=1e-16)
    z = jnp.array([0.3 - 0.4j, -0.2 + 1.1j])
    np.testing.assert_allclose(np.exp(log_cosh(z)), np.cosh(z), rtol=1e-13)


def test_smooth_log_cosh_is_log_cosh_but_for_its_zeros():
    x, large = jnp.array([0.0, 0.4, -1.3, 30.0]), jnp.array([20.0 + 9j, -20.0 + 9j])
    np.testing.assert_array_equal(smooth_log_cosh(x), log_cosh(x))
    small = jax.lax.complex(x, jnp.full_like(x, 1e-4))
    np.testing.assert_allclose(smooth_log_cosh(small), log_cosh(small), atol=1e-8)
    np.testing.assert_allclose(jnp.exp(smooth_log_cosh(large)), jnp.exp(log_cosh(large)), rtol=1e-9)
    parts = jax.jacfwd(lambda t: jnp.real(smooth_log_cosh(jax.lax.complex(t[0], t[1]))))
    np.testing.assert_allclose(parts(jnp.array([0.0, np.pi / 2])), 0, atol=1e-15)


@pytest.mark.parametrize(
    "complex_head, dtype",
    [
        (False, jnp.float32),
        (True, jnp.float64),
        later(False, jnp.float64),
        later(True, jnp.float32),
    ],
)
def test_start_is_calibrated(complex_head, dtype):
    model = DysonNet(64, complex_head=complex_head, dtype=dtype, key=jax.random.key(3))
    assert {x.dtype for x in jax.tree.leaves(model)} == {jnp.dtype(dtype)}
    spins = random_spins(jax.random.key(4), (2000, 64))
    assert 0.05 < float(jnp.std(jax.jit(jax.vmap(lambda s: model(s)))(spins))) < 0.2


def test_translation_and_global_flip():
    model = random_network(8, periodic=True)
    spins = random_spins(jax.random.key(0), 8)
    apply = eqx.filter_jit(lambda model, spins: model(spins))
    assert abs(float(apply(model, spins) - apply(model, jnp.roll(spins, 3)))) < 1e-12
    assert abs(float(apply(model, spins) - apply(model, -spins))) > 1e-3
    even = SpinFlip(model)
    assert abs(float(apply(even, spins) - apply(even, -spins))) < 1e-14
    mean = 0.5 * (np.exp(float(apply(model, spins))) + np.exp(float(apply(model, -spins))))
    assert abs(np.exp(float(apply(even, spins))) / mean - 1) < 1e-12


@pytest.mark.parametrize("complex_head", [False, True])
def test_translations_by_less_than_a_token(complex_head):
    model = random_network(16, token_size=4, seed=5, complex_head=complex_head)
    spins = random_spins(jax.random.key(1), 16)
    apply = eqx.filter_jit(lambda model, spins: model(spins))
    moved, alone, both = jnp.roll(spins, 1), Translations(model), SpinFlip(Translations(model))
    assert abs(complex(apply(model, spins) - apply(model, moved))) > 1e-3
    for even, image in ((alone, moved), (both, moved), (both, -spins), (both, -moved)):
        ratio = np.exp(complex(apply(even, spins) - apply(even, image)))
        assert abs(ratio - 1) < 1e-12
    rolled = jnp.stack([jnp.roll(spins, shift) for shift in range(4)])
    mean = np.mean(np.exp([complex(apply(model, image)) for image in rolled]))
    assert abs(np.exp(complex(apply(alone, spins))) / mean - 1) < 1e-12
    # a flip of the configuration is one of every image, in the same order
    sites = jnp.array([0, 7, -1], jnp.int32)
    images = jax.vmap(flip)(both.images(spins), both.image_sites(sites))
    assert both.n_images == 8
    np.testing.assert_array_equal(images, both.images(flip(spins, sites)))


def test_with_a_site_embedding_a_ring_has_places():
    """From the first step on; it starts as a state that is the same everywhere."""
    spins = random_spins(jax.random.key(0), 8)
    apply = eqx.filter_jit(lambda model, spins: model(spins))
    model = random_network(8, site_embedding=True)
    assert abs(float(apply(model, spins) - apply(model, jnp.roll(spins, 3)))) > 1e-3
    model = eqx.tree_at(lambda m: m.embed_sites, model, jnp.zeros((4, 8)))
    assert float(apply(model, spins)) == pytest.approx(float(apply(random_network(8), spins)))


def test_one_compiled_program_per_shape():
    traces = []

    @eqx.filter_jit
    def apply(model, spins):
        traces.append(1)
        return model(spins)

    for seed in range(3):
        apply(random_network(6, seed=seed), random_spins(jax.random.key(seed), 6))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_sites": 0}, "n_sites >= 1, got 0"),
        ({"kernel_size": 4}, "odd kernel_size >= 1, got 4"),
        ({"token_size": 3}, "token_size 1, 2 or 4, got 3"),
        ({"n_sites": 7, "token_size": 2}, "multiple of token_size=2, got 7"),
        ({"mixer": "s5"}, "'s4', 's4d'\\] or a class derived from dyson.Mixer, got 's5'"),
        ({"depth": 0}, "depth >= 1, got 0"),
    ],
)
def test_misuse_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        DysonNet(**({"n_sites": 8, "key": jax.random.key(0)} | options))


def test_wrong_spins_are_named():
    with pytest.raises(ValueError, match="shape \\(6,\\), got \\(2, 6\\); use jax.vmap"):
        random_network(6)(jnp.ones((2, 6), jnp.int8))
