"""``vmap`` in bounded memory."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def in_chunks(function, batch: Array, chunk_size: int) -> Any:
    """``vmap(function)(batch)`` with ``chunk_size`` examples at a time, in bounded memory.

    The last chunk is filled up by repeating the first examples, so one program serves all chunks.
    """
    n = batch.shape[0]
    if n <= chunk_size:
        return jax.vmap(function)(batch)
    n_chunks = -(-n // chunk_size)
    filled = jnp.concatenate([batch, batch[: n_chunks * chunk_size - n]])
    chunks = filled.reshape(n_chunks, chunk_size, *batch.shape[1:])
    out = jax.lax.map(jax.vmap(function), chunks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], out)
