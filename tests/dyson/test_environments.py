"""Segments of a network against the plain forward pass."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import environments as env
from dyson.spins import random_spins
from random_networks import distance_on_the_circle, random_network


@eqx.filter_jit
def three_ways(model, spins, cut, length):
    """log psi with the window at ``cut``, with the whole chain as prefix and as suffix, direct."""
    medium = env.Medium(model)
    patterns = env.token_patterns(model, spins)
    n_chains = spins.shape[0]
    sites = env.local_features(model, medium, patterns).sites
    tokens = jax.tree.leaves(sites)[0].shape[0]
    empty = env.empty_segment(medium, n_chains, periodic=model.periodic)

    def grow(segment, item):
        index, site = item
        grown = env.absorb(medium, segment, site)
        return jax.tree.map(lambda a, b: jnp.where(index[1], a, b), grown, segment), None

    def segment(inside, reverse=False):
        index = jnp.stack([jnp.arange(tokens), inside.astype(jnp.int64)], axis=1)
        return jax.lax.scan(grow, empty, (index, sites), reverse=reverse)[0]

    def value(prefix, window, suffix):
        outputs = env.outputs_between(medium, prefix, window, suffix, model.n_tokens)
        return env.log_psi(model, outputs)

    where = jnp.arange(tokens)
    window = jax.tree.map(
        lambda x: jnp.moveaxis(jax.lax.dynamic_slice_in_dim(x, cut, length, axis=0), 0, 1), sites
    )
    nothing = jax.tree.map(lambda x: x[:, :0], window)
    whole = segment(where >= 0), segment(where >= 0, reverse=True)
    return (
        value(segment(where < cut), window, segment(where >= cut + length, reverse=True)),
        value(whole[0], nothing, empty),
        value(empty, nothing, whole[1]),
        jax.vmap(model)(spins),
    )


def check(n_sites, depth, length, **options):
    model = random_network(n_sites, seed=depth, depth=depth, **options)
    spins = random_spins(jax.random.key(n_sites), (2, n_sites))
    tokens = n_sites // options.get("token_size", 1)
    cut = np.random.default_rng(n_sites).integers(0, tokens - length + 1)
    *ways, direct = three_ways(model, spins, cut, length)
    for way in ways:
        assert way.dtype == direct.dtype
        tolerance = 1e-10 * max(1, float(jnp.max(jnp.abs(direct))))
        assert distance_on_the_circle(way, direct).max() < tolerance


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("mixer", ["s4d", "real"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_depth(depth, mixer, periodic):
    modes = 2 if depth == 2 else 1
    check(9, depth, 3, mixer=mixer, periodic=periodic, modes=modes, complex_head=depth == 3)
