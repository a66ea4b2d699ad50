"""Pauli strings as arrays: what a person writes becomes one sorted table without repetitions.

A string is a row of codes ``4 * site + letter`` (X 1, Y 2, Z 3) in ascending order, padded with
``4 * n_sites``.  Everything here is numpy and runs when a Hamiltonian is built.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike

LETTERS = {"X": 1, "Y": 2, "Z": 3}
X, Y, Z = LETTERS.values()

Coupling = float | ArrayLike | Callable[[float], float]


class Pauli(NamedTuple):
    r"""A family of Pauli strings, Σ_i c_i P_i Q_{i+1} R_{i+2} ….

    letters: of neighbouring sites, out of I, X, Y and Z: "ZZ" couples nearest neighbours, "ZIZ"
      next-nearest ones, "X" is a field, "XYZ" a product of three.
    coupling: c_i, real.  A number for all sites; an array by the first site i, of `n_sites` entries
      (those of strings that leave an open chain are ignored) or one for each string that fits; or,
      for two letters, a function of the distance r = 1, 2, …: then all pairs are coupled.
    sites: (strings, letters) instead of neighbouring sites, and as many couplings, or one for all.

    The sum is taken as written: a ring has `n_sites` strings, so that "ZZ" counts the bond of two
    sites twice.  With a function of the distance every pair counts once, the first letter on the
    site from which the other one is reached by the shorter way to the right; halfway around a
    ring, where there are two, each orientation counts half.
    """

    letters: str
    coupling: Coupling = 1.0
    sites: ArrayLike | None = None


class Strings(NamedTuple):
    """Codes (strings, letters) and the coefficient of each."""

    codes: np.ndarray
    coefficients: np.ndarray


class Family(NamedTuple):
    """What a `Pauli` is on a given chain: strings, or for pairs with a Z at all distances a
    coupling by distance, which needs no list of pairs."""

    strings: Strings
    partner: int = 0
    """The letter at the other end of Z; 0 where there are only strings."""
    reversed: bool = False
    """Z is the first letter."""
    by_distance: np.ndarray = np.zeros(0)


def family_of(term: Pauli, n_sites: int, *, periodic: bool) -> Family:
    """`ValueError` for what is no sum of Hermitian strings on this chain."""
    name = f"PauliStrings: the term {term.letters!r}"
    unknown = set(term.letters) - {"I", *LETTERS}
    if unknown or not term.letters:
        raise ValueError(f"{name} is not made of the letters I, X, Y and Z")
    if not callable(term.coupling):
        sites, coefficients = _along_the_chain(name, term, n_sites, periodic)
        return Family(_coded(name, term.letters, sites, coefficients, n_sites))
    if len(term.letters) != 2 or "I" in term.letters or term.sites is not None:
        raise ValueError(
            f"{name} has a function of the distance for a coupling: expected two letters out of X, "
            "Y and Z and no sites"
        )
    farthest = n_sites // 2 if periodic else n_sites - 1
    values = [term.coupling(float(r)) for r in range(1, farthest + 1)]
    by_distance = _checked(name, np.asarray(values))
    if "Z" in term.letters:
        first, second = (LETTERS[letter] for letter in term.letters)
        nothing = Strings(np.zeros((0, 0), int), np.zeros(0))
        flipped = first == Z and second != Z
        return Family(nothing, first if second == Z else second, flipped, by_distance)
    sites, coefficients = _all_pairs(n_sites, by_distance, periodic)
    return Family(_coded(name, term.letters, sites, coefficients, n_sites))


def merged(parts: Iterable[Strings], n_sites: int) -> Strings:
    """Every string once; those whose coefficients cancel, up to round-off, are gone."""
    parts = list(parts)
    width = max((part.codes.shape[1] for part in parts), default=1) or 1
    pad = lambda x: np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=4 * n_sites)
    codes = np.concatenate([np.zeros((0, width), int), *(pad(part.codes) for part in parts)])
    coefficients = np.concatenate([np.zeros(0), *(part.coefficients for part in parts)])
    unique, inverse = distinct(codes, 4 * n_sites + 1)
    total = np.bincount(inverse, coefficients, len(unique))
    size = np.bincount(inverse, np.abs(coefficients), len(unique))
    kept = np.abs(total) > 8 * np.finfo(float).eps * size
    return Strings(unique[kept], total[kept])


def distinct(rows: np.ndarray, base: int) -> tuple[np.ndarray, np.ndarray]:
    """The different rows of numbers from 0 to base - 1, in order, and which of them each row is."""
    width = rows.shape[1]
    if width * np.log2(base) < 62:
        # one number for a row is sorted ten times faster than a row
        numbers = rows @ base ** np.arange(width - 1, -1, -1)
        _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
        return rows[first], inverse
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    return unique, inverse.reshape(-1)


def conserves_magnetisation(strings: Strings, n_sites: int) -> bool:
    """Whether the sum commutes with Σ σᶻ.

    [X, Z] = -2i Y and [Y, Z] = 2i X, so the commutator is again a sum of strings: it is written
    down and its terms have to cancel.
    """
    letters = strings.codes % 4
    changed = []
    for place in range(letters.shape[1]):
        for letter, other, sign in ((X, Y, -1.0), (Y, X, 1.0)):
            here = letters[:, place] == letter
            codes = strings.codes[here]
            codes[:, place] += other - letter
            changed.append(Strings(codes, sign * strings.coefficients[here]))
    return merged(changed, n_sites).coefficients.size == 0


def spin_flip_symmetric(strings: Strings) -> bool:
    """Whether every string commutes with Π σˣ: Y and Z change their sign under it."""
    odd = np.sum(strings.codes % 4 >= Y, axis=1) % 2
    return not np.any(odd)


def _along_the_chain(
    name: str, term: Pauli, n_sites: int, periodic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Sites (strings, letters) and couplings (strings,)."""
    coupling = _checked(name, np.asarray(term.coupling))
    if term.sites is not None:
        sites = np.asarray(term.sites)
        if sites.ndim != 2 or sites.shape[1] != len(term.letters) or sites.dtype.kind not in "iu":
            raise ValueError(
                f"{name}: expected sites as whole numbers of shape (strings, {len(term.letters)}), "
                f"got {sites.dtype} of shape {sites.shape}"
            )
        if np.any((sites < 0) | (sites >= n_sites)):
            raise ValueError(f"{name}: expected sites from 0 to {n_sites - 1}")
        lengths: tuple[int, ...] = (len(sites),)
        fits = np.ones(len(sites), bool)
    else:
        sites = np.arange(n_sites)[:, None] + np.arange(len(term.letters))
        fits = np.full(n_sites, periodic) | (sites[:, -1] < n_sites)
        sites = sites % n_sites
        lengths = (n_sites, int(np.sum(fits)))
    if coupling.ndim == 0:
        coupling = np.full(len(sites), coupling)
    if coupling.ndim != 1 or len(coupling) not in lengths:
        expected = " or ".join(map(str, dict.fromkeys(lengths)))
        raise ValueError(
            f"{name}: expected a number or an array of {expected} couplings, got shape "
            f"{coupling.shape}"
        )
    return sites[fits], coupling[fits] if len(coupling) == len(fits) else coupling


