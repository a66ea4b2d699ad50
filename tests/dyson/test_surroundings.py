"""Windows within their surroundings: exact at every depth, and the same as links at depth 1, 2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import Abacus
from dyson import scattering as env
from dyson.abacus import windows
from dyson.abacus.forward import Whole
from dyson.abacus.links.reference import Reference
from dyson.abacus.surroundings import Surroundings
from dyson.abacus.windows import WindowUpdates
from dyson.scattering import partition_of
from dyson.spins import flip, random_spins
from lanes import later
from random_networks import distance_on_the_circle, hardly_decaying, random_network

SMALL = {"features": 3, "modes": 1}


@quick_jit
def both_ways(updates, model, spins, moves):
    """Log-ratios by local updates, of single flips and of the moves, and by forward passes."""
    updates = updates.bind(model)
    cache = updates.init(spins)
    direct = lambda move: model(flip(spins, move)) - model(spins)
    single = jnp.arange(model.n_sites, dtype=jnp.int32)[:, None]
    found = updates.single_flips(cache), updates.ratios(cache, moves)
    return found, (jax.vmap(direct)(single), jax.vmap(direct)(moves)), cache


def moves_of(n_sites, span, periodic):
    """Random sets of one to three flips among neighbouring sites, from every site on."""
    rng = np.random.default_rng(n_sites)
    moves = []
    for base in range(n_sites):
        inside = base + np.arange(span)
        inside = inside % n_sites if periodic else inside[inside < n_sites]
        chosen = rng.choice(inside, size=min(len(inside), rng.integers(1, 4)), replace=False)
        moves.append(np.pad(chosen, (0, 3 - len(chosen)), constant_values=-1))
    return jnp.asarray(np.array(moves), jnp.int32)


@pytest.mark.parametrize(
    "n_sites, span, options",
    [
        later(48, 1, {"depth": 3}),  # two windows, a core each
        later(43, 3, {"depth": 3, "mixer": "real"}),  # a short last core
        later(51, 2, {"depth": 3, "periodic": False}),
        later(48, 1, {"depth": 3, "periodic": False, "kernel_size": 1, "mixer": "real"}),
        # seven windows: several groups of them, of pieces too, and a short one at the end
        (157, 1, {"depth": 3, "features": 2}),
    ],
)
def test_flips_and_moves_of_deep_networks(n_sites, span, options, monkeypatch):
    monkeypatch.setitem(windows.WINDOWS_AT_ONCE, "cpu", 4)
    model = random_network(n_sites, seed=3, **(SMALL | options))
    spins = random_spins(jax.random.key(n_sites), n_sites)
    moves = moves_of(n_sites, span, model.periodic)
    found, direct, cache = both_ways(Abacus(span=span), model, spins, moves)
    assert isinstance(cache, Surroundings)
    for ours, theirs in zip(found, direct, strict=True):
        assert float(jnp.max(jnp.abs(theirs))) > 1e-3  # the moves do something
        assert distance_on_the_circle(ours, theirs).max() < 1e-10


@pytest.mark.parametrize(
    "mixer, dtype, tolerance", [later("s4d", "float64", 1e-10), later("real", "float32", 1e-5)]
)
def test_waves_that_hardly_decay(mixer, dtype, tolerance):
    """Relative to log-ratios that waves of all the chain have made large."""
    model = random_network(50, depth=3, mixer=mixer, dtype=jnp.dtype(dtype), **SMALL)
    model, spins = hardly_decaying(model), random_spins(jax.random.key(4), 50)
    found, direct, cache = both_ways(Abacus(), model, spins, moves_of(50, 1, True))
    assert isinstance(cache, Surroundings)
    for ours, theirs in zip(found, direct, strict=True):
        assert ours.dtype == jnp.dtype(dtype)
        size = float(jnp.max(jnp.abs(theirs))) + float(jnp.abs(cache.log_psi))
        assert distance_on_the_circle(ours, theirs).max() < tolerance * (1 + size)


@pytest.mark.parametrize("n_sites", [1, later(2), 5, 20])
def test_chains_that_a_window_would_cover(n_sites):
    model = random_network(n_sites, depth=3, mixer="real", complex_head=True, **SMALL)
    spins = random_spins(jax.random.key(1), n_sites)
    moves = moves_of(n_sites, 2, True)
    found, direct, cache = both_ways(Abacus(span=2), model, spins, moves)
    assert isinstance(cache, Whole)
    for ours, theirs in zip(found, direct, strict=True):
        assert distance_on_the_circle(ours, theirs).max() < 1e-10
    if n_sites == 20:  # also there a move that does not fit is not answered
        propose = lambda m, c, move: Abacus(span=2).bind(m).propose(c, move)
        far = quick_jit(propose)(model, cache, jnp.array([3, 9], jnp.int32))
        assert np.isnan(far.log_ratio)


@pytest.mark.parametrize(
    "depth, mixer, periodic",
    [
        (1, "real", True),
        later(2, "s4d", False),
        later(1, "real", False),
        later(2, "s4d", True),
    ],
)
def test_links_and_windows_agree(depth, mixer, periodic):
    """The two ways, each on networks of one and two blocks."""
    n = 45
    model = random_network(n, depth=depth, mixer=mixer, periodic=periodic, features=3)
    spins = random_spins(jax.random.key(2), n)
    parts = partition_of(n, env.half_window(model), 1, periodic=periodic)

    @quick_jit
    def ways(model, spins):
        links, windows = Abacus().bind(model), WindowUpdates(model, parts)
        reference = links.init(spins)
        single = jnp.arange(n, dtype=jnp.int32)[:, None]
        by_links = jax.vmap(lambda move: links.change(reference, move))(single)
        return by_links, windows.changes(windows.init(spins)), reference

    by_links, by_windows, reference = ways(model, spins)
    assert isinstance(reference, Reference)
    np.testing.assert_allclose(by_windows, by_links, atol=1e-12)


def test_partitions_cover_the_chain():
    for n_tokens in range(1, 130):
        for half, span in ((0, 1), (2, 1), (3, 4), (9, 2)):
            parts = partition_of(n_tokens, half, span, periodic=True, shortest=16)
            margin = 2 * half + span - 1
            if parts is None:
                assert n_tokens < 3 * max(17, margin + 1) + margin
                continue
            assert (parts.count - 1) * parts.core + parts.last == n_tokens
            assert parts.count >= 2 and margin < parts.core
            assert margin <= parts.last <= parts.core
            assert parts.window <= n_tokens + parts.core - parts.last
    ring = partition_of(37, 1, 1, periodic=True, shortest=16)
    open_chain = partition_of(37, 1, 1, periodic=False, shortest=16)
    tokens = jnp.arange(1, 38)
    seen = np.asarray(ring.windows(tokens))
    assert (ring.core, ring.last, ring.count) == (16, 5, 3)
    np.testing.assert_array_equal(seen[:, 0], [37, *range(1, 18)])
    np.testing.assert_array_equal(seen[:, 2], [*range(32, 38), 1, *[0] * 11])
    np.testing.assert_array_equal(np.asarray(open_chain.windows(tokens))[:3, 0], [0, 1, 2])
