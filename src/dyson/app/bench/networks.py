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
def _sample(sweep: Sweep, model: Network, state: SamplerState) -> tuple[SamplerState, SamplerInfo]:
    return sweep.sample(jax.random.key(4), model, state)


def largest_ratio(subject: Subject, *, acceptance: float) -> float:
    """How far apart amplitudes may be, as ``size`` of :func:`with_ratios`, if every chain is to
    accept this fraction of flips, less than the half that are accepted where odds are even
    (`dyson.samplers.base.acceptance`); in steps of sqrt(2)."""
    size = 4.0
    while settled(with_ratios(subject, size))[1] < acceptance:
        size /= 2**0.5
    return size


def with_ratios(subject: Subject, size: float) -> Subject:
    """The network scaled so that a flip changes log psi by ``size``, root mean square over random
    spins.

    The head works where log cosh is linear, so that log psi is a sum of local terms with the tails
    of the mixers.  If these are short there are, in one dimension, no phases in which chains of one
    network could settle differently.
    """
    model = subject.model
    assert isinstance(model, DysonNet)
    spins = random_spins(jax.random.key(2), (64, model.n_sites))
    sites = jax.random.randint(jax.random.key(3), (64, 1), 0, model.n_sites)
    theta = lambda s: model.theta(s) - model.head.bias
    before, after = eqx.filter_jit(jax.vmap(lambda s, i: (theta(s), theta(flip(s, i)))))(
        spins, sites
    )
    changes = jnp.sum(after - before, axis=-1)
    scale = size / jnp.sqrt(jnp.mean(changes**2))
    # far more than theta ever reaches: the largest of random spins grows like sqrt(n_sites)
    bias = jnp.full_like(model.head.bias, 3 * scale * jnp.max(jnp.abs(before)))
    head = lambda m: (m.head.weight, m.head.bias)
    return subject._replace(model=eqx.tree_at(head, model, (scale * model.head.weight, bias)))
