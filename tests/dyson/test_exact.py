import math

import numpy as np
import pytest

from dyson.exact import (
    free_fermion_energy,
    ground_energy,
    ground_level,
    ground_state,
    heisenberg_energy,
    known,
)
from dyson.hamiltonians import J1J2, XXZ, Ising
from dyson.spins import enumerate_spins
from lanes import later
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
        rotate=False,
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
    energy, _, _, vector = ground_state(ising(*case))
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
            matrix = coupling * bonds + field * flips
            assert energy == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-12)
            for parity in (1, -1):
                energy = free_fermion_energy(
                    n_sites, coupling=coupling, field=field, periodic=periodic, parity=parity
                )
                assert energy == pytest.approx(lowest_of_parity(matrix, parity), abs=1e-12)


def lowest_of_parity(matrix, parity):
    """Of a dense matrix that commutes with the flip of all spins."""
    half = len(matrix) // 2
    even = matrix[:half, :half] + parity * matrix[:half, half:][:, ::-1]
    return np.linalg.eigvalsh(even)[0]


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


SECTORS = [
    XXZ(6, coupling=0.7, anisotropy=0.4, marshall=False),
    later(XXZ(7, anisotropy=-2.0, exponent=3.0)),
    J1J2(5, j2=0.6, periodic=False),
]


@pytest.mark.parametrize("hamiltonian", SECTORS)
def test_every_sector_has_its_lowest_level(hamiltonian):
    """Against the blocks of a dense matrix, and the lowest of all is the ground state."""
    n = hamiltonian.n_sites
    matrix = np.zeros((2**n, 2**n))
    spins = np.asarray(enumerate_spins(n))
    for row, sample in enumerate(spins):
        matrix[row, row] = hamiltonian.diagonal(sample)
        for sites, element in zip(*map(np.asarray, hamiltonian.connected(sample)), strict=True):
            matrix[row, row ^ sum(1 << (n - 1 - i) for i in sites)] += element
    flip = np.eye(2**n)[::-1]
    levels = []
    for m in range(-n, n + 1, 2):
        inside = np.eye(2**n)[spins.sum(1) == m]
        parities = [None] if m else [None, 1, -1]
        for parity in parities:
            found = ground_state(hamiltonian, magnetisation=m, parity=parity)
            basis = inside if parity is None else (inside + parity * inside @ flip) / 2
            vectors, values, _ = np.linalg.svd(basis.T, full_matrices=False)
            vectors = vectors[:, values > 1e-8]
            lowest = np.linalg.eigvalsh(vectors.T @ matrix @ vectors)[0]
            assert found.energy == pytest.approx(lowest, abs=1e-10)
            assert found.magnetisation == m and (m == 0) == (found.parity is not None)
            vector = found.vector
            np.testing.assert_allclose(matrix @ vector, found.energy * vector, atol=1e-7)
            assert np.all(vector[spins.sum(1) != m] == 0)
            levels.append(found)
    best = ground_state(hamiltonian)
    assert best.energy == pytest.approx(min(x.energy for x in levels), abs=1e-10)
    assert best.magnetisation == min(
        abs(x.magnetisation) for x in levels if x.energy < best.energy + 1e-9
    )


def test_dipoles_are_compared_within_their_sector():
    """Their ground state is polarised, far below what samples of magnetisation zero see."""
    dipoles = XXZ(8, anisotropy=-2.0, exponent=3.0)
    level = ground_level(dipoles)
    assert level.magnetisation == 8 and level.parity is None
    assert level.energy == pytest.approx(float(dipoles.diagonal(np.ones(8, np.int8))), abs=1e-10)
    assert ground_energy(dipoles, magnetisation=0) > level.energy + 1


@pytest.mark.parametrize(
    "hamiltonian",
    [
        XXZ(6, coupling=0.0),
        XXZ(9, coupling=0.0),
        J1J2(10, j1=0.0),
        Ising(9, exponent=2.0, coupling=0.0, field=0.0),
        Ising(9, coupling=0.0, field=0.0, longitudinal=1e-30),
        XXZ(8, coupling=1e-300),
        Ising(9, exponent=2.0, coupling=0.0, field=1.0),
    ],
)
def test_hamiltonians_that_vanish_or_nearly_do(hamiltonian):
    expected = -9.0 if float(getattr(hamiltonian, "field", 0.0)) else 0.0
    assert ground_energy(hamiltonian) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n_sites", [5, 7])
