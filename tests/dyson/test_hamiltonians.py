import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson.exact import ground_energy, ground_state
from dyson.hamiltonians import J1J2, XXZ, Hamiltonian, Ising
from dyson.spins import (
    enumerate_spins,
    flip,
    index_to_spins,
    random_spins,
    spins_to_index,
)
from lanes import later
from pauli import heisenberg_matrix, ising_matrix, xxz_matrix

CHAINS = [
    # n_sites, coupling, exponent, field, longitudinal, periodic, kac
    (1, -1.3, 3.0, 0.7, 0.4, True, True),
    (1, -1.3, math.inf, 0.7, 0.4, False, False),
    (2, -1.3, math.inf, 0.7, 0.4, True, False),
    (2, 0.8, 1.5, -0.7, 0.0, True, True),
    (3, 0.8, math.inf, 0.7, -0.4, True, True),
    (5, -1.3, 0.5, 0.7, 0.4, True, True),
    (5, 0.8, 2.0, -0.7, 0.4, False, False),
    (6, -1.3, math.inf, 0.7, 0.0, True, False),
    (6, -1.3, math.inf, 0.7, 0.3, False, False),
    (7, 0.8, 3.0, 1.1, 0.4, True, False),
    (7, 0.8, 1.0, 1.1, 0.4, False, True),
]


def build(case):
    n_sites, coupling, exponent, field, longitudinal, periodic, kac = case
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


def matrix_of(hamiltonian: Hamiltonian):
    """The matrix that `diagonal` and `connected` describe."""
    diagonal, sites, columns, elements = map(np.asarray, rows_of(hamiltonian))
    assert sites.dtype == np.int32
    matrix = np.diag(diagonal)
    for row in range(len(matrix)):
        np.add.at(matrix, (row, columns[row]), elements[row])
    return matrix


@jax.jit
def rows_of(hamiltonian):
    """One program per case: every operation outside of one would be compiled on its own."""
    basis = enumerate_spins(hamiltonian.n_sites)
    sites, elements = jax.vmap(hamiltonian.connected)(basis)
    moved = jax.vmap(jax.vmap(flip, (None, 0)))(basis, sites)
    return jax.vmap(hamiltonian.diagonal)(basis), sites, spins_to_index(moved), elements


@pytest.mark.parametrize("case", CHAINS)
def test_rows_are_those_of_the_pauli_matrices(case):
    hamiltonian = build(case)
    expected = ising_matrix(*case)
    np.testing.assert_allclose(matrix_of(hamiltonian), expected, atol=1e-13)
    trace = np.trace(expected) / len(expected)
    np.testing.assert_allclose(hamiltonian.trace_per_dimension, trace, atol=1e-13)


@pytest.mark.parametrize("case", CHAINS)
def test_spin_flip_symmetry_is_that_of_the_matrix(case):
    matrix = ising_matrix(*case)
    symmetric = bool(np.allclose(matrix, matrix[::-1, ::-1]))
    assert build(case).spin_flip_symmetric is symmetric


@pytest.mark.parametrize("case", CHAINS)
def test_diagonal_change_of_one_or_more_flips(case):
    hamiltonian = build(case)
    n_sites = hamiltonian.n_sites
    moves = [[0, -1, -1], [-1, n_sites - 1, -1], [-1, -1, -1]]
    if n_sites >= 3:
        moves += [[0, 1, -1], [n_sites - 1, 0, 1], [2, -1, 0]]

    @jax.jit
    def change_and_difference(spins, sites):
        change = hamiltonian.diagonal_change(spins, hamiltonian.local_fields(spins), sites)
        return change, hamiltonian.diagonal(flip(spins, sites)) - hamiltonian.diagonal(spins)

    for seed, move in enumerate(moves):
        spins = random_spins(jax.random.key(seed), n_sites)
        change, difference = change_and_difference(spins, jnp.array(move, dtype=jnp.int32))
        np.testing.assert_allclose(change, difference, atol=1e-12)


