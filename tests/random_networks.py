"""Networks with random parameters of order one, far from their careful initial values."""

import equinox as eqx
import jax
import jax.numpy as jnp

from dyson import DysonNet


def random_network(n_sites, seed=0, **options) -> DysonNet:
    """A small DysonNet in which every parameter has been moved by a normal number."""
    options = {"features": 4, "hidden": 2, "modes": 2} | options
    model = DysonNet(n_sites, key=jax.random.key(seed), **options)
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(parameters)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    # each tensor keeps unit gain: matrices are divided by the root of their width
    moved = [
        leaf + jax.random.normal(k, leaf.shape, leaf.dtype) / max(leaf.shape[-1], 1) ** 0.5
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, moved), static)


def distance_on_the_circle(a, b):
    """|a - b| of logarithms: the imaginary part counts modulo 2 pi."""
    difference = jnp.asarray(a - b)
    if jnp.issubdtype(difference.dtype, jnp.complexfloating):
        turn = 2 * jnp.pi
        phase = (difference.imag + jnp.pi) % turn - jnp.pi
        return jnp.abs(jax.lax.complex(difference.real, phase))
    return jnp.abs(difference)
