"""Lowest levels of symmetry sectors, against dense projectors."""

import numpy as np
import pytest

from dyson.exact import ground_energy, sector_ground_state
from dyson.exact.diagonalise import rows_of
from dyson.hamiltonians import J1J2, XXZ, Ising, PauliStrings, interactions
from dyson.spins import enumerate_spins


def projected_basis(spins, inside, wanted):
    """States with psi(g sigma) = character psi(sigma), by singular values of a dense projector."""
    position = {tuple(s): row for row, s in enumerate(spins)}
    total = np.diag(inside.astype(float))
    for symmetry, character, order in wanted:
        once = np.zeros_like(total)
        for row, s in enumerate(spins):
            once[row, position[tuple(symmetry(s))]] = 1
        powers = [np.linalg.matrix_power(once, p) * character**-p for p in range(order)]
        total = total @ sum(powers) / order
    vectors, values, _ = np.linalg.svd(total)
    return vectors[:, values > 0.5]


SYMMETRIC = [
    (Ising(6, exponent=3.0), {"momentum": 1, "parity": -1}),
    (Ising(7, coupling=0.7, periodic=False), {"reflection": -1, "parity": 1}),
    (J1J2(6, j2=0.4), {"momentum": 3, "reflection": -1, "parity": -1, "magnetisation": 0}),
    (
        PauliStrings(5, interactions.dzyaloshinskii_moriya((0.0, 0.0, 1.0))),
        {"momentum": 2, "magnetisation": 1},
    ),
]


@pytest.mark.parametrize("hamiltonian, sector", SYMMETRIC)
def test_the_lowest_level_of_a_sector(hamiltonian, sector):
    n = hamiltonian.n_sites
    spins = np.asarray(enumerate_spins(n))
    diagonal, targets, elements = rows_of(hamiltonian, np.arange(2**n, dtype=np.int32))
    matrix = np.diag(diagonal).astype(elements.dtype)
    for target, element in zip(targets, elements, strict=True):
        matrix[np.arange(2**n), target] += element
    turn = np.exp(2j * np.pi * sector.get("momentum", 0) / n)
    symmetries = {
        "momentum": (lambda s: np.roll(s, 1), turn, n),
        "reflection": (lambda s: s[::-1], sector.get("reflection"), 2),
        "parity": (lambda s: -s, sector.get("parity"), 2),
    }
    inside = np.ones(2**n, bool)
    if "magnetisation" in sector:
        inside = spins.sum(axis=1) == sector["magnetisation"]
    basis = projected_basis(spins, inside, [symmetries[s] for s in sector if s in symmetries])
    found = sector_ground_state(hamiltonian, **sector)
    expected = np.linalg.eigvalsh(basis.conj().T @ matrix @ basis)[0]
    assert found.energy == pytest.approx(expected, abs=1e-10)
    assert found.dimension == basis.shape[1]
    vector = found.vector
    np.testing.assert_allclose(matrix @ vector, found.energy * vector, atol=1e-8)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(basis @ (basis.conj().T @ vector), vector, atol=1e-8)


def test_levels_of_sectors_that_are_known():
    ring = Ising(10)
    odd = sector_ground_state(ring, parity=-1).energy
    assert odd == pytest.approx(ground_energy(ring, parity=-1), abs=1e-10)
    lowest = sector_ground_state(ring, parity=1, momentum=0, reflection=1)
    assert lowest.energy == pytest.approx(ground_energy(ring), abs=1e-10)
    gap = sector_ground_state(J1J2(10), magnetisation=2).energy - ground_energy(J1J2(10))
    assert gap == pytest.approx(0.423, abs=1e-3)  # singlet and triplet
    # more states than are diagonalised densely
    everything = sector_ground_state(ring)
    assert everything.dimension == 1024
    assert everything.energy == pytest.approx(ground_energy(ring), abs=1e-9)


def test_sectors_without_states_or_symmetry_are_named():
    with pytest.raises(ValueError, match="no state of 2 sites has momentum=1, reflection=1"):
        sector_ground_state(Ising(2), momentum=1, reflection=1)
    with pytest.raises(ValueError, match="does not commute with translations"):
        sector_ground_state(Ising(4, periodic=False), momentum=1)
    with pytest.raises(ValueError, match="momentum 0 or pi with a reflection.*momentum=1 of 4"):
        sector_ground_state(Ising(4), momentum=1, reflection=1)
    with pytest.raises(ValueError, match="expected magnetisation 0 with a parity.*got 2"):
        sector_ground_state(XXZ(4), magnetisation=2, parity=1)
    with pytest.raises(ValueError, match="Ising does not conserve the magnetisation"):
        sector_ground_state(Ising(4), magnetisation=0)
    with pytest.raises(ValueError, match="expected parity 1 or -1, got 2"):
        sector_ground_state(Ising(4), parity=2)
    with pytest.raises(ValueError, match="at most 14 sites, got 15"):
        sector_ground_state(Ising(15))
