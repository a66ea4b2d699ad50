"""What a run needs in memory, before it starts.

The estimate counts only what is certainly there at the same time: the spins of one step, their
derivatives and the matrix that the optimiser factorises. A run that needs more than the machine has
is refused with the numbers that make it so large; one that passes may still be too large.
"""

import math
import os
from pathlib import Path

import equinox as eqx
import jax

from dyson.app.problem import Problem
from dyson.app.ranges import SettingsError
from dyson.app.settings import Settings

try:
    import resource
except ModuleNotFoundError:  # not a Unix
    resource = None

_CGROUP_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def check_memory(problem: Problem, settings: Settings, *, batches: int = 1) -> None:
    """Raise `SettingsError` where a run cannot fit into the memory of the devices."""
    available = _available()
    for needed, what in _needs(problem, settings, batches):
        if available is not None and needed > available:
            raise SettingsError(
                f"{what} need at least {_gibibytes(needed)} of memory and there are "
                f"{_gibibytes(available)}; choose smaller numbers"
            )


def is_out_of_memory(error: Exception) -> bool:
    """Whether the host or a device had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _needs(problem: Problem, settings: Settings, batches: int) -> list[tuple[int, str]]:
    """Bytes, and the options that they come from."""
    samples = settings.chains * settings.chain_length
    spins = samples * settings.n_sites
    shown = f"--chains {settings.chains} with --chain-length {settings.chain_length}"
    leaves = jax.tree.leaves(eqx.filter(problem.network_shapes, _is_parameter))
    parameters = sum(math.prod(leaf.shape) for leaf in leaves)
    width = max((leaf.dtype.itemsize for leaf in leaves), default=0)
    rows = samples * (2 if settings.complex_head else 1)
    derivatives = rows * parameters * width
    matrix = min(rows, parameters) ** 2 * width
    return [
        (spins, f"{shown} and --n-sites {settings.n_sites}"),
        (parameters * width, f"the {parameters} parameters of the network"),
        (
            spins + derivatives + matrix,
            f"{shown} and the {parameters} parameters of the network",
        ),
        (samples * batches * 8, f"--batches {batches} with {shown}"),
    ]


def _is_parameter(leaf: object) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct) and jax.numpy.issubdtype(
        leaf.dtype, jax.numpy.inexact
    )


def _available() -> int | None:
    """Bytes that all devices have together, if that is known."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        memory = _host_memory()
        return memory and memory * jax.process_count()
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return sum(limit for limit in limits if limit) if all(limits) else None


def _host_memory() -> int | None:
    """The least of what the machine has, what its container may take and what `ulimit -v` says."""
    limits = []
    if resource is not None:
        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in map(Path, _CGROUP_LIMITS):
        if file.exists() and (text := file.read_text().strip()).isdigit():
            limits.append(int(text))
    known = [limit for limit in limits if 0 < limit < 2**62]
    return min(known) if known else None


def _gibibytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
