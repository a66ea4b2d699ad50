"""Hamiltonians and other Hermitian operators given as data: sums of Pauli strings."""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int, Int8

from dyson.hamiltonians.base import Hamiltonian, Row
from dyson.hamiltonians.couplings import checked_size
from dyson.hamiltonians.strings import (
    Family,
    Pauli,
    Strings,
    X,
    Y,
    Z,
    conserves_magnetisation,
    distinct,
    family_of,
    merged,
    spin_flip_symmetric,
)
from hodlr import toeplitz_matvec

# Moves of sites so far apart and less are listed apart from longer ones: a short window of local
# updates holds them.
NEARBY = 3


class Products(eqx.Module):
    """Sums of signed products of spins, one sum for each entry.

    sites: (entries, products, factors), padded with n_sites, where a one stands.
    """

    sites: Int[Array, "entries products factors"]
    coefficients: Inexact[Array, "entries products"]

    def __call__(self, spins: Int8[Array, " n"]) -> Inexact[Array, " entries"]:
        padded = jnp.append(spins, jnp.ones(1, spins.dtype))
        products = jnp.prod(padded[self.sites], axis=2).astype(self.coefficients.dtype)
        return jnp.sum(self.coefficients * products, axis=1)


class Kind(eqx.Module):
    """Moves of one kind, and their elements."""

    sites: Int[Array, "moves flips"]
    elements: Products
    reach: int = eqx.field(static=True)


