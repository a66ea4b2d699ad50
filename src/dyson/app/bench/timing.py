"""Fair timings on a noisy machine: one core, compiled code, the fastest of several runs."""

import os
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax


def use_one_core() -> None:
    """Pin the process and XLA to one core; call before the first computation."""
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    jax.config.update("jax_num_cpu_devices", 1)  # the command line has asked for one per core
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def compile_and_time(function: Callable, *arguments: Any, repeats: int = 5) -> tuple[float, float]:
    """Seconds to compile ``function`` for the arguments, and the fastest run of it."""
    compile_seconds, compiled = compiled_in(function, *arguments)
    return compile_seconds, fastest_run(compiled, *arguments, repeats=repeats)


def compiled_in(function: Callable, *arguments: Any) -> tuple[float, Callable]:
    """Seconds to compile ``function`` for the arguments, and the program."""
    start = time.perf_counter()
    compiled = eqx.filter_jit(function).lower(*arguments).compile()
    return time.perf_counter() - start, compiled


def fastest_run(compiled: Callable, *arguments: Any, repeats: int = 5) -> float:
    """Seconds of the fastest of several runs, after one more."""
    jax.block_until_ready(compiled(*arguments))
    fastest = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        fastest = min(fastest, time.perf_counter() - start)
    return fastest