@pytest.mark.parametrize("exponent", [2.0, math.inf])
@pytest.mark.parametrize("periodic", [True, False])
def test_large_chain_diagonal_is_the_sum_over_pairs(exponent, periodic):
    n_sites = 101
    hamiltonian = Ising(n_sites, coupling=0.9, exponent=exponent, periodic=periodic)
    spins = np.asarray(random_spins(jax.random.key(1), n_sites), dtype=float)
    separation = np.abs(np.subtract.outer(np.arange(n_sites), np.arange(n_sites))).astype(float)
    distance = np.minimum(separation, n_sites - separation) if periodic else separation
    np.fill_diagonal(distance, np.inf)
    expected = 0.45 * np.einsum("i,ij,j->", spins, distance**-exponent, spins)
    actual = hamiltonian.diagonal(jnp.asarray(spins, dtype=jnp.int8))
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_parameters_are_arrays_so_that_new_values_do_not_retrace():
    traces = []

    @jax.jit
    def energy(hamiltonian, spins):
        traces.append(None)
        return hamiltonian.diagonal(spins)

    spins = random_spins(jax.random.key(0), 6)
    values = [float(energy(Ising(6, coupling=c, field=c), spins)) for c in (-1.0, -2.0)]
    assert len(traces) == 1
    assert values[1] == 2 * values[0]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_sites": 0}, "n_sites must be at least 1, got 0"),
        ({"n_sites": -4}, "n_sites must be at least 1, got -4"),
        ({"n_sites": 4, "exponent": 0}, "exponent must be greater than 0, got 0"),
        ({"n_sites": 4, "exponent": -1.0}, "exponent must be greater than 0, got -1"),
        ({"n_sites": 4, "exponent": math.nan}, "exponent must be greater than 0, got nan"),
        ({"n_sites": 4, "coupling": math.inf}, "coupling must be a finite number, got inf"),
        ({"n_sites": 4, "field": math.nan}, "field must be a finite number, got nan"),
        ({"n_sites": 4, "longitudinal": math.inf}, "longitudinal must be a finite number"),
    ],
)
def test_wrong_parameters_are_refused_with_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        Ising(**arguments)


def test_wrong_types_and_shapes_are_refused():
    with pytest.raises(TypeError):
        Ising(4.0)  # pyright: ignore[reportArgumentType]
    hamiltonian = Ising(4)
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(2, 4\); use jax.vmap"):
        hamiltonian.diagonal(jnp.ones((2, 4), dtype=jnp.int8))
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(5,\)"):
        hamiltonian.connected(jnp.ones(5, dtype=jnp.int8))


def test_enumeration_follows_the_kronecker_order():
    expected = [[1, 1], [1, -1], [-1, 1], [-1, -1]]
    np.testing.assert_array_equal(enumerate_spins(2), expected)
    basis = enumerate_spins(5)
    assert basis.dtype == jnp.int8
    np.testing.assert_array_equal(spins_to_index(basis), np.arange(32))
    np.testing.assert_array_equal(index_to_spins(jnp.int32(6), 4), [1, -1, -1, 1])
    for n_sites in (0, 27):
        with pytest.raises(ValueError, match="1 <= n_sites <= 26"):
            enumerate_spins(n_sites)
    with pytest.raises(ValueError, match="1 <= n_sites <= 26"):
        spins_to_index(jnp.ones(40, dtype=jnp.int8))


def test_flip_ignores_padding_and_undoes_itself():
    spins = jnp.array([1, -1, 1, 1], dtype=jnp.int8)
    move = jnp.array([-1, 3, 0, -1], dtype=jnp.int32)
    np.testing.assert_array_equal(flip(spins, move), [-1, -1, 1, -1])
    np.testing.assert_array_equal(flip(flip(spins, move), move), spins)
    np.testing.assert_array_equal(flip(spins, jnp.array([-1], dtype=jnp.int32)), spins)


def test_random_spins_are_fair_and_independent():
    spins = np.asarray(random_spins(jax.random.key(3), (4000, 4)), dtype=float)
    assert set(np.unique(spins)) == {-1.0, 1.0}
    # Means and correlations of independent spins have a standard deviation of 1/√4000 = 0.016.
    correlations = spins.T @ spins / len(spins)
    np.testing.assert_allclose(correlations, np.eye(4), atol=0.08)
    np.testing.assert_allclose(spins.mean(axis=0), 0, atol=0.08)