@final
class PauliStrings(Hamiltonian):
    r"""A sum of Pauli strings given as data,

        H = Σ_s c_s P_s,      P_s = Π_k σ^{a_k}_{i_k},      c_s real,

    with couplings that are numbers, arrays by site or functions of the distance::

        PauliStrings(n, [("ZZ", -1.0), ("X", disorder)])            # random fields
        PauliStrings(n, [("XX", lambda r: r**-3), ("YY", lambda r: r**-3)])
        PauliStrings(n, [("XY", 0.3), ("YX", -0.3)])                # Dzyaloshinskii-Moriya

    :mod:`dyson.hamiltonians.interactions` has the usual ones.  Elements are complex where a string
    has an odd number of Y; H is Hermitian whatever the strings.  Strings that flip the same sites
    share one move.

    What is conserved follows from the strings: the commutators with Σ σᶻ and Π σˣ are written down
    when H is built.  A sum whose conservation rests on couplings to Z at all distances that cancel
    others is taken for one without.

    **Arguments**
      n_sites: at least 1.
      terms: a sequence of :class:`Pauli`, or tuples of the same.
      periodic: a ring or an open chain.
      marshall: rotate every second spin by π about the z axis, which changes the signs of its σˣ
        and σʸ, in observables as well, and no energy.
    `ValueError` for couplings that are not real and finite, unknown letters, arrays of another
    length, and strings that meet a site twice.

    **Cost** per configuration: O(letters) per string; O(n log n) for pairs with a Z at all
    distances, of which no list is kept.
    """

    n_sites: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    flips_each_site: bool = eqx.field(static=True)
    conserves_magnetisation: bool = eqx.field(static=True)
    spin_flip_symmetric: bool = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    marshall: bool = eqx.field(static=True)
    constant: Float[Array, ""]
    products: Products
    """The diagonal, one entry."""
    kinds: tuple[Kind, ...]
    to_z: dict[int, tuple[Float[Array, " n"], Float[Array, " n"]]]
    """By letter a: first column and row of the Toeplitz matrix of couplings of a_i and σᶻ_j."""

    def __init__(
        self,
        n_sites: int,
        terms: Sequence[Pauli | tuple[Any, ...]],
        *,
        periodic: bool = True,
        marshall: bool = False,
    ):
        self.n_sites, self.periodic = checked_size(n_sites), bool(periodic)
        self.marshall = bool(marshall)
        named = [term if isinstance(term, Pauli) else Pauli(*term) for term in terms]
        families = [family_of(term, n_sites, periodic=periodic) for term in named]
        self.to_z = _toeplitz(families, n_sites, periodic)
        strings = merged([family.strings for family in families], n_sites)
        singles = any(letter != Z for letter in self.to_z)
        self.conserves_magnetisation = not singles and conserves_magnetisation(strings, n_sites)
        self.spin_flip_symmetric = X not in self.to_z and spin_flip_symmetric(strings)
        letters = strings.codes % 4
        flips = np.isin(letters, [X, Y])
        n_flips, n_letters = np.sum(flips, axis=1), np.sum(letters > 0, axis=1)
        identity = strings.coefficients[n_letters == 0]
        self.constant = jnp.asarray(float(np.sum(identity)), dtype=float)
        diagonal = (n_flips == 0) & (n_letters > 0)
        one_entry = np.zeros(np.sum(diagonal), int)
        self.products = _products(_taken(strings, diagonal), one_entry, 1, n_sites, float)
        odd = np.any(np.sum(letters == Y, axis=1) % 2)
        dtype = complex if odd or Y in self.to_z else float
        self.kinds = tuple(_kinds(strings, n_sites, periodic, marshall, dtype, singles))
        self.reach = max((kind.reach for kind in self.kinds), default=0)
        self.flips_each_site = len(self.kinds) == 1 and self.kinds[0].sites.shape[1] == 1

    def diagonal(self, spins: Int8[Array, " n"]) -> Float[Array, ""]:
        """Strings of σᶻ alone."""
        self._check(spins)
        result = self.constant + self.products(spins)[0]
        if Z in self.to_z:
            result = result + spins.astype(result.dtype) @ self._field_of(Z, spins)
        return result

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        """Single flips, of every site in order; then moves of two, three, … sites, nearby ones
        apart from longer ones."""
        self._check(spins)
        rows = []
        for kind in self.kinds:
            elements = kind.elements(spins)
            each_site = kind.sites.shape[1] == 1
            if each_site:
                elements = elements + self._single_flips(spins).astype(elements.dtype)
            rows.append(Row(kind.sites, elements, kind.reach, each_site))
        return tuple(rows)

    def connected(self, spins: Int8[Array, " n"]) -> tuple[Int[Array, "c f"], Inexact[Array, " c"]]:
        """All moves, one kind after the other."""
        rows = self.rows(spins)
        width = max((row.sites.shape[1] for row in rows), default=1)
        pad = lambda x: jnp.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=-1)
        sites = [jnp.zeros((0, width), jnp.int32), *(pad(row.sites) for row in rows)]
        elements = [row.elements for row in rows] or [jnp.zeros_like(self.constant)[None][:0]]
        return jnp.concatenate(sites), jnp.concatenate(elements)

    @property
    def trace_per_dimension(self) -> Float[Array, ""]:
        """The coefficient of the identity: all other strings are traceless."""
        return self.constant

    def _field_of(self, letter: int, spins: Int8[Array, " n"]) -> Float[Array, " n"]:
        """Σ_j K_ij σ_j, what the letter on site i is multiplied by."""
        column, row = self.to_z[letter]
        return toeplitz_matvec(column, row, spins.astype(column.dtype))

    def _single_flips(self, spins: Int8[Array, " n"]) -> Inexact[Array, " n"]:
        """Elements of single flips by couplings to Z at all distances."""
        total = jnp.zeros(self.n_sites, self.constant.dtype)
        if X in self.to_z:
            total = self._field_of(X, spins)
        if Y in self.to_z:
            along_y = spins.astype(total.dtype) * self._field_of(Y, spins)
            total = jnp.asarray(-1j) * along_y.astype(complex) + total.astype(complex)
        if self.marshall:
            total = total * (1 - 2 * (jnp.arange(self.n_sites) % 2)).astype(total.dtype)
        return total

    def _check(self, spins: Array) -> None:
        if spins.shape != (self.n_sites,):
            raise ValueError(
                f"expected one configuration of shape ({self.n_sites},), got {spins.shape}; "
                "use jax.vmap for a batch"
            )


class _Moved(NamedTuple):
    """Off-diagonal strings: the sites that each flips, sorted and padded with -1."""

    strings: Strings
    sites: np.ndarray
    counts: np.ndarray
    reach: np.ndarray


def _taken(strings: Strings, which: np.ndarray) -> Strings:
    return Strings(strings.codes[which], strings.coefficients[which])


