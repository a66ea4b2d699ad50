"""Evolution in real time: velocities and states against the Schrodinger equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm
from scipy.sparse.linalg import expm_multiply

from dyson import (
    VMC,
    DysonNet,
    Evolution,
    EvolutionError,
    Ising,
    SpinFlip,
    Sweep,
    minsr,
    state_vector,
)
from dyson.spins import enumerate_spins
from dyson.vmc.evolution import velocity_of
from dyson.vmc.measurement import Measurement
from pauli import ising_matrix

LONG_RANGE = {"coupling": -2.0, "exponent": 3.0, "field": 0.5, "kac": True}


def matrix(n_sites, **options):
    """Of a ring, as a complex matrix in the order of ``enumerate_spins``."""
    given = {"exponent": np.inf, "field": 1.0, "longitudinal": 0.0, "kac": False} | options
    return np.asarray(ising_matrix(n_sites, periodic=True, **given), complex)


def normalised(model):
    vector = np.asarray(state_vector(model))
    return vector / np.linalg.norm(vector)


def distance(a, b):
    return np.sqrt(max(0.0, 1 - np.abs(np.vdot(a, b)) ** 2))


def test_a_network_with_parameters_enough_follows_exactly():
    """On all configurations, weighed by |psi|^2: d log psi / dt is -i E_loc up to a constant."""
    n_sites = 4
    model = DysonNet(n_sites, features=6, complex_head=True, key=jax.random.key(0))
    spins = enumerate_spins(n_sites)
    psi = normalised(model)
    energies = matrix(n_sites, coupling=-1.0) @ psi / psi
    samples = Measurement(
        spins[None], energies[None], jnp.ones((1, len(psi))), jnp.abs(psi[None]) ** 2
    )
    velocity = velocity_of(model, samples, jnp.asarray(1e-14))
    assert float(velocity.residual) < 1e-10

    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = jax.flatten_util.ravel_pytree(parameters)
    log_psi = lambda flat: jax.vmap(eqx.combine(unravel(flat), static))(spins)
    change = np.asarray(jax.jvp(log_psi, (flat,), (velocity.parameters,))[1])
    mean = np.sum(np.abs(psi) ** 2 * energies)
    expected = -1j * (energies - mean)
    change = change - np.sum(np.abs(psi) ** 2 * change)
    np.testing.assert_allclose(change, expected, atol=1e-4 * np.abs(expected).max())


def test_a_state_evolves_as_by_the_exact_propagator_and_back():
    n_sites = 4
    hamiltonian = Ising(n_sites, coupling=-1.0)
    model = SpinFlip(DysonNet(n_sites, features=4, complex_head=True, key=jax.random.key(1)))
    sampler = Sweep(hamiltonian, 16)
    forward, back = (Evolution(hamiltonian, sampler, time_step=t) for t in (0.1, -0.1))
    state = forward.init(jax.random.key(2), model)
    start = normalised(state.model)
    later, info = forward.step(state)
    propagator = expm(-0.1j * matrix(n_sites, coupling=-1.0))
    assert distance(propagator @ start, start) > 0.05
    assert distance(normalised(later.model), propagator @ start) < 1e-3
    assert float(later.time) == 0.1 and float(info.time) == 0.0
    assert float(info.inner_steps) >= 1 and 0 <= float(info.residual) < 1e-3

    returned, _ = back.step(eqx.tree_at(lambda s: s.interval, later, -later.interval))
    assert float(returned.time) == 0.0
    assert distance(normalised(returned.model), start) < 2e-3


@pytest.mark.exhaustive
def test_a_quench_of_the_long_range_chain():
    """From all spins along x, eight sites to time 1/2: the transverse magnetisation to 1e-3, the
    energy conserved."""
    n_sites = 8
    free, hamiltonian = Ising(n_sites, coupling=0.0), Ising(n_sites, **LONG_RANGE)
    model = SpinFlip(DysonNet(n_sites, features=8, complex_head=True, key=jax.random.key(0)))
    vmc = VMC(free, Sweep(free, 64), minsr(0.2, shift=1e-6))
    start = vmc.init(jax.random.key(1), model)
    for _ in range(40):
        start, _ = vmc.step(start)
    evolution = Evolution(hamiltonian, Sweep(hamiltonian, 64), time_step=0.25, chain_length=8)
    state = evolution.init(jax.random.key(2), start.model)
    dense = matrix(n_sites, **LONG_RANGE)
    along_x = -matrix(n_sites, coupling=0.0) / n_sites
    psi = normalised(state.model)
    energy = np.vdot(psi, dense @ psi).real
    for _ in range(2):
        state, _ = evolution.step(state)
        psi = expm_multiply(-0.25j * dense, psi)
        mine = normalised(state.model)
        assert abs(np.vdot(mine, along_x @ mine) - np.vdot(psi, along_x @ psi)) < 1e-3
        assert abs(np.vdot(mine, dense @ mine).real - energy) < 1e-3 * n_sites


def test_what_cannot_evolve_is_refused():
    hamiltonian = Ising(4)
    sampler = Sweep(hamiltonian, 4)
    for wrong in ({"time_step": 0.0}, {"time_step": 0.1, "shift": 0.0}, {"time_step": np.inf}):
        with pytest.raises(ValueError, match="Evolution: expected time_step other than 0"):
            Evolution(hamiltonian, sampler, **wrong)
    evolution = Evolution(hamiltonian, sampler, time_step=0.1)
    with pytest.raises(TypeError, match="complex log psi, got DysonNet with a real one"):
        evolution.init(jax.random.key(0), DysonNet(4, features=2, key=jax.random.key(0)))


@pytest.mark.exhaustive
def test_an_evolution_that_breaks_down_leaves_a_state():
    hamiltonian = Ising(4)
    evolution = Evolution(hamiltonian, Sweep(hamiltonian, 4), time_step=0.1)
    model = DysonNet(4, features=2, depth=1, complex_head=True, key=jax.random.key(0))
    state = evolution.init(jax.random.key(0), model)
    broken = eqx.tree_at(lambda s: s.model.head.weight, state, state.model.head.weight * jnp.nan)
    with pytest.raises(EvolutionError, match="time 0: the velocity .* larger shift") as caught:
        evolution.step(broken)
    assert float(caught.value.state.time) == 0.0