def _checked(name: str, coupling: np.ndarray) -> np.ndarray:
    if coupling.size == 0:
        return coupling.astype(float)
    if coupling.dtype.kind not in "iuf":
        raise ValueError(
            f"{name}: expected real couplings, with which a Pauli string is Hermitian, got "
            f"{coupling.dtype}"
        )
    if not np.all(np.isfinite(coupling)):
        raise ValueError(f"{name}: expected finite couplings")
    return coupling.astype(float)


def _all_pairs(
    n_sites: int, by_distance: np.ndarray, periodic: bool
) -> tuple[np.ndarray, np.ndarray]:
    distance = np.flatnonzero(by_distance) + 1
    first = np.tile(np.arange(n_sites), (len(distance), 1))
    second = first + distance[:, None]
    values = np.broadcast_to(by_distance[distance - 1, None], first.shape)
    # halfway around a ring both orientations are met
    values = np.where(periodic & (2 * distance[:, None] == n_sites), values / 2, values)
    fits = np.full(first.shape, periodic) | (second < n_sites)
    return np.stack([first[fits], second[fits] % n_sites], axis=1), values[fits]


def _coded(
    name: str, letters: str, sites: np.ndarray, coefficients: np.ndarray, n_sites: int
) -> Strings:
    present = [place for place, letter in enumerate(letters) if letter != "I"]
    kinds = np.array([LETTERS[letters[place]] for place in present], dtype=int)
    codes = np.sort(4 * sites[:, present].astype(int) + kinds, axis=1)
    if np.any(codes[:, 1:] // 4 == codes[:, :-1] // 4):
        raise ValueError(
            f"{name} meets a site twice on a chain of {n_sites} sites; "
            "leave it out or write the product of the two matrices"
        )
    return Strings(codes, coefficients)
