"""The lowest level of a symmetry sector of a small chain: momentum, reflection, parity."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, diags_array, eye_array
from scipy.sparse.linalg import eigsh

from dyson.exact.diagonalise import rows_of
from dyson.hamiltonians import Hamiltonian

MOST_SITES = 14
Sparse = Any  # scipy's types do not know what products and slices of its matrices are
_MAX_DENSE = 512


class SectorState(NamedTuple):
    """The lowest level of a sector."""

    energy: float
    dimension: int
    """How many states the sector has."""
    vector: np.ndarray
    """(2^n,) normalised, in the order of ``spins.enumerate_spins``."""


class Symmetry(NamedTuple):
    """A permutation of the configurations, and what it multiplies the states of a sector by."""

    name: str
    image: np.ndarray
    character: complex
    order: int


def sector_ground_state(
    hamiltonian: Hamiltonian,
    *,
    momentum: int | None = None,
    reflection: int | None = None,
    parity: int | None = None,
    magnetisation: int | None = None,
) -> SectorState:
    """The lowest level among the states with the given characters, as the projections
    :class:`dyson.Translations`, :class:`dyson.Reflection` and :class:`dyson.SpinFlip` have them.

    What is not given is not asked for: the level is then the lowest of several sectors, of smaller
    symmetry.  Gaps are differences of two calls.

    Arguments:
      hamiltonian: of at most 14 sites, with these symmetries.
      momentum: psi(T sigma) = exp(2 pi i momentum / n) psi(sigma), T = ``jnp.roll(.., 1)``.
      reflection: 1 or -1, what psi is multiplied by when the chain is read backwards.
      parity: 1 or -1, what psi is multiplied by when all spins are flipped.
      magnetisation: the sum of the spins, where it is conserved.
    Raises `ValueError` for a symmetry that the Hamiltonian does not have, characters that do not
    go together and sectors without states.

    Cost O(c 2^n) for c connected configurations per row, and a Lanczos run in the sector.
    """
    n = hamiltonian.n_sites
    if n > MOST_SITES:
        raise ValueError(f"sector_ground_state: expected at most {MOST_SITES} sites, got {n}")
    indices = np.arange(2**n, dtype=np.int32)
    matrix = _matrix(hamiltonian, indices)
    inside = np.ones(2**n, bool)
    if magnetisation is not None:
        if not hamiltonian.conserves_magnetisation:
            raise ValueError(
                f"sector_ground_state: {type(hamiltonian).__name__} does not conserve the "
                "magnetisation; leave it out"
            )
        if parity is not None and magnetisation:
            raise ValueError(
                "sector_ground_state: expected magnetisation 0 with a parity, which exchanges up "
                f"and down, got {magnetisation}"
            )
        inside = n - 2 * np.bitwise_count(indices).astype(int) == magnetisation
    basis: Sparse = diags_array(inside.astype(float), format="csr")
    alike: Sparse = eye_array(2**n, format="csr")
    for symmetry in _symmetries(n, momentum, reflection, parity):
        _check_commutes(matrix, symmetry)
        basis = _projector(symmetry, symmetry.character) @ basis
        alike = _projector(symmetry, 1.0) @ alike
    first = np.minimum.reduceat(alike.tocsr().sorted_indices().indices, alike.indptr[:-1])
    basis = basis.tocsc()[:, np.unique(first)]
    norms = np.sqrt(np.asarray(abs(basis).power(2).sum(axis=0)).ravel())
    left = norms > 1e-6
    if not np.any(left):
        raise ValueError(
            f"sector_ground_state: no state of {n} sites has {momentum=}, {reflection=}, "
            f"{parity=} and {magnetisation=}"
        )
    basis = basis[:, left] @ diags_array(1 / norms[left])
    energy, vector = _lowest(basis.conj().T @ matrix @ basis)
    return SectorState(energy, basis.shape[1], basis @ vector)


def _symmetries(
    n: int, momentum: int | None, reflection: int | None, parity: int | None
) -> Iterator[Symmetry]:
    index = np.arange(2**n)
    if momentum is not None:
        if reflection is not None and 2 * momentum % n:
            raise ValueError(
                "sector_ground_state: expected momentum 0 or pi with a reflection, which turns k "
                f"into -k, got momentum={momentum} of {n} sites"
            )
        moved = index >> 1 | (index & 1) << n - 1
        turns = 2 * momentum % (2 * n)
        real = turns % n == 0
        character = (-1.0) ** (turns // n) if real else np.exp(1j * np.pi * turns / n)
        yield Symmetry("translations", moved, character, n)
    for name, value in (("reflection", reflection), ("parity", parity)):
        if value not in (None, 1, -1):
            raise ValueError(f"sector_ground_state: expected {name} 1 or -1, got {value!r}")
    if reflection is not None:
        bits = index[:, None] >> np.arange(n) & 1
        yield Symmetry("reflection", bits @ (1 << np.arange(n)[::-1]), reflection, 2)
    if parity is not None:
        yield Symmetry("the flip of all spins", index[::-1], parity, 2)


def _projector(symmetry: Symmetry, character: complex) -> Sparse:
    """The mean of character^-p g^p over the powers of a symmetry, (g psi)(sigma) = psi(g sigma)."""
    size = symmetry.image.size
    image, columns, elements = np.arange(size), [], []
    for power in range(symmetry.order):
        columns.append(image)
        elements.append(np.full(size, np.conj(character) ** power / symmetry.order))
        image = symmetry.image[image]
    rows = np.tile(np.arange(size), symmetry.order)
    where = rows, np.concatenate(columns)
    return csr_matrix((np.concatenate(elements), where), shape=(size, size))


def _matrix(hamiltonian: Hamiltonian, indices: np.ndarray) -> Sparse:
    diagonal, targets, elements = rows_of(hamiltonian, indices)
    rows = np.broadcast_to(indices, targets.shape)
    where = rows.ravel(), targets.ravel()
    size = indices.size
    return csr_matrix((elements.ravel(), where), shape=(size, size)) + diags_array(diagonal)


def _check_commutes(matrix: Sparse, symmetry: Symmetry) -> None:
    difference = abs(matrix[symmetry.image][:, symmetry.image] - matrix)
    # elements may come in single precision
    if difference.max() > 1e-5 * max(1.0, abs(matrix).max()):
        raise ValueError(
            f"sector_ground_state: the Hamiltonian does not commute with {symmetry.name}; leave "
            "this sector out"
        )


def _lowest(matrix: Sparse) -> tuple[float, np.ndarray]:
    size = matrix.shape[0]
    if size <= _MAX_DENSE:
        energies, vectors = np.linalg.eigh(matrix.toarray())
    else:
        start = np.random.default_rng(0).standard_normal(size).astype(matrix.dtype)
        energies, vectors = eigsh(matrix, k=1, which="SA", v0=start)
    return float(energies[0]), vectors[:, 0]
