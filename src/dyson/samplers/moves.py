"""What a Metropolis chain proposes: small objects that draw moves and say which sites they flip."""

import abc
import math
from typing import Any, ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8

from dyson.hamiltonians import Hamiltonian

# Distances of the spins that are exchanged where the Hamiltonian conserves the magnetisation.
EXCHANGES = (1, 2)


class Moves(eqx.Module):
    """A symmetric proposal: every move is its own inverse, and its numbers are drawn without
    looking at the spins, so the ratio of amplitudes alone decides.

    Moves are drawn many at a time by ``draw`` and turned into sites one by one, when the
    configuration they act on is known, by ``sites``.
    """

    n_sites: eqx.AbstractVar[int]
    conserves_magnetisation: eqx.AbstractVar[bool]
    """Whether every move keeps the sum of the spins."""
    exchanges_spins: eqx.AbstractVar[bool]
    """Whether some moves do."""

    @property
    @abc.abstractmethod
    def most_flips(self) -> int:
        """Length of the array that ``sites`` returns."""

    @property
    @abc.abstractmethod
    def reach(self) -> int:
        """Largest distance between two flipped sites of one move."""

    @abc.abstractmethod
    def generators(self) -> Int[np.ndarray, "moves flips"]:
        """Sites of moves, padded with -1, that one after the other make up every move there is."""

    @abc.abstractmethod
    def draw(self, key: jax.Array, n: int) -> Any:
        """The random numbers of ``n`` moves: arrays with a leading axis of n."""

    @abc.abstractmethod
    def sites(self, move: Any, spins: Int8[Array, " n_sites"]) -> Int[Array, " most_flips"]:
        """The sites that one move flips, int32, padded with -1; all -1 if it changes nothing."""


@final
class Flips(Moves):
    """Flips of single spins."""

    conserves_magnetisation: ClassVar[bool] = False
    exchanges_spins: ClassVar[bool] = False
    n_sites: int = eqx.field(static=True)

    @property
    def most_flips(self) -> int:
        return 1

    @property
    def reach(self) -> int:
        return 0

    def generators(self) -> Int[np.ndarray, "moves 1"]:
        return np.arange(self.n_sites, dtype=np.int32)[:, None]

    def draw(self, key: jax.Array, n: int) -> Int[Array, " n"]:
        return jax.random.randint(key, (n,), 0, self.n_sites, jnp.int32)

    def sites(self, move: Int[Array, ""], spins: Int8[Array, " n_sites"]) -> Int[Array, " 1"]:
        return move[None]