def _toeplitz(
    families: list[Family], n_sites: int, periodic: bool
) -> dict[int, tuple[Array, Array]]:
    """By letter, the couplings to Z at all distances: entries of the diagonals of a matrix, by
    j - i from 0 up (row) and down (column)."""
    kernels: dict[int, np.ndarray] = {}
    for family in families:
        if not np.any(family.by_distance):
            continue
        separation = np.arange(1, len(family.by_distance) + 1)
        values = family.by_distance.copy()
        if periodic:
            values[2 * separation == n_sites] /= 2
        kernel = np.zeros((2, n_sites))  # forwards, backwards
        kernel[0, separation] += values
        if periodic:
            kernel[1, n_sites - separation] += values
        if family.reversed:
            kernel = kernel[::-1]
        kernels[family.partner] = kernels.get(family.partner, 0) + kernel
    return {
        letter: (jnp.asarray(kernel[1], dtype=float), jnp.asarray(kernel[0], dtype=float))
        for letter, kernel in sorted(kernels.items())
        if np.any(kernel)
    }


def _kinds(strings: Strings, n_sites, periodic, marshall, dtype, singles):
    """Moves by the number of flips, nearby or not; all single flips where there are some."""
    moved = _moved(strings, n_sites, periodic, marshall)
    if singles or np.any(moved.counts == 1):
        one = moved.counts == 1
        sites = np.arange(n_sites)[:, None]
        products = _products(
            _taken(moved.strings, one), moved.sites[one, 0], n_sites, n_sites, dtype
        )
        yield Kind(jnp.asarray(sites, jnp.int32), products, 0)
    for flips in range(2, int(max(moved.counts, default=0)) + 1):
        for near in (True, False):
            which = (moved.counts == flips) & ((moved.reach <= NEARBY) == near)
            if not np.any(which):
                continue
            sites, entry = distinct(moved.sites[which, :flips], n_sites)
            products = _products(_taken(moved.strings, which), entry, len(sites), n_sites, dtype)
            yield Kind(jnp.asarray(sites, jnp.int32), products, int(max(moved.reach[which])))


def _moved(strings: Strings, n_sites: int, periodic: bool, marshall: bool) -> _Moved:
    letters = strings.codes % 4
    flips = np.isin(letters, [X, Y])
    which = np.any(flips, axis=1)
    strings, flips = _taken(strings, which), flips[which]
    sites = np.sort(np.where(flips, strings.codes // 4, n_sites), axis=1)
    counts = np.sum(flips, axis=1)
    if marshall:
        odd = np.sum((sites < n_sites) & (sites % 2 == 1), axis=1) % 2
        strings = strings._replace(coefficients=strings.coefficients * (1 - 2 * odd))
    sites = np.where(sites < n_sites, sites, -1)
    last = np.take_along_axis(sites, counts[:, None] - 1, axis=1)
    reach = (last - sites[:, :1])[:, 0]
    if periodic:
        # around a ring, all but the largest gap between two of them
        following = np.concatenate([sites[:, 1:], np.full_like(last, -1)], axis=1)
        following = np.where(following < 0, sites[:, :1] + n_sites, following)
        gaps = np.where(sites < 0, 0, following - sites)
        reach = n_sites - np.max(gaps, axis=1, initial=0)
    return _Moved(strings, sites, counts, reach)


def _products(
    strings: Strings, entry: np.ndarray, entries: int, n_sites: int, dtype: type
) -> Products:
    """⟨σ|P|σ'⟩ of strings as products of the spins of σ, Y and Z: ⟨σ|Y|-σ⟩ = -iσ."""
    letters = strings.codes % 4
    signs = letters >= Y
    factors = int(np.max(np.sum(signs, axis=1), initial=0))
    sites = np.sort(np.where(signs, strings.codes // 4, n_sites), axis=1)[:, :factors]
    # exact powers of -i
    powers = np.array([1, -1j, -1, 1j])[np.sum(letters == Y, axis=1) % 4]
    values = np.multiply(strings.coefficients, powers)
    order = np.argsort(entry, kind="stable")
    counts = np.bincount(entry, minlength=entries)
    rank = np.arange(len(entry)) - np.repeat(np.cumsum(counts) - counts, counts)
    most = int(np.max(counts, initial=0))
    table = np.full((entries, most, factors), n_sites, np.int32)
    coefficients = np.zeros((entries, most), dtype)
    table[entry[order], rank] = sites[order]
    coefficients[entry[order], rank] = values[order] if dtype is complex else np.real(values[order])
    return Products(jnp.asarray(table), jnp.asarray(coefficients, dtype=dtype))
