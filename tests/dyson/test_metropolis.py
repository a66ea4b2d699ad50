"""Metropolis chains against the enumerated distribution."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from dyson import Abacus, Ising, Metropolis, Recompute, SpinFlip
from dyson.spins import enumerate_spins, spins_to_index
from random_networks import random_network


class Local(Recompute):
    """Full forward passes that pretend to know local moves alone."""

    takes_any_flips: ClassVar[bool] = False


def probabilities(model, n_sites):
    log_psi = eqx.filter_jit(jax.vmap(lambda s: model(s)))(enumerate_spins(n_sites))
    weight = np.exp(2 * (np.asarray(log_psi).real - np.asarray(log_psi).real.max()))
    return weight / weight.sum()


@pytest.mark.parametrize(
    "n, updates, complex_head, periodic",
    [
        (5, Recompute(), False, True),
        (5, Abacus(), True, True),
        (7, Recompute(), False, False),
    ],
)
def test_samples_follow_the_enumerated_distribution(n, updates, complex_head, periodic):
    """8000 independent chains, one sample each: an exact chi-square test (false alarm 1e-6)."""
    model = random_network(n, seed=2, complex_head=complex_head, depth=1, periodic=periodic)
    p = probabilities(model, n)
    assert p.max() > 4 / 2**n  # peaked
    sampler = Metropolis(Ising(n, periodic=periodic), 8000, sweeps=60, updates=updates)
    state = sampler.init(jax.random.key(0), model)
    state, info = eqx.filter_jit(sampler.sample)(jax.random.key(1), model, state)
    counts = np.bincount(np.asarray(spins_to_index(state.spins)), minlength=2**n)
    common = p * 8000 >= 5
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(p[common], p[~common].sum()) * 8000
    if expected[-1] < 5:  # too few to count on their own
        observed[-2] += observed[-1]
        expected[-2] += expected[-1]
        observed, expected = observed[:-1], expected[:-1]
    assert chisquare(observed, expected).pvalue > 1e-6
    assert info.acceptance.shape == (8000,) and 0 < float(jnp.mean(info.acceptance)) < 1


def test_a_wrong_distribution_is_noticed():
    """The same statistic refuses the distribution of another network."""
    n = 5
    sampled, other = (random_network(n, seed=s, depth=1) for s in (2, 3))
    sampler = Metropolis(Ising(n), 8000, sweeps=30)
    state = sampler.init(jax.random.key(0), sampled)
    state, _ = eqx.filter_jit(sampler.sample)(jax.random.key(1), sampled, state)
    counts = np.bincount(np.asarray(spins_to_index(state.spins)), minlength=2**n)
    assert chisquare(counts, probabilities(other, n) * 8000).pvalue < 1e-6


def test_global_flips_cross_between_the_magnetisations():
    """Deep in the ordered phase single flips stay on one side for ever."""
    n = 10

    def ferromagnet(spins):
        return 4.0 * jnp.sum(spins * jnp.roll(spins, 1)).astype(float)

    sampler = Metropolis(Ising(n), 64)
    state = sampler.init(jax.random.key(0), ferromagnet)
    sample = eqx.filter_jit(sampler.sample)
    crossed = np.zeros(64, bool)
    for step in range(40):
        before = np.asarray(state.spins).sum(1)
        state, _ = sample(jax.random.key(step), ferromagnet, state)
        if step > 20:
            crossed |= before * np.asarray(state.spins).sum(1) < 0
    assert np.abs(np.asarray(state.spins).sum(1)).min() > n / 2
    assert crossed.all()
    assert not Metropolis(Ising(n, longitudinal=0.1), 4).global_flips


@pytest.mark.parametrize("periodic", [True, False])
def test_runs_are_drawn_evenly_and_undo_themselves(periodic):
    """Every run is a set of neighbours; all starts are as likely, and half of the runs are single
    sites or more (the log-uniform lengths add some): counted over many draws."""
    n = 9
    sampler = Metropolis(Ising(n, periodic=periodic), 1)
    starts, lengths = sampler._runs(jax.random.key(0), 40000)
    assert sampler.longest_run == 4 and set(np.unique(lengths)) == {1, 2, 3, 4}
    assert chisquare(np.bincount(starts, minlength=n)).pvalue > 1e-6
    bounds = np.log(np.arange(1, 6)) / np.log(5)
    expected = (0.5 * np.diff(bounds) + 0.5 * np.eye(4)[0]) * 40000
    assert chisquare(np.bincount(lengths)[1:], expected).pvalue > 1e-6
    for start, length in ((0, 3), (7, 4), (8, 1)):
        sites = np.asarray(sampler._sites(jnp.int32(start), jnp.int32(length)))
        run = start + np.arange(length)
        run = run % n if periodic else run[run < n]
        assert sorted(sites[sites >= 0]) == sorted(run)


def test_domain_walls_hop():
    """Two walls in a strong ferromagnet: single flips would have to walk them around the ring."""
    n = 40

    def walls(spins):
        # the energy counts walls alone, and they may not be made or lost
        count = jnp.sum(spins != jnp.roll(spins, 1))
        return jnp.where(count == 2, 0.0, -1e3)

    start = jnp.ones((200, n), jnp.int8).at[:, :20].set(-1)
    runs, flips = Metropolis(Ising(n), 200, sweeps=4), Metropolis(Ising(n), 200, updates=Local())
    lengths = []
    for sampler in (runs, flips):
        state = sampler.init(jax.random.key(0), walls)
        state = eqx.tree_at(lambda s: s.spins, state, start)
        state, _ = eqx.filter_jit(sampler.sample)(jax.random.key(1), walls, state)
        lengths.append(np.std(np.asarray(state.spins).sum(1)))
    assert lengths[0] > 2 * lengths[1]


def test_chains_do_not_know_of_each_other():
    model = SpinFlip(random_network(6))
    many, few = Metropolis(Ising(6), 12), Metropolis(Ising(6), 3)
    state = many.init(jax.random.key(0), model)
    keys = jax.random.split(jax.random.key(1), 12)
    together, _ = eqx.filter_jit(many.sample_chains)(keys, model, state)
    three = jax.tree.map(lambda x: x[:3], state)
    alone, _ = eqx.filter_jit(few.sample_chains)(keys[:3], model, three)
    assert bool(jnp.all(together.spins[:3] == alone.spins))
    again, _ = eqx.filter_jit(many.sample)(jax.random.key(1), model, state)
    assert bool(jnp.all(again.spins == together.spins))


@pytest.mark.parametrize("n_sites", [1, 2, 3])
def test_smallest_chains(n_sites):
    model = random_network(n_sites)
    sampler = Metropolis(Ising(n_sites), 4)
    state = sampler.init(jax.random.key(0), model)
    state, info = sampler.sample(jax.random.key(1), model, state)
    assert state.spins.shape == (4, n_sites) and set(np.unique(state.spins)) <= {-1, 1}
    assert bool(jnp.all(jnp.isfinite(info.acceptance)))


def test_misuse_is_named():
    with pytest.raises(ValueError, match="n_chains >= 1, got 0"):
        Metropolis(Ising(4), 0)
    with pytest.raises(ValueError, match="sweeps >= 1, got 0"):
        Metropolis(Ising(4), 2, sweeps=0)
    with pytest.raises(ValueError, match="Hamiltonian has 4 sites, the model 6"):
        Metropolis(Ising(4), 2).init(jax.random.key(0), random_network(6))
