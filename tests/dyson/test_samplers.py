"""The contract that every sampler keeps, whatever its algorithm."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import J1J2, DysonNet, Ising, Metropolis, SpinFlip, Sweep, Typewriter, checkpoint
from lanes import later

N_CHAINS = 3
SMALL = {"features": 2, "depth": 1, "modes": 1, "hidden": 1, "mixer": "real"}

SAMPLERS = {
    "flips": lambda n: Metropolis(Ising(n), N_CHAINS),
    "exchanges": lambda n: Metropolis(J1J2(n, j2=0.5), N_CHAINS),
    "sweep": lambda n: Sweep(Ising(n), N_CHAINS, chains_at_once=2, by_environments=n >= 6 or None),
    "swept exchanges": lambda n: Sweep(J1J2(n, j2=0.5), N_CHAINS, chains_at_once=2),
    "typewriter": lambda n: Typewriter(Ising(n), N_CHAINS, interval=2, chains_at_once=2),
}


def network(n_sites, seed=0, dtype=jnp.float64):
    """Projected, as in training; log psi varies by about one."""
    model = DysonNet(n_sites, dtype=dtype, key=jax.random.key(seed), **SMALL)
    return SpinFlip(eqx.tree_at(lambda m: m.head.weight, model, 10 * model.head.weight))


class Program:
    """A compiled ``sample`` that counts how often it was traced."""

    def __init__(self, sampler):
        self.traces = 0

        def sample(sampler, key, model, state):
            self.traces += 1
            return sampler.sample(key, model, state)

        self._sample = quick_jit(sample)
        self._sampler = sampler

    def __call__(self, key, model, state):
        return self._sample(self._sampler, key, model, state)


def check(sampler, n_sites, state, info):
    """Shapes, types and ranges of what one call returns."""
    assert state.spins.shape == (N_CHAINS, n_sites) and state.spins.dtype == jnp.int8
    assert bool(jnp.all(jnp.abs(state.spins) == 1))
    for array in jax.tree.leaves((state, info)):
        # vmc spreads every array of the state over the devices along its first axis
        assert isinstance(array, jax.Array) and array.shape[0] == N_CHAINS
        assert bool(jnp.all(jnp.isfinite(array)))
    assert info.acceptance.shape == (N_CHAINS,)
    assert bool(jnp.all((info.acceptance >= 0) & (info.acceptance <= 1)))
    if getattr(sampler, "magnetisation", None) is not None:
        assert bool(jnp.all(jnp.sum(state.spins, axis=1) == sampler.magnetisation))


# forward passes do not know the size; windows and intervals do: up to ten sites later
SIZES = {
    "flips": [],
    "exchanges": [1],
    "sweep": [1, 9],
    "swept exchanges": [2],
    "typewriter": [1],
}


@pytest.mark.parametrize(
    "kind, n_sites",
    [(kind, n) if n in SIZES[kind] else later(kind, n) for kind in SAMPLERS for n in range(1, 11)],
)
def test_any_number_of_sites(kind, n_sites):
    sampler = SAMPLERS[kind](n_sites)
    models = [network(n_sites, seed) for seed in (0, 1)]
    start = sampler.init(jax.random.key(0), models[0])
    sample = Program(sampler)
    first = sample(jax.random.key(1), models[0], start)
    check(sampler, n_sites, *first)
    # new parameters and new states run the same program
    check(sampler, n_sites, *sample(jax.random.key(2), models[1], first[0]))
    again = sample(jax.random.key(1), models[0], start)
    assert sample.traces == 1
    assert bool(eqx.tree_equal(first, again))
    other = sampler.init(jax.random.key(5), models[0])
    if math.prod(start.spins.shape) >= 15:
        assert not bool(jnp.all(other.spins == start.spins))
        assert not bool(jnp.all(first[0].spins == start.spins))


@pytest.mark.parametrize(
    "kind", ["sweep", "swept exchanges", later("exchanges"), later("typewriter")]
)
def test_single_precision_throughout(kind):
    """x64 off: no double precision is asked for anywhere (that would be a warning)."""
    n_sites = 6
    with jax.enable_x64(False):
        sampler = SAMPLERS[kind](n_sites)
        model = network(n_sites, dtype=jnp.float32)
        state = sampler.init(jax.random.key(0), model)
        state, info = Program(sampler)(jax.random.key(1), model, state)
        check(sampler, n_sites, state, info)
        assert {x.dtype.itemsize for x in jax.tree.leaves((state, info))} <= {1, 4}


@pytest.mark.parametrize(
    "kind", [later("flips"), "sweep", later("swept exchanges"), later("typewriter")]
)
def test_chains_do_not_know_of_each_other(kind):
    """Some of the chains alone do the same: what spreading over devices relies on."""
    n_sites = 6
    sampler, model = SAMPLERS[kind](n_sites), network(n_sites)
    state = sampler.init(jax.random.key(0), model)
    keys = jax.random.split(jax.random.key(1), N_CHAINS)
    sample = quick_jit(sampler.sample_chains)
    together = sample(keys, model, state)
    some = np.array([2, 0])
    alone = sample(keys[some], model, jax.tree.map(lambda x: x[some], state))
    for one, other in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
        np.testing.assert_allclose(one[some], other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_states_are_saved_and_restored(kind, tmp_path):
    sampler, model = SAMPLERS[kind](6), network(6)
    state = sampler.init(jax.random.key(0), model)
    checkpoint.save(tmp_path / "state.npz", state)
    template = eqx.filter_eval_shape(sampler.init, jax.random.key(1), model)
    assert bool(eqx.tree_equal(checkpoint.load(tmp_path / "state.npz", template), state))
