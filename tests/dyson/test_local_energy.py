"""Local energies against the matrix of H and the enumerated state."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import (
    J1J2,
    Abacus,
    Ising,
    PauliStrings,
    Recompute,
    SpinFlip,
    interactions,
    local_energies,
)
from dyson.batching import in_chunks
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.spins import enumerate_spins, flip, random_spins, spins_to_index
from dyson.vmc.ratios import fastest_updates, samples_per_chunk
from lanes import later
from random_networks import random_network

evaluate = quick_jit(local_energies)


class FieldOnEvenSites(Hamiltonian):
    """-sum X_i X_{i+1} over the bonds that start on even sites: two flips per term."""

    n_sites: int = eqx.field(static=True, default=8)
    periodic = True
    spin_flip_symmetric = True
    flips_each_site = False
    conserves_magnetisation = False
    reach = 1

    def diagonal(self, spins):
        return jnp.zeros(())

    def connected(self, spins):
        first = jnp.arange(0, self.n_sites, 2, dtype=jnp.int32)
        return jnp.stack([first, first + 1], axis=1), -jnp.ones(len(first))

    @property
    def trace_per_dimension(self):
        return jnp.zeros(())


def from_the_rows(hamiltonian, model, spins):
    """E_loc of configurations by explicit sums over the connected ones."""
    n = hamiltonian.n_sites

    @quick_jit
    def rows(model, spins):
        log_psi = jax.vmap(lambda s: model(s))(enumerate_spins(n))
        diagonal = jax.vmap(hamiltonian.diagonal)(spins)
        return log_psi, diagonal, spins_to_index(spins), *jax.vmap(hamiltonian.connected)(spins)

    log_psi, *found = map(np.asarray, rows(model, spins))
    amplitude = np.exp(log_psi)
    energies = []
    for diagonal, row, sites, elements in zip(*found, strict=True):
        total = complex(diagonal) * amplitude[row]
        for flips, element in zip(sites, elements, strict=True):
            # the first site is the highest binary digit of the number of a configuration
            there = row
            for site in flips[flips >= 0]:
                there ^= 1 << (n - 1 - site)
            total += element * amplitude[there]
        energies.append(total / amplitude[row])
    return np.array(energies)


@pytest.mark.parametrize(
    "complex_head, projected",
    [later(True, False), (False, True), later(False, False), later(True, True)],
)
def test_every_row_of_an_ising_chain(complex_head, projected):
    hamiltonian = Ising(6, exponent=1.5, coupling=0.7, longitudinal=0.3, field=1.2)
    model = random_network(6, complex_head=complex_head)
    model = SpinFlip(model) if projected else model
    spins = enumerate_spins(6)
    expected = from_the_rows(hamiltonian, model, spins)
    for updates in (Abacus(), Recompute()):
        energies = evaluate(hamiltonian, model, spins, updates=updates)
        assert energies.dtype == (jnp.complex128 if complex_head else jnp.float64)
        np.testing.assert_allclose(energies, expected, rtol=1e-10, atol=1e-10)


def test_terms_that_flip_pairs():
    hamiltonian, model = FieldOnEvenSites(), random_network(8)
    spins = random_spins(jax.random.key(0), (5, 8))
    expected = from_the_rows(hamiltonian, model, spins)
    for updates in (Abacus(span=2), Recompute()):
        energies = evaluate(hamiltonian, model, spins, updates=updates)
        np.testing.assert_allclose(energies, expected.real, rtol=1e-10)


@pytest.mark.parametrize("n_sites, token_size", [(1, 1), later(6, 1), (8, 2)])
def test_exchanges_by_the_default_updates(n_sites, token_size):
    hamiltonian = J1J2(n_sites, j1=0.9, j2=0.6)
    model = random_network(n_sites, token_size=token_size, depth=1)
    assert fastest_updates(model, hamiltonian.reach).span == 3
    spins = random_spins(jax.random.key(3), (5, n_sites))
    expected = from_the_rows(hamiltonian, model, spins)
    energies = evaluate(hamiltonian, model, spins)
    np.testing.assert_allclose(energies, expected.real, rtol=1e-10)


def test_every_kind_of_moves_is_served():
    """Single flips, nearby pairs and triples of one reference, and pairs far apart of another."""
    terms = [("X", 0.7), ("XX", lambda r: 1 / r), ("ZZ", lambda r: r**-2.0)]
    hamiltonian = PauliStrings(8, [*terms, ("YZ", 0.2), *interactions.chirality(0.3)])
    kinds = [(kind.sites.shape[1], kind.reach) for kind in hamiltonian.kinds]
    assert kinds == [(1, 0), (2, 3), (2, 4)]
    small = {"depth": 1, "features": 2, "modes": 1, "mixer": "real"}
    model = random_network(8, complex_head=True, **small)
    spins = random_spins(jax.random.key(2), (5, 8))
    expected = from_the_rows(hamiltonian, model, spins)
    np.testing.assert_allclose(evaluate(hamiltonian, model, spins), expected, rtol=1e-10)


def test_entries_that_vanish_do_not_overflow():
    """Outside the sector of the sample the amplitude is as large as numbers get."""

    class OneSector(Network):
        n_sites: int = 70  # more pairs than are evaluated at once

        def __call__(self, spins):
            return jnp.where(jnp.sum(spins, dtype=jnp.int32) == 0, 0.0, 1e4)

    neel = jnp.tile(jnp.array([1, -1], jnp.int8), 35)[None]
    energy = evaluate(J1J2(70, j2=0.5, marshall=False), OneSector(), neel)
    # every bond is opposite, every pair of next-nearest neighbours equal
    np.testing.assert_allclose(energy, 70 * (0.5 - 0.25 + 0.125), rtol=1e-12)


def test_chunks_change_nothing():
    hamiltonian, model = Ising(7), random_network(7)
    spins = random_spins(jax.random.key(1), (11, 7))
    one, some, all_ = (evaluate(hamiltonian, model, spins, chunk_size=c) for c in (1, 4, 100))
    np.testing.assert_allclose(one, all_, rtol=1e-12)
    np.testing.assert_allclose(some, all_, rtol=1e-12)


def test_the_last_chunk_is_filled_and_cut():
    numbers = jnp.arange(7.0)
    for chunk_size in (1, 3, 7, 50):
        assert bool(jnp.all(in_chunks(lambda x: x**2, numbers, chunk_size) == numbers**2))


class ThreeFlips(Hamiltonian):
    """A term of one's own that flips three spins, ``apart`` from one to the next."""

    n_sites: int = eqx.field(static=True)
    apart: int = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    periodic: ClassVar[bool] = True
    spin_flip_symmetric: ClassVar[bool] = False
    flips_each_site: ClassVar[bool] = False
    conserves_magnetisation: ClassVar[bool] = False

    def diagonal(self, spins):
        return jnp.sum(spins * jnp.roll(spins, 1)).astype(float)

    def connected(self, spins):
        i = jnp.arange(self.n_sites, dtype=jnp.int32)
        moves = [(i + k * self.apart) % self.n_sites for k in range(3)]
        return jnp.stack(moves, axis=1), -jnp.ones(self.n_sites)

    @property
    def trace_per_dimension(self):
        return jnp.zeros(())


