"""Segments of a network against the plain forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import scattering as env
from dyson.spins import random_spins
from lanes import later
from random_networks import distance_on_the_circle, in_single_precision, random_network


@quick_jit
def in_pieces(model, spins, cuts, filling):
    """log psi with the tokens between the first two cuts as the window and the rest as segments;
    the window and the segment behind it have slots to spare."""
    medium = env.Medium(model)
    sites = env.local_features(model, medium, env.token_patterns(model, spins)).sites
    sites = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), sites)

    def part(a, b):
        return jax.tree.map(lambda x: jnp.pad(x[:, a:b], ((0, 0), (0, filling), (0, 0))), sites)

    def segment(a, b):
        (transfers,) = env.open_transfers(medium, [b - a], b - a + filling)
        return env.segment_of(medium, transfers, part(a, b))

    start, end, between, *_ = cuts
    batch = spins.shape[0]
    edge = env.no_segment(medium, batch, outside=not model.periodic)
    before = env.join(edge, segment(0, start)) if start else edge
    after = env.no_segment(medium, batch)
    for a, b in ((end, between), (between, model.n_tokens)):
        after = env.join(after, segment(a, b)) if b > a else after
    exterior = env.join(after, before)
    (transfers,) = env.window_transfers(medium, [end - start], end - start + filling)
    _, outputs = env.settled(medium, transfers, exterior, part(start, end))
    return env.log_psi(model, outputs), jax.vmap(model)(spins)


def check(n_sites, depth, length, **options):
    """log psi from a window anywhere and two segments of the rest, and from one segment alone."""
    model = random_network(n_sites, seed=depth, depth=depth, **options)
    spins = random_spins(jax.random.key(n_sites), (2, n_sites))
    tokens = model.n_tokens
    rng = np.random.default_rng(n_sites)
    start = int(rng.integers(0, tokens - length + 1))
    between = int(rng.integers(start + length, tokens + 1))
    ways = [(start, start + length, between), (0, tokens, tokens)]
    if depth <= 2:
        ways.append((0, 1, tokens))
    for cuts in ways:
        filling = 0 if model.periodic and cuts[1] - cuts[0] == tokens else 2
        way, direct = in_pieces(model, spins, cuts, min(filling, tokens - length))
        assert way.dtype == direct.dtype
        size = max(1, float(jnp.max(jnp.abs(direct))))
        precision = 1e-10 if direct.real.dtype == jnp.float64 else 1e-4
        assert distance_on_the_circle(way, direct).max() < precision * size


@pytest.mark.parametrize(
    "depth, mixer, periodic",
    [
        (2, "s4d", False),
        later(1, "real", True),
        later(2, "real", True),
        later(1, "real", False),
        later(2, "s4d", True),
        later(2, "real", False),
    ],
)
def test_rings_and_chains(depth, mixer, periodic):
    check(9, depth, 3, mixer=mixer, periodic=periodic)


@pytest.mark.parametrize("depth, periodic", [later(3, True), (4, False)])
def test_deep_networks(depth, periodic):
    check(9, depth, 2, mixer="real", periodic=periodic, features=3, modes=1)


@pytest.mark.exhaustive
def test_deep_network_with_complex_poles_on_a_ring():
    check(7, 3, 2, features=2, modes=1, hidden=1, complex_head=True)


@pytest.mark.parametrize("token_size, kernel_size, n_sites", [later(2, 1, 10), (4, 5, 24)])
def test_tokens_kernels_and_complex_heads(token_size, kernel_size, n_sites):
    options = {"token_size": token_size, "kernel_size": kernel_size, "mixer": "real", "modes": 1}
    check(n_sites, 2, 3, complex_head=True, **options)
    check(n_sites, 1, 2, complex_head=True, periodic=False, **options)


@pytest.mark.parametrize("n_sites", [1, later(2), 23])
def test_sizes(n_sites):
    check(n_sites, 1, 1, mixer="real", modes=1)


def test_single_precision():
    check(24, 2, 3, dtype=jnp.float32, mixer="real")


@pytest.mark.parametrize(
    "kernel_size, length, periodic",
    [
        (5, 1, True),
        (3, 3, False),
        (1, 2, True),
        later(5, 1, False),
        later(3, 3, True),
        later(1, 2, False),
    ],
)
def test_local_features_after_a_move(periodic, kernel_size, length):
    """Updating the window gives what the flipped configuration has there, ends of a chain too."""
    n = 11
    model = random_network(n, depth=2, kernel_size=kernel_size, periodic=periodic, mixer="real")
    half = env.half_window(model)
    assert half == kernel_size - 1

    @quick_jit
    def both(model, spins, site):
        medium = env.Medium(model)
        moved = spins.at[:, site].multiply(jnp.int8(-1))
        if length > 1:  # the last of them, and beyond the end of a chain none
            moved = moved.at[:, site + length - 1].multiply(jnp.int8(-1), mode="drop")
        before, after = (
            env.local_features(model, medium, env.token_patterns(model, s)) for s in (spins, moved)
        )
        start = site - half if periodic else site
        beyond = 0 if periodic else half + length

        def at(x):
            framed = jnp.pad(x, ((half if beyond else 0, beyond), (0, 0), (0, 0)))
            return jax.lax.dynamic_slice_in_dim(framed, start, 2 * half + length, 0)

        window, wanted = (
            jax.tree.map(lambda x: jnp.moveaxis(at(x), 0, 1), features)
            for features in (before, after)
        )
        around = site + jnp.arange(-half, half + length)
        exists = None if periodic else ((around >= 0) & (around < n))[:, None]

        # beyond the end of a chain a pattern means nothing
        def in_the_middle(s):
            patterns = jnp.pad(env.token_patterns(model, s), ((0, length), (0, 0)))
            return jax.lax.dynamic_slice_in_dim(patterns, site, length)

        patterns = in_the_middle(spins), in_the_middle(moved)
        return env.flipped(model, medium, window, patterns, exists), wanted, exists

    spins = random_spins(jax.random.key(0), (2, n))
    for site in range(half, n - half - length + 1) if periodic else range(n):
        updated, wanted, exists = both(model, spins, jnp.asarray(site))
        # vacuum has no convolution of its own: what others read counts there
        for a, b in zip(jax.tree.leaves(updated.sites), jax.tree.leaves(wanted.sites), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)
        inside = slice(None) if exists is None else np.asarray(exists)[:, 0]
        for a, b in zip(jax.tree.leaves(updated), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a[:, inside], b[:, inside], atol=1e-12)


CHUNKS = [("s4d", 1), ("s4d", 31)]
MORE = [("s4", 33), ("s4d", 33), ("s4d", 48), ("real", 1)]


@pytest.mark.parametrize(
    "mixer, n, periodic",
    [(*case, index % 2 == 0) for index, case in enumerate(CHUNKS)]
    + [later(*case, index % 2 == 1) for index, case in enumerate(CHUNKS)]
    + [later(*case, periodic) for case in MORE for periodic in (True, False)],
)
def test_a_mixer_chunk_by_chunk(n, mixer, periodic):
    """The same as the product with its kernel, for one chunk, full and incomplete last chunks."""
    model = random_network(n, mixer=mixer, periodic=periodic, features=3, modes=2)
    u = jax.random.normal(jax.random.key(0), (3, 2, n))

    @quick_jit
    def both(model, u):
        mixer, block = env.chunks_of(env.Medium(model))[1], model.blocks[1]
        return (mixer(u), mixer(u[:, 0])), jax.vmap(block.propagate, in_axes=1, out_axes=1)(u)

    (ours, one), kernel = both(model, u)
    (rough, _), _ = both(*in_single_precision((model, u)))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, kernel, atol=1e-5 * float(jnp.max(jnp.abs(kernel)) + 1))
    np.testing.assert_allclose(one, ours[:, 0], atol=1e-14 * float(jnp.max(jnp.abs(one)) + 1))
    np.testing.assert_allclose(ours, kernel, atol=1e-13 * float(jnp.max(jnp.abs(kernel)) + 1))
