"""Compilation of large programs that run for milliseconds."""

import functools
import gc
from pathlib import Path

import equinox as eqx
import jax

# Code for the CPU in one pass rather than by many: saves up to half the time, little
# in the largest programs, which run about as fast.  A function compiled so calls no other such one.
quick_jit = functools.partial(
    eqx.filter_jit, compiler_options={"xla_cpu_use_fusion_emitters": False}
)

# Linux allows a process 65 530 mappings of memory, and every compiled program takes some: beyond
# that the compiler crashes.
MAPPINGS = 40_000


def release_programs():
    """Drop all compiled programs where they have become many."""
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()