@pytest.mark.parametrize("n_sites, apart", [(12, 1), (12, 4), (90, 30)])
def test_three_flips_at_any_distance(n_sites, apart):
    """Two windows hold two flips, so the default is a short window or the forward pass."""
    model = random_network(n_sites, depth=1, features=2, modes=1, mixer="real")
    hamiltonian = ThreeFlips(n_sites, apart, min(2 * apart, n_sites - 2 * apart))
    spins = random_spins(jax.random.key(0), (1, n_sites))
    sites, elements = hamiltonian.connected(spins[0])
    moved = jax.vmap(flip, in_axes=(None, 0))(spins[0], sites)
    log_psi = quick_jit(jax.vmap(lambda s: model(s)))(jnp.concatenate([spins, moved]))
    expected = hamiltonian.diagonal(spins[0]) + elements @ jnp.exp(log_psi[1:] - log_psi[0])
    energy = evaluate(hamiltonian, model, spins)[0]
    np.testing.assert_allclose(energy, expected, rtol=1e-9)
    updates = fastest_updates(model, hamiltonian.reach, flips=3)
    assert isinstance(updates, Recompute) or hamiltonian.reach < 4


def test_memory_budget():
    small, large = random_network(8), random_network(4096)
    bound = [eqx.filter_eval_shape(Abacus().bind, model) for model in (large, small)]
    few, many = map(samples_per_chunk, bound)
    assert many > few >= 1
    medium = random_network(64)
    assert isinstance(fastest_updates(medium), Abacus)
    assert isinstance(fastest_updates(SpinFlip(medium)), Abacus)
    assert isinstance(fastest_updates(random_network(8, mixer="power_law")), Recompute)
    deep = random_network(8, depth=3, mixer="real")
    assert isinstance(fastest_updates(deep), Recompute)
    assert isinstance(fastest_updates(random_network(4096, depth=3, mixer="real")), Abacus)


def test_single_precision_network_sums_in_double():
    hamiltonian, model = Ising(40), random_network(40, dtype=jnp.float32)
    energies = evaluate(hamiltonian, model, random_spins(jax.random.key(2), (3, 40)))
    assert energies.dtype == jnp.float64


def test_misuse_is_named():
    hamiltonian, model = Ising(6), random_network(6)
    with pytest.raises(ValueError, match="\\(samples, 6\\), got \\(6,\\); write spins\\[None\\]"):
        local_energies(hamiltonian, model, jnp.ones(6, jnp.int8))
    with pytest.raises(ValueError, match="6 sites, the model 4"):
        local_energies(hamiltonian, random_network(4), jnp.ones((1, 6), jnp.int8))
    with pytest.raises(ValueError, match="chunk_size >= 1, got 0"):
        local_energies(hamiltonian, model, jnp.ones((1, 6), jnp.int8), chunk_size=0)
