"""Compilation of large programs that run for milliseconds."""

import functools

import equinox as eqx

# Code for the CPU in one pass rather than by many: saves up to half the time, little
# in the largest programs, which run about as fast.  A function compiled so calls no other such one.
quick_jit = functools.partial(
    eqx.filter_jit, compiler_options={"xla_cpu_use_fusion_emitters": False}
)
