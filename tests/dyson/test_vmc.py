"""The VMC loop: it finds ground states, stops loudly, and does not depend on the devices."""

import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dyson import (
    VMC,
    DysonNet,
    Ising,
    Metropolis,
    NonFiniteError,
    SpinFlip,
    exact,
    minsr,
    spring,
    sr,
)
from dyson.vmc import _step
from random_networks import random_network


def small_problem(n_sites=8, optimiser=None, **options):
    hamiltonian = Ising(n_sites, **options.pop("hamiltonian", {}))
    network = DysonNet(n_sites, features=4, hidden=4, key=jax.random.key(0), **options)
    model = SpinFlip(network) if hamiltonian.spin_flip_symmetric else network
    sampler = Metropolis(hamiltonian, 32)
    vmc = VMC(hamiltonian, sampler, optimiser or minsr(), warm_up=2)
    return vmc, vmc.init(jax.random.key(1), model)


@pytest.mark.optimised
def test_finds_the_ground_state_and_compiles_once():
    vmc, state = small_problem(dtype=jnp.float32)
    before = _step._cached._cache_size()
    for _ in range(60):
        state, info = vmc.step(state)
    assert _step._cached._cache_size() - before == 1
    energy = exact.ground_energy(vmc.hamiltonian)
    assert abs(float(info.energy) / energy - 1) < 5e-3
    assert float(info.v_score) < 1e-2 and int(state.step) == 60
    assert {x.dtype for x in jax.tree.leaves(state.model)} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("optimiser", [sr(), spring(), optax.sgd(5e-3)])
def test_any_optax_optimiser_lowers_the_energy(optimiser):
    vmc, state = small_problem(optimiser=optimiser, depth=1, hamiltonian={"longitudinal": 0.5})
    state, first = vmc.step(state)
    for _ in range(15):
        state, last = vmc.step(state)
    assert float(last.energy) < float(first.energy) - 5 * float(first.error)


def test_complex_head_keeps_a_real_energy():
    vmc, state = small_problem(depth=1, complex_head=True)
    state, info = vmc.step(state)
    assert info.energy.dtype == jnp.float64 and float(info.step_norm) > 0


def test_a_value_that_is_not_finite_stops_with_the_last_good_state():
    vmc, state = small_problem(depth=1)
    broken = eqx.tree_at(lambda s: s.model.network.head.bias, state, jnp.full((1, 4), jnp.nan))
    with pytest.raises(NonFiniteError, match="the local energy.*smaller learning rate") as caught:
        vmc.step(broken)
    assert caught.value.state is broken


def test_the_same_key_gives_the_same_run():
    runs = []
    for _ in range(2):
        vmc, state = small_problem(depth=1)
        state, info = vmc.step(state)
        runs.append((np.asarray(state.sampler.spins), float(info.energy)))
    assert (runs[0][0] == runs[1][0]).all() and runs[0][1] == runs[1][1]


PROGRAM = """
import json, jax
jax.config.update("jax_enable_x64", True)
from dyson import VMC, DysonNet, Ising, Metropolis, SpinFlip, minsr
hamiltonian = Ising(8)
model = SpinFlip(DysonNet(8, features=4, hidden=4, depth=1, key=jax.random.key(0)))
vmc = VMC(hamiltonian, Metropolis(hamiltonian, 8), minsr(), warm_up=2)
state = vmc.init(jax.random.key(1), model)
for _ in range(2):
    state, info = vmc.step(state)
print(json.dumps([len(jax.devices()), float(info.energy), state.sampler.spins.tolist()]))
"""


def test_the_number_of_devices_changes_nothing():
    results = []
    for devices in (1, 4):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True,
            env=os.environ | {
                "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"
            },
        )
        results.append(json.loads(done.stdout))
    one, four = results
    assert (one[0], four[0]) == (1, 4)
    assert abs(one[1] - four[1]) < 1e-9 and one[2] == four[2]


def test_misuse_is_named():
    hamiltonian = Ising(4)
    with pytest.raises(ValueError, match="chain_length >= 1 and warm_up >= 0, got 0, 8"):
        VMC(hamiltonian, Metropolis(hamiltonian, 2), minsr(), chain_length=0)
    with pytest.raises(ValueError, match="Hamiltonian has 4 sites, the sampler 6"):
        VMC(hamiltonian, Metropolis(Ising(6), 2), minsr())
    with pytest.raises(ValueError, match="6 sites, the model 4"):
        vmc = VMC(Ising(6), Metropolis(Ising(6), 2), minsr())
        vmc.init(jax.random.key(0), random_network(4))
