"""The Jastrow state: its definition, its symmetries, and a chain that it describes well."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import VMC, XXZ, Metropolis, exact, minsr
from dyson.baselines import Jastrow
from dyson.spins import random_spins


@pytest.mark.parametrize("complex_weights", [False, True])
@pytest.mark.parametrize(
    "n_sites, periodic", [(1, True), (2, True), (6, True), (5, True), (5, False)]
)
def test_every_pair_by_its_distance(n_sites, periodic, complex_weights):
    model = Jastrow(
        n_sites, periodic=periodic, complex_weights=complex_weights, key=jax.random.key(0)
    )
    values = jax.random.normal(jax.random.key(1), model.coupling.shape)
    model = eqx.tree_at(lambda m: m.coupling, model, values)
    spins = random_spins(jax.random.key(2), n_sites)
    parts = np.asarray(values)
    v = parts[0] + 1j * parts[1] if complex_weights else parts[0]
    expected = 0.0
    for i in range(n_sites):
        for j in range(i):
            apart = min(i - j, n_sites - i + j) if periodic else i - j
            expected += v[apart - 1] * float(spins[i]) * float(spins[j])
    found = model(spins)
    assert jnp.iscomplexobj(found) == complex_weights
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for same in (-spins, spins[::-1], jnp.roll(spins, model.period)):
        np.testing.assert_allclose(model(same), found, atol=1e-12)


@pytest.mark.exhaustive
def test_the_xy_ring_is_nearly_a_jastrow_state():
    n_sites = 8
    hamiltonian = XXZ(n_sites, anisotropy=0.0)
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 64), minsr())
    state = vmc.init(jax.random.key(0), Jastrow(n_sites, key=jax.random.key(1)))
    for _ in range(60):
        state, info = vmc.step(state)
    assert abs(float(info.energy) / exact.ground_energy(hamiltonian) - 1) < 5e-3


def test_misuse_is_named():
    with pytest.raises(ValueError, match="Jastrow: expected n_sites >= 1, got 0"):
        Jastrow(0, key=jax.random.key(0))
    with pytest.raises(ValueError, match="spins of shape \\(4,\\), got \\(2, 4\\)"):
        Jastrow(4, key=jax.random.key(0))(jnp.ones((2, 4), jnp.int8))
