"""Levels of sectors of the critical Ising ring by training, against exact ones."""

import jax
import pytest

from compiling import quick_jit
from dyson import VMC, DysonNet, Ising, Metropolis, SpinFlip, Translations, minsr
from dyson.exact import sector_ground_state
from lanes import later

of_samples = quick_jit(lambda measurement: measurement.estimate())
PLACED = {"site_embedding": True, "site_spread": 0.3}


@pytest.mark.optimised
@pytest.mark.parametrize(
    "n_sites, options, wrap, sector, chains, steps, tolerance",
    [
        later(6, {}, lambda m: SpinFlip(m, -1), {"parity": -1}, 32, 40, 1e-3),
        later(6, PLACED, lambda m: Translations(m, 1), {"momentum": 1}, 32, 40, 1e-3),
        later(12, {}, lambda m: SpinFlip(m, -1), {"parity": -1}, 128, 100, 1e-4),
        later(12, PLACED, lambda m: Translations(m, 1), {"momentum": 1}, 128, 100, 1e-4),
    ],
)
def test_the_lowest_level_of_a_sector(n_sites, options, wrap, sector, chains, steps, tolerance):
    hamiltonian = Ising(n_sites)
    network = DysonNet(n_sites, features=8, hidden=4, depth=1, key=jax.random.key(0), **options)
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, chains), minsr())
    state = vmc.init(jax.random.key(1), wrap(network))
    for _ in range(steps):
        state, info = vmc.step(state)
    estimate = of_samples(vmc.sample(state, 32)[1])
    level = sector_ground_state(hamiltonian, **sector).energy
    relative, error = float(estimate.mean.real) / level - 1, float(estimate.error) / abs(level)
    print(sector, n_sites, relative, "+-", error, "V", float(info.v_score))
    assert abs(relative) < tolerance and float(info.v_score) < tolerance
