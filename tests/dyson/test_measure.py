"""Samples until error bars are small enough, from chains that have settled."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import (
    VMC,
    DysonNet,
    Ising,
    Magnetisation,
    Metropolis,
    expect,
    measure,
    minsr,
    thermalised,
)
from dyson.vmc.statistics import DiagnosticWarning, Estimate


def test_measuring_until_error_bars_are_small_enough():
    """The estimates are those of expect on the same samples, and within their error bars of the
    exact values; what cannot be reached is said."""
    n = 6
    hamiltonian = Ising(n)
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 16, sweeps=2), minsr())
    start = vmc.init(jax.random.key(0), DysonNet(n, features=4, depth=1, key=jax.random.key(1)))
    wanted = {"order": Magnetisation(n), "energy": hamiltonian}
    state, found = measure(wanted, vmc, start, until=0.05)
    errors = jax.tree.leaves(
        jax.tree.map(lambda x: x.error, found, is_leaf=lambda x: isinstance(x, Estimate))
    )
    assert 0 < np.max([np.max(error) for error in errors]) <= 0.05
    assert int(state.step) == int(start.step)
    assert not np.array_equal(state.sampler.spins, start.sampler.spins)

    once, repeated = start, []
    while len(repeated) == 0 or not np.array_equal(once.sampler.spins, state.sampler.spins):
        once, samples = vmc.sample(once, vmc.chain_length)
        repeated.append(samples.spins)
    again = expect(wanted, start.model, jnp.concatenate(repeated, axis=1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found, again)

    with pytest.warns(DiagnosticWarning, match="after 8 samples of each chain the largest error"):
        measure(wanted, vmc, start, until=1e-9, most=8)
    with pytest.raises(ValueError, match="expected until > 0, got 0"):
        measure(wanted, vmc, start, until=0)


def test_chains_settle_before_they_are_measured():
    """They leave their start; those of a state that holds each where it is are named."""
    n = 6
    hamiltonian = Ising(n)
    vmc = VMC(hamiltonian, Metropolis(hamiltonian, 16), minsr(), warm_up=0)
    state = vmc.init(jax.random.key(0), DysonNet(n, features=4, depth=1, key=jax.random.key(1)))
    settled = thermalised(vmc, state, r_hat=1.2)
    assert not np.array_equal(settled.sampler.spins, state.sampler.spins)
    peaked = eqx.tree_at(lambda s: s.model.head.weight, state, 1e3 * state.model.head.weight)
    with pytest.warns(DiagnosticWarning, match="R-hat is .* and not 1.02 after 24 samples"):
        thermalised(vmc, peaked, length=8, most=31)
    with pytest.raises(ValueError, match="expected r_hat > 1 and length >= 4, got 0.9, 16"):
        thermalised(vmc, state, r_hat=0.9)