@final
class Runs(Moves):
    """Flips of runs of neighbouring spins, half of them single spins.

    The other half have log-uniform lengths up to half the chain: both ends of a run gain or
    lose a domain wall, so walls hop over any distance.  Single flips move them by one site, and
    near a critical point a sample then takes of the order of n_sites^2 sweeps to forget the one
    before.
    """

    conserves_magnetisation: ClassVar[bool] = False
    exchanges_spins: ClassVar[bool] = False
    n_sites: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)

    @property
    def most_flips(self) -> int:
        """Flipping more than half of a ring is, up to a global flip, flipping the rest."""
        return max(1, self.n_sites // 2)

    @property
    def reach(self) -> int:
        return self.most_flips - 1

    def generators(self) -> Int[np.ndarray, "moves 1"]:
        """Runs of one spin."""
        return np.arange(self.n_sites, dtype=np.int32)[:, None]

    def draw(self, key: jax.Array, n: int) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        """First sites and lengths."""
        start_key, kind_key, length_key = jax.random.split(key, 3)
        starts = jax.random.randint(start_key, (n,), 0, self.n_sites, jnp.int32)
        log_length = jax.random.uniform(length_key, (n,)) * math.log(self.most_flips + 1)
        long = jnp.clip(jnp.exp(log_length).astype(jnp.int32), 1, self.most_flips)
        return starts, jnp.where(jax.random.bernoulli(kind_key, shape=(n,)), long, 1)

    def sites(
        self, move: tuple[Int[Array, ""], Int[Array, ""]], spins: Int8[Array, " n_sites"]
    ) -> Int[Array, " most_flips"]:
        """An open chain cuts a run off at the last site."""
        start, length = move
        steps = jnp.arange(self.most_flips, dtype=jnp.int32)
        sites, inside = start + steps, steps < length
        if self.periodic:
            sites = sites % self.n_sites
        else:
            inside &= sites < self.n_sites
        return jnp.where(inside, sites, -1)


@final
class Exchanges(Moves):
    """Exchanges of two spins ``distance`` apart, on a ring or an open chain.

    Both are flipped if they are opposite; otherwise nothing changes.  The magnetisation stays.
    """

    conserves_magnetisation: ClassVar[bool] = True
    exchanges_spins: ClassVar[bool] = True
    n_sites: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    distance: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.distance < 1:
            raise ValueError(f"Exchanges: expected distance >= 1, got {self.distance}")

    @property
    def most_flips(self) -> int:
        return 2

    @property
    def reach(self) -> int:
        return self.distance

    def generators(self) -> Int[np.ndarray, "moves 2"]:
        pairs = self.n_sites if self.periodic else max(0, self.n_sites - self.distance)
        first = np.arange(pairs, dtype=np.int32)
        return np.stack([first, (first + self.distance) % self.n_sites], axis=1)

    def draw(self, key: jax.Array, n: int) -> Int[Array, " n"]:
        """The first site of the pair."""
        pairs = self.n_sites if self.periodic else max(1, self.n_sites - self.distance)
        return jax.random.randint(key, (n,), 0, pairs, jnp.int32)

    def sites(self, move: Int[Array, ""], spins: Int8[Array, " n_sites"]) -> Int[Array, " 2"]:
        partner = move + self.distance
        exists = self.periodic | (partner < self.n_sites)  # not on a chain that is too short
        partner = partner % self.n_sites
        opposite = exists & (spins[move] != spins[partner])
        return jnp.where(opposite, jnp.stack([move, partner]), -1)


@final
class Mixture(Moves):
    """One of several kinds of moves at a time, with the given weights (equal if not given)."""

    n_sites: int = eqx.field(static=True)
    conserves_magnetisation: bool = eqx.field(static=True)
    exchanges_spins: bool = eqx.field(static=True)
    parts: tuple[Moves, ...]
    log_weights: Float[Array, " parts"]

    def __init__(self, *parts: Moves, weights: tuple[float, ...] | None = None):
        weights = (1.0,) * len(parts) if weights is None else weights
        if not parts or len({part.n_sites for part in parts}) > 1:
            raise ValueError(
                "Mixture: expected moves on the same number of sites, got "
                f"{[part.n_sites for part in parts]}"
            )
        if len(weights) != len(parts) or not all(weight > 0 for weight in weights):
            raise ValueError(
                f"Mixture: expected {len(parts)} weights > 0, one for each kind, got {weights}"
            )
        self.n_sites = parts[0].n_sites
        self.conserves_magnetisation = all(part.conserves_magnetisation for part in parts)
        self.exchanges_spins = any(part.exchanges_spins for part in parts)
        self.parts = parts
        self.log_weights = jnp.log(jnp.asarray(weights))

    @property
    def most_flips(self) -> int:
        return max(part.most_flips for part in self.parts)

    @property
    def reach(self) -> int:
        return max(part.reach for part in self.parts)

    def generators(self) -> Int[np.ndarray, "moves most_flips"]:
        widest = [np.full((0, self.most_flips), -1, np.int32)]
        for part in self.parts:
            moves = part.generators()
            padding = self.most_flips - moves.shape[1]
            widest.append(np.pad(moves, ((0, 0), (0, padding)), constant_values=-1))
        return np.concatenate(widest)

    def draw(self, key: jax.Array, n: int) -> tuple[Int[Array, " n"], tuple[Any, ...]]:
        """Which kind, and the numbers of every kind."""
        kind_key, *keys = jax.random.split(key, 1 + len(self.parts))
        kinds = jax.random.categorical(kind_key, self.log_weights, shape=(n,)).astype(jnp.int32)
        return kinds, tuple(part.draw(k, n) for part, k in zip(self.parts, keys, strict=True))

    def sites(self, move: Any, spins: Int8[Array, " n_sites"]) -> Int[Array, " most_flips"]:
        kind, numbers = move
        candidates = []
        for part, number in zip(self.parts, numbers, strict=True):
            sites = part.sites(number, spins)
            padding = self.most_flips - sites.shape[0]
            candidates.append(jnp.pad(sites, (0, padding), constant_values=-1))
        return jnp.stack(candidates)[kind]


def local_moves(hamiltonian: Hamiltonian) -> Moves:
    """Exchanges of nearest and next-nearest neighbours where the Hamiltonian conserves the
    magnetisation, single flips elsewhere."""
    n_sites, periodic = hamiltonian.n_sites, hamiltonian.periodic
    if hamiltonian.conserves_magnetisation:
        return Mixture(*(Exchanges(n_sites, periodic, distance) for distance in EXCHANGES))
    return Flips(n_sites)
