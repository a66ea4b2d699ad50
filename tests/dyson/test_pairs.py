"""Pairs of flips at any distance: exact, and at a cost that does not grow with the chain."""

from itertools import combinations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import XXZ, Abacus, AbacusPairs, Recompute, SpinFlip, Sweep, Translations, local_energies
from dyson.abacus.forward import Whole
from dyson.abacus.pairs import Pairs
from dyson.spins import flip, random_spins
from dyson.vmc.ratios import fastest_updates
from lanes import later
from operations import operations_of_propose
from random_networks import distance_on_the_circle, hardly_decaying, random_network

EVERYWHERE = AbacusPairs()


def pairs_of(n_sites):
    """Three random pairs at every distance, the ends of the chain, and single flips."""
    rng = np.random.default_rng(n_sites)
    near_ends = [*range(min(n_sites, 4)), *range(max(n_sites - 4, 0), n_sites)]
    moves = list(combinations(sorted(set(near_ends)), 2))
    for distance in range(1, n_sites):
        first = rng.integers(0, n_sites - distance, size=3)
        moves += [(i, i + distance) if distance % 2 else (i + distance, i) for i in first]
    moves += [(i, -1) for i in range(0, n_sites, 5)] + [(-1, 0), (n_sites - 1, n_sites - 1)]
    return jnp.asarray(np.array(moves), jnp.int32)


@quick_jit
def both_ways(model, spins, moves):
    updates = EVERYWHERE.bind(model)
    cache = updates.init(spins)
    direct = lambda move: model(flip(spins, move)) - model(spins)
    return updates.ratios(cache, moves), jax.vmap(direct)(moves), cache


def check(model, tolerance=1e-10, kind=Pairs):
    spins = random_spins(jax.random.key(model.n_sites), model.n_sites)
    found, direct, cache = both_ways(model, spins, pairs_of(model.n_sites))
    assert isinstance(getattr(cache, "images", cache), kind)
    assert float(jnp.max(jnp.abs(direct))) > 1e-3  # the moves do something
    assert distance_on_the_circle(found, direct).max() < tolerance


SHORT_LAST_CORE = 43, {"depth": 1}
CORES_ALIKE = 40, {"depth": 2, "modes": 1, "mixer": "real"}
DEEP = 53, {"depth": 3, "features": 2, "modes": 1, "mixer": "real"}


@pytest.mark.parametrize(
    "n_sites, options, periodic",
    [
        # others, with fewer moves, in test_exactness
        (*SHORT_LAST_CORE, True),
        later(*CORES_ALIKE, False),
        later(*SHORT_LAST_CORE, False),
        later(*CORES_ALIKE, True),
        later(*DEEP, True),
        later(*DEEP, False),
    ],
)
def test_every_pair_is_exact(n_sites, options, periodic):
    check(random_network(n_sites, seed=1, periodic=periodic, **options))


def test_waves_that_hardly_decay():
    model = hardly_decaying(random_network(57, mixer="real", modes=1, seed=4))
    check(model, tolerance=1e-9)


@pytest.mark.parametrize("n_sites, periodic", [(1, True), (2, False), later(7, True)])
def test_small_chains_take_forward_passes(n_sites, periodic):
    check(random_network(n_sites, periodic=periodic), kind=Whole)


def test_single_precision():
    model = random_network(64, dtype=jnp.float32, mixer="real", seed=2)
    check(model, tolerance=1e-4)


@pytest.mark.exhaustive
def test_projections_one_within_the_other():
    inner = random_network(72, token_size=2, mixer="real", modes=1, features=2)
    check(SpinFlip(Translations(inner)))


def test_commit_and_single_flips():
    model = random_network(40, modes=1, mixer="real")
    spins = random_spins(jax.random.key(0), 40)
    move = jnp.array([3, 29], jnp.int32)

    @quick_jit
    def walk(model, spins):
        updates = EVERYWHERE.bind(model)
        cache = updates.init(spins)
        moved = updates.commit(cache, updates.propose(cache, move))
        return moved, updates.init(flip(spins, move)), updates.single_flips(moved)

    @quick_jit
    def by_forward_passes(model, spins):
        bound = Recompute().bind(model)
        return bound.single_flips(bound.init(spins))

    moved, fresh, single = walk(model, spins)
    for one, other in zip(jax.tree.leaves(moved), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)
    expected = by_forward_passes(model, flip(spins, move))
    np.testing.assert_allclose(single, expected, atol=1e-11)


@pytest.mark.parametrize(
    "options, periodic",
    [
        later({"depth": 1}, False),
        ({"depth": 2, "token_size": 2}, True),
        later({"depth": 3, "mixer": "real"}, False),
        later({"depth": 1}, True),
        later({"depth": 2, "token_size": 2}, False),
        later({"depth": 3, "mixer": "real"}, True),
    ],
)
def test_operations_of_propose_do_not_grow(options, periodic):
    cost = lambda n_sites: operations_of_propose(
        EVERYWHERE, n_sites, flips=2, features=4, hidden=2, periodic=periodic, **options
    )
    assert cost(2048) == cost(256)


@pytest.mark.exhaustive
def test_local_energies_of_long_range_exchanges():
    n_sites = 44
    hamiltonian = XXZ(n_sites, exponent=3.0, anisotropy=-2.0)
    model = random_network(n_sites, features=3, mixer="real", complex_head=True)
    spins = Sweep(hamiltonian, 3).init(jax.random.key(0), model).spins
    energies = quick_jit(local_energies)
    exact = energies(hamiltonian, model, spins, updates=Recompute())
    found = energies(hamiltonian, model, spins, updates=EVERYWHERE)
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    chosen = fastest_updates(random_network(4096, features=16, modes=1), reach=2048)
    assert isinstance(chosen, AbacusPairs)
    assert isinstance(fastest_updates(model, hamiltonian.reach), Recompute)


def test_misuse_is_named():
    model = random_network(40)

    def propose(model, spins):
        bound = EVERYWHERE.bind(model)
        return bound.propose(bound.init(spins), jnp.array([1, 2, 3], jnp.int32))

    with pytest.raises(ValueError, match=r"one or two flips at any distance, got .* 3 sites"):
        eqx.filter_eval_shape(propose, model, jnp.ones(40, jnp.int8))


@pytest.mark.parametrize("depth, updates", [later(2, Abacus()), (3, Abacus()), (2, EVERYWHERE)])
def test_moves_of_bound_updates_take_no_eigenvalues(depth, updates):
    """What mixers do is in the tables; S4 would diagonalise its transitions once per move."""
    model = random_network(96, depth=depth, mixer="s4")
    spins = random_spins(jax.random.key(0), 96)
    bound = eqx.filter_eval_shape(updates.bind, model)
    cache = eqx.filter_eval_shape(lambda u, s: u.init(s), bound, spins)
    program = eqx.filter_make_jaxpr(lambda u, c, x: u.propose(c, x).log_ratio)
    text = str(program(bound, cache, jnp.array([5, -1], jnp.int32))[0])
    assert "dot_general" in text and " eig[" not in text
    assert " eig[" in str(eqx.filter_make_jaxpr(updates.bind)(model)[0])
