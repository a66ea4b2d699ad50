"""The sweep by environments against a sweep by full forward passes, and its distribution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import DysonNet, Ising, SpinFlip, Sweep, Translations
from dyson.networks import Network
from dyson.samplers.base import acceptance
from dyson.samplers.environment_pass import environment_pass
from dyson.samplers.passes import (
    environments_pay,
    forward_pass,
    has_environments,
    proposal_costs,
    proposals,
)
from dyson.spins import enumerate_spins, flip, random_spins, spins_to_index
from lanes import later
from random_networks import random_network

pass_by_environments = quick_jit(environment_pass)


@quick_jit
def pass_by_forward_passes(model, spins, uniforms, distances=()):
    one = lambda s, u: forward_pass(model, s, u, distances)
    return jax.vmap(one, out_axes=(0, 1, 1))(spins, uniforms)


def peaked_network(n_sites, sharpness=3.0, **options):
    model = random_network(n_sites, **options)
    return eqx.tree_at(lambda m: m.head.weight, model, sharpness * model.head.weight)


SMALL = {"features": 3, "modes": 1}


def check_chains(model, distances=()):
    n_sites = model.n_sites
    assert has_environments(model, distances)
    spins = random_spins(jax.random.key(0), (3, n_sites))
    count = len(proposals(model, distances))
    uniforms = jax.random.uniform(jax.random.key(1), (3, count))
    swept, accepted, log_psi = pass_by_environments(model, spins, uniforms, distances)
    expected, moves, expected_log_psi = pass_by_forward_passes(model, spins, uniforms, distances)
    np.testing.assert_array_equal(swept, expected)
    np.testing.assert_array_equal(accepted, moves)
    assert 0.05 < float(jnp.mean(accepted)) < 0.98
    assert float(jnp.max(jnp.abs(jnp.real(log_psi - expected_log_psi)))) < 1e-10
    if distances:
        np.testing.assert_array_equal(swept.sum(axis=1), spins.sum(axis=1))


CHAINS = [
    later(64, False, {"depth": 2}),
    (13, False, {"depth": 2, "periodic": False, "modes": 1, "mixer": "power_law"}),
    later(12, True, {"depth": 2, "mixer": "real"}),
    (12, True, {"depth": 1, "periodic": False, "complex_head": True}),
    (24, False, {"depth": 2, "token_size": 2, "complex_head": True, "mixer": "real"}),
    (16, False, {"depth": 1, "token_size": 4, "kernel_size": 1, "periodic": False}),
    later(17, False, {"depth": 3, "mixer": "real", "site_embedding": True, **SMALL}),
    (12, False, {"depth": 4, "mixer": "real", "periodic": False, **SMALL}),
    # 17 proposals: two blocks, the second one short
    (21, False, {"depth": 2, "mixer": "s4", **SMALL}),
    later(21, False, {"depth": 2, "mixer": "s4", "features": 3, "modes": 3}),
    later(21, False, {"depth": 2, **SMALL}),
    later(17, False, {"depth": 2, "mixer": "real", "periodic": False, **SMALL}),
    later(19, False, {"depth": 2, "mixer": "power_law", "periodic": False, **SMALL}),
]


@pytest.mark.parametrize("n_sites, projected, options", CHAINS)
def test_the_same_uniforms_give_the_same_chain(n_sites, projected, options):
    model = peaked_network(n_sites, seed=1, **options)
    check_chains(SpinFlip(model) if projected else model)


@pytest.mark.parametrize(
    "n_sites, projected, options",
    [
        later(29, False, {"depth": 2, **SMALL}),
        (
            12,
            False,
            {
                "depth": 1,
                "periodic": False,
                "mixer": "real",
                "kernel_size": 5,
                "site_embedding": True,
            },
        ),
        (32, True, {"depth": 2, "token_size": 2, "mixer": "real", **SMALL}),
        later(24, False, {"depth": 2, "token_size": 4, "periodic": False, **SMALL}),
        later(21, False, {"depth": 3, "mixer": "real", "complex_head": True, **SMALL}),
    ],
)
def test_exchanges_give_the_same_chain(n_sites, projected, options):
    model = peaked_network(n_sites, seed=2, **options)
    check_chains(SpinFlip(model) if projected else model, (1, 2))


def test_a_ring_whose_tokens_know_their_places_is_entered_anywhere():
    """A pass from another token on is the pass over the ring turned, embedding and all."""
    model = SpinFlip(peaked_network(17, seed=1, depth=1, site_embedding=True, **SMALL))
    turned = lambda k: eqx.tree_at(
        lambda m: m.network.embed_sites, model, jnp.roll(model.network.embed_sites, -k, axis=1)
    )
    spins = random_spins(jax.random.key(0), (3, 17))
    uniforms = jax.random.uniform(jax.random.key(1), (3, len(proposals(model))))
    first = jnp.array([0, 5, 16], jnp.int32)
    swept = pass_by_environments(model, spins, uniforms, (), first)
    for chain, start in enumerate((0, 5, 16)):
        one = slice(chain, chain + 1)
        alone = pass_by_forward_passes(turned(start), spins[one], uniforms[one])
        np.testing.assert_array_equal(swept[0][one], alone[0])
        np.testing.assert_allclose(swept[2][:, one], alone[2], atol=1e-10)
    assert not np.array_equal(swept[0][0], swept[0][1])


def test_every_bond_is_proposed_but_those_across_the_cut():
    open_chain = random_network(6, periodic=False, kernel_size=1)
    bonds = {tuple(move) for move in proposals(open_chain, (1, 2)) if move[1] >= 0}
    assert bonds == {(i, i + d) for i in range(6) for d in (1, 2) if i + d < 6}
    ring = random_network(12, depth=1, token_size=2)  # one token on either side
    np.testing.assert_array_equal(proposals(ring)[:, 0], np.arange(2, 10))
    np.testing.assert_array_equal(
        proposals(ring, (1, 2)), [(i, i + d) for i in range(2, 8) for d in (1, 2)]
    )
    # no environments: everything, by full forward passes
    assert len(proposals(random_network(4, depth=2))) == 4


@pytest.mark.parametrize("periodic", [True, later(False)])
def test_the_distribution_is_stationary(periodic):
    """|psi|^2 times the transition matrix of one sweep, enumerated on six sites.

    Uniform numbers of minus infinity accept every move, so that the sweeps from all states give the
    ratios of all moves at every step, each behind a different history of accepted flips.
    """
    n = 6
    model = random_network(n, seed=3, depth=2, periodic=periodic, mixer="real", modes=1)
    states = enumerate_spins(n)
    log_psi = np.asarray(jax.jit(jax.vmap(lambda s: model(s)))(states))
    p = np.exp(2 * (log_psi - log_psi.max()))
    p /= p.sum()
    visited = proposals(model)[:, 0]
    always = jnp.full((2**n, len(visited)), -jnp.inf)
    _, accepted, values = pass_by_environments(model, states, always)
    assert bool(jnp.all(accepted))
    distribution, before = p, states
    for step, site in enumerate(visited):
        before_index = np.asarray(spins_to_index(before))
        after = jax.vmap(flip, in_axes=(0, None))(before, jnp.array([site]))
        after_index = np.asarray(spins_to_index(after))
        ratio = np.asarray(values[step]) - log_psi[before_index]
        accept = np.asarray(acceptance(jnp.asarray(2 * ratio)))
        transition = np.zeros((2**n, 2**n))
        transition[before_index, after_index] += accept
        transition[before_index, before_index] += 1 - accept
        np.testing.assert_allclose(transition.sum(axis=1), 1, atol=1e-14)
        distribution = distribution @ transition
        before = after
        np.testing.assert_allclose(distribution, p, atol=1e-13)


def test_a_sweep_crosses_the_origin_of_the_ring():
    """The random rotation leaves no site behind: a flat state decorrelates everywhere, as by the
    coin of a heat bath."""
    n = 8
    model = random_network(n, depth=1, mixer="real", modes=1)
    model = eqx.tree_at(lambda m: m.head.weight, model, jnp.zeros_like(model.head.weight))
    sampler = Sweep(Ising(n, longitudinal=0.5), 64, chains_at_once=64, by_environments=True)
    state = sampler.init(jax.random.key(0), model)
    moved, info = quick_jit(sampler.sample)(jax.random.key(1), model, state)
    flips = np.mean(np.asarray(moved.spins != state.spins), axis=0)
    assert abs(float(jnp.mean(info.acceptance)) - 0.5) < 0.1
    np.testing.assert_allclose(flips, (1 - 2 / n) / 2, atol=0.25)
    assert np.all(flips > 0)


@pytest.mark.parametrize("n_sites", [1, 4, 5])
def test_rings_smaller_than_the_window_have_no_environments(n_sites):
    assert has_environments(SpinFlip(random_network(n_sites))) == (n_sites >= 5)


def test_environments_are_used_where_they_cost_less():
    """And where they are not, a sweep goes all around the ring."""
    make = lambda n, **options: eqx.filter_eval_shape(
        lambda key: DysonNet(n, key=key, **options), jax.random.key(0)
    )
    pays = lambda n, **options: environments_pay(make(n, **options))
    assert not pays(32) and pays(64) and environments_pay(SpinFlip(make(64)))
    assert not pays(64, features=32) and pays(128, features=32)
    assert not pays(12, features=4, depth=1) and pays(64, token_size=1, depth=1)
    assert not pays(64, token_size=2) and not environments_pay(Field())
    # one grows with the chain, the other does not, and every image of a projection costs the same
    short, long = proposal_costs(make(64)), proposal_costs(make(640))
    assert long.forward == 10 * short.forward and long.environments == short.environments
    assert proposal_costs(SpinFlip(make(64))) == (2 * short.forward, 2 * short.environments)
    assert proposal_costs(make(4)).environments is None
    with pytest.raises(TypeError, match="expected a DysonNet or a projection of one, got Field"):
        proposal_costs(Field())
    np.testing.assert_array_equal(proposals(make(32), around=True)[:, 0], np.arange(32))
    assert len(proposals(make(32), (1, 2), around=True)) == 64
    with pytest.raises(ValueError, match="by_environments=True takes a DysonNet"):
        Sweep(Ising(3), 2, by_environments=True).sample(
            jax.random.key(0), Field(), Sweep(Ising(3), 2).init(jax.random.key(0), Field())
        )


class Field(Network):
    n_sites: int = 3

    def __call__(self, spins):
        return 0.3 * jnp.sum(spins.astype(float))


def test_other_networks_are_swept_by_forward_passes():
    sampler = Sweep(Ising(3, longitudinal=1.0), 400)
    state = sampler.init(jax.random.key(0), Field())
    state, _ = quick_jit(sampler.sample)(jax.random.key(1), Field(), state)
    up = float(jnp.mean(state.spins > 0))
    assert abs(up - 1 / (1 + np.exp(-1.2))) < 0.2


@pytest.mark.parametrize("periodic", [True, False])
def test_operations_of_a_proposal_do_not_grow(periodic):
    """XLA counts the body of a loop once: everything but the local features at the start, O(1) per
    token of a sweep, is the same for every chain length with blocks of the same size."""

    def operations(n_sites):
        make = lambda: DysonNet(
            n_sites, mixer="real", features=2, periodic=periodic, key=jax.random.key(0)
        )
        arrays, static = eqx.partition(
            eqx.filter_eval_shape(make), lambda x: isinstance(x, jax.ShapeDtypeStruct)
        )
        visited = len(proposals(eqx.combine(arrays, static)))
        start = lambda a, s: jax.vmap(eqx.combine(a, static))(s)
        sweep = lambda a, s, u: environment_pass(eqx.combine(a, static), s, u)
        spins = jax.ShapeDtypeStruct((2, n_sites), jnp.int8)
        uniforms = jax.ShapeDtypeStruct((2, visited), jnp.float64)
        count = lambda f, *a: jax.jit(f).lower(*a).cost_analysis()["flops"]
        return count(sweep, arrays, spins, uniforms), count(start, arrays, spins)

    # 4 and 64 blocks of 16 tokens
    extra = 4 if periodic else 0
    (small, small_start), (large, large_start) = operations(64 + extra), operations(1024 + extra)
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


def test_projections_without_environments_are_swept_by_forward_passes():
    """Translations by part of a token put a flip into other tokens of the images."""
    model = SpinFlip(Translations(random_network(8, token_size=2, depth=1)))
    assert not has_environments(model) and len(proposals(model)) == 8
    sweep = Sweep(Ising(8), 2)
    state, info = quick_jit(sweep.sample)(
        jax.random.key(1), model, sweep.init(jax.random.key(0), model)
    )
    assert set(np.unique(state.spins)) <= {-1, 1} and state.spins.shape == (2, 8)
    assert 0 < float(np.mean(info.acceptance)) <= 1
