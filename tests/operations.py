"""Operation counts of compiled local updates."""

import equinox as eqx
import jax
import jax.numpy as jnp

from dyson import DysonNet


def operations_of_propose(updates, n_sites, flips=1, **options):
    """Floating-point operations and transcendental functions of one ``propose``.

    Everything is traced from shapes and counted in the program as written; nothing runs.
    """

    def is_shape(x):
        return isinstance(x, jax.ShapeDtypeStruct)

    model = eqx.filter_eval_shape(lambda key: DysonNet(n_sites, key=key, **options), _key())
    bound = eqx.filter_eval_shape(updates.bind, model)
    spins = jax.ShapeDtypeStruct((n_sites,), jnp.int8)
    cache = eqx.filter_eval_shape(lambda u, s: u.init(s), bound, spins)
    arrays, static = eqx.partition(bound, is_shape)

    def ratio(arrays, cache, sites):
        return eqx.combine(arrays, static).propose(cache, sites).log_ratio

    lowered = jax.jit(ratio).lower(arrays, cache, jax.ShapeDtypeStruct((flips,), jnp.int32))
    analysis = lowered.cost_analysis()
    return analysis["flops"], analysis["transcendentals"]


def _key():
    return jax.random.key(0)
