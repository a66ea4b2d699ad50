"""Two-point functions, structure factors and dimer correlations."""

from collections.abc import Sequence
from typing import final

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int8

from dyson.analysis.observables import Observable, Terms
from dyson.hamiltonians import PauliStrings, Row


@final
class Correlations(Observable):
    r"""⟨Pᵢ Qᵢ₊ᵣ⟩ averaged over i, by distance, for pairs of letters: a dictionary of arrays.

    Arrays are in the order of ``distances``.  With `connected`, ⟨Pᵢ Qᵢ₊ᵣ⟩ - ⟨Pᵢ⟩⟨Qᵢ₊ᵣ⟩, averaged
    after the product has been subtracted site by site.  All pairs of letters share one set of
    moves: one flip for XZ, two for XX, XY and YY, none for ZZ.

    **Arguments**
      n_sites: at least 2.
      pairs: "XX", "YY", "ZZ", "XY", …; the first letter stands at i.
      periodic: r up to n/2 around a ring, up to n - 1 on an open chain.
      distances: those r alone; all if not given.
      marshall: as in the Hamiltonian, whose rotated σˣ and σʸ are turned back.
    **Cost** per sample: n moves for each distance, O(1) each.
    """

    n_sites: int = eqx.field(static=True)
    pairs: tuple[str, ...] = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    connected: bool = eqx.field(static=True)
    marshall: bool = eqx.field(static=True)
    distances: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        pairs: Sequence[str] = ("XX", "YY", "ZZ"),
        *,
        periodic: bool = True,
        connected: bool = False,
        marshall: bool = False,
        distances: Sequence[int] | None = None,
    ):
        farthest = n_sites // 2 if periodic else n_sites - 1
        chosen = range(1, farthest + 1) if distances is None else distances
        if farthest < 1 or not chosen or not all(1 <= r <= farthest for r in chosen):
            raise ValueError(
                f"Correlations: expected distances from 1 to {farthest} on a chain of {n_sites} "
                f"sites, got {list(chosen)}"
            )
        if isinstance(pairs, str) or any(len(p) != 2 or set(p) - set("XYZ") for p in pairs):
            raise ValueError(
                f"Correlations: expected pairs of the letters X, Y and Z, got {pairs!r}; "
                'write ["XX"] for one'
            )
        self.n_sites, self.periodic, self.connected = n_sites, bool(periodic), bool(connected)
        self.pairs, self.marshall = tuple(pairs), bool(marshall)
        self.distances = tuple(int(r) for r in chosen)

    def sites(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and second site of every pair, and which distance it has."""
        first = np.tile(np.arange(self.n_sites), (len(self.distances), 1))
        second = first + np.array(self.distances)[:, None]
        which = np.broadcast_to(np.arange(len(self.distances))[:, None], first.shape)
        fits = np.full(first.shape, self.periodic) | (second < self.n_sites)
        return first[fits], second[fits] % self.n_sites, which[fits]

    @property
    def flips_one(self) -> bool:
        """Whether single flips are needed."""
        flipped = [sum(letter != "Z" for letter in pair) for pair in self.pairs]
        return 1 in flipped or (self.connected and 2 in flipped)

    @property
    def flips_two(self) -> bool:
        return any("Z" not in pair for pair in self.pairs)

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        """Single flips, then pairs, as far as they are needed; elements of one."""
        rows = []
        if self.flips_one:
            every = jnp.arange(self.n_sites, dtype=jnp.int32)[:, None]
            rows.append(Row(every, jnp.ones(self.n_sites), 0, True))
        if self.flips_two:
            first, second, _ = self.sites()
            moves = jnp.asarray(np.stack([first, second], axis=1), jnp.int32)
            rows.append(Row(moves, jnp.ones(len(first)), max(self.distances), False))
        return tuple(rows)

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> dict[str, tuple[Array, ...]]:
        """The average over all pairs at each distance, and where it is subtracted ⟨P⟩ and ⟨Q⟩ of
        every site."""
        first, second, which = self.sites()
        counts = np.bincount(which)
        spins = spins.astype(jnp.zeros(()).dtype)

        def phase(letter: str, at: np.ndarray) -> Array:
            """⟨σ|P|σ'⟩ on one site."""
            if letter == "Z":
                return spins[at]
            turned = jnp.asarray(np.where(self.marshall & (at % 2 == 1), -1, 1), spins.dtype)
            if letter == "X":
                return turned
            return jnp.asarray(-1j) * (turned * spins[at]).astype(complex)

        def by_site(letter: str) -> Array:
            return _times(phase(letter, np.arange(self.n_sites)), terms[0] if letter != "Z" else 1)

        result = {}
        for pair in self.pairs:
            flipped = [letter != "Z" for letter in pair]
            values = _times(phase(pair[0], first), phase(pair[1], second))
            if all(flipped):
                values = _times(values, terms[-1])
            elif any(flipped):
                values = _times(values, terms[0][first if flipped[0] else second])
            sums = jnp.zeros(len(counts), values.dtype).at[which].add(values)
            mean = sums / jnp.asarray(counts, sums.dtype)
            result[pair] = (mean, by_site(pair[0]), by_site(pair[1])) if self.connected else (mean,)
        return result

    def of_means(self, means: dict[str, tuple[Array, ...]]) -> dict[str, Array]:
        real = {pair: [jnp.real(x) for x in of_pair] for pair, of_pair in means.items()}
        if not self.connected:
            return {pair: of_pair[0] for pair, of_pair in real.items()}
        first, second, which = self.sites()
        counts = np.bincount(which)
        result = {}
        for pair, (mean, one, other) in real.items():
            products = jnp.zeros(len(counts), mean.dtype).at[which].add(one[first] * other[second])
            result[pair] = mean - products / jnp.asarray(counts, mean.dtype)
        return result


@final
class StructureFactor(Observable):
    r"""S(q) = Σ_ij cos(q (i-j)) ⟨σᵃ_i σᵃ_j⟩ / n at q = 2πk/n, k = 0 … n/2: an array.

    **Arguments** the number of sites, the letter of the axis a, ring or open chain, and whether
    every second spin is rotated as in the Hamiltonian (`marshall`).
    **Cost** per sample: one Fourier transform along z, all pairs of flips along x and y.
    """

    letter: str = eqx.field(static=True)
    between: Correlations

    def __init__(
        self, n_sites: int, letter: str = "Z", *, periodic: bool = True, marshall: bool = False
    ):
        self.letter = letter
        self.between = Correlations(n_sites, [2 * letter], periodic=periodic, marshall=marshall)

    @property
    def n_sites(self) -> int:
        return self.between.n_sites

    @property
    def momenta(self) -> Float[np.ndarray, " momenta"]:
        return 2 * np.pi * np.arange(self.n_sites // 2 + 1) / self.n_sites

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        return self.between.rows(spins)

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> Inexact[Array, " momenta"]:
        n = self.n_sites
        if self.letter == "Z":
            waves = jnp.fft.rfft(spins.astype(jnp.zeros(()).dtype))
            return jnp.abs(waves) ** 2 / n
        distances = np.array(self.between.distances)
        pairs = n - distances
        if self.between.periodic:
            pairs = np.where(2 * distances == n, n / 2, n)
        weights = 2 * pairs / n * np.cos(self.momenta[:, None] * distances)
        (correlations,) = self.between.local(spins, terms)[2 * self.letter]
        return 1 + jnp.asarray(weights, correlations.dtype) @ correlations


def dimers(
    n_sites: int, distances: Sequence[int], *, periodic: bool = True, marshall: bool = False
) -> dict[int, PauliStrings]:
    """⟨D_i D_{i+r}⟩ of bonds D_i = S_i·S_{i+1}, averaged over i, for each r of at least 2: one
    operator for each distance, with up to four flips.

    ``marshall`` as in the Hamiltonian; with ``D = PauliStrings(n, exchange(1 / n))`` the connected
    ones are ``Function(lambda x: x["dd"] - x["d"] ** 2, {"dd": dimers(…)[r], "d": D}, n)``.
    """
    operators = {}
    for r in distances:
        bonds = n_sites if periodic else n_sites - r - 1
        if not 2 <= r <= n_sites - 2:
            raise ValueError(f"dimers: expected distances from 2 to {n_sites - 2}, got {r}")
        terms = [(2 * a + "I" * (r - 2) + 2 * b, 1 / (16 * bonds)) for a in "XYZ" for b in "XYZ"]
        operators[r] = PauliStrings(n_sites, terms, periodic=periodic, marshall=marshall)
    return operators


def _times(first: Array, second: Array | int) -> Array:
    """Of real and complex arrays."""
    if isinstance(second, int):
        return first
    dtype = np.promote_types(first.dtype, second.dtype)
    return first.astype(dtype) * second.astype(dtype)
