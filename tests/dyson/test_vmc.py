"""The VMC loop: it finds ground states and stops loudly (devices: test_devices.py)."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from compiling import quick_jit
from dyson import (
    VMC,
    DysonNet,
    Ising,
    Metropolis,
    NonFiniteError,
    Recompute,
    SpinFlip,
    Sweep,
    exact,
    local_energies,
    minsr,
    spring,
    sr,
)
from dyson.networks import Network
from dyson.spins import enumerate_spins
from dyson.vmc.measurement import Measurement, draw, measured
from dyson.vmc.statistics import DiagnosticWarning, moved
from dyson.vmc.step import _energy, improved
from lanes import later
from random_networks import random_network

# One object, so that steps of the same shapes are one program.
MINSR = minsr()


def small_problem(n_sites=6, optimiser=MINSR, updates=None, **options):
    hamiltonian = Ising(n_sites, **options.pop("hamiltonian", {}))
    options = {"features": 4, "hidden": 4, "depth": 1} | options
    network = DysonNet(n_sites, key=jax.random.key(0), **options)
    model = SpinFlip(network) if hamiltonian.spin_flip_symmetric else network
    sampler = Metropolis(hamiltonian, 32)
    vmc = VMC(hamiltonian, sampler, optimiser, warm_up=2, updates=updates)
    return vmc, vmc.init(jax.random.key(1), model)


@pytest.mark.optimised
def test_finds_the_ground_state_and_compiles_once():
    vmc, state = small_problem(8, dtype=jnp.float32)
    programs = draw, measured, improved
    before = [program._cached._cache_size() for program in programs]
    for _ in range(60):
        state, info = vmc.step(state)
    vmc.measure(jax.random.key(2), state.model, state.sampler)
    length = 2 * vmc.chain_length
    moved_on, samples = vmc.sample(state, length - 1)  # rounded up
    assert samples.spins.shape[:2] == samples.energies.shape == (32, length)
    again, others = vmc.sample(state, length)[1], vmc.sample(moved_on, length)[1]
    assert jnp.all(samples.spins == again.spins) and jnp.any(samples.spins != others.spins)
    after = [program._cached._cache_size() for program in programs]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 1, 1]  # drawn in warm-up
    energy = exact.ground_energy(vmc.hamiltonian)
    assert abs(float(info.energy) / energy - 1) < 5e-3
    assert float(info.v_score) < 1e-2 and int(state.step) == 60
    assert {x.dtype for x in jax.tree.leaves(state.model)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("optimiser", [sr(), spring(), optax.sgd(5e-3)])
def test_any_optax_optimiser_lowers_the_energy(optimiser):
    vmc, state = small_problem(optimiser=optimiser, depth=1, hamiltonian={"longitudinal": 0.5})
    state, first = vmc.step(state)
    for _ in range(15):
        state, last = vmc.step(state)
    assert float(last.energy) < float(first.energy) - 5 * float(first.error)


def test_complex_head_keeps_a_real_energy():
    vmc, state = small_problem(depth=1, complex_head=True)
    state, info = vmc.step(state)
    assert info.energy.dtype == jnp.float64 and float(info.step_norm) > 0


def test_a_value_that_is_not_finite_stops_with_the_last_good_state():
    vmc, state = small_problem(depth=1)
    broken = eqx.tree_at(lambda s: s.model.network.head.bias, state, jnp.full((1, 4), jnp.nan))
    with pytest.raises(NonFiniteError, match="the local energy.*smaller learning rate") as caught:
        vmc.step(broken)
    assert bool(eqx.tree_equal(caught.value.state.model, state.model))


@pytest.mark.parametrize("rate, sites", [(1e6, 6), (1e300, 6)])
def test_the_kept_state_is_one_from_which_it_goes_on(rate, sites):
    """A finite step to a network of no use: the state before this step is the last good one."""
    optimiser = optax.inject_hyperparams(optax.sgd)(learning_rate=rate)
    vmc, state = small_problem(sites, optimiser=optimiser, depth=1)
    with pytest.raises(NonFiniteError, match=r"The state after step \d is kept") as caught:
        for _ in range(6):
            state, _ = vmc.step(state)
    kept = caught.value.state
    energies = quick_jit(local_energies)(vmc.hamiltonian, kept.model, enumerate_spins(sites))
    assert bool(jnp.all(jnp.isfinite(energies))) and int(kept.step) <= int(state.step)
    rate_of = lambda s: s.optimiser.hyperparams["learning_rate"]
    calm = eqx.tree_at(rate_of, kept, jnp.full_like(rate_of(kept), 1e-3))
    assert int(vmc.step(calm)[0].step) == int(kept.step) + 1


estimate = quick_jit(lambda measurement: measurement.estimate())


def ferromagnet(n_sites, strength):
    """A network that has settled on the two ferromagnetic configurations."""

    class Settled(Network):
        weight: jax.Array
        n_sites: int = eqx.field(static=True)

        def __call__(self, spins):
            return self.weight * jnp.sum(spins * jnp.roll(spins, 1)).astype(float)

    return Settled(jnp.asarray(strength), n_sites)


@pytest.mark.parametrize("make, longitudinal", [(Metropolis, 0.0), (Sweep, 0.5)])
def test_chains_that_do_not_move_have_no_error_bar(make, longitudinal):
    """Also where they are flipped as a whole from time to time."""
    hamiltonian = Ising(6, longitudinal=longitudinal)
    vmc = VMC(hamiltonian, make(hamiltonian, 8), optax.sgd(0.0), warm_up=20)
    state = vmc.init(jax.random.key(0), ferromagnet(6, 60.0))
    with pytest.warns(DiagnosticWarning, match="no chain moved in a step"):
        state, info = vmc.step(state)
    assert float(info.acceptance) == 0 and np.isfinite(float(info.energy))
    for name in ("error", "variance", "v_score", "r_hat", "tau"):
        assert np.isnan(float(getattr(info, name)))
    assert "error=not known" in repr(info) and "acceptance=0" in repr(info)
    _, measured = vmc.measure(jax.random.key(1), state.model, state.sampler)
    assert np.isnan(float(estimate(measured).error))


def test_one_configuration_has_no_error_bar_although_moves_were_accepted():
    spins = jnp.ones((3, 4, 5), jnp.int8)
    accepted = jnp.full((3, 4), 0.2)
    assert not bool(moved(spins, accepted))
    assert bool(moved(spins.at[1, 2, 3].set(-1), accepted))
    assert not bool(moved(spins.at[1, 2, 3].set(-1), 0 * accepted))
    constant = estimate(Measurement(spins, jnp.full((3, 4), -2.0), accepted))
    assert float(constant.mean) == -2 and np.isnan(float(constant.error))


def test_an_eigenstate_that_moves_has_no_error():
    """The constant state of a field alone: every local energy is the same, chains move."""
    hamiltonian = Ising(4, coupling=0.0)
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 8), optax.sgd(0.0), warm_up=1)
    state = vmc.init(jax.random.key(0), ferromagnet(4, 0.0))
    _, info = vmc.step(state)
    assert float(info.energy) == -4 and float(info.error) == 0 and float(info.r_hat) == 1


@pytest.mark.parametrize("chains, length, unknown", [(8, 3, "the R-hat"), (1, 1, "the error bar")])
def test_too_few_samples_say_what_is_not_known(chains, length, unknown):
    hamiltonian = Ising(4)
    with pytest.warns(DiagnosticWarning, match=unknown):
        vmc = VMC(
            hamiltonian, Metropolis(hamiltonian, chains), optax.sgd(1e-3), chain_length=length
        )
    state = vmc.init(jax.random.key(0), ferromagnet(4, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DiagnosticWarning)
        _, info = vmc.step(state)
    assert np.isnan(float(info.r_hat)) and np.isnan(float(info.error)) == (chains == 1)


@pytest.mark.parametrize(
    "optimiser, dtype",
    [
        later(optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)), jnp.float64),
        later(optax.polyak_sgd(f_min=-8.0), jnp.float32),
        later(optax.lbfgs(), jnp.float64),
    ],
)
def test_line_searches_have_what_they_ask_for(optimiser, dtype):
    # optax itself mixes dtypes in them
    with jax.numpy_dtype_promotion("standard"):
        vmc, state = small_problem(6, optimiser, Recompute(), depth=1, dtype=dtype)
        state, first = vmc.step(state)
        for _ in range(8):
            state, last = vmc.step(state)
    assert float(last.energy) < float(first.energy) - 3 * float(first.error)


def test_the_energy_of_other_parameters_weighs_samples_anew():
    """All configurations, each as often as the state says: value and slope are those of the
    energy itself."""
    hamiltonian = Ising(4, longitudinal=0.4)
    model = random_network(4, depth=1, complex_head=True)
    spins = enumerate_spins(4)
    log_psi = np.asarray(quick_jit(eqx.filter_vmap(model))(spins))
    counts = np.round(np.exp(2 * (log_psi.real - log_psi.real.max())) * 5000).astype(int)
    samples = jnp.asarray(np.repeat(np.asarray(spins), counts, axis=0))[None]
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 2), optax.sgd(0.0), updates=Recompute())
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)

    def exact_energy(flat):
        model = eqx.combine(unravel(flat), static)
        log_psi = jax.vmap(model)(spins)
        p = jnp.exp(2 * jnp.real(log_psi - log_psi_there)) * jnp.asarray(counts / 5000)
        energies = local_energies(hamiltonian, model, spins, updates=Recompute())
        return jnp.sum(p * jnp.real(energies)) / jnp.sum(p)

    log_psi_there = jnp.asarray(log_psi)
    value_fn = lambda flat: _energy(vmc._how, parameters, static, samples, None)(unravel(flat))
    weighed, exact_one = (jax.jit(jax.value_and_grad(f)) for f in (value_fn, exact_energy))
    moved = flat + 0.03 * jnp.asarray(np.random.default_rng(0).normal(size=flat.size))
    for at in (flat, moved):
        (value, slope), (expected, gradient) = weighed(at), exact_one(at)
        assert abs(float(value - expected)) < 1e-11
        # the exact one differentiates local energies too, whose part is small as samples are many
        assert float(jnp.linalg.norm(slope - gradient)) < 0.05 * float(jnp.linalg.norm(gradient))


@pytest.mark.exhaustive
def test_plain_optimisers_work_in_single_precision():
    with jax.enable_x64(False):
        vmc, state = small_problem(4, optimiser=optax.sgd(1e-2), depth=1)
        state, info = vmc.step(state)
        assert info.energy.dtype == jnp.float32 and np.isfinite(float(info.step_norm))
        with pytest.raises(RuntimeError, match="natural gradient needs float64.*jax_enable_x64"):
            small_problem(4, depth=1)


def test_the_info_reads_like_a_line_and_can_be_stacked():
    vmc, state = small_problem(depth=1)
    state, info = vmc.step(state)
    line = repr(info)
    assert line.startswith("VMCInfo(energy=-") and "f64[]" not in line and "tau=" in line
    stacked = jax.tree.map(lambda *x: jnp.stack(x), info, info)
    assert "energy=f64[2]" in repr(stacked)


def test_the_same_key_gives_the_same_run():
    runs = []
    for _ in range(2):
        vmc, state = small_problem(depth=1)
        state, info = vmc.step(state)
        runs.append((np.asarray(state.sampler.spins), float(info.energy)))
    assert (runs[0][0] == runs[1][0]).all() and runs[0][1] == runs[1][1]


def test_misuse_is_named():
    hamiltonian = Ising(4)
    with pytest.raises(ValueError, match="chain_length >= 1 and warm_up >= 0, got 0, 8"):
        VMC(hamiltonian, Metropolis(hamiltonian, 2), minsr(), chain_length=0)
    with pytest.raises(ValueError, match="Hamiltonian has 4 sites, the moves 6"):
        VMC(hamiltonian, Metropolis(Ising(6), 2), minsr())
    with pytest.raises(ValueError, match="6 sites, the model 4"):
        vmc = VMC(Ising(6), Metropolis(Ising(6), 2), minsr())
        vmc.init(jax.random.key(0), random_network(4))