@pytest.mark.parametrize(
    "case",
    [
        # n_sites, j1, j2, marshall, periodic
        (1, 1.0, 0.5, True, True),
        (2, 1.0, 0.5, False, True),
        later((3, 0.8, -0.3, True, True)),
        (4, -1.0, 0.7, False, True),
        later((7, 1.2, 0.7, True, True)),
        (7, 1.2, -0.7, True, False),
        (8, 1.0, 0.3, True, True),
    ],
)
def test_exchanges_are_those_of_the_spin_operators(case):
    n_sites, j1, j2, marshall, periodic = case
    hamiltonian = J1J2(n_sites, j1=j1, j2=j2, marshall=marshall, periodic=periodic)
    expected = heisenberg_matrix(*case)
    np.testing.assert_allclose(matrix_of(hamiltonian), expected, atol=1e-13)
    assert float(hamiltonian.trace_per_dimension) == pytest.approx(np.trace(expected), abs=1e-12)
    pairs, elements = hamiltonian.connected(random_spins(jax.random.key(0), n_sites))
    assert pairs.dtype == jnp.int32 and len({*map(tuple, pairs.tolist())}) == len(elements)
    assert all(min(j - i, n_sites - (j - i)) <= hamiltonian.reach for i, j in pairs.tolist())
    energy, _, _, vector = ground_state(hamiltonian)
    assert energy == pytest.approx(np.linalg.eigvalsh(expected)[0], abs=1e-10)
    np.testing.assert_allclose(expected @ vector, energy * vector, atol=1e-7)


def test_known_energies_of_the_heisenberg_ring():
    for n_sites, per_site in ((6, -(1 + np.sqrt(13) / 2) / 6), (8, -0.4563866761)):
        assert ground_energy(J1J2(n_sites)) / n_sites == pytest.approx(per_site, abs=1e-9)
    for n_sites in (4, 6, 10):  # Majumdar and Ghosh
        energy = ground_energy(J1J2(n_sites, j1=1.6, j2=0.8))
        assert energy == pytest.approx(-0.375 * 1.6 * n_sites, abs=1e-10)


def test_the_rotation_makes_the_ground_state_positive():
    ferromagnets = J1J2(8, j1=-1.0), XXZ(8, coupling=-1.0, anisotropy=0.5)
    for hamiltonian in (J1J2(8), *ferromagnets, Ising(7, field=-1.0)):
        vector = ground_state(hamiltonian).vector
        assert np.all(vector * np.sign(vector.sum()) > -1e-10)
    with pytest.raises(ValueError, match="n_sites must be at least 1, got 0"):
        J1J2(0)
    with pytest.raises(ValueError, match="j2 must be a finite number, got nan"):
        J1J2(4, j2=math.nan)
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(5,\)"):
        J1J2(4).diagonal(jnp.ones(5, dtype=jnp.int8))


@pytest.mark.parametrize(
    "case",
    [
        # n_sites, coupling, anisotropy, exponent, marshall, periodic, kac
        (1, 1.0, 0.5, 3.0, True, True, True),
        (2, -1.3, 0.5, math.inf, True, True, False),
        (5, 0.8, -2.0, 3.0, True, True, False),
        (6, 1.2, 0.3, 1.5, False, True, True),
        (6, -0.7, 0.0, 3.0, True, False, False),
        (7, 1.2, 1.0, 0.5, True, False, True),
        (7, 1.2, 1.0, math.inf, True, True, False),
    ],
)
def test_xxz_chains_are_those_of_the_spin_operators(case):
    n_sites, coupling, anisotropy, exponent, marshall, periodic, kac = case
    hamiltonian = XXZ(
        n_sites,
        coupling=coupling,
        anisotropy=anisotropy,
        exponent=exponent,
        marshall=marshall,
        periodic=periodic,
        kac=kac,
    )
    np.testing.assert_allclose(matrix_of(hamiltonian), xxz_matrix(*case), atol=1e-13)
    pairs = hamiltonian.pairs.tolist()
    apart = [min(j - i, n_sites - (j - i)) if periodic else j - i for i, j in pairs]
    assert hamiltonian.reach == max(apart, default=0)
    moves, _ = hamiltonian.connected(random_spins(jax.random.key(0), n_sites))
    assert moves.dtype == jnp.int32 and len(moves) == min(len(pairs), n_sites**2 // 4)
    assert len({*map(tuple, moves.tolist())}) == len(moves)


def test_xxz_with_nearest_neighbours_is_the_heisenberg_ring():
    assert ground_state(XXZ(8)).energy == pytest.approx(ground_energy(J1J2(8)), abs=1e-9)
    with pytest.raises(ValueError, match="anisotropy must be a finite number, got nan"):
        XXZ(4, anisotropy=math.nan)
    with pytest.raises(ValueError, match="exponent must be greater than 0, got 0"):
        XXZ(4, exponent=0)
