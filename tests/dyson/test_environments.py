"""Segments of a network against the plain forward pass."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import environments as env
from dyson.spins import random_spins
from random_networks import distance_on_the_circle, random_network


@eqx.filter_jit
def grown(medium, empty, sites, active):
    """The segment of the active tokens, absorbed from the first to the last."""

    def grow(segment, item):
        site, inside = item
        larger = env.absorb(medium, segment, site)
        return jax.tree.map(lambda a, b: jnp.where(inside, a, b), larger, segment), None

    return jax.lax.scan(grow, empty, (sites, active))[0]


@eqx.filter_jit
def prepared(model, spins):
    medium = env.Medium(model)
    sites = env.local_features(model, medium, env.token_patterns(model, spins)).sites
    empty = env.empty_segment(medium, spins.shape[0], periodic=model.periodic)
    return medium, sites, empty, jax.vmap(model)(spins)


@eqx.filter_jit
def value(model, medium, prefix, window, suffix):
    outputs = env.outputs_between(medium, prefix, window, suffix, model.n_tokens)
    return env.log_psi(model, outputs)


def check(n_sites, depth, length, **options):
    """log psi with a window anywhere, and with the whole chain as one prefix or one suffix."""
    model = random_network(n_sites, seed=depth, depth=depth, **options)
    spins = random_spins(jax.random.key(n_sites), (2, n_sites))
    medium, sites, empty, direct = prepared(model, spins)
    tokens = sites.embedded.shape[0]
    where = np.arange(tokens)
    cut = int(np.random.default_rng(n_sites).integers(0, tokens - length + 1))
    part = lambda a, b: jax.tree.map(lambda x: jnp.moveaxis(x[a:b], 0, 1), sites)  # noqa: E731
    backwards = jax.tree.map(lambda x: x[::-1], sites)
    prefix = grown(medium, empty, sites, where < cut)
    suffix = grown(medium, empty, backwards, where[::-1] >= cut + length)
    ways = [value(model, medium, prefix, part(cut, cut + length), suffix)]
    if depth <= 2:
        everything = where >= 0
        right, left = (grown(medium, empty, s, everything) for s in (sites, backwards))
        nothing = part(0, 0)
        ways += [
            value(model, medium, right, nothing, empty),
            value(model, medium, empty, nothing, left),
        ]
    for way in ways:
        assert way.dtype == direct.dtype
        size = max(1, float(jnp.max(jnp.abs(direct))))
        precision = 1e-10 if direct.real.dtype == jnp.float64 else 1e-4
        assert distance_on_the_circle(way, direct).max() < precision * size


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("mixer", ["s4d", "real"])
@pytest.mark.parametrize("depth", [1, 2])
def test_rings_and_chains(depth, mixer, periodic):
    check(9, depth, 3, mixer=mixer, periodic=periodic)


@pytest.mark.parametrize("depth, periodic", [(3, True), (4, False)])
def test_deep_networks(depth, periodic):
    check(9, depth, 2, mixer="real", periodic=periodic, features=3, modes=1)


def test_deep_network_with_complex_poles_on_a_ring():
    check(7, 3, 2, features=2, modes=1, hidden=1, complex_head=True)


@pytest.mark.parametrize("token_size, kernel_size, n_sites", [(2, 1, 10), (4, 5, 24)])
def test_tokens_kernels_and_complex_heads(token_size, kernel_size, n_sites):
    options = {"token_size": token_size, "kernel_size": kernel_size, "mixer": "real", "modes": 1}
    check(n_sites, 2, 3, complex_head=True, **options)
    check(n_sites, 1, 2, complex_head=True, periodic=False, **options)


@pytest.mark.parametrize("n_sites", [1, 2, 23])
def test_sizes(n_sites):
    check(n_sites, 1, 1, mixer="real", modes=1)


def test_single_precision():
    check(24, 2, 3, dtype=jnp.float32, mixer="real")


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("kernel_size", [5])
def test_local_features_after_a_flip(periodic, kernel_size):
    """Updating the window gives what the flipped configuration has there, ends of a chain too."""
    n = 11
    model = random_network(n, depth=2, kernel_size=kernel_size, periodic=periodic, mixer="real")
    half = env.half_window(model)
    assert half == kernel_size - 1

    @eqx.filter_jit
    def both(model, spins, site):
        medium = env.Medium(model)
        moved = spins.at[:, site].multiply(jnp.int8(-1))
        before, after = (
            env.local_features(model, medium, env.token_patterns(model, s)) for s in (spins, moved)
        )
        start = site - half if periodic else site
        at = lambda x: jax.lax.dynamic_slice_in_dim(x, start, 2 * half + 1, 0)  # noqa: E731
        window, wanted = (
            jax.tree.map(lambda x: jnp.moveaxis(at(x), 0, 1), features)
            for features in (before, after)
        )
        around = site + jnp.arange(-half, half + 1)
        exists = None if periodic else (around >= 0) & (around < n)
        pattern = env.token_patterns(model, moved)[site]
        return env.flipped(model, medium, window, pattern, exists), wanted, exists

    spins = random_spins(jax.random.key(0), (2, n))
    for site in range(half, n - half) if periodic else range(n):
        updated, wanted, exists = both(model, spins, jnp.asarray(site))
        # vacuum has no convolution of its own: what others read counts there
        for a, b in zip(jax.tree.leaves(updated.sites), jax.tree.leaves(wanted.sites), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        inside = slice(None) if exists is None else np.asarray(exists)
        for a, b in zip(jax.tree.leaves(updated), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a[:, inside], b[:, inside], atol=1e-12)
