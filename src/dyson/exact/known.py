"""The exact ground-state energy of a Hamiltonian, by whichever method reaches it."""

from dyson.exact.diagonalise import MAX_SITES, ground_state
from dyson.exact.free_fermions import free_fermion_energy
from dyson.hamiltonians import Hamiltonian, Ising


def ground_energy(hamiltonian: Hamiltonian) -> float | None:
    """The total ground-state energy, or None where no exact method reaches it.

    Nearest-neighbour Ising chains without a longitudinal field are solved by free fermions at any
    size, everything else by exact diagonalisation up to 20 sites (a second at 16, 20 s at 20).
    """
    if isinstance(hamiltonian, Ising) and _is_free(hamiltonian):
        bond = hamiltonian.couplings[1] if hamiltonian.n_sites > 1 else 0.0
        return free_fermion_energy(
            hamiltonian.n_sites,
            coupling=float(bond),
            field=float(hamiltonian.field),
            periodic=hamiltonian.periodic,
        )
    if hamiltonian.n_sites <= MAX_SITES:
        return ground_state(hamiltonian)[0]
    return None


def _is_free(hamiltonian: Ising) -> bool:
    return hamiltonian.nearest_neighbour and hamiltonian.spin_flip_symmetric
