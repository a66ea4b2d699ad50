"""The sweep by environments against a sweep by full forward passes, and its distribution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from dyson import DysonNet, Ising, SpinFlip, Sweep, statistics
from dyson.networks import Network
from dyson.samplers.base import log_uniforms
from dyson.samplers.sweep import (
    environment_sweep,
    forward_sweep,
    has_environments,
    visited_sites,
)
from dyson.spins import enumerate_spins, flip, random_spins, spins_to_index
from random_networks import random_network

sweep_by_environments = eqx.filter_jit(environment_sweep)


@eqx.filter_jit
def sweep_by_forward_passes(model, spins, uniforms):
    sweep = lambda s, u: forward_sweep(model, s, u, visited_sites(model))  # noqa: E731
    return jax.vmap(sweep, out_axes=(0, 1, 1))(spins, uniforms)


def peaked_network(n_sites, sharpness=3.0, **options):
    model = random_network(n_sites, **options)
    return eqx.tree_at(lambda m: m.head.weight, model, sharpness * model.head.weight)


SMALL = {"features": 3, "modes": 1}


@pytest.mark.parametrize(
    "n_sites, projected, options",
    [
        (40, False, {"depth": 2}),
        (13, False, {"depth": 2, "periodic": False, "modes": 1}),
        (12, True, {"depth": 2, "mixer": "real"}),
        (12, True, {"depth": 1, "periodic": False, "complex_head": True}),
        (24, False, {"depth": 2, "token_size": 2, "complex_head": True, "mixer": "real"}),
        (16, False, {"depth": 1, "token_size": 4, "kernel_size": 1, "periodic": False}),
        (17, False, {"depth": 3, "mixer": "real", **SMALL}),
        (12, False, {"depth": 4, "mixer": "real", "periodic": False, **SMALL}),
        # 17 proposals: two blocks, the second one short
        (21, False, {"depth": 2, **SMALL}),
        (17, False, {"depth": 2, "mixer": "real", "periodic": False, **SMALL}),
    ],
)
def test_the_same_uniforms_give_the_same_chain(n_sites, projected, options):
    model = peaked_network(n_sites, seed=1, **options)
    model = SpinFlip(model) if projected else model
    assert has_environments(model)
    spins = random_spins(jax.random.key(0), (3, n_sites))
    visited = len(range(n_sites)[visited_sites(model)])
    uniforms = log_uniforms(jax.random.key(1), 3 * visited).reshape(3, visited)
    swept, accepted, log_psi = sweep_by_environments(model, spins, uniforms)
    expected, expected_moves, expected_log_psi = sweep_by_forward_passes(model, spins, uniforms)
    assert bool(jnp.all(swept == expected)) and bool(jnp.all(accepted == expected_moves))
    assert 0.05 < float(jnp.mean(accepted)) < 0.98
    assert float(jnp.max(jnp.abs(jnp.real(log_psi - expected_log_psi)))) < 1e-10


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
def test_samples_follow_the_enumerated_distribution(dtype):
    """Chi square with the effective sample size of log psi; false alarm 1e-6."""
    n, n_chains, n_samples = 10, 256, 120
    model = peaked_network(n, 6.0, seed=2, depth=2, mixer="real", modes=1, dtype=dtype)
    log_psi = np.asarray(jax.jit(jax.vmap(lambda s: model(s)))(enumerate_spins(n)), float)
    p = np.exp(2 * (log_psi - log_psi.max()))
    p /= p.sum()
    assert p.max() > 20 / 2**n  # peaked
    sampler = Sweep(Ising(n), n_chains, chains_at_once=128)

    @eqx.filter_jit
    def run(key, model, state):
        def step(state, key):
            state, info = sampler.sample(key, model, state)
            return state, (spins_to_index(state.spins), info.acceptance)

        return jax.lax.scan(step, state, jax.random.split(key, n_samples))[1]

    state = sampler.init(jax.random.key(0), model)
    visits, acceptance = run(jax.random.key(1), model, state)
    visits = np.asarray(visits)[20:]
    assert 0.05 < float(jnp.mean(acceptance)) < 0.98
    estimate = eqx.filter_jit(statistics.estimate_mean)(jnp.asarray(log_psi[visits]).T)
    size = min(visits.size, float(estimate.effective_samples))
    counts = np.bincount(visits.ravel(), minlength=2**n) / visits.size
    common = p * size >= 5
    observed = np.append(counts[common], counts[~common].sum()) * size
    expected = np.append(p[common], p[~common].sum()) * size
    statistic = np.sum((observed - expected) ** 2 / expected)
    assert chi2.sf(statistic, len(expected) - 1) > 1e-6
    # and the test has the power to refuse a flatter distribution
    flatter = p**0.8 / np.sum(p**0.8)
    wrong = np.append(flatter[common], flatter[~common].sum()) * size
    assert chi2.sf(np.sum((observed - wrong) ** 2 / wrong), len(wrong) - 1) < 1e-6


@pytest.mark.parametrize("periodic", [True, False])
def test_the_distribution_is_stationary(periodic):
    """|psi|^2 times the transition matrix of one sweep, enumerated on six sites.

    Log-uniforms of minus infinity accept every move, so that the sweeps from all states give the
    ratios of all moves at every step, each behind a different history of accepted flips.
    """
    n = 6
    model = random_network(n, seed=3, depth=2, periodic=periodic, mixer="real", modes=1)
    states = enumerate_spins(n)
    log_psi = np.asarray(jax.jit(jax.vmap(lambda s: model(s)))(states))
    p = np.exp(2 * (log_psi - log_psi.max()))
    p /= p.sum()
    visited = range(n)[visited_sites(model)]
    always = jnp.full((2**n, len(visited)), -jnp.inf)
    _, accepted, values = sweep_by_environments(model, states, always)
    assert bool(jnp.all(accepted))
    distribution, before = p, states
    for step, site in enumerate(visited):
        before_index = np.asarray(spins_to_index(before))
        after = jax.vmap(flip, in_axes=(0, None))(before, jnp.array([site]))
        after_index = np.asarray(spins_to_index(after))
        ratio = np.asarray(values[step]) - log_psi[before_index]
        accept = np.minimum(1, np.exp(2 * ratio))
        transition = np.zeros((2**n, 2**n))
        transition[before_index, after_index] += accept
        transition[before_index, before_index] += 1 - accept
        np.testing.assert_allclose(transition.sum(axis=1), 1, atol=1e-14)
        distribution = distribution @ transition
        before = after
        np.testing.assert_allclose(distribution, p, atol=1e-13)


def test_a_sweep_crosses_the_origin_of_the_ring():
    """The random rotation leaves no site behind: a flat state decorrelates everywhere."""
    n = 8
    model = random_network(n, depth=1, mixer="real", modes=1)
    model = eqx.tree_at(lambda m: m.head.weight, model, jnp.zeros_like(model.head.weight))
    sampler = Sweep(Ising(n, longitudinal=0.5), 64, chains_at_once=64)
    state = sampler.init(jax.random.key(0), model)
    moved, info = eqx.filter_jit(sampler.sample)(jax.random.key(1), model, state)
    flips = np.mean(np.asarray(moved.spins != state.spins), axis=0)
    assert np.all(np.asarray(info.acceptance) == 1)
    np.testing.assert_allclose(flips, 1 - 2 / n, atol=0.25)


@pytest.mark.parametrize("n_sites", [1, 4, 5])
def test_rings_smaller_than_the_window_have_no_environments(n_sites):
    assert has_environments(SpinFlip(random_network(n_sites))) == (n_sites >= 5)


def test_other_networks_are_swept_by_forward_passes():
    class Field(Network):
        n_sites: int = 3

        def __call__(self, spins):
            return 0.3 * jnp.sum(spins.astype(float))

    sampler = Sweep(Ising(3, longitudinal=1.0), 400)
    state = sampler.init(jax.random.key(0), Field())
    state, _ = eqx.filter_jit(sampler.sample)(jax.random.key(1), Field(), state)
    up = float(jnp.mean(state.spins > 0))
    assert abs(up - 1 / (1 + np.exp(-1.2))) < 0.2


@pytest.mark.parametrize("periodic", [True, False])
def test_operations_of_a_proposal_do_not_grow(periodic):
    """XLA counts the body of a loop once: everything but the local features and log psi at the
    start, which are O(n log n) per sweep, is the same for every chain length."""

    def operations(n_sites):
        make = lambda: DysonNet(  # noqa: E731
            n_sites, mixer="real", features=2, periodic=periodic, key=jax.random.key(0)
        )
        arrays, static = eqx.partition(
            eqx.filter_eval_shape(make), lambda x: isinstance(x, jax.ShapeDtypeStruct)
        )
        visited = len(range(n_sites)[visited_sites(eqx.combine(arrays, static))])
        start = lambda a, s: jax.vmap(eqx.combine(a, static))(s)  # noqa: E731
        sweep = lambda a, s, u: environment_sweep(eqx.combine(a, static), s, u)  # noqa: E731
        spins = jax.ShapeDtypeStruct((2, n_sites), jnp.int8)
        uniforms = jax.ShapeDtypeStruct((2, visited), jnp.float64)
        count = lambda f, *a: jax.jit(f).lower(*a).compile().cost_analysis()["flops"]  # noqa: E731
        return count(sweep, arrays, spins, uniforms), count(start, arrays, spins)

    (small, small_start), (large, large_start) = operations(64), operations(1024)
    assert small > 10_000
    # beyond the start, per site: the local features and the rotation of the spins
    assert (large - small) < 1.5 * (large_start - small_start)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="n_chains >= 1, got 0"):
        Sweep(Ising(4), 0)
    with pytest.raises(ValueError, match="chains_at_once >= 1, got 0"):
        Sweep(Ising(4), 1, chains_at_once=0)
    with pytest.raises(ValueError, match="the Hamiltonian has 5 sites"):
        Sweep(Ising(5), 2).init(jax.random.key(0), random_network(4))
