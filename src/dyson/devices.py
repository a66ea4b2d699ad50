"""Chains shared among devices: which devices there are, what lies where, and what runs on each.

Samples are spread over all devices; every chain has its own random stream, so the result does not
depend on how many there are (up to summation order).
"""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

CHAINS = "chains"
"""The name of the axis of devices that chains are spread over."""


def mesh(n_chains: int) -> Mesh:
    """All devices, or one where the chains cannot be shared equally."""
    devices = np.array(jax.devices())
    return Mesh(devices if n_chains % devices.size == 0 else devices[:1], (CHAINS,))


def over_chains(function):
    """Run ``function(keys, model, samples)`` on all devices, each with its share of the chains: the
    leading axis of ``keys`` and of every array in ``samples``."""

    def spread(keys: Array, model: Any, samples: Any):
        devices = mesh(keys.shape[0])
        if devices.size == 1:
            return function(keys, model, samples)
        arrays, static = eqx.partition(model, eqx.is_array)
        shared = jax.shard_map(
            lambda k, a, s: function(k, eqx.combine(a, static), s),
            mesh=devices,
            in_specs=(PartitionSpec(CHAINS), PartitionSpec(), PartitionSpec(CHAINS)),
            out_specs=PartitionSpec(CHAINS),
            check_vma=False,
        )
        return shared(keys, arrays, samples)

    return spread


def placed(state: Any) -> Any:
    """Chains (``state.sampler``) on their devices, everything else on all: the same before and
    after every step, so that one compiled program serves all steps."""
    devices = mesh(state.sampler.spins.shape[0])
    everywhere = NamedSharding(devices, PartitionSpec())
    # jit names the layout of a single device P(): another name would compile the step twice
    by_chain = NamedSharding(
        devices, PartitionSpec(CHAINS) if devices.size > 1 else PartitionSpec()
    )
    samples = eqx.filter_shard(state.sampler, by_chain)
    rest = eqx.filter_shard(eqx.tree_at(lambda s: s.sampler, state, None), everywhere)
    return eqx.tree_at(lambda s: s.sampler, rest, samples, is_leaf=lambda x: x is None)
