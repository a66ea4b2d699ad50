"""Hamiltonians given as data, against Kronecker products, and the check of all claims."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import (
    J1J2,
    VMC,
    XXZ,
    DysonNet,
    Hamiltonian,
    Ising,
    Metropolis,
    Pauli,
    PauliStrings,
    exact,
    interactions,
    minsr,
)
from dyson.hamiltonians import pauli as module
from dyson.spins import enumerate_spins
from lanes import later
from pauli import X, Z, heisenberg_matrix, pauli_product, xxz_matrix

Y = np.array([[0, -1j], [1j, 0]])
MATRICES = {"X": X, "Y": Y, "Z": Z}


def product(n_sites, letters, sites):
    """The Kronecker product of letters on their sites."""
    present = [(site, MATRICES[x]) for x, site in zip(letters, sites, strict=True) if x != "I"]
    return pauli_product(n_sites, dict(present))


def kronecker(n_sites, terms, periodic, marshall=False):
    """The sum written out string by string."""
    matrix = np.zeros((2**n_sites, 2**n_sites), complex)
    for letters, coupling, sites in terms:
        if callable(coupling):
            for r in range(1, n_sites // 2 + 1 if periodic else n_sites):
                half = 0.5 if periodic and 2 * r == n_sites else 1.0
                for i in range(n_sites if periodic else n_sites - r):
                    pair = product(n_sites, letters, [i, (i + r) % n_sites])
                    matrix += half * coupling(r) * pair
            continue
        if sites is None:
            last = n_sites if periodic else n_sites - len(letters) + 1
            sites = [[(i + k) % n_sites for k in range(len(letters))] for i in range(last)]
        couplings = np.broadcast_to(coupling, max(len(sites), np.size(coupling)))
        for of_string, c in zip(sites, couplings, strict=False):
            matrix += c * product(n_sites, letters, of_string)
    if marshall:
        rotation = pauli_product(n_sites, {i: Z for i in range(1, n_sites, 2)})
        matrix = rotation @ matrix @ rotation
    return matrix


def random_terms(rng, n_sites):
    """Numbers, arrays, functions of the distance and lists of sites; the same string twice."""
    terms = []
    for kind in rng.integers(4, size=rng.integers(1, 6)):
        length = int(rng.integers(1, min(4, n_sites) + 1))
        letters = "".join(rng.choice(list("IXYZ"), size=length))
        if kind == 0:
            terms.append(Pauli(letters, float(rng.normal())))
        elif kind == 1:
            terms.append(Pauli(letters, rng.normal(size=n_sites)))
        elif kind == 2:
            sites = [rng.choice(n_sites, size=length, replace=False) for _ in range(3)]
            terms.append(Pauli(letters, rng.normal(size=3), np.array(sites)))
        elif n_sites > 1:
            table = rng.normal(size=n_sites)
            letters = "".join(rng.choice(list("XYZ"), size=2))
            terms.append(Pauli(letters, lambda r, table=table: table[int(r) - 1]))
    return terms


def by_numpy(hamiltonian, patch):
    """The matrix of the rows, computed with numpy: compiling a program for each case takes long."""
    n = hamiltonian.n_sites

    def toeplitz(column, row, vector):
        apart = np.subtract.outer(np.arange(n), np.arange(n))
        return np.where(apart >= 0, column[apart], row[-apart]) @ vector

    patch.setattr(module, "jnp", np)
    patch.setattr(module, "toeplitz_matvec", toeplitz)
    hamiltonian = jax.tree.map(np.asarray, hamiltonian)
    matrix = np.zeros((2**n, 2**n), complex)
    for row, spins in enumerate(np.asarray(enumerate_spins(n))):
        matrix[row, row] = hamiltonian.diagonal(spins)
        for sites, element in zip(*hamiltonian.connected(spins), strict=True):
            matrix[row, row ^ sum(1 << (n - 1 - i) for i in sites if i >= 0)] += element
    return matrix


@pytest.mark.parametrize("n_sites", [*range(1, 8), later(8)])
def test_random_sums_are_those_of_kronecker_products(n_sites, monkeypatch):
    """100 of them in both lanes; the symmetries are those of the matrix, no more and no less."""
    rng = np.random.default_rng(n_sites)
    magnetisation = np.asarray(enumerate_spins(n_sites)).sum(1)
    conserved = 0
    for case in range({1: 16, 2: 15, 8: 9}.get(n_sites, 12)):
        periodic, marshall = bool(case % 2), bool(rng.integers(2))
        terms = random_terms(rng, n_sites)
        if case % 3 == 0:  # one that conserves the magnetisation
            symmetric = [term for term in terms if set(term.letters) <= {"I", "Z"}]
            bond = rng.normal(size=n_sites) if case % 2 else float(rng.normal())
            terms = symmetric + interactions.exchange((bond, bond, rng.normal(size=n_sites)))
            terms = terms if n_sites > 1 else [Pauli("Z", rng.normal(size=1)), Pauli("I", 0.3)]
            conserved += 1
        hamiltonian = PauliStrings(n_sites, terms, periodic=periodic, marshall=marshall)
        expected = kronecker(n_sites, terms, periodic, marshall)
        with monkeypatch.context() as patch:
            matrix = by_numpy(hamiltonian, patch)
        np.testing.assert_allclose(matrix, expected, atol=1e-12)
        np.testing.assert_allclose(matrix, matrix.conj().T, atol=1e-12)
        flips = np.allclose(expected, expected[::-1, ::-1])
        assert hamiltonian.spin_flip_symmetric is flips
        keeps = np.allclose(expected[magnetisation[:, None] != magnetisation], 0)
        assert hamiltonian.conserves_magnetisation is keeps
        trace = np.trace(expected).real / 2**n_sites
        assert float(hamiltonian.trace_per_dimension) == pytest.approx(trace, abs=1e-12)
    assert conserved >= 3


def test_the_usual_chains(monkeypatch):
    """Heisenberg and XXZ on top of it, open and ring, and what else is called by a name."""
    bond = interactions.exchange
    power = lambda r: r**-3.0
    cases = [
        (PauliStrings(6, bond(1.0) + bond(0.4, distance=2), periodic=False),
         heisenberg_matrix(6, 1.0, 0.4, False, False)),
        (PauliStrings(5, bond(1.0) + bond(0.4, distance=2), marshall=True),
         heisenberg_matrix(5, 1.0, 0.4, True, True)),
        (PauliStrings(6, bond((power, power, lambda r: -2 * power(r)))),
         xxz_matrix(6, 1.0, -2.0, 3.0, False, True, False)),
    ]  # fmt: skip
    spin = {a: m / 2 for a, m in MATRICES.items()}
    cross = np.zeros((16, 16), complex)
    chiral = np.zeros((16, 16), complex)
    volume = {"XYZ": 1, "YZX": 1, "ZXY": 1, "XZY": -1, "YXZ": -1, "ZYX": -1}
    for i in range(4):
        for letters, sign in volume.items():
            sites = [i, (i + 1) % 4, (i + 2) % 4]
            chiral += sign * pauli_product(4, dict(zip(sites, map(spin.get, letters), strict=True)))
            first, second, axis = letters  # D_axis of S x S
            strength = sign * {"X": 0.3, "Y": 0.0, "Z": -0.7}[axis]
            cross += strength * pauli_product(4, {i: spin[first], (i + 1) % 4: spin[second]})
    cases += [
        (PauliStrings(4, interactions.dzyaloshinskii_moriya((0.3, 0.0, -0.7))), cross),
        (PauliStrings(4, interactions.chirality(1.0)), chiral),
        (PauliStrings(3, interactions.field((0.0, 0.6, 0.0))),
         sum(-0.6 * pauli_product(3, {i: spin["Y"]}) for i in range(3))),
    ]  # fmt: skip
    for hamiltonian, expected in cases:
        with monkeypatch.context() as patch:
            matrix = by_numpy(hamiltonian, patch)
        np.testing.assert_allclose(matrix, expected, atol=1e-13)
    assert cases[0][0].conserves_magnetisation and cases[0][0].spin_flip_symmetric
    assert cases[0][0].reach == 2 and cases[4][0].conserves_magnetisation
    assert cases[4][0].spin_flip_symmetric  # a rotation by π
    assert not cases[3][0].spin_flip_symmetric and not cases[3][0].conserves_magnetisation


@pytest.mark.exhaustive
@pytest.mark.optimised
def test_a_disordered_chain_trains():
    """With tokens that know where they are; without, such a state is 4 % off."""
    rng = np.random.default_rng(0)
    couplings, fields = 1 + rng.uniform(-0.5, 0.5, 8), 1 + rng.uniform(-0.8, 0.8, 8)
    terms = [("ZZ", -couplings), ("X", -fields), ("Z", 0.5 * rng.normal(size=8))]
    hamiltonian = PauliStrings(8, terms)
    options = {"features": 4, "hidden": 4, "depth": 1, "site_embedding": True}
    model = DysonNet(8, key=jax.random.key(0), **options)
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 32), minsr(), warm_up=2)
    state = vmc.init(jax.random.key(1), model)
    for _ in range(60):
        state, info = vmc.step(state)
    energy = exact.ground_energy(hamiltonian)
    assert abs(float(info.energy) / energy - 1) < 5e-3 and float(info.v_score) < 1e-2


def test_moves_come_by_kind_and_their_storage_does_not_grow_with_pairs():
    n = 300
    decay = lambda r: r**-2.0
    terms = [("ZZ", decay), ("XZ", decay), ("ZY", decay), ("XX", 1.0), ("YY", 1.0), ("X", 0.5)]
    hamiltonian = PauliStrings(n, terms)
    assert sum(x.size for x in jax.tree.leaves(hamiltonian)) < 30 * n
    rows = jax.eval_shape(hamiltonian.rows, jax.ShapeDtypeStruct((n,), jnp.int8))
    assert [(row.sites.shape, row.reach, row.each_site) for row in rows] == [
        ((n, 1), 0, True),
        ((n, 2), 1, False),
    ]
    assert not hamiltonian.flips_each_site and PauliStrings(4, [("X", 1.0)]).flips_each_site
    far = PauliStrings(9, [("XX", decay), ("ZIIIIZ", 1.0)])
    assert [kind.reach for kind in far.kinds] == [3, 4]


def test_a_complex_ground_state():
    terms = interactions.exchange(1.0) + interactions.dzyaloshinskii_moriya((0.0, 0.2, 0.5))
    hamiltonian = PauliStrings(6, terms, periodic=False)
    matrix = kronecker(6, terms, False)
    found = exact.ground_state(hamiltonian)
    assert found.energy == pytest.approx(np.linalg.eigvalsh(matrix)[0], abs=1e-10)
    np.testing.assert_allclose(matrix @ found.vector, found.energy * found.vector, atol=1e-7)
    assert np.iscomplexobj(found.vector)


@pytest.mark.parametrize(
    "terms, message",
    [
        ([("XW", 1.0)], "'XW' is not made of the letters"),
        ([("", 1.0)], "'' is not made of"),
        ([("XX", 1j)], "expected real couplings"),
        ([("X", np.inf)], "expected finite couplings"),
        ([("XX", np.ones(3))], "a number or an array of 4 couplings, got shape \\(3,\\)"),
        ([("XYZ", lambda r: r)], "expected two letters"),
        ([("ZIIIZ", 1.0)], "meets a site twice on a chain of 4 sites"),
        ([("XX", 1.0, [[0, 4]])], "expected sites from 0 to 3"),
        ([("XX", 1.0, [[0, 1, 2]])], "of shape \\(strings, 2\\), got int64 of shape \\(1, 3\\)"),
    ],
)
def test_what_is_no_hamiltonian_is_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        PauliStrings(4, terms)


def test_open_chains_take_bonds_or_sites():
    by_bond = PauliStrings(4, [("ZZ", np.arange(1.0, 4.0))], periodic=False)
    by_site = PauliStrings(4, [("ZZ", np.arange(1.0, 5.0))], periodic=False)
    spins = jnp.array([1, 1, -1, 1], jnp.int8)
    assert float(by_bond.diagonal(spins)) == float(by_site.diagonal(spins)) == -4
    with pytest.raises(ValueError, match="an array of 4 or 3 couplings"):
        PauliStrings(4, [("ZZ", np.ones(2))], periodic=False)
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(5,\)"):
        by_bond.connected(jnp.ones(5, jnp.int8))


class Broken(Hamiltonian):
    """One term σˣ_0 σˣ_1 and a field, and what is wrong with it."""

    fault: str = eqx.field(static=True)
    conserves_magnetisation: bool = eqx.field(static=True, default=False)
    spin_flip_symmetric: bool = eqx.field(static=True, default=False)
    flips_each_site: bool = eqx.field(static=True, default=False)
    reach: int = eqx.field(static=True, default=1)
    n_sites: ClassVar[int] = 4
    periodic: ClassVar[bool] = True

    def diagonal(self, spins):
        return spins[0].astype(float)

    def connected(self, spins):
        sites = jnp.array([[0, 1], [2, 3]], jnp.int32)
        if self.fault == "twice":
            sites = sites.at[1].set(jnp.array([1, 0], jnp.int32))
        if self.fault == "itself":
            sites = sites.at[1].set(jnp.array([-1, -1], jnp.int32))
        elements = jnp.array([1.0, 0.5])
        return sites, elements * spins[0].astype(float) if self.fault == "sign" else elements

    @property
    def trace_per_dimension(self):
        return jnp.asarray(0.5 if self.fault == "trace" else 0.0)


def test_the_check_finds_the_first_offending_pair():
    exact.check(Broken("nothing"))
    for fault, message in {
        "sign": r"H\(a, b\) is 1 and the conjugate of H\(b, a\) -1 for a=↑↑↑↑, b=↓↓↑↑",
        "twice": "the row of a=↑↑↑↑ lists b=↓↓↑↑ twice",
        "itself": "the row of a=↑↑↑↑ lists itself",
        "trace": "trace_per_dimension=0.5, the mean of its diagonal is 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            exact.check(Broken(fault))
    for claim, message in {
        "conserves_magnetisation": "conserves_magnetisation: .* a=↑↑↑↑, b=↑↑↓↓",
        "spin_flip_symmetric": r"H\(a, b\) is 1 and .* flipped -1 for a=↑↑↑↑, b=↑↑↑↑",
        "flips_each_site": "leave flips_each_site False",
    }.items():
        with pytest.raises(ValueError, match=message):
            exact.check(dataclasses.replace(Broken("nothing"), **{claim: True}))
    with pytest.raises(ValueError, match=r"says reach=0, but flips the sites \[0, 1\] together"):
        exact.check(Broken("nothing", reach=0))
    with pytest.raises(ValueError, match="15 sites have 2\\^15 rows"):
        exact.check(Ising(15))


def test_the_hamiltonians_of_the_library_pass_their_check():
    chains = [Ising(4, longitudinal=0.2), Ising(1), J1J2(5, j2=0.3), XXZ(5, exponent=2.0)]
    terms = [("XZ", lambda r: 1 / r), ("ZY", lambda r: r), *interactions.chirality(0.3)]
    chains += [PauliStrings(5, terms), PauliStrings(3, []), J1J2(1)]
    for hamiltonian in chains:
        exact.check(hamiltonian)
