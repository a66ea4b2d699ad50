"""States with signs that no rotation removes are trained, from any start, by every form of natural
gradient: what matters is the energy of the state itself, summed over its whole sector, which
samples do not know where they do not come.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import (
    J1J2,
    VMC,
    XXZ,
    DysonNet,
    Metropolis,
    Recompute,
    SpinFlip,
    exact,
    local_energies,
    minsr,
    spring,
    sr,
)
from dyson.spins import enumerate_spins

# At j2 = 1/2 most amplitudes of the ground state vanish (Majumdar and Ghosh).
HAMILTONIANS = {
    "XXZ": lambda: XXZ(8, marshall=False),
    "J1J2 0.3": lambda: J1J2(8, j2=0.3, marshall=False),
    "J1J2 0.5": lambda: J1J2(12, j2=0.5, marshall=False),
}
OPTIMISERS = {"sr": sr, "minsr": minsr, "spring": spring}
CASES = [
    (name, optimiser, projected)
    for name in HAMILTONIANS
    for optimiser in OPTIMISERS
    for projected in (True, False)
]


def energy_of(hamiltonian, model):
    spins = enumerate_spins(hamiltonian.n_sites)
    sector = spins[np.asarray(spins).sum(axis=1) == 0]

    @eqx.filter_jit
    def summed(model):
        log_psi = jnp.real(jax.vmap(model)(sector))
        share = jax.nn.softmax(2 * log_psi)
        energies = local_energies(hamiltonian, model, sector, updates=Recompute(), chunk_size=64)
        return jnp.sum(jnp.where(share > 0, share * jnp.real(energies), 0))

    return float(summed(model))


@pytest.mark.exhaustive
@pytest.mark.optimised
@pytest.mark.parametrize(
    "name, optimiser, projected, seed", [(*case, index % 5) for index, case in enumerate(CASES)]
)
def test_the_whole_state_reaches_the_exact_energy(name, optimiser, projected, seed):
    """Of five seeds each, all end within 8e-4, most of twelve sites within 3e-5 and of eight within
    1e-7.  Before, samples did not see nodes, nor what lies apart: starts stood still with the shift
    raised a million times, or ended in a spike that no sample found."""
    hamiltonian = HAMILTONIANS[name]()
    model = DysonNet(hamiltonian.n_sites, features=8, complex_head=True, key=jax.random.key(seed))
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 64), OPTIMISERS[optimiser]())
    state = vmc.init(jax.random.key(seed + 100), SpinFlip(model) if projected else model)
    for _ in range(120):
        state, _ = vmc.step(state)
    expected = exact.ground_energy(hamiltonian)
    assert abs(energy_of(hamiltonian, state.model) / expected - 1) < 1e-3
