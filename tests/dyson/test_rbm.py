"""Restricted Boltzmann machines by their formulas, and their cached local updates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import (
    VMC,
    CachedTheta,
    Ising,
    Metropolis,
    Reflection,
    SpinFlip,
    Translations,
    exact,
    minsr,
)
from dyson.baselines import RBM, SymmetricRBM
from dyson.spins import flip, random_spins
from dyson.vmc.ratios import fastest_updates
from lanes import later
from random_networks import distance_on_the_circle, random_network


def random_rbm(kind, n_sites, seed=0, **options):
    """Every parameter a normal number of order one."""
    model = kind(n_sites, key=jax.random.key(seed), **options)
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape) / n_sites**0.5, x.dtype)
    return eqx.combine(jax.tree.map(draw, parameters), static)


def by_the_formula(model, spins):
    """log psi unit by unit, in numpy."""
    joined = lambda parts: sum(1j**k * x for k, x in enumerate(np.asarray(parts)))
    weight, bias, field = map(joined, (model.weight, model.bias, model.field))
    spins = np.asarray(spins, float)
    total = np.sum(field * spins)
    for row, shift in zip(weight, bias, strict=True):
        moves = range(len(spins)) if isinstance(model, SymmetricRBM) else [0]
        total += sum(np.log(np.cosh(row @ np.roll(spins, -r) + shift)) for r in moves)
    return total


@pytest.mark.parametrize("kind", [RBM, SymmetricRBM])
@pytest.mark.parametrize("n_sites, complex_weights", [(7, False), (4, True), later(1, True)])
def test_log_psi(kind, n_sites, complex_weights):
    model = random_rbm(kind, n_sites, density=2, complex_weights=complex_weights)
    spins = random_spins(jax.random.key(1), n_sites)
    found = eqx.filter_jit(lambda model: model(spins))(model)
    assert jnp.iscomplexobj(found) == complex_weights
    assert distance_on_the_circle(found, by_the_formula(model, spins)) < 1e-12
    assert all(jnp.isrealobj(x) for x in jax.tree.leaves(eqx.filter(model, eqx.is_array)))


@quick_jit
def every_way(updates, model, spins, sites):
    """Single flips together and one by one, a move of several and what it leaves; and the same by
    the whole network."""
    bound = updates.bind(model)
    cache = bound.init(spins)
    each = jnp.arange(model.n_sites, dtype=jnp.int32)[:, None]
    proposal = bound.propose(cache, sites)
    moved = bound.commit(cache, proposal)
    fresh = bound.init(flip(spins, sites))
    flipped = jax.vmap(lambda site: model(flip(spins, site)))(each)
    ratios = bound.single_flips(cache), bound.ratios(cache, each)
    several = proposal.log_ratio, model(flip(spins, sites)) - model(spins)
    return ratios, flipped - model(spins), several, (moved, fresh), bound.log_psi(cache)


CASES = [
    (RBM, 6, {"density": 2}, lambda m: m),
    (RBM, 6, {"complex_weights": True}, lambda m: SpinFlip(Translations(m, 1), -1)),
    (SymmetricRBM, 5, {"density": 2, "complex_weights": True}, lambda m: SpinFlip(m, -1)),
    later(SymmetricRBM, 6, {}, lambda m: m),
    later(RBM, 5, {}, lambda m: Reflection(m, -1)),
    later(RBM, 1, {}, lambda m: m),
]


@pytest.mark.parametrize("kind, n_sites, options, wrap", CASES)
def test_updates_are_exact(kind, n_sites, options, wrap):
    model = wrap(random_rbm(kind, n_sites, seed=2, **options))
    assert isinstance(fastest_updates(model), CachedTheta)
    spins = random_spins(jax.random.key(3), n_sites)
    sites = jnp.array([n_sites - 1, -1, 0][: 1 + n_sites // 2], jnp.int32)
    ratios, direct, several, (moved, fresh), log_psi = every_way(CachedTheta(), model, spins, sites)
    assert float(jnp.max(jnp.abs(direct))) > 1e-2
    for found in ratios:  # amplitudes: there may be nodes
        np.testing.assert_allclose(np.exp(found), np.exp(direct), rtol=1e-10, atol=1e-12)
    assert distance_on_the_circle(*several) < 1e-10
    assert distance_on_the_circle(log_psi, eqx.filter_jit(model)(spins)) < 1e-12
    for ours, theirs in zip(jax.tree.leaves(moved), jax.tree.leaves(fresh), strict=True):
        assert distance_on_the_circle(ours, theirs).max() < 1e-12


def test_single_precision():
    model = SpinFlip(random_rbm(RBM, 12, density=2, dtype=jnp.float32))
    spins, sites = random_spins(jax.random.key(3), 12), jnp.array([1, 2], jnp.int32)
    ratios, direct, *_ = every_way(CachedTheta(), model, spins, sites)
    assert ratios[0].dtype == jnp.float32
    np.testing.assert_allclose(ratios[0], direct, atol=1e-5)


def test_a_symmetric_one_does_not_change_under_translations():
    model = random_rbm(SymmetricRBM, 7, density=2)
    spins = random_spins(jax.random.key(0), 7)
    values = eqx.filter_jit(jax.vmap(model.__call__))(
        jnp.stack([jnp.roll(spins, r) for r in range(7)])
    )
    np.testing.assert_allclose(values, values[0], rtol=1e-13)
    assert model.period == 1 and Translations(model).n_images == 1
    with pytest.raises(ValueError, match="multiple of 7, got 1"):
        Translations(model, 1)


@pytest.mark.parametrize("kind", [RBM, SymmetricRBM])
def test_start_is_calibrated(kind):
    model = kind(16, density=2, key=jax.random.key(3))
    spins = random_spins(jax.random.key(4), (500, 16))
    assert 0.03 < float(jnp.std(eqx.filter_jit(jax.vmap(model.__call__))(spins))) < 0.3


@pytest.mark.parametrize("kind", [SymmetricRBM, later(RBM)])
def test_it_is_trained(kind):
    hamiltonian = Ising(8)
    model = SpinFlip(kind(8, density=2, key=jax.random.key(0)))
    sampler = Metropolis(hamiltonian, 32, updates=CachedTheta())
    vmc = VMC(hamiltonian, sampler, minsr(), warm_up=4)
    state = vmc.init(jax.random.key(1), model)
    for _ in range(40):
        state, info = vmc.step(state)
    assert abs(float(info.energy) / exact.ground_energy(hamiltonian) - 1) < 2e-3


def test_misuse_is_named():
    with pytest.raises(TypeError, match=r"expected an RBM, .*got DysonNet; write dyson\.Abacus"):
        CachedTheta().bind(random_network(4))
    with pytest.raises(ValueError, match="SymmetricRBM: expected density >= 1, got 0"):
        SymmetricRBM(4, density=0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="RBM: expected spins of shape \\(4,\\), got \\(5,\\)"):
        RBM(4, key=jax.random.key(0))(jnp.ones(5, jnp.int8))
