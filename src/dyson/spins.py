"""Configurations of ±1 spins: eigenvalues of σᶻ, stored as int8 arrays of shape (n_sites,).

A local move is a short list of sites to flip, int32, padded with -1 to a fixed length so that
moves of different sizes share one compiled function.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Int8, PRNGKeyArray

MAX_ENUMERATED_SITES = 26


def random_spins(key: PRNGKeyArray, shape: int | tuple[int, ...]) -> Int8[Array, "*shape"]:
    """Independent fair spins; `shape` is (n_sites,), (n_chains, n_sites), … or an integer."""
    shape = (shape,) if isinstance(shape, int) else shape
    # bits of a fixed width: the same for a key whatever precision jax computes in
    bits = jax.random.bits(key, shape, jnp.uint8) & 1
    return 2 * bits.astype(jnp.int8) - 1


def spins_in_sector(key: PRNGKeyArray, n_sites: int, magnetisation: int) -> Int8[Array, " n"]:
    """One configuration with the given sum of its spins, all of them equally likely."""
    up = (n_sites + magnetisation) // 2
    ordered = jnp.where(jnp.arange(n_sites) < up, 1, -1).astype(jnp.int8)
    return jax.random.permutation(key, ordered)


def flip(spins: Int8[Array, " n"], sites: Int[Array, " f"]) -> Int8[Array, " n"]:
    """Flip the given sites; entries of -1 are padding and flip nothing.

    Cost O(n) for the copy, O(f) inside a loop whose buffer the compiler can reuse.
    """
    # A negative index would count from the end: out of bounds, the padding is dropped.
    sites = jnp.where(sites < 0, spins.shape[0], sites)
    return spins.at[sites].multiply(jnp.int8(-1), mode="drop")


def enumerate_spins(n_sites: int) -> Int8[Array, "two_to_n n"]:
    """All 2ⁿ configurations in the order of a Kronecker product: site 0 is the most significant bit
    of the row number and a bit of 0 is spin +1, so row 0 is all up.
    """
    if not 1 <= n_sites <= MAX_ENUMERATED_SITES:
        raise ValueError(
            "enumerating configurations needs "
            f"1 <= n_sites <= {MAX_ENUMERATED_SITES}, got {n_sites}"
        )
    return index_to_spins(jnp.arange(2**n_sites, dtype=jnp.int32), n_sites)


def index_to_spins(index: Int[Array, "*b"], n_sites: int) -> Int8[Array, "*b n"]:
    """Configurations of the given row numbers in the order of `enumerate_spins`."""
    shifts = jnp.arange(n_sites - 1, -1, -1, dtype=index.dtype)
    bits = (index[..., None] >> shifts) & 1
    return (1 - 2 * bits).astype(jnp.int8)


def spins_to_index(spins: Int8[Array, "*b n"]) -> Int[Array, "*b"]:
    """Row numbers of the given configurations: the inverse of `index_to_spins` (n_sites <= 26)."""
    n_sites = spins.shape[-1]
    if not 1 <= n_sites <= MAX_ENUMERATED_SITES:
        raise ValueError(
            f"numbering configurations needs 1 <= n_sites <= {MAX_ENUMERATED_SITES}, got {n_sites}"
        )
    place_values = jnp.left_shift(1, jnp.arange(n_sites - 1, -1, -1, dtype=jnp.int32))
    return jnp.sum(jnp.where(spins < 0, place_values, 0), axis=-1, dtype=jnp.int32)
