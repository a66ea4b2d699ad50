"""One state on chains of several lengths: the network resized, and a training that goes on."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from compiling import quick_jit
from dyson import (
    J1J2,
    VMC,
    Abacus,
    DysonNet,
    Ising,
    Metropolis,
    Recompute,
    SpinFlip,
    Sweep,
    Translations,
    minsr,
    spring,
)
from dyson.baselines import ViT
from dyson.mixers import PowerLaw
from dyson.samplers.environment_pass import environment_pass
from dyson.samplers.passes import forward_pass, proposals
from dyson.spins import random_spins
from dyson.vmc.growth import repeated
from lanes import later
from random_networks import random_network

ON_RINGS = [
    {"mixer": "s4d"},
    {"mixer": "real", "depth": 3, "token_size": 4},
    {"mixer": "s4", "complex_head": True},
]


@pytest.mark.parametrize("options", ON_RINGS)
def test_a_ring_repeated_has_as_many_times_its_log_psi(options):
    model = random_network(8, seed=2, **options)
    spins = random_spins(jax.random.key(0), (8,))
    evaluate = quick_jit(lambda model, spins: model(spins))
    once, thrice = evaluate(model, spins), evaluate(model.resized(24), jnp.tile(spins, 3))
    assert abs(complex(once)) > 0.1
    np.testing.assert_allclose(thrice, 3 * np.asarray(once), rtol=1e-11)


@pytest.mark.exhaustive
def test_every_site_beyond_the_reach_of_the_ends_adds_the_same_to_an_open_chain():
    model = random_network(12, periodic=False, modes=1, token_size=2)
    short = jnp.full_like(model.blocks[0].mixer.log_decay, 1.5)  # exp(-4.5) per token
    where = lambda m: [block.mixer.log_decay for block in m.blocks]
    model = eqx.tree_at(where, model, [short] * model.depth)
    # what the head is given for each chain of the first length
    shares = lambda m: (m.theta(jnp.ones(m.n_sites, jnp.int8)) - m.head.bias[0]) * m.head.growth
    sums = [shares(model.resized(n)) for n in (20, 24, 28)]
    assert float(jnp.max(jnp.abs(sums[1] - sums[0]))) > 0.1
    np.testing.assert_allclose(sums[2] - sums[1], sums[1] - sums[0], rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda m: m, SpinFlip, lambda m: SpinFlip(Translations(m))])
def test_resizing_is_a_matter_of_the_last_length_alone(wrap):
    model = wrap(random_network(8, token_size=4, mixer="power_law"))
    assert bool(eqx.tree_equal(model.resized(8), model))
    assert bool(eqx.tree_equal(model.resized(400).resized(12), model.resized(12)))
    assert model.resized(12).n_sites == 12
    before, after = jax.tree.leaves(model), jax.tree.leaves(model.resized(12))
    assert all(a is b for a, b in zip(before, after, strict=True))  # no parameter is touched


def test_power_laws_are_fitted_for_the_new_length():
    mixer = random_network(8, mixer="power_law").blocks[0].mixer
    longer = mixer.resized(500)
    assert isinstance(longer, PowerLaw) and longer.lags == 499
    assert longer.exponentials().poles.shape[1] > mixer.exponentials().poles.shape[1]
    assert max(longer.errors) < 2e-7


CHAINS = [
    later({"mixer": "s4d"}, SpinFlip),
    ({"mixer": "real", "periodic": False, "complex_head": True, "token_size": 2}, lambda m: m),
]


@pytest.mark.parametrize("options, wrap", CHAINS)
def test_local_updates_are_exact_on_the_resized_chain(options, wrap):
    model = wrap(random_network(8, seed=1, depth=2, **options)).resized(22)
    spins = random_spins(jax.random.key(0), (2, 22))

    @quick_jit
    def by(updates, model, spins):
        bound = updates.bind(model)
        return bound.single_flips(bound.init(spins))

    fast, plain = by(Abacus(), model, spins[0]), by(Recompute(), model, spins[0])
    assert float(jnp.max(jnp.abs(plain))) > 0.1
    np.testing.assert_allclose(jnp.exp(fast), jnp.exp(plain), rtol=1e-9)

    uniforms = jax.random.uniform(jax.random.key(1), (2, len(proposals(model, ()))))
    swept, _, log_psi = quick_jit(environment_pass)(model, spins, uniforms, ())
    one = lambda s, u: forward_pass(model, s, u, ())
    expected, _, expected_log_psi = quick_jit(jax.vmap(one, out_axes=(0, 1, 1)))(spins, uniforms)
    np.testing.assert_array_equal(swept, expected)
    np.testing.assert_allclose(jnp.real(log_psi), jnp.real(expected_log_psi), atol=1e-10)


def test_lengths_that_do_not_fit_are_named():
    model = random_network(8, token_size=4)
    with pytest.raises(ValueError, match="resized: expected n_sites to be a multiple of token_siz"):
        SpinFlip(model).resized(14)
    placed = random_network(8, site_embedding=True)
    assert placed.resized(8).n_sites == 8
    with pytest.raises(ValueError, match="got 16: a network whose tokens know their places"):
        placed.resized(16)
    with pytest.raises(ValueError, match="resized: expected n_sites >= 1, got 0"):
        model.resized(0)
    vit = ViT(8, features=4, heads=2, depth=1, key=jax.random.key(0))
    with pytest.raises(TypeError, match="ViT.resized: expected a DysonNet or a projection of one"):
        vit.resized(16)


def test_configurations_are_repeated_in_their_sector():
    spins = random_spins(jax.random.key(0), (3, 5))
    longer = repeated(jax.random.key(1), spins, (4, 12), None)
    np.testing.assert_array_equal(longer[3], np.tile(spins[0], 3)[:12])
    for magnetisation in (0, -4, 12):
        kept = repeated(jax.random.key(1), spins, (4, 12), magnetisation)
        assert kept.dtype == spins.dtype and bool(jnp.all(kept.sum(axis=1) == magnetisation))
        changed = jnp.sum(kept != longer, axis=1)
        np.testing.assert_array_equal(2 * changed, jnp.abs(longer.sum(axis=1) - magnetisation))
    assert bool(jnp.all(repeated(jax.random.key(2), spins[:, :3], (2, 7), 1).sum(axis=1) == 1))


@pytest.mark.exhaustive
@pytest.mark.parametrize("optimiser", [spring(), optax.sgd(1e-2, momentum=0.9)])
def test_training_goes_on_with_what_the_optimiser_remembers(optimiser):
    small, large = (VMC(h, Metropolis(h, 16), optimiser, warm_up=4) for h in (Ising(4), Ising(12)))
    model = SpinFlip(DysonNet(4, features=3, hidden=2, depth=1, key=jax.random.key(0)))
    state, _ = small.step(small.init(jax.random.key(1), model))
    state, _ = small.step(state)
    grown = large.grown(state)
    before, after = (jax.tree.leaves((s.optimiser, s.step)) for s in (state, grown))
    assert all(bool(jnp.all(a == b)) for a, b in zip(before, after, strict=True))
    assert grown.sampler.spins.shape == (16, 12)
    further, info = large.step(grown)
    assert int(further.step) == 3 and np.isfinite(float(info.energy))
    again, _ = large.step(large.grown(state))
    assert bool(eqx.tree_equal(further, again))
    other = VMC(large.hamiltonian, large.sampler, optax.sgd(1e-2), warm_up=4)
    with pytest.raises(ValueError, match="VMC.grown: expected the memory of the same optimiser"):
        other.grown(state)


def test_chains_stay_in_their_sector():
    h = J1J2(10)
    vmc = VMC(h, Sweep(h, 8), minsr(), warm_up=4)
    small = J1J2(6)
    before = VMC(small, Sweep(small, 4), minsr(), warm_up=0)
    model = SpinFlip(DysonNet(6, features=3, hidden=2, depth=1, key=jax.random.key(0)))
    grown = vmc.grown(before.init(jax.random.key(1), model))
    assert grown.sampler.spins.shape == (8, 10)
    assert bool(jnp.all(grown.sampler.spins.sum(axis=1) == 0))
