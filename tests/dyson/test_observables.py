"""Expectation values against exact states, and what they say of their errors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import (
    J1J2,
    Abacus,
    AbacusPairs,
    Correlations,
    Energy,
    Function,
    Ising,
    Magnetisation,
    PauliStrings,
    Recompute,
    Renyi2,
    StructureFactor,
    dimers,
    exact,
    expect,
    fidelity,
    interactions,
    lanczos_step,
    state_vector,
)
from dyson.networks import Network
from dyson.spins import index_to_spins, spins_to_index
from dyson.vmc.ratios import fastest_updates
from dyson.vmc.statistics import DiagnosticWarning
from lanes import later
from operations import operations_of_propose
from pauli import X, Z, pauli_product
from random_networks import random_network

PAULI = {"X": X, "Y": np.array([[0, -1j], [1j, 0]]), "Z": Z}


class Table(Network):
    """A state given by all its amplitudes; where there are none, psi is as large as numbers get."""

    log_psi: jax.Array
    n_sites: int = eqx.field(static=True)

    def __init__(self, vector, outside=-np.inf):
        with np.errstate(divide="ignore"):
            logs = np.log(vector.astype(complex))
        logs = np.where(vector == 0, outside, logs if np.iscomplexobj(vector) else logs.real)
        self.log_psi, self.n_sites = jnp.asarray(logs), int(np.log2(vector.size))

    def __call__(self, spins):
        return self.log_psi[spins_to_index(spins)]


def correlated_state(n):
    """Complex, without any symmetry; no amplitude is so small that a ratio is hardly ever seen."""
    rng = np.random.default_rng(n)
    spins = np.asarray(index_to_spins(jnp.arange(2**n, dtype=jnp.int32), n)).astype(float)
    fields, couplings = rng.normal(size=(2, n)), rng.normal(size=(2, n, n))
    parts = fields @ spins.T + np.einsum("pij,ki,kj->pk", couplings, spins, spins) / 2
    vector = np.exp(np.array([0.15, 0.3j]) @ parts)
    return vector / np.linalg.norm(vector)


def samples_of(vector, seed, chains=32, steps=64):
    """Independent ones."""
    weights = np.abs(vector) ** 2
    index = np.random.default_rng(seed).choice(vector.size, (chains, steps), p=weights)
    return index_to_spins(jnp.asarray(index, jnp.int32), int(np.log2(vector.size)))


def product(n, letters, sites):
    return pauli_product(n, {s: PAULI[x] for s, x in zip(sites, letters, strict=True)})


def mean(vector, matrix):
    return np.vdot(vector, matrix @ vector).real


def pairs_at(n, r, periodic):
    return [(i, (i + r) % n) for i in range(n if periodic else n - r)]


def exact_correlations(vector, letters, distances, periodic, connected=False):
    n = int(np.log2(vector.size))
    values = []
    for r in distances:
        of_pairs = []
        for i, j in pairs_at(n, r, periodic):
            value = mean(vector, product(n, letters, [i, j]))
            if connected:
                one, other = (product(n, x, [s]) for x, s in zip(letters, (i, j), strict=True))
                value -= mean(vector, one) * mean(vector, other)
            of_pairs.append(value)
        values.append(np.mean(of_pairs))
    return np.array(values)


def exact_structure_factor(vector, letter):
    n = int(np.log2(vector.size))
    q = 2 * np.pi * np.arange(n // 2 + 1) / n
    total = np.ones_like(q)
    for i in range(n):
        for j in range(n):
            if i != j:
                total += np.cos(q * (i - j)) * mean(vector, product(n, 2 * letter, [i, j])) / n
    return total


def dense(hamiltonian):
    """Of rows that were compared with Kronecker products elsewhere (test_pauli_strings.py)."""
    n = hamiltonian.n_sites
    index = np.arange(2**n, dtype=np.int32)
    diagonal, targets, elements = exact.diagonalise.rows_of(hamiltonian, index)
    matrix = np.diag(diagonal).astype(complex)
    np.add.at(matrix, (np.broadcast_to(index, targets.shape), targets), elements)
    return matrix


def agree(vector, model, cases, seeds=20, **options):
    """Within four error bars for every seed; the errors are neither too small nor far too large.

    Of about 10^3 comparisons of a normal deviate one in 16 such tests has one outside; seeds are
    fixed, so that none does by chance.
    """
    observables = {name: observable for name, (observable, _) in cases.items()}
    structure = {name: value for name, (_, value) in cases.items()}
    deviations = []
    for seed in range(seeds):
        found = expect(observables, model, samples_of(vector, seed), **options)
        apart = jax.tree.map(
            lambda value, e: np.ravel((e.mean - value) / np.maximum(e.error, 1e-10)),
            structure, found, is_leaf=lambda x: isinstance(x, np.ndarray | float),
        )  # fmt: skip
        deviations.append(np.concatenate(jax.tree.leaves(apart)))
    deviations = np.array(deviations)
    assert np.max(np.abs(deviations)) < 4
    spread = np.sqrt(np.mean(deviations**2))
    assert 0.6 < spread < 1.1
    return deviations


COMPLEX = [
    *interactions.exchange((0.3, 0.5, 0.7)),
    *interactions.field((0.4, 0.2, 0.1)),
    *interactions.dzyaloshinskii_moriya((0.1, 0.2, 0.3)),
    *interactions.chirality(0.4),
]


@pytest.mark.parametrize("n, periodic", [(6, True), later(5, False)])
def test_every_observable_of_a_complex_state(n, periodic):
    hamiltonian = PauliStrings(n, COMPLEX, periodic=periodic)
    matrix = dense(hamiltonian)
    # on the way to the ground state: a V-score takes an energy that is not near zero
    levels, states = np.linalg.eigh(matrix)
    vector = states @ (np.exp(-0.4 * levels) * (states.conj().T @ correlated_state(n)))
    vector /= np.linalg.norm(vector)
    energy, variance = mean(vector, matrix), mean(vector, matrix @ matrix)
    variance -= energy**2
    m = np.diag(sum(product(n, "Z", [i]) for i in range(n))) / n
    powers = [float(np.abs(vector) ** 2 @ np.abs(m) ** k) for k in (1, 2, 4)]
    distances = range(1, (n // 2 if periodic else n - 1) + 1)
    letters = ["XX", "YY", "ZZ", "XY", "ZX"]
    bond = lambda i: sum(product(n, 2 * a, [i, (i + 1) % n]) for a in "XYZ") / 4
    dimer = lambda r: np.mean(
        [mean(vector, bond(i) @ bond((i + r) % n)) for i in range(n if periodic else n - r - 1)]
    )
    purities = []
    for size in (1, n // 2):
        block = vector.reshape(2**size, -1)
        purities.append(np.linalg.norm(block @ block.conj().T) ** 2)
    average = sum(product(n, "Z", [i]) for i in range(n)) / n
    cases = {
        "energy": (
            Energy(hamiltonian),
            {"energy": energy, "variance": variance, "v_score": n * variance / energy**2},
        ),
        "hamiltonian": (hamiltonian, energy),
        "m": (
            Magnetisation(n),
            {
                "mean": mean(vector, average),
                "modulus": powers[0],
                "square": powers[1],
                "fourth": powers[2],
                "binder": 1 - powers[2] / (3 * powers[1] ** 2),
            },
        ),
        "function": (lambda s: jnp.sum(s, dtype=jnp.int32) ** 2, n**2 * powers[1]),
        "all": (
            Correlations(n, letters, periodic=periodic),
            {x: exact_correlations(vector, x, distances, periodic) for x in letters},
        ),
        "connected": (
            Correlations(n, ["YX", "YZ"], periodic=periodic, connected=True, distances=[2]),
            {x: exact_correlations(vector, x, [2], periodic, True) for x in ("YX", "YZ")},
        ),
        "s": tuple(
            zip(
                *[
                    (StructureFactor(n, a, periodic=periodic), exact_structure_factor(vector, a))
                    for a in "XZ"
                ],
                strict=True,
            )
        ),
        "dimers": (dimers(n, [2], periodic=periodic), {2: float(dimer(2))}),
        "renyi": (Renyi2(np.arange(n) < np.array([[1], [n // 2]])), -np.log(np.array(purities))),
        "own": (
            Function(lambda x: x["h"] * x["m"]["square"],
                     {"h": hamiltonian, "m": Magnetisation(n)}, n),
            energy * powers[1],
        ),
    }  # fmt: skip
    agree(vector, Table(vector), cases)


def test_correlators_of_the_critical_ring_are_those_of_free_fermions():
    n = 8
    vector = exact.ground_state(Ising(n)).vector
    known = exact.free_fermion_correlators(n, coupling=-1.0, field=1.0)
    distances = range(1, n // 2 + 1)
    np.testing.assert_allclose(
        known.zz, exact_correlations(vector, "ZZ", distances, True), atol=1e-9
    )
    np.testing.assert_allclose(
        known.xx, exact_correlations(vector, "XX", distances, True), atol=1e-9
    )
    assert known.x == pytest.approx(mean(vector, product(n, "X", [3])), abs=1e-9)
    cases = {
        "c": (Correlations(n, ["XX", "ZZ"]), {"XX": known.xx, "ZZ": known.zz}),
        "x": (PauliStrings(n, [("X", 1 / n)]), known.x),
    }
    agree(vector, Table(vector), cases, seeds=5)
    other = exact.free_fermion_correlators(7, coupling=-0.6, field=1.3)
    vector = exact.ground_state(Ising(7, coupling=-0.6, field=1.3)).vector
    for letters, values in (("ZZ", other.zz), ("XX", other.xx)):
        expected = exact_correlations(vector, letters, range(1, 4), True)
        np.testing.assert_allclose(values, expected, atol=1e-9)
    with pytest.raises(ValueError, match="field > 0 and coupling < 0"):
        exact.free_fermion_correlators(6, coupling=1.0, field=1.0)


def test_a_sector_is_not_left():
    """Of a rotated Heisenberg ring, outside of whose sector the network says nonsense."""
    n = 8
    hamiltonian = J1J2(n, j2=0.2)
    vector = exact.ground_state(hamiltonian).vector
    model = Table(vector, outside=300.0)
    distances = range(1, n // 2 + 1)
    rotation = np.diag(pauli_product(n, {i: Z for i in range(1, n, 2)}))
    plain = rotation * vector
    cases = {
        "c": (
            Correlations(n, ["XX", "ZZ"], marshall=True),
            {x: exact_correlations(plain, x, distances, True) for x in ("XX", "ZZ")},
        ),
        "s": (StructureFactor(n, "Y", marshall=True), exact_structure_factor(plain, "Y")),
        "x": (PauliStrings(n, [("X", 1.0)]), 0.0),
    }
    agree(vector, model, cases, seeds=5, magnetisation=0)
    spins = samples_of(vector, 0)
    with pytest.warns(DiagnosticWarning, match="write expect\\(…, magnetisation=0\\)"):
        expect(Correlations(n, ["XX"]), model, spins)
    expect(hamiltonian, model, spins)  # conserves it
    with pytest.raises(ValueError, match="magnetisation=2 was given, but the samples have 0"):
        expect(Correlations(n, ["XX"]), model, spins, magnetisation=2)


def test_local_updates_and_forward_passes_agree():
    """Single flips, windows and forward passes in one pass over the samples."""
    n = 9
    model = random_network(n, depth=1, features=2, modes=1, mixer="real", site_embedding=True)
    vector = state_vector(model)
    spins = samples_of(vector, 1, chains=2, steps=3)
    observables = {
        "c": Correlations(n, ["XY", "YZ"], distances=[1, 4]),
        "h": PauliStrings(n, interactions.chirality(0.3)),
    }
    fast = expect(observables, model, spins)
    slow = expect(observables, model, spins, updates=Recompute())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10), fast, slow)
    assert fidelity(model, 3j * vector) == pytest.approx(1, abs=1e-12)


def test_moves_are_local_updates_whose_cost_does_not_grow():
    """Pairs at any distance, as they are served on long chains."""
    rows = jax.eval_shape(Correlations(2048, ["XX", "XZ"]).rows, jnp.ones(2048, jnp.int8))
    model = random_network(2048, modes=1)
    chosen = [fastest_updates(model, row.reach, row.sites.shape[1]) for row in rows]
    assert [type(x) for x in chosen] == [Abacus, AbacusPairs]
    options = {"features": 2, "hidden": 2, "modes": 1, "mixer": "real", "depth": 1}
    cost = lambda n: operations_of_propose(Abacus(span=4), n, 3, **options)
    short, long = cost(256), cost(512)  # those of pairs are counted in test_pairs.py
    assert long[0] <= 1.02 * short[0] and long[1] == short[1]


def test_what_samples_cannot_tell():
    n = 4
    model = Table(np.ones(2**n) / 4.0)
    frozen = jnp.ones((4, 8, n), jnp.int8)
    estimate = expect(lambda s: jnp.mean(s.astype(float)), model, frozen)
    assert float(estimate.mean) == 1 and np.isnan(float(estimate.error))
    spins = samples_of(np.ones(2**n) / 4, 0)
    constant = expect({"one": PauliStrings(n, [("I", 0.25)])}, model, spins)
    assert float(constant["one"].mean) == 1 and float(constant["one"].error) == 0
    with pytest.raises(TypeError, match="a Hamiltonian or a function of the spins, got float"):
        expect([1.0], model, frozen)
    with pytest.raises(TypeError, match="observables of one configuration, got one of two"):
        Function(lambda x: x, Renyi2(np.eye(n, dtype=bool)), n)
    with pytest.raises(TypeError, match="got list; write samples.spins"):
        expect(Ising(n), model, [frozen])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="got \\(8, 4\\); write spins\\[None\\]"):
        expect(Ising(n), model, frozen[0])
    with pytest.raises(ValueError, match="the samples have 4 sites, Operator has 5"):
        expect(Ising(5), model, frozen)
    with pytest.raises(ValueError, match="samples of at least two chains"):
        expect(Renyi2(np.eye(n, dtype=bool)), model, frozen[:1])
    with pytest.raises(ValueError, match="from 1 to 2 on a chain of 4 sites, got \\[3\\]"):
        Correlations(n, distances=[3])
    with pytest.raises(ValueError, match='write \\["XX"\\] for one'):
        Correlations(n, "XX")
    with pytest.raises(ValueError, match="regions as an array of bool"):
        Renyi2(np.ones((1, 4)))
    with pytest.raises(ValueError, match="weights of shape \\(4,\\), got \\(3,\\)"):
        Magnetisation(4, np.ones(3))
    with pytest.raises(ValueError, match="a vector of shape \\(16,\\), got \\(8,\\)"):
        fidelity(model, np.ones(8))


def test_a_lanczos_step_lies_between():
    """Ten states of no merit: strictly below their energies and above the exact one."""
    n = 5
    hamiltonian = PauliStrings(n, COMPLEX)
    matrix = dense(hamiltonian)
    lowest = np.linalg.eigvalsh(matrix)[0]
    rng = np.random.default_rng(3)
    for seed in range(10):
        vector = rng.normal(size=2**n) + 1j * rng.normal(size=2**n)
        vector /= np.linalg.norm(vector)
        basis = np.linalg.qr(np.stack([vector, matrix @ vector], axis=1))[0]
        expected = np.linalg.eigvalsh(basis.conj().T @ matrix @ basis)[0]
        step = lanczos_step(hamiltonian, Table(vector), samples_of(vector, seed, 16, 64))
        assert abs(float(step.energy.mean) - expected) < 4 * float(step.energy.error)
        assert lowest < float(step.energy.mean) < float(step.variational.mean)
        better = vector + float(step.alpha.mean) * (matrix @ vector)
        energy = mean(better, matrix) / np.linalg.norm(better) ** 2
        gain = mean(vector, matrix) - expected
        assert -1e-12 < energy - expected < 0.1 * gain
