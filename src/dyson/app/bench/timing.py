"""Fair timings on a noisy machine: one core, compiled code, medians of several runs."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax


class Spread(NamedTuple):
    """Of several runs: the median, the fastest and the slowest."""

    median: float
    low: float
    high: float

    def times(self, factor: float) -> "Spread":
        return Spread(*(factor * x for x in self))


def use_one_core() -> None:
    """Pin the process and XLA to one core; call before the first computation."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    jax.config.update("jax_num_cpu_devices", 1)  # the command line has asked for one per core
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    compile_anew()


def compile_anew() -> None:
    """Load no program of an earlier run: seconds of compilation are measured as well."""
    jax.config.update("jax_enable_compilation_cache", False)


def compiled_in(function: Callable, *arguments: Any) -> tuple[float, Callable]:
    """Seconds to compile ``function`` for the arguments, and the program."""
    start = time.perf_counter()
    compiled = eqx.filter_jit(function).lower(*arguments).compile()
    return time.perf_counter() - start, compiled


def run_times(compiled: Callable, *arguments: Any, repeats: int = 5) -> list[float]:
    """Seconds of several runs, after one more."""
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start)
    return seconds


def spread_of(seconds: Sequence[float]) -> Spread:
    """Of the runs."""
    return Spread(statistics.median(seconds), min(seconds), max(seconds))


def curves_of(rows: Sequence[Any]) -> dict[str, list[tuple[float, ...]]]:
    """Of measurements with ``way``, ``n_sites``, ``us``, ``us_low`` and ``us_high``: by way, as
    :func:`dyson.app.plotting.by_size` draws them."""
    curves: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        curves.setdefault(row.way, []).append((row.n_sites, row.us, row.us_low, row.us_high))
    return curves
