"""Blurred samples: what they follow, what they weigh, and what weights mean to their users."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import (
    J1J2,
    VMC,
    Ising,
    Metropolis,
    PauliStrings,
    Recompute,
    VMCState,
    local_energies,
    minsr,
    spring,
)
from dyson.networks import Network
from dyson.optimisers import energy_gradient
from dyson.spins import enumerate_spins, spins_to_index
from dyson.vmc.blur import FRESH, blurred, can_blur
from dyson.vmc.blur import weights as together
from dyson.vmc.local_energy import weighted_local_energies
from dyson.vmc.statistics import estimate_mean
from lanes import later
from random_networks import random_network

BLUR = 0.3


class Table(Network):
    """Amplitudes as they are given."""

    log_amplitudes: jax.Array

    @property
    def n_sites(self):
        return 4

    def __call__(self, spins):
        return self.log_amplitudes[spins_to_index(spins)]


def chain_of(hamiltonian, model):
    """All configurations of the chain's sector and |psi|^2 of them."""
    spins = enumerate_spins(hamiltonian.n_sites)
    if hamiltonian.conserves_magnetisation:
        spins = spins[np.asarray(spins).sum(1) == 0]
    weights = np.exp(2 * np.asarray(jax.jit(jax.vmap(model))(spins)).real)
    return spins, weights / weights.sum()


def transitions(hamiltonian, spins):
    """The probability of each entry of a row, written with loops."""
    where = {tuple(s): k for k, s in enumerate(np.asarray(spins))}
    matrix = np.zeros((len(where), len(where)))
    all_moves = jax.jit(jax.vmap(hamiltonian.connected))(spins)
    for k, (sample, sites, elements) in enumerate(
        zip(np.asarray(spins), *map(np.asarray, all_moves), strict=True)
    ):
        for move, element in zip(sites, elements, strict=True):
            there = sample.copy()
            there[move[move >= 0]] *= -1 if element != 0 else 1
            matrix[k, where[tuple(there)]] += 1 / len(elements)
    return matrix


@pytest.mark.parametrize(
    "hamiltonian", [Ising(4), J1J2(6, j2=0.5, marshall=False), later(Ising(5, exponent=2.0))]
)
def test_weights_undo_the_blur(hamiltonian):
    model = random_network(hamiltonian.n_sites, 1, complex_head=True, depth=1)
    spins, weights = chain_of(hamiltonian, model)
    moved = (1 - BLUR) * weights + BLUR * weights @ transitions(hamiltonian, spins)
    evaluate = eqx.filter_jit(
        lambda m, s: weighted_local_energies(hamiltonian, m, s, blur=BLUR, updates=Recompute())
    )
    energies, densities = evaluate(model, spins)
    np.testing.assert_allclose(densities, moved / weights, rtol=1e-9)
    followed = (1 - FRESH) * moved + FRESH / len(spins)
    counts = np.round(1e6 * followed).astype(int)  # as many samples as there should be
    known = (jnp.asarray(x).repeat(counts) for x in (densities, np.log(weights) / 2 + 7))
    weighs = jax.jit(together)(FRESH, *known, jnp.zeros(counts.sum(), bool))
    np.testing.assert_allclose(weighs, (weights / followed).repeat(counts), rtol=1e-4)
    plain = eqx.filter_jit(lambda m, s: local_energies(hamiltonian, m, s, updates=Recompute()))
    np.testing.assert_allclose(energies, plain(model, spins), rtol=1e-12)
    assert float(jnp.max(weighs)) <= 1 / ((1 - FRESH) * (1 - BLUR))


def test_amplitudes_of_any_size_have_weights():
    """Also where none is drawn afresh, and the smallest beside the largest underflow."""
    log_psi, somewhere = jnp.asarray([0.0, -900.0, 800.0]), jnp.zeros(3, bool)
    density = jnp.asarray([1.0, 0.5, 2.0])
    np.testing.assert_allclose(together(jnp.zeros(()), density, log_psi, somewhere), 1 / density)
    drawn = together(jnp.asarray(FRESH), density, log_psi, somewhere)
    assert jnp.all(drawn > 0) and abs(float(jnp.mean(drawn)) - 1) < 1e-9


def test_samples_are_moved_as_often_as_they_should():
    hamiltonian = J1J2(4, marshall=False)
    model = random_network(4, complex_head=True, depth=1)
    spins, _ = chain_of(hamiltonian, model)
    keys = jax.random.split(jax.random.key(0), (len(spins), 4000))
    one = lambda key, sample: blurred(key, BLUR, hamiltonian, model, sample)[0]
    drawn = jax.jit(jax.vmap(jax.vmap(one, in_axes=(0, None))))(keys, spins)
    numbers = np.asarray(spins_to_index(drawn))
    found = np.array(
        [[np.mean(row == k) for k in np.asarray(spins_to_index(spins))] for row in numbers]
    )
    matrix = transitions(hamiltonian, spins)
    expected = (1 - BLUR) * np.eye(len(spins)) + BLUR * matrix
    expected = (1 - FRESH) * expected + FRESH / len(spins)
    assert np.max(np.abs(found - expected)) < 5 * np.sqrt(0.25 / 4000)


