"""Whether a sampler fits a Hamiltonian: what is wrong for certain is refused before anything runs.

A move flips a set of sites, and two moves after each other flip the sum of their sets modulo 2: the
moves of a sampler generate a linear space over two elements.  A configuration that the Hamiltonian
connects and that lies outside of this space, or of the sector that the moves keep, is never seen:
the energy of the chains is then that of no state, whatever the error bar says.
"""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from dyson.hamiltonians import Hamiltonian
from dyson.samplers.moves import Moves


def check_fit(name: str, moves: Moves, hamiltonian: Hamiltonian) -> None:
    """Refuse moves that cannot reach what the Hamiltonian connects, and those that must freeze.

    Arguments:
      name: of the sampler, for the message.
      moves: what it proposes.
      hamiltonian: whose local energies are to be sampled.

    Cost O(n_sites^2 / 64) for moves that generate everything, and once per configuration that the
    Hamiltonian connects for others; nothing is compiled.
    """
    if moves.n_sites != hamiltonian.n_sites:
        raise ValueError(
            f"{name}: the Hamiltonian has {hamiltonian.n_sites} sites, the moves {moves.n_sites}"
        )
    kind = type(hamiltonian).__name__
    if moves.conserves_magnetisation and not hamiltonian.conserves_magnetisation:
        raise ValueError(
            f"{name}: the moves keep the magnetisation but {kind} does not, so that the chains "
            f"would never see most of the state; leave out moves, or write dyson.Metropolis("
            "hamiltonian, n_chains) for the Hamiltonian whose energies are sampled"
        )
    if hamiltonian.conserves_magnetisation and not moves.exchanges_spins:
        raise ValueError(
            f"{name}: {kind} conserves the magnetisation but every move changes it, so that the "
            "chains freeze as the state settles in one sector; use dyson.Sweep(hamiltonian, "
            "n_chains) or dyson.Metropolis(hamiltonian, n_chains), which exchange spins"
        )
    missed = _missed(moves, hamiltonian)
    if missed is not None:
        raise ValueError(
            f"{name}: {kind} connects configurations that differ on the sites {missed}, which no "
            "sequence of these moves can flip; add moves, as in dyson.samplers.Mixture(moves, "
            "dyson.samplers.Exchanges(n_sites, periodic, 1)), or leave them out"
        )


def _missed(moves: Moves, hamiltonian: Hamiltonian) -> list[int] | None:
    """Sites that the Hamiltonian flips together and the moves cannot; None if there are none."""
    n = moves.n_sites
    leading: dict[int, int] = {}
    for mask in _masks(moves.generators()):
        rest = _reduced(mask, leading)
        if rest:
            leading[rest.bit_length()] = rest
        if len(leading) == n:
            return None
    if len(leading) == n - 1 and hamiltonian.conserves_magnetisation:
        if moves.conserves_magnetisation:
            return None  # all even sets of sites, and no others conserve the magnetisation
    # two configurations show all terms: of some, an entry vanishes for one of them
    neel = np.where(np.arange(n) % 2, -1, 1).astype(np.int8)
    mixed = np.random.default_rng(0).permutation(neel)
    for spins in (neel, mixed):
        sites, elements = map(np.asarray, hamiltonian.connected(jnp.asarray(spins)))
        for mask in set(_masks(sites[elements != 0])):
            if _reduced(mask, leading):
                return [site for site in range(n) if mask >> site & 1]
    return None


def _masks(moves: np.ndarray) -> Iterable[int]:
    """Sets of sites, padded with -1, as bits."""
    for move in moves.tolist():
        mask = 0
        for site in move:
            if site >= 0:
                mask ^= 1 << site
        yield mask


def _reduced(mask: int, leading: dict[int, int]) -> int:
    """What is left of a set when all that the others generate is taken off: 0 if nothing."""
    while mask and (other := leading.get(mask.bit_length())) is not None:
        mask ^= other
    return mask
