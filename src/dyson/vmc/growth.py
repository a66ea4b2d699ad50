"""Going on with a state on a chain of another length: what becomes of its chains and its optimiser.

The network is the same (:meth:`dyson.DysonNet.resized` keeps every parameter), so whatever an
optimiser remembers of the parameters stays true.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int8


def repeated(
    key: jax.Array,
    spins: Int8[Array, "n_chains n_sites"],
    shape: tuple[int, int],
    magnetisation: int | None,
) -> Int8[Array, "more_chains more_sites"]:
    """Configurations of ``shape`` (chains, sites): those given, again and again.

    A ring fits its own repetition, without a seam.  Where it is cut short, spins at random places
    are flipped until their sum is the ``magnetisation`` asked for.
    """
    chains = jnp.arange(shape[0]) % spins.shape[0]
    sites = jnp.arange(shape[1]) % spins.shape[1]
    longer = jnp.asarray(spins)[chains][:, sites]
    if magnetisation is None:
        return longer
    in_sector = lambda key, spins: _in_sector(key, spins, magnetisation)
    return jax.vmap(in_sector)(jax.random.split(key, shape[0]), longer)


def _in_sector(
    key: jax.Array, spins: Int8[Array, " n_sites"], magnetisation: int
) -> Int8[Array, " n_sites"]:
    """With as few spins flipped as give this sum, at random places."""
    surplus = (jnp.sum(spins, dtype=jnp.int32) - magnetisation) // 2
    candidates = spins == jnp.sign(surplus).astype(spins.dtype)
    order = jnp.where(candidates, jax.random.uniform(key, spins.shape), 2.0)
    rank = jnp.argsort(jnp.argsort(order)).astype(surplus.dtype)
    return jnp.where(rank < jnp.abs(surplus), -spins, spins)


def carried_over(memory: optax.OptState, fresh: optax.OptState) -> optax.OptState:
    """The numbers that an optimiser remembers, in the form that it has on another chain.

    ValueError where they are those of another optimiser or of another network.
    """
    numbers, form = jax.tree.leaves(memory), jax.tree.structure(fresh)
    shapes = lambda leaves: [(jnp.shape(x), jnp.result_type(x)) for x in leaves]
    if shapes(numbers) != shapes(jax.tree.leaves(fresh)):
        raise ValueError(
            "VMC.grown: expected the memory of the same optimiser for the same network, got one of "
            "another shape; give both chains the same optimiser, or write vmc.init(key, model)"
        )
    return jax.tree.unflatten(form, numbers)
