import math

import numpy as np
import pytest

from dyson.exact import free_fermion_energy, ground_energy, ground_state
from dyson.hamiltonians import Ising
from pauli import ising_matrix


def ising(n_sites, coupling, exponent, field, longitudinal, periodic, kac):
    return Ising(
        n_sites,
        coupling=coupling,
        exponent=exponent,
        field=field,
        longitudinal=longitudinal,
        periodic=periodic,
        kac=kac,
    )


@pytest.mark.parametrize(
    "case",
    [
        (1, -1.0, 2.0, 0.6, 0.0, True, False),
        (1, -1.0, 2.0, 0.6, 0.3, True, False),
        (4, -1.2, 2.0, 0.6, 0.0, True, True),
        (7, 0.8, 1.5, 0.6, 0.0, True, False),
        # A negative field puts the ground state of an odd chain into the odd sector.
        (7, -1.2, 1.5, -0.6, 0.0, False, False),
        (8, 0.8, 3.0, 0.6, 0.25, True, False),
        (9, 1.4, math.inf, -0.6, 0.0, True, False),
        (9, -1.4, 0.7, 0.6, -0.25, False, True),
    ],
)
def test_diagonalisation_agrees_with_dense_matrices(case):
    matrix = ising_matrix(*case)
    energy, vector = ground_state(ising(*case))
    assert energy == pytest.approx(np.linalg.eigvalsh(matrix)[0], rel=1e-12)
    assert np.linalg.norm(vector) == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(matrix @ vector, energy * vector, atol=1e-7)


def test_zero_field_is_the_lowest_diagonal_entry():
    hamiltonian = Ising(9, coupling=0.8, exponent=2.0, field=0.0, longitudinal=0.1)
    expected = np.linalg.eigvalsh(ising_matrix(9, 0.8, 2.0, 0.0, 0.1, True, False))[0]
    assert ground_energy(hamiltonian) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_sites", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("periodic", [True, False])
def test_free_fermions_agree_with_dense_matrices_for_all_signs(n_sites, periodic):
    bonds = ising_matrix(n_sites, 1.0, math.inf, 0.0, 0.0, periodic, False)
    flips = ising_matrix(n_sites, 0.0, math.inf, 1.0, 0.0, periodic, False)
    for coupling in (-1.0, 1.0, 0.0):
        for field in (0.0, 0.4, -0.4, 1.0, -1.0, 1.7, -1.7):
            energy = free_fermion_energy(n_sites, coupling=coupling, field=field, periodic=periodic)
            expected = np.linalg.eigvalsh(coupling * bonds + field * flips)[0]
            assert energy == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "n_sites, field, periodic, expected",
    [
        (100, 0.5, True, -106.35444099733648),
        (64, 1.0, False, -81.1259801231435),
        (256, 2.0, True, -544.5347379063628),
        (256, 1.0, False, -325.58645355531814),
        (1000, 0.5, True, -1063.544409973365),
    ],
)
def test_known_values_of_the_nearest_neighbour_chain(n_sites, field, periodic, expected):
    energy = ground_energy(Ising(n_sites, field=field, periodic=periodic))
    assert energy == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("n_sites", [3, 4, 64, 101])
def test_critical_ring_has_its_closed_form(n_sites):
    expected = -2 / math.sin(math.pi / (2 * n_sites))
    assert ground_energy(Ising(n_sites)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    "n_sites, exponent, coupling, expected",
    [
        (12, 1.5, -1.4, -12.487577125699223),
        (12, 2.5, 4.75, -16.690482131542026),
        (12, 4.0, 1.0, -12.294663633524266),
        (16, 3.0, -2.0, -17.71765029634041),
    ],
)
def test_known_values_of_the_long_range_ring(n_sites, exponent, coupling, expected):
    hamiltonian = Ising(n_sites, exponent=exponent, coupling=coupling, kac=True)
    assert ground_energy(hamiltonian) == pytest.approx(expected, abs=1e-10)


def test_kac_normalised_nearest_neighbour_ring_is_solved_by_free_fermions():
    assert ground_energy(Ising(12, coupling=-3.0, kac=True)) == pytest.approx(
        -15.322595151080776, rel=1e-13
    )


def test_out_of_reach_is_said_and_not_guessed():
    assert ground_energy(Ising(21, exponent=3.0)) is None
    assert ground_energy(Ising(21, longitudinal=0.1)) is None
    with pytest.raises(ValueError, match="limited to 20 sites, got 21"):
        ground_state(Ising(21))
    with pytest.raises(ValueError, match="n_sites must be at least 1, got 0"):
        free_fermion_energy(0, coupling=1.0, field=1.0, periodic=True)
