"""Random networks to sample from: amplitudes far apart, and no phase that holds chains fast."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from dyson import DysonNet, Hamiltonian, Sweep
from dyson.networks import Network
from dyson.samplers import SamplerInfo
from dyson.samplers.base import SamplerState
from dyson.spins import flip, random_spins

# Sweeps until chains have settled.
SETTLE = 20


class Subject(NamedTuple):
    """A network, and configurations to start from."""

    hamiltonian: Hamiltonian
    model: Network
    spins: jax.Array


def settled(subject: Subject) -> tuple[jax.Array, float]:
    """Configurations after some exact sweeps, and the fraction of accepted flips on the way."""
    hamiltonian, model, spins = subject
    chains = spins.shape[0]
    sweep = Sweep(hamiltonian, chains, sweeps=SETTLE, chains_at_once=chains)
    state = eqx.tree_at(lambda s: s.spins, sweep.init(jax.random.key(1), model), spins)
    state, info = _sample(sweep, model, state)
    return state.spins, float(jnp.min(info.acceptance))


@eqx.filter_jit
def _sample(
    sweep: Sweep, model: Network, state: SamplerState
) -> tuple[SamplerState, SamplerInfo]:
    return sweep.sample(jax.random.key(4), model, state)


def strongly_correlated(subject: Subject, *, acceptance: float) -> Subject:
    """Amplitudes as far apart as allows every chain this ``acceptance``, in steps of sqrt(2)."""
    hamiltonian, model, spins = subject
    assert isinstance(model, DysonNet)
    size = 4.0
    while True:
        scaled = Subject(hamiltonian, with_ratios(model, size), spins)
        if settled(scaled)[1] >= acceptance:
            return scaled
        size /= 2**0.5


def with_ratios(model: DysonNet, size: float) -> DysonNet:
    """A network whose log psi changes by ``size`` under a flip, root mean square over random spins.

    The head works where log cosh is linear, so that log psi is a sum of local terms with
    exponential tails: in one dimension such a state has no phases in which chains of one network
    could settle differently.
    """
    spins = random_spins(jax.random.key(2), (64, model.n_sites))
    sites = jax.random.randint(jax.random.key(3), (64, 1), 0, model.n_sites)
    theta = lambda s: model.theta(s) - model.head.bias  # noqa: E731
    before, after = eqx.filter_jit(jax.vmap(lambda s, i: (theta(s), theta(flip(s, i)))))(
        spins, sites
    )
    changes = jnp.sum(after - before, axis=-1)
    scale = size / jnp.sqrt(jnp.mean(changes**2))
    # far more than theta ever reaches: the largest of random spins grows like sqrt(n_sites)
    bias = jnp.full_like(model.head.bias, 3 * scale * jnp.max(jnp.abs(before)))
    return eqx.tree_at(
        lambda m: (m.head.weight, m.head.bias), model, (scale * model.head.weight, bias)
    )
