"""Samplers that do not fit a Hamiltonian are refused, those that do are not."""

import itertools
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from dyson import J1J2, VMC, XXZ, Abacus, Hamiltonian, Ising, Metropolis, Sweep, Typewriter, minsr
from dyson.samplers import Exchanges, Flips, Mixture, Runs, Sampler, SamplerInfo, check_fit

N = 6
RING, OPEN = Exchanges(N, True), Exchanges(N, False)
SECOND = Exchanges(N, True, 2)


class PairFlips(Hamiltonian):
    """Flips neighbours together: the magnetisation changes by four or not at all."""

    n_sites: int = eqx.field(static=True)
    periodic: ClassVar[bool] = True
    spin_flip_symmetric: ClassVar[bool] = True
    flips_each_site: ClassVar[bool] = False
    conserves_magnetisation: ClassVar[bool] = False
    reach: ClassVar[int] = 1

    def diagonal(self, spins):
        return jnp.zeros(())

    def connected(self, spins):
        i = jnp.arange(self.n_sites, dtype=jnp.int32)
        return jnp.stack([i, (i + 1) % self.n_sites], 1), -jnp.ones(self.n_sites)

    @property
    def trace_per_dimension(self):
        return jnp.zeros(())


REFUSED = {
    "exchanges for Ising": (lambda: Metropolis(Ising(N), 4, moves=RING), "keep the magnetisation"),
    "exchanges for pair flips": (lambda: check_fit("", RING, PairFlips(N)), "keep the magnet"),
    "the sampler of another": (
        lambda: VMC(Ising(N), Metropolis(J1J2(N), 4), minsr()),
        "VMC with Metropolis: the moves keep the magnetisation but Ising does not",
    ),
    "the sweep of another": (lambda: VMC(J1J2(N), Sweep(Ising(N), 4), minsr()), "chains freeze"),
    "the typewriter of another": (
        lambda: VMC(XXZ(N), Typewriter(Ising(N), 4), minsr()), "use dyson.Sweep",
    ),
    "typewriter in a sector": (lambda: Typewriter(J1J2(N), 4), "Typewriter: J1J2 conserves"),
    "flips in a sector": (lambda: Metropolis(XXZ(N), 4, moves=Flips(N)), "chains freeze"),
    "runs in a sector": (lambda: Metropolis(XXZ(N), 4, moves=Runs(N, True)), "chains freeze"),
    "one sublattice": (lambda: Metropolis(J1J2(N), 4, moves=SECOND), r"on the sites \[\d, \d\]"),
    "one sublattice at any distance": (
        lambda: Metropolis(XXZ(8, exponent=3.0), 4, moves=Exchanges(8, True, 2)), "differ on the",
    ),
    "sublattices are mixed by no flip": (
        lambda: check_fit("", Mixture(SECOND, Exchanges(N, True, 4)), XXZ(N)), "no sequence of",
    ),
    "sizes": (lambda: VMC(Ising(N), Metropolis(Ising(4), 4), minsr()), "6 sites, the moves 4"),
    "rebuilt references": (lambda: Metropolis(Ising(N), 4, updates=Abacus()), "use dyson.Sweep"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_right_is_refused(kind):
    make, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        make()


FITTING = {
    "flips": lambda: Metropolis(Ising(N), 4, moves=Flips(N)),
    "flips for pair flips": lambda: Metropolis(PairFlips(N), 4),
    "exchanges and flips": lambda: Metropolis(J1J2(N), 4, moves=Mixture(SECOND, Flips(N))),
    "neighbours on an open chain": lambda: Metropolis(J1J2(N, periodic=False), 4, moves=OPEN),
    "two that together reach all": lambda: Metropolis(
        XXZ(N), 4, moves=Mixture(SECOND, Exchanges(N, True, 3))
    ),
    "an odd ring is one sublattice": lambda: Metropolis(J1J2(7), 4, moves=Exchanges(7, True, 2)),
    "a Hamiltonian of two sublattices": lambda: Metropolis(
        J1J2(N, j1=0.0, j2=1.0), 4, moves=SECOND
    ),
    "a larger Hamiltonian of the same kind": lambda: VMC(
        Ising(N, longitudinal=0.3, exponent=2.0), Metropolis(Ising(N, periodic=False), 4), minsr()
    ),
    "another conserving one": lambda: VMC(XXZ(N, exponent=3.0), Sweep(J1J2(N), 4), minsr()),
    "single sites": lambda: (Metropolis(J1J2(1), 2), Sweep(XXZ(1), 2), Typewriter(Ising(1), 2)),
}


@pytest.mark.parametrize("kind", FITTING)
def test_what_fits_is_taken(kind):
    FITTING[kind]()


@pytest.mark.parametrize("moves", [RING, OPEN, SECOND, Flips(N), Mixture(SECOND, RING)])
def test_generators_reach_what_sequences_of_moves_reach(moves):
    """Against a walk over all configurations of the moves as they are drawn."""
    reached = {0}
    steps = {sum(1 << s for s in move if s >= 0) for move in moves.generators().tolist()}
    while len(grown := reached | {a ^ b for a, b in itertools.product(reached, steps)}) > len(
        reached
    ):
        reached = grown
    missed = 0
    for sites in itertools.combinations(range(N), 2):

        class Pair(PairFlips):
            conserves_magnetisation: ClassVar[bool] = True

            def connected(self, spins, sites=sites):
                return jnp.array([sites], jnp.int32), jnp.ones(1)

        try:
            check_fit("", moves if moves.exchanges_spins else Mixture(moves, SECOND), Pair(N))
        except ValueError:
            missed += 1
            assert sum(1 << s for s in sites) not in reached
        else:
            assert sum(1 << s for s in sites) in reached
    assert missed == (9 if moves is SECOND else 0)


@pytest.mark.parametrize(
    "sampler, sector",
    [
        (Metropolis(Ising(N), 2), None),
        (Typewriter(Ising(N), 2), None),
        (Sweep(Ising(N), 2), None),
        (Sweep(J1J2(7), 2), 1),
        (Metropolis(J1J2(N), 2, magnetisation=2), 2),
        (Metropolis(J1J2(N), 2, moves=Mixture(RING, Flips(N))), None),
    ],
)
def test_a_sampler_says_which_sector_it_is_in(sampler, sector):
    assert sampler.magnetisation == sector
    assert sampler.moves.conserves_magnetisation == (sector is not None)


class Own(Sampler):
    """No more than the protocol asks for."""

    n_sites: int = eqx.field(static=True, default=N)
    n_chains: int = eqx.field(static=True, default=4)
    magnetisation: int | None = eqx.field(static=True, default=-2)
    moves: Exchanges = eqx.field(default=RING)

    def sample_chains(self, keys, model, state):
        return state, SamplerInfo(jnp.zeros(len(keys)))


def test_a_sampler_of_ones_own_starts_in_its_sector():
    spins = Own().init(jax.random.key(0), lambda spins: jnp.zeros(())).spins
    assert spins.sum(axis=1).tolist() == [-2] * 4