def test_where_the_ground_state_is_odd_the_level_says_so(n_sites):
    """A negative field as it is written on an odd ring, of any coupling; rotated it is even."""
    for coupling in (-1.0, 0.7):
        written = Ising(n_sites, coupling=coupling, field=-0.8, rotate=False)
        assert ground_level(written).parity == ground_state(written).parity == -1
        rotated = Ising(n_sites, coupling=coupling, field=-0.8)
        assert ground_level(rotated).parity == ground_state(rotated).parity == 1
        assert ground_energy(rotated) == pytest.approx(ground_energy(written), abs=1e-12)
        even = ground_energy(written, parity=1)
        assert even > ground_energy(written) + 1e-3
        assert even == pytest.approx(ground_state(written, parity=1).energy, abs=1e-10)


def test_sectors_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no configuration of 6 spins has magnetisation 1"):
        ground_state(XXZ(6), magnetisation=1)
    with pytest.raises(ValueError, match="Ising does not conserve it; leave it out"):
        ground_energy(Ising(6, exponent=2.0), magnetisation=0)
    with pytest.raises(ValueError, match="parity=1 was asked for"):
        ground_state(XXZ(6), magnetisation=2, parity=1)
    with pytest.raises(ValueError, match="parity=-1 was asked for"):
        ground_level(Ising(6, longitudinal=0.3), parity=-1)


# J = 1, totals of rings: diagonalisation, and an independent solution of Bethe's equations.
HEISENBERG = {
    4: -2.0,
    16: -7.142296360616781,
    24: -10.67001451653724,
    64: -28.37430138535288,
    100: -44.32295707509185,
    256: -113.44889430181013,
}


@pytest.mark.parametrize("n_sites", HEISENBERG)
def test_the_bethe_ansatz_of_the_heisenberg_ring(n_sites):
    expected = pytest.approx(HEISENBERG[n_sites], rel=1e-12)
    assert heisenberg_energy(n_sites) == expected
    assert heisenberg_energy(n_sites, 2.5) / 2.5 == expected


@pytest.mark.parametrize("n_sites", [6, 8, 12])
def test_the_bethe_ansatz_equals_diagonalisation(n_sites):
    assert heisenberg_energy(n_sites) == pytest.approx(ground_energy(J1J2(n_sites)), rel=1e-12)


def test_a_long_heisenberg_ring_tends_to_the_endless_one():
    """By -pi^2 / (12 n^2) per site but for logarithms (conformal charge 1)."""
    beyond = [n**2 * (heisenberg_energy(n) / n - (0.25 - np.log(2))) for n in (256, 1024)]
    np.testing.assert_allclose(beyond, -(np.pi**2) / 12, rtol=0.02)


def test_rings_that_are_too_long_to_diagonalise_are_known_where_they_are_solved(monkeypatch):
    """The level and its sector are those that diagonalisation finds on shorter rings."""
    rings = [
        kind(n, marshall=marshall, **options)
        for n in (6, 8)
        for marshall in (True, False)
        for kind, options in (
            (J1J2, {}),
            (J1J2, {"j1": 2.0, "j2": 1.0}),
            (XXZ, {"coupling": 1.5}),
        )
    ]
    found = [ground_level(ring) for ring in rings]
    monkeypatch.setattr(known, "MAX_SITES", 4)
    for ring, expected in zip(rings, found, strict=True):
        level = ground_level(ring)
        assert level.energy == pytest.approx(expected.energy, rel=1e-12)
        assert (level.magnetisation, level.parity) == (expected.magnetisation, expected.parity)
        assert ground_level(ring, magnetisation=2) is None
        assert ground_level(ring, parity=-level.parity) is None
    unsolved = (
        J1J2(8, periodic=False),
        J1J2(8, j1=-1.0),
        J1J2(8, j2=0.4),
        J1J2(7),
        XXZ(8, anisotropy=0.5),
        XXZ(8, exponent=3.0),
        XXZ(8, coupling=-1.0),
    )
    assert [ground_level(chain) for chain in unsolved] == [None] * len(unsolved)


@pytest.mark.parametrize(
    "n_sites, coupling", [(7, 1.0), (2, 1.0), (8, -1.0), (8, np.inf), (5000, 1.0)]
)
def test_the_bethe_ansatz_refuses_other_rings(n_sites, coupling):
    with pytest.raises(ValueError, match=f"got {n_sites} sites and coupling"):
        heisenberg_energy(n_sites, coupling)
