"""The exact ground-state energy of a Hamiltonian, by whichever method reaches it."""

from typing import NamedTuple

import numpy as np

from dyson.exact import bethe_ansatz
from dyson.exact.diagonalise import MAX_SITES, ground_state
from dyson.exact.free_fermions import free_fermion_energy
from dyson.hamiltonians import J1J2, XXZ, Hamiltonian, Ising


class GroundLevel(NamedTuple):
    """The lowest energy, a total, and the sector in which it was found, as in
    :class:`dyson.exact.GroundState`."""

    energy: float
    magnetisation: int | None
    parity: int | None


def ground_level(
    hamiltonian: Hamiltonian, *, magnetisation: int | None = None, parity: int | None = None
) -> GroundLevel | None:
    """The lowest level of all sectors, or of the given one; None where no exact method reaches it.

    Nearest-neighbour Ising chains without a longitudinal field are solved by free fermions at any
    size, everything else by exact diagonalisation up to 20 sites (a second at 16, 20 s at 20).  Of
    longer rings with an even number of sites, Heisenberg's is known from the Bethe ansatz, up to
    4096 sites, and J1-J2 at J2 = J1/2 as a product of singlets; in the sector of their ground
    state, magnetisation 0.

    Arguments as :func:`dyson.exact.ground_state`.  A sampler says in ``magnetisation`` which sector
    its chains are in, and ``SpinFlip`` projects on parity 1: compare energies with those.
    """
    if magnetisation is None and parity in (None, 1, -1):
        if isinstance(hamiltonian, Ising) and _is_free(hamiltonian):
            return _free_level(hamiltonian, parity)
    if hamiltonian.n_sites <= MAX_SITES:
        found = ground_state(hamiltonian, magnetisation=magnetisation, parity=parity)
        return GroundLevel(found.energy, found.magnetisation, found.parity)
    if isinstance(hamiltonian, J1J2 | XXZ) and magnetisation in (None, 0):
        level = _singlet(hamiltonian)
        return level if level is not None and parity in (None, level.parity) else None
    return None


def ground_energy(
    hamiltonian: Hamiltonian, *, magnetisation: int | None = None, parity: int | None = None
) -> float | None:
    """The energy of :func:`ground_level`, which also says in which sector it lies."""
    level = ground_level(hamiltonian, magnetisation=magnetisation, parity=parity)
    return None if level is None else level.energy


def _free_level(hamiltonian: Ising, parity: int | None) -> GroundLevel:
    bond = float(hamiltonian.couplings[1]) if hamiltonian.n_sites > 1 else 0.0
    levels = []
    for sector in [parity] if parity is not None else [1, -1]:
        energy = free_fermion_energy(
            hamiltonian.n_sites,
            coupling=bond,
            field=float(hamiltonian.field),
            periodic=hamiltonian.periodic,
            parity=sector,
        )
        levels.append(GroundLevel(energy, None, sector))
    return min(levels, key=lambda level: level.energy)


def _singlet(hamiltonian: J1J2 | XXZ) -> GroundLevel | None:
    """Of an even ring of antiferromagnetic neighbours that no axis is special to."""
    n = hamiltonian.n_sites
    alike = isinstance(hamiltonian, J1J2) or float(hamiltonian.anisotropy) == 1
    if n % 2 or not hamiltonian.periodic or not alike:
        return None
    pairs, couplings, signs = (
        np.asarray(x) for x in (hamiltonian.pairs, hamiltonian.couplings, hamiltonian.signs)
    )
    apart = np.abs(pairs[:, 1] - pairs[:, 0])
    apart = np.minimum(apart, n - apart)
    first, second = (couplings[apart == distance] for distance in (1, 2))
    if np.any(couplings[apart > 2]) or np.ptp(first) or first[0] <= 0:
        return None
    if not np.any(second) and n <= bethe_ansatz.MOST_SITES:
        energy = bethe_ansatz.heisenberg_energy(n, float(first[0]))
    elif np.all(second == first[0] / 2):
        energy = -0.375 * n * float(first[0])
    else:
        return None
    # flipping all spins of a singlet changes its sign for every pair; not so where every second
    # spin is rotated, which makes the state positive
    rotated = np.all(signs[apart == 1] < 0)
    return GroundLevel(energy, 0, 1 if rotated else (-1) ** (n // 2))


def _is_free(hamiltonian: Ising) -> bool:
    return hamiltonian.nearest_neighbour and hamiltonian.spin_flip_symmetric
