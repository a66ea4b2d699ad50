"""Chains shared among devices: which devices there are, what lies where, and what runs on each.

Samples are spread over all devices, those of other processes included; every chain has its own
random stream, so the result does not depend on how many there are (up to summation order).  What is
not a chain (parameters, optimiser, random key) lies on every device.

With several processes (:mod:`dyson.processes`) an array that spans them can be computed with, but
numpy can read only its own part: :func:`gathered` makes it whole.
"""

import hashlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array

from dyson import processes

CHAINS = "chains"
"""The name of the axis of devices that chains are spread over."""


class DeviceError(ValueError):
    """The chains cannot be shared among the devices. The message is one sentence."""


def mesh(n_chains: int) -> Mesh:
    """All devices of all processes, each for an equal share of the chains.

    Raises :class:`DeviceError`, on every process, where there is no equal share.
    """
    number = jax.device_count()
    if n_chains % number:
        less = n_chains // number * number
        numbers = f"{less} or {less + number}" if less else f"{number}"
        fewer = max(k for k in range(1, number) if n_chains % k == 0)
        raise DeviceError(
            f"{_counted(n_chains, 'chain')} cannot be shared equally among "
            f"{_counted(number, 'device')}: take {numbers} chains, or run on "
            f"{_counted(fewer, 'device')}"
        )
    return _all_devices()


def over_chains(function):
    """Run ``function(keys, model, samples)`` on all devices, each with its share of the chains: the
    leading axis of ``keys`` and of every array in ``samples``."""

    def spread(keys: Array, model: Any, samples: Any):
        devices = mesh(keys.shape[0])
        if devices.size == 1:
            return function(keys, model, samples)
        arrays, static = eqx.partition(model, eqx.is_array)
        chains = PartitionSpec(*devices.axis_names)
        shared = jax.shard_map(
            lambda k, a, s: function(k, eqx.combine(a, static), s),
            mesh=devices,
            in_specs=(chains, PartitionSpec(), chains),
            out_specs=chains,
            check_vma=False,
        )
        return shared(keys, arrays, samples)

    return spread


def at_samples(function):
    """Run ``function(model, spins)`` on all devices, each with its share of the chains: the leading
    axis of ``spins``.  :func:`over_chains` for what draws no random numbers."""

    def spread(model: Any, spins: Array):
        without_keys = lambda _, model, spins: function(model, spins)
        return over_chains(without_keys)(jnp.arange(spins.shape[0]), model, spins)

    return spread


def placed(state: Any) -> Any:
    """The state with its chains (``state.sampler``) on their devices and everything else on all.

    The same for a new state, one from a file and one after a step, so that one compiled program
    serves all steps.  Inside a compiled program it fixes the layout of a result; outside, arrays
    that lie where they belong are left alone (microseconds each).  Shapes
    (:class:`jax.ShapeDtypeStruct`) are told where their arrays belong, for :func:`laid_out_like`.
    """
    spread, shared = _by_chain(state.sampler), _everywhere()
    samples = {id(leaf) for leaf in jax.tree.leaves(state.sampler)}
    return _moved(state, [spread if id(x) in samples else shared for x in jax.tree.leaves(state)])


def by_chain(samples: Any) -> Any:
    """The state of a sampler with the leading axis of every array spread over the devices."""
    return _moved(samples, _by_chain(samples))


def everywhere(tree: Any) -> Any:
    """The tree with every array on every device."""
    return _moved(tree, _everywhere())


def laid_out_like(tree: Any, like: Any) -> Any:
    """``tree`` with every array on the devices of the array, or shape, at its place in ``like``."""
    return _moved(tree, [_layout(leaf) for leaf in jax.tree.leaves(like)])


def gathered(tree: Any) -> Any:
    """The tree with whole arrays that numpy can read, on every process.

    Arrays that span processes become arrays of numpy (random keys stay keys); all others are left
    as they are.  Every process has to call it.
    """
    return jax.tree.map(_whole, tree)


def _all_devices() -> Mesh:
    """In a line along ``CHAINS``, or as another library has set them in a line for all arrays."""
    around = jax.sharding.get_abstract_mesh()
    line = around.axis_names if around.axis_sizes == (jax.device_count(),) else (CHAINS,)
    return Mesh(np.array(jax.devices()), line)


def _by_chain(samples: Any) -> NamedSharding:
    devices = mesh(samples.spins.shape[0])
    # jit names the layout of a single device P(): another name would compile the step twice
    chains = PartitionSpec(*devices.axis_names) if devices.size > 1 else PartitionSpec()
    return NamedSharding(devices, chains)


def _everywhere() -> NamedSharding:
    return NamedSharding(_all_devices(), PartitionSpec())


def _layout(leaf: Any) -> Sharding | None:
    """Where an array was put on purpose; None where it was not, or is none."""
    put = isinstance(leaf, jax.ShapeDtypeStruct) or (isinstance(leaf, jax.Array) and leaf.committed)
    return leaf.sharding if put else None


def _moved(tree: Any, layout: Sharding | list[Sharding | None]) -> Any:
    """The tree with its arrays in a layout: one for all, or one for each leaf (None: anywhere)."""
    leaves, structure = jax.tree.flatten(tree)
    layouts = layout if isinstance(layout, list) else [layout] * len(leaves)
    pairs = list(zip(leaves, layouts, strict=True))
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        # inside a program a layout is a constraint, on its constants as well
        return jax.tree.unflatten(structure, [_constrained(leaf, goal) for leaf, goal in pairs])
    shared = [x for x, goal in pairs if goal and not goal.is_fully_addressable and _is_local(x)]
    if shared:
        processes.check_same("what the processes share", _digest(shared))
    return jax.tree.unflatten(structure, [_put(leaf, goal) for leaf, goal in pairs])


def _constrained(leaf: Any, goal: Sharding | None) -> Any:
    if goal is None or not isinstance(leaf, jax.Array):
        return leaf
    return jax.lax.with_sharding_constraint(leaf, goal)


def _put(leaf: Any, goal: Sharding | None) -> Any:
    if goal is None or not isinstance(leaf, jax.Array | np.ndarray | jax.ShapeDtypeStruct):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=goal)
    if isinstance(leaf, jax.Array) and leaf.committed and leaf.sharding == goal:
        return leaf
    if goal.is_fully_addressable:
        return jax.device_put(leaf, goal)
    if not _is_local(leaf):
        return jax.jit(_identity, out_shardings=goal)(leaf)
    if _is_key(leaf):
        data = _put(jax.random.key_data(leaf), goal)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, goal, lambda index: values[index])


def _identity(array: Array) -> Array:
    return array


def _whole(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if _is_key(leaf):
        data = _whole(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def _is_local(leaf: Any) -> bool:
    """Whether this process holds all values of an array."""
    return isinstance(leaf, np.ndarray) or (
        isinstance(leaf, jax.Array) and leaf.is_fully_addressable
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _digest(leaves: list[Any]) -> str:
    content = hashlib.sha256()
    for leaf in leaves:
        values = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        content.update(f"{values.shape} {values.dtype} ".encode() + values.tobytes())
    return content.hexdigest()


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
