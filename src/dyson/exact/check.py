"""Whether a Hamiltonian is what it says: every claim against all its elements on a small chain."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_matrix

from dyson.exact.diagonalise import rows_of
from dyson.hamiltonians import Hamiltonian
from dyson.spins import enumerate_spins, index_to_spins, spins_to_index

MOST_SITES = 14


def check(hamiltonian: Hamiltonian) -> None:
    """Refuse a Hamiltonian that is not Hermitian or claims what is not so.

    For one of one's own, at a size of a few sites.  Compared with all of its 2^n rows are: that it
    is Hermitian and its diagonal real; that a row lists every configuration once and none its own;
    ``conserves_magnetisation``, ``spin_flip_symmetric``, ``flips_each_site``, ``reach`` and
    ``trace_per_dimension``; and that ``rows`` holds the same as ``connected``.  A symmetry that is
    there and not claimed is no fault.

    Arguments:
      hamiltonian: of at most 14 sites.
    Raises `ValueError` with the first pair of configurations, in the order of
    ``spins.enumerate_spins``, for which something is not as it should be; ↑ is spin +1.

    Cost O(c 2^n) for c connected configurations per row.
    """
    n = hamiltonian.n_sites
    if n > MOST_SITES:
        raise ValueError(
            f"check: {n} sites have 2^{n} rows; build the Hamiltonian with {MOST_SITES} or fewer"
        )
    indices = np.arange(2**n, dtype=np.int32)
    diagonal, targets, elements = rows_of(hamiltonian, indices)
    if not (np.all(np.isfinite(diagonal)) and np.all(np.isfinite(elements))):
        raise ValueError("check: an element is not finite")
    here = np.broadcast_to(indices, targets.shape)
    _check_lists(n, indices, targets)
    matrix = _sparse(n, elements, here, targets) + _sparse(n, diagonal, indices, indices)
    scale = max(1.0, float(np.max(np.abs(matrix.data), initial=0.0)))

    def same(other: csr_matrix, what: str) -> None:
        _check_same(n, matrix, other, scale, what)

    adjoint = matrix.conj().T.tocsr()
    same(adjoint, "is not Hermitian: H(a, b) is {} and the conjugate of H(b, a) {}")
    if hamiltonian.spin_flip_symmetric:
        flipped = matrix[::-1, ::-1].tocsr()
        same(flipped, "says spin_flip_symmetric: H(a, b) is {} and with all spins flipped {}")
    if hamiltonian.conserves_magnetisation:
        entries = matrix.tocoo()
        up = np.bitwise_count(indices)
        kept = up[entries.row] == up[entries.col]
        within = _sparse(n, np.where(kept, entries.data, 0), entries.row, entries.col)
        same(within, "says conserves_magnetisation: H(a, b) is {} instead of {}")
    trace, claimed = np.mean(diagonal), float(hamiltonian.trace_per_dimension)
    if abs(trace - claimed) > 1e-5 * scale:
        raise ValueError(
            f"check: {type(hamiltonian).__name__} says trace_per_dimension={claimed:g}, the mean "
            f"of its diagonal is {trace:g}"
        )
    _check_moves(hamiltonian, matrix, scale)


def _check_lists(n: int, indices: np.ndarray, targets: np.ndarray) -> None:
    """Every configuration of a row once, and not that of the row."""
    listed = np.sort(np.concatenate([indices[None], targets]), axis=0)
    repeated = listed[1:] == listed[:-1]
    if np.any(repeated):
        row = int(np.flatnonzero(np.any(repeated, axis=0))[0])
        again = int(listed[1:][repeated[:, row], row][0])
        what = "itself" if again == row else f"b={_arrows(again, n)} twice"
        raise ValueError(f"check: the row of a={_arrows(row, n)} lists {what}")


def _check_same(n: int, matrix: csr_matrix, other: csr_matrix, scale: float, what: str) -> None:
    difference = (matrix - other).tocoo()
    # elements may come in single precision
    wrong = np.abs(difference.data) > 1e-5 * scale
    if not np.any(wrong):
        return
    pairs = difference.row.astype(np.int64) * 2**n + difference.col
    a, b = divmod(int(np.min(pairs[wrong])), 2**n)
    values = what.format(f"{matrix[a, b]:g}", f"{other[a, b]:g}")
    raise ValueError(f"check: the Hamiltonian {values} for a={_arrows(a, n)}, b={_arrows(b, n)}")


def _check_moves(hamiltonian: Hamiltonian, matrix: csr_matrix, scale: float) -> None:
    """What is said of the sites that differ, and the rows by kind against the whole."""
    n, name = hamiltonian.n_sites, type(hamiltonian).__name__
    spins = enumerate_spins(n)
    rows = jax.jit(jax.vmap(hamiltonian.rows))(spins)
    index = np.arange(2**n)
    total = _sparse(n, matrix.diagonal(), index, index)
    for row in rows:
        sites = np.asarray(row.sites)
        _check_reach(hamiltonian, sites, min(row.reach, hamiltonian.reach))
        each = np.broadcast_to(np.arange(n)[:, None], (2**n, n, 1))
        if row.each_site and (sites.shape != each.shape or np.any(sites != each)):
            raise ValueError(
                f"check: {name} says that a row lists the flip of every site in order, but it does "
                "not; leave flips_each_site False"
            )
        place = np.where(sites < 0, 0, 1 << (n - 1 - np.maximum(sites, 0)))
        start = np.asarray(spins_to_index(jnp.asarray(spins)))[:, None]
        target = start ^ np.bitwise_xor.reduce(place, axis=2)
        start = np.broadcast_to(start, target.shape)
        total = total + _sparse(n, np.asarray(row.elements), start, target)
    _check_same(n, matrix, total, scale, "has {} in `connected` and {} in `rows`")


def _check_reach(hamiltonian: Hamiltonian, sites: np.ndarray, reach: int) -> None:
    n = hamiltonian.n_sites
    moves = np.unique(np.sort(sites.reshape(-1, sites.shape[-1]), axis=1), axis=0)
    for move in moves:
        present = move[move >= 0]
        if present.size == 0:
            raise ValueError("check: a row lists a move that flips no site")
        gaps = np.diff(np.append(present, present[0] + n))
        widest = n - int(gaps.max()) if hamiltonian.periodic else int(present[-1] - present[0])
        if widest > reach:
            raise ValueError(
                f"check: {type(hamiltonian).__name__} says reach={reach}, but flips the sites "
                f"{present.tolist()} together"
            )


def _sparse(n: int, elements: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> csr_matrix:
    where = (rows.ravel(), columns.ravel())
    return csr_matrix((elements.ravel(), where), shape=(2**n, 2**n))


def _arrows(index: int, n_sites: int) -> str:
    spins = np.asarray(index_to_spins(jnp.asarray(index, jnp.int32), n_sites))
    return "".join("↑" if spin > 0 else "↓" for spin in spins)
