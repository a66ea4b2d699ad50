"""Logarithmic derivatives O = d log psi / d theta of every sample, as one matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int8

from dyson.batching import in_chunks
from dyson.devices import at_samples
from dyson.networks import Network

# Samples differentiated side by side: enough to fill the vector units, few enough for the caches.
SAMPLES_AT_ONCE = 64


def log_derivatives(
    model: Network,
    spins: Int8[Array, "samples n_sites"],
    *,
    chunk_size: int = SAMPLES_AT_ONCE,
) -> Float[Array, "samples parts parameters"]:
    """Derivatives of log psi with respect to the real parameters of the network.

    ``parts`` is 1 for a real log psi and 2 for a complex one (real and imaginary part): with
    complex amplitudes over real parameters there is no question of holomorphy.  The order of the
    parameters is that of ``jax.flatten_util.ravel_pytree`` on the inexact arrays of the model.

    Cost: one reverse pass per sample and part; memory O(samples * parts * parameters) for the
    result and one chunk of activations.
    """
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    if not jnp.issubdtype(flat.dtype, jnp.floating):
        raise TypeError(
            f"log_derivatives: expected real parameters, got {flat.dtype}; "
            "store real and imaginary parts as separate arrays"
        )

    def log_psi(values: Array, sample: Array) -> Array:
        return eqx.combine(unravel(values), static)(sample)

    amplitude = jax.eval_shape(log_psi, flat, spins[0])
    parts = [jnp.real] if jnp.issubdtype(amplitude.dtype, jnp.floating) else [jnp.real, jnp.imag]

    def rows(sample: Array) -> Array:
        return jnp.stack(
            [jax.grad(lambda values: part(log_psi(values, sample)))(flat) for part in parts]  # noqa: B023
        )

    return in_chunks(rows, spins, chunk_size)


def derivatives_of_chains(
    model: Network, spins: Int8[Array, "n_chains length n_sites"]
) -> Float[Array, "samples parts parameters"]:
    """:func:`log_derivatives` of the samples of all chains, each on the device of its chain."""

    def mine(model: Network, spins: Array) -> Array:
        rows = log_derivatives(model, spins.reshape(-1, spins.shape[-1]))
        return rows.reshape(*spins.shape[:2], *rows.shape[1:])

    values = at_samples(mine)(model, spins)
    return values.reshape(-1, *values.shape[2:])
