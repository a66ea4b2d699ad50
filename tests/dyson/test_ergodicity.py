"""Every sampler reaches every configuration of every state that vanishes nowhere, and as often as
the state says: flat, nearly flat and peaked ones, from one configuration.

On a flat state Metropolis' rule would accept every move: a sweep then flips all spins, back and
forth, and single flips in fixed numbers keep a parity.  Fresh configurations would hide that on
chains as short as these: here local moves are alone, and islands tell of fresh configurations.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from compiling import quick_jit
from dyson import J1J2, Ising, Metropolis, SpinFlip, Sweep, Typewriter
from dyson.networks import Network
from dyson.samplers import Flips, base
from dyson.samplers.base import FLATNESS, acceptance
from dyson.spins import enumerate_spins, spins_in_sector, spins_to_index
from lanes import later
from random_networks import random_network

N, CHAINS, SAMPLES = 6, 1000, 24

SAMPLERS = {
    "metropolis": lambda periodic: Metropolis(Ising(N, periodic=periodic), CHAINS),
    "single flips": lambda periodic: Metropolis(
        Ising(N, longitudinal=0.1, periodic=periodic), CHAINS, moves=Flips(N)
    ),
    "exchanges": lambda periodic: Metropolis(J1J2(N, periodic=periodic), CHAINS, magnetisation=2),
    "sweep": lambda periodic: Sweep(
        Ising(N, longitudinal=0.1, periodic=periodic),
        CHAINS,
        chains_at_once=CHAINS,
        by_environments=True,
    ),
    "sweep by forward passes": lambda periodic: Sweep(
        Ising(N, longitudinal=0.1, periodic=periodic), CHAINS, by_environments=False
    ),
    "swept exchanges": lambda periodic: Sweep(
        J1J2(N, periodic=periodic),
        CHAINS,
        chains_at_once=CHAINS,
        magnetisation=0,
        by_environments=True,
    ),
    "typewriter": lambda periodic: Typewriter(
        Ising(N, longitudinal=0.1, periodic=periodic), CHAINS, interval=1, chains_at_once=CHAINS
    ),
}
# what log psi spreads over, at most and at least half of it
SPREADS = {"flat": 0.0, "nearly flat": 0.06, "peaked": 2.5}


@pytest.fixture
def local_moves_alone(monkeypatch):
    monkeypatch.setattr(base, "fresh_proposal", lambda key, model, spins, magnetisation: spins)


RINGS = ("metropolis", "exchanges", "sweep by forward passes", "typewriter")


@pytest.mark.parametrize(
    "kind, periodic",
    [(kind, kind in RINGS) for kind in SAMPLERS]
    + [later(kind, kind not in RINGS) for kind in SAMPLERS],
)
def test_all_configurations_are_visited_as_often_as_they_should(kind, periodic, local_moves_alone):
    sampler = SAMPLERS[kind](periodic)
    options = {"depth": 1, "kernel_size": 1, "mixer": "real", "modes": 1, "periodic": periodic}
    network = SpinFlip(random_network(N, seed=4, **options))
    basis = np.asarray(enumerate_spins(N))
    sector = sampler.magnetisation
    inside = np.ones(2**N, bool) if sector is None else basis.sum(axis=1) == sector

    @quick_jit
    def run(model, key, start):
        def step(state, key):
            state, _ = sampler.sample(key, model, state)
            return state, spins_to_index(state.spins)

        return jax.lax.scan(step, start, jax.random.split(key, SAMPLES))[1]

    evaluate = quick_jit(jax.vmap(lambda model, s: model(s), in_axes=(None, 0)))

    def with_spread(most):
        """The network with weaker readouts, and log psi of all configurations."""
        weight = lambda m: m.network.head.weight
        for factor in [0.0] if most == 0 else 100.0 * 0.8 ** np.arange(70):
            model = eqx.tree_at(weight, network, factor * weight(network))
            log_psi = np.asarray(evaluate(model, jnp.asarray(basis)))
            if np.ptp(log_psi[inside]) <= most:
                return model, log_psi

    start = sampler.init(jax.random.key(0), network)
    one = jnp.ones(N, jnp.int8) if sector is None else spins_in_sector(jax.random.key(1), N, sector)
    start = eqx.tree_at(lambda s: s.spins, start, jnp.tile(one, (CHAINS, 1)))
    for shape, most in SPREADS.items():
        model, log_psi = with_spread(most)
        assert np.ptp(log_psi[inside]) >= most / 2
        p = np.where(inside, np.exp(2 * (log_psi - log_psi[inside].max())), 0)
        p /= p.sum()
        visits = np.asarray(run(model, jax.random.key(2), start))
        assert set(np.unique(visits)) == set(np.flatnonzero(inside))
        # chains are independent of each other: an exact test of the last sample (false alarm 1e-6)
        counts = np.bincount(visits[-1], minlength=2**N)
        common = p * CHAINS >= 5
        seen, expected = (
            np.append(x[common], x[inside & ~common].sum()) for x in (counts, p * CHAINS)
        )
        if expected[-1] < 5:
            seen, expected = seen[:-1], expected[:-1] * seen[:-1].sum() / expected[:-1].sum()
        assert chisquare(seen, expected).pvalue > 1e-6, shape
        if shape != "peaked":  # and the samples before and after this one are others
            assert np.mean(visits[-1] == visits[-2]) < 0.4
            assert np.mean(visits[-1] == visits[-3]) < 0.4


ISLANDS = {
    None: [[1, 1, 1, 1, -1, 1], [-1, -1, 1, -1, -1, -1]],
    0: [[1, -1] * 3, [1] * 3 + [-1] * 3],
}


class Islands(Network):
    two: jax.Array
    n_sites: int = eqx.field(static=True, default=N)

    def __call__(self, spins):
        first, second = jnp.all(spins == self.two, axis=1)
        return jnp.where(second, jnp.log(3.0) / 2, jnp.where(first, 0.0, -jnp.inf))


@pytest.mark.parametrize(
    "make, sector",
    [
        (lambda: Metropolis(J1J2(N), CHAINS), 0),
        (lambda: Sweep(Ising(N, longitudinal=0.1), CHAINS, by_environments=False), None),
        later(lambda: Metropolis(Ising(N, longitudinal=0.1), CHAINS), None),
        later(lambda: Sweep(J1J2(N), CHAINS, by_environments=False), 0),
    ],
)
def test_islands_are_found(make, sector):
    """Two configurations with nothing between them that local moves could cross, one of three
    times the probability."""
    sampler, state = make(), Islands(jnp.asarray(ISLANDS[sector], jnp.int8))
    first, second = state.two

    @quick_jit
    def run(key, start):
        step = lambda chains, key: (sampler.sample(key, state, chains)[0], None)
        return jax.lax.scan(step, start, jax.random.split(key, 400))[0].spins

    start = sampler.init(jax.random.key(0), state)
    spins = run(
        jax.random.key(1), eqx.tree_at(lambda s: s.spins, start, jnp.tile(first, (CHAINS, 1)))
    )
    there = int(jnp.sum(jnp.all(spins == second, axis=1)))
    assert int(jnp.sum(jnp.all(spins == first, axis=1))) == CHAINS - there
    # six standard deviations of 1000 independent chains
    assert abs(there - 0.75 * CHAINS) < 6 * (0.75 * 0.25 * CHAINS) ** 0.5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_acceptances_obey_detailed_balance(dtype):
    x = jnp.asarray([0.0, 1e-6, 0.01, FLATNESS, 0.5, 2.0, 20.0], dtype)
    up, down = (np.asarray(acceptance(s * x), float) for s in (1, -1))
    np.testing.assert_allclose(down, up * np.exp(-np.asarray(x, float)), rtol=2e-6)
    assert acceptance(x).dtype == dtype and up[0] == 0.5 and up[-1] > 1 - 1e-7
    assert np.all(np.diff(up) > 0)
    assert float(acceptance(jnp.asarray(-jnp.inf, dtype))) == 0
    assert np.isnan(float(acceptance(jnp.asarray(jnp.nan, dtype))))


@pytest.mark.parametrize(
    "make, n_sites",
    [
        (Metropolis, 2),
        (Sweep, 2),
        (Typewriter, 2),
        (Sweep, 1),
        later(Typewriter, 3),
        later(Metropolis, 1),
        later(Typewriter, 1),
        later(Metropolis, 3),
        later(Sweep, 3),
    ],
)
def test_the_shortest_chains_are_not_trapped_either(make, n_sites, local_moves_alone):
    """Moves of two sites are single flips, in even numbers."""
    sampler = make(Ising(n_sites, longitudinal=0.1), 64)
    model = random_network(n_sites, depth=1, mixer="real", modes=1, kernel_size=1)
    flat = eqx.tree_at(lambda m: m.head.weight, model, jnp.zeros_like(model.head.weight))
    start = sampler.init(jax.random.key(0), flat)
    start = eqx.tree_at(lambda s: s.spins, start, jnp.ones_like(start.spins))
    sample = quick_jit(sampler.sample)
    state, seen = start, []
    for step in range(12):
        state, _ = sample(jax.random.key(step), flat, state)
        seen.append(np.asarray(spins_to_index(state.spins)))
    counts = [np.bincount(x, minlength=2**n_sites) for x in seen[-2:]]
    for count in counts:  # at every time, not in turns
        assert np.all(count > 0)