def test_a_zero_of_psi_does_not_end_a_run():
    """Half of the amplitudes vanish exactly: samples led there stay, and count nothing."""
    rng = np.random.default_rng(0)
    log_amplitudes = rng.normal(size=16) + 1j * rng.normal(size=16)
    odd = np.asarray(enumerate_spins(4)).prod(axis=1) < 0
    model = Table(jnp.asarray(np.where(odd, -np.inf, log_amplitudes)))
    vmc = VMC(Ising(4, longitudinal=0.3), Metropolis(Ising(4), 16), minsr(), warm_up=0)
    start = jnp.tile(jnp.asarray([[1, 1, -1, -1]], jnp.int8), (16, 1))
    state = vmc.sampler.init(jax.random.key(0), model)
    state = eqx.tree_at(lambda s: s.spins, state, start)
    _, measured = vmc.measure(jax.random.key(1), model, state)
    assert jnp.all(jnp.isfinite(measured.energies)) and jnp.all(jnp.isfinite(measured.weights))
    stuck = measured.weights == 0
    assert 0 < int(stuck.sum()) < stuck.size
    assert jnp.all(jnp.isfinite(jax.vmap(jax.vmap(model))(measured.spins).real))


def test_a_weight_counts_as_so_many_samples():
    rng = np.random.default_rng(1)
    counts = jnp.asarray([1, 3, 2, 1, 4, 1])
    derivatives = jnp.asarray(rng.normal(size=(6, 2, 5)))
    energies = jnp.asarray(rng.normal(size=6) + 1j * rng.normal(size=6))
    repeated = {
        "derivatives": jnp.repeat(derivatives, counts, axis=0),
        "energies": jnp.repeat(energies, counts),
    }
    weights = 0.37 * counts.astype(jnp.float64)
    np.testing.assert_allclose(
        energy_gradient(derivatives, energies, weights), energy_gradient(**repeated), rtol=1e-12
    )
    # psi changes linearly with the parameters, phases included
    slopes = jax.lax.complex(derivatives[:, 0], derivatives[:, 1])

    def response(slopes):
        def change(update):
            change = jnp.log(1 + slopes @ update.astype(slopes.dtype))
            return jnp.stack([jnp.real(change), jnp.imag(change)], axis=1)

        return change

    optimiser = spring(0.3, shift=1e-3, trust_region=0.5)
    state = optimiser.init(jnp.zeros(5))
    some, _ = optimiser.update(
        jnp.zeros(5), state, derivatives=derivatives, energies=energies, weights=weights,
        response=response(slopes),
    )  # fmt: skip
    all_of_them, _ = optimiser.update(
        jnp.zeros(5), state, **repeated, response=response(jnp.repeat(slopes, counts, axis=0))
    )
    np.testing.assert_allclose(some, all_of_them, rtol=1e-8)


def test_the_error_of_a_weighted_mean_is_what_it_scatters():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 8, 8))
    weights = 1 / (0.6 + x**2)
    found = jax.jit(jax.vmap(estimate_mean))(jnp.asarray(x + x**2), jnp.asarray(weights))
    scatter = np.std(np.asarray(found.mean))
    assert abs(scatter / float(jnp.sqrt(jnp.mean(found.error**2))) - 1) < 0.15
    exact = np.sum(weights * (x + x**2)) / np.sum(weights)
    assert abs(float(jnp.mean(found.mean)) - exact) < 4 * scatter / 200**0.5 + 1e-3
    spread = np.sum(weights * (x + x**2 - exact) ** 2) / np.sum(weights)
    assert abs(float(jnp.mean(found.variance)) / spread - 1) < 0.05
    estimate = jax.jit(estimate_mean)
    alike = estimate(jnp.asarray(x[0]), jnp.full((8, 8), 2.0))
    for one, other in zip(alike, estimate(jnp.asarray(x[0])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_only_states_with_phases_are_blurred():
    hamiltonian = Ising(4)
    for complex_head in (False, True):
        vmc = VMC(hamiltonian, Metropolis(hamiltonian, 8), minsr(), warm_up=0)
        model = random_network(4, complex_head=complex_head, depth=1)
        state: VMCState = vmc.init(jax.random.key(0), model)
        _, measured = vmc.measure(state.key, state.model, state.sampler)
        assert (measured.weights is not None) == complex_head
        _, plain = vmc.sample(state, 1)
        assert plain.weights is None or jnp.all(plain.weights == 1)
        assert can_blur(hamiltonian, model, state.sampler.spins[0]) == complex_head
    diagonal = PauliStrings(4, [("ZZ", 1.0)])  # nowhere to go
    assert not can_blur(diagonal, model, state.sampler.spins[0])
    with pytest.raises(ValueError, match="0 <= blur < 1, got 1"):
        VMC(hamiltonian, Metropolis(hamiltonian, 8), minsr(), blur=1.0)
