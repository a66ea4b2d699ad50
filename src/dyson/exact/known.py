"""The exact ground-state energy of a Hamiltonian, by whichever method reaches it."""

from typing import NamedTuple

from dyson.exact.diagonalise import MAX_SITES, ground_state
from dyson.exact.free_fermions import free_fermion_energy
from dyson.hamiltonians import Hamiltonian, Ising


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
    size, everything else by exact diagonalisation up to 20 sites (a second at 16, 20 s at 20).

    Arguments as :func:`dyson.exact.ground_state`.  A sampler says in ``magnetisation`` which sector
    its chains are in, and ``SpinFlip`` projects on parity 1: compare energies with those.
    """
    if magnetisation is None and parity in (None, 1, -1):
        if isinstance(hamiltonian, Ising) and _is_free(hamiltonian):
            return _free_level(hamiltonian, parity)
    if hamiltonian.n_sites <= MAX_SITES:
        found = ground_state(hamiltonian, magnetisation=magnetisation, parity=parity)
        return GroundLevel(found.energy, found.magnetisation, found.parity)
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


def _is_free(hamiltonian: Ising) -> bool:
    return hamiltonian.nearest_neighbour and hamiltonian.spin_flip_symmetric
