"""Metropolis chains against the enumerated distribution."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from compiling import quick_jit
from dyson import J1J2, Abacus, Ising, Metropolis, Recompute
from dyson.samplers import Exchanges, Flips, Mixture, Runs
from dyson.spins import enumerate_spins, spins_in_sector, spins_to_index
from lanes import later
from random_networks import random_network


class Local(Recompute):
    """Full forward passes that pretend to know local moves alone."""

    takes_any_flips: ClassVar[bool] = False


def probabilities(model, n_sites):
    log_psi = quick_jit(jax.vmap(lambda s: model(s)))(enumerate_spins(n_sites))
    weight = np.exp(2 * (np.asarray(log_psi).real - np.asarray(log_psi).real.max()))
    return weight / weight.sum()


# Independent chains, one sample of each.
CHAINS = pytest.mark.parametrize("chains", [3000, later(8000)])


@CHAINS
@pytest.mark.parametrize(
    "n, updates, complex_head, periodic",
    [
        (5, Recompute(), False, True),
        (5, Local(), True, True),
        later(7, Recompute(), False, False),
    ],
)
def test_samples_follow_the_enumerated_distribution(n, updates, complex_head, periodic, chains):
    """An exact chi-square test (false alarm 1e-6)."""
    model = random_network(n, seed=2, complex_head=complex_head, depth=1, periodic=periodic)
    p = probabilities(model, n)
    assert p.max() > 4 / 2**n  # peaked
    sampler = Metropolis(Ising(n, periodic=periodic), chains, sweeps=60, updates=updates)
    state = sampler.init(jax.random.key(0), model)
    state, info = quick_jit(sampler.sample)(jax.random.key(1), model, state)
    counts = np.bincount(np.asarray(spins_to_index(state.spins)), minlength=2**n)
    common = p * chains >= 5
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(p[common], p[~common].sum()) * chains
    if expected[-1] < 5:  # too few to count on their own
        observed[-2] += observed[-1]
        expected[-2] += expected[-1]
        observed, expected = observed[:-1], expected[:-1]
    assert chisquare(observed, expected).pvalue > 1e-6
    assert info.acceptance.shape == (chains,) and 0 < float(jnp.mean(info.acceptance)) < 1


def test_a_wrong_distribution_is_noticed():
    """The same statistic refuses the distribution of another network."""
    n = 5
    sampled, other = (random_network(n, seed=s, depth=1) for s in (2, 3))
    sampler = Metropolis(Ising(n), 8000, sweeps=30)
    state = sampler.init(jax.random.key(0), sampled)
    state, _ = quick_jit(sampler.sample)(jax.random.key(1), sampled, state)
    counts = np.bincount(np.asarray(spins_to_index(state.spins)), minlength=2**n)
    assert chisquare(counts, probabilities(other, n) * 8000).pvalue < 1e-6


def test_global_flips_cross_between_the_magnetisations():
    """Deep in the ordered phase single flips stay on one side for ever."""
    n = 10

    def ferromagnet(spins):
        return 4.0 * jnp.sum(spins * jnp.roll(spins, 1)).astype(float)

    sampler = Metropolis(Ising(n), 64)
    state = sampler.init(jax.random.key(0), ferromagnet)
    sample = quick_jit(sampler.sample)
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
    moves = Metropolis(Ising(n, periodic=periodic), 1).moves
    assert isinstance(moves, Runs) and moves.most_flips == 4
    starts, lengths = moves.draw(jax.random.key(0), 40000)
    assert set(np.unique(lengths)) == {1, 2, 3, 4}
    assert chisquare(np.bincount(starts, minlength=n)).pvalue > 1e-6
    bounds = np.log(np.arange(1, 6)) / np.log(5)
    expected = (0.5 * np.diff(bounds) + 0.5 * np.eye(4)[0]) * 40000
    assert chisquare(np.bincount(lengths)[1:], expected).pvalue > 1e-6
    for start, length in ((0, 3), (7, 4), (8, 1)):
        move = jnp.int32(start), jnp.int32(length)
        sites = np.asarray(moves.sites(move, jnp.ones(n, jnp.int8)))
        run = start + np.arange(length)
        run = run % n if periodic else run[run < n]
        assert sorted(sites[sites >= 0]) == sorted(run)


@pytest.mark.parametrize("n, distance, periodic", [(7, 2, True), (7, 2, False), (2, 2, False)])
def test_exchanges_pick_every_pair_and_keep_the_magnetisation(n, distance, periodic):
    moves = Exchanges(n, periodic, distance)
    spins = spins_in_sector(jax.random.key(3), n, n % 2)
    draws = jax.jit(jax.vmap(lambda m: moves.sites(m, spins)))(moves.draw(jax.random.key(0), 4000))
    expected = {
        (i, (i + distance) % n)
        for i in range(n)
        if (periodic or i + distance < n) and spins[i] != spins[(i + distance) % n]
    }
    found = {tuple(pair) for pair in draws.tolist()} - {(-1, -1)}
    assert found == expected
    starts = np.bincount(moves.draw(jax.random.key(1), 4000))
    assert len(starts) == (n if periodic else max(1, n - distance))
    assert len(starts) == 1 or chisquare(starts).pvalue > 1e-6


def test_a_mixture_weights_its_parts():
    n = 5
    moves = Mixture(Exchanges(n, True), Runs(n, True), Flips(n), weights=(1.0, 2.0, 5.0))
    assert (moves.most_flips, moves.reach, moves.conserves_magnetisation) == (2, 1, False)
    assert Mixture(Exchanges(n, True), Exchanges(n, True, 2)).conserves_magnetisation
    drawn = moves.draw(jax.random.key(0), 8000)
    assert chisquare(np.bincount(drawn[0]), np.array([1000.0, 2000.0, 5000.0])).pvalue > 1e-6
    spins = jnp.array([1, -1, 1, 1, 1], jnp.int8)
    sites = jax.jit(jax.vmap(lambda m: moves.sites(m, spins)))(drawn)
    flips = np.sum(np.asarray(sites) >= 0, axis=1)
    kinds = np.asarray(drawn[0])
    assert set(flips[kinds == 0]) == {0, 2} and set(flips[kinds == 2]) == {1}
    assert np.all(np.asarray(sites)[kinds == 2, 0] == np.asarray(drawn[1][2])[kinds == 2])


@CHAINS
@pytest.mark.parametrize(
    "n, magnetisation, updates, periodic",
    [later(10, 0, Recompute(), True), (5, -1, Local(), False)],
)
def test_exchanges_follow_the_distribution_inside_a_sector(
    n, magnetisation, updates, periodic, chains
):
    """An exact chi-square test (false alarm 1e-6)."""
    model = random_network(n, depth=1, modes=1, mixer="real", periodic=periodic)
    # scattering is strong, else these networks know little but the magnetisation
    sharper = lambda m: (m.blocks[0].mix_out, m.head.weight)
    model = eqx.tree_at(sharper, model, replace_fn=lambda matrix: 3 * matrix)
    spins = np.asarray(enumerate_spins(n))
    inside = spins.sum(axis=1) == magnetisation
    p = np.where(inside, probabilities(model, n), 0)
    p /= p.sum()
    assert p.max() > 3 / inside.sum()  # peaked
    hamiltonian = J1J2(n, j2=0.4, periodic=periodic)
    sampler = Metropolis(
        hamiltonian, chains, sweeps=30, updates=updates, magnetisation=magnetisation
    )
    assert sampler.moves.conserves_magnetisation
    assert sampler.global_flips == (magnetisation == 0)
    state = sampler.init(jax.random.key(0), model)
    assert np.all(np.asarray(state.spins).sum(axis=1) == magnetisation)
    state, info = quick_jit(sampler.sample)(jax.random.key(1), model, state)
    counts = np.bincount(np.asarray(spins_to_index(state.spins)), minlength=2**n)
    assert counts[~inside].sum() == 0
    common = p * chains >= 5
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(p[common], p[~common].sum()) * chains
    assert expected[-1] >= 5 or expected[-1] < 1e-9
    keep = expected > 1e-9
    assert chisquare(observed[keep], expected[keep]).pvalue > 1e-6
    assert 0 < float(jnp.mean(info.acceptance)) < 1


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
        state, _ = quick_jit(sampler.sample)(jax.random.key(1), walls, state)
        lengths.append(np.std(np.asarray(state.spins).sum(1)))
    assert lengths[0] > 2 * lengths[1]


def test_misuse_is_named():
    with pytest.raises(ValueError, match="n_chains >= 1, got 0"):
        Metropolis(Ising(4), 0)
    with pytest.raises(ValueError, match="sweeps >= 1, got 0"):
        Metropolis(Ising(4), 2, sweeps=0)
    with pytest.raises(ValueError, match="the Hamiltonian has 4 sites, the moves 5"):
        Metropolis(Ising(4), 2, moves=Flips(5))
    with pytest.raises(ValueError, match="Abacus rebuilds its reference at every proposal"):
        Metropolis(J1J2(6), 2, updates=Abacus(span=3))
    with pytest.raises(ValueError, match="magnetisation=0 needs moves that conserve it"):
        Metropolis(Ising(4), 2, magnetisation=0)
    with pytest.raises(ValueError, match="no configuration of 5 spins has magnetisation 2"):
        Metropolis(J1J2(5), 2, magnetisation=2)
    with pytest.raises(ValueError, match="expected distance >= 1, got 0"):
        Exchanges(4, True, 0)
    with pytest.raises(ValueError, match=r"same number of sites, got \[4, 5\]"):
        Mixture(Flips(4), Flips(5))
    with pytest.raises(ValueError, match="expected 1 weights > 0"):
        Mixture(Flips(4), weights=(0.0,))
    with pytest.raises(ValueError, match="Hamiltonian has 4 sites, the model 6"):
        Metropolis(Ising(4), 2).init(jax.random.key(0), random_network(6))
