"""The transformer baseline: attention by its definition, and its place among the networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson.baselines import ViT
from dyson.spins import random_spins
from dyson.updates import Recompute
from dyson.vmc.ratios import fastest_updates


def test_attention_token_by_token():
    make = lambda key: ViT(12, features=4, heads=2, key=key).blocks[0]
    block = quick_jit(make)(jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(4, 3))
    query, key, value = np.split(np.asarray(block.project) @ x, 3)
    expected = np.zeros((4, 3))
    for head in (slice(0, 2), slice(2, 4)):
        for t in range(3):
            scores = [query[head, t] @ key[head, s] / 2**0.5 for s in range(3)]
            weights = np.exp(scores) / np.sum(np.exp(scores))
            expected[head, t] = sum(w * value[head, s] for s, w in enumerate(weights))
    found = quick_jit(lambda block, x: block.attention(x))(block, jnp.asarray(x))
    np.testing.assert_allclose(found, np.asarray(block.mix) @ expected, atol=1e-12)


@pytest.mark.parametrize("complex_head", [False, True])
def test_every_spin_matters(complex_head):
    make = lambda key: ViT(8, complex_head=complex_head, dtype=jnp.float32, key=key)
    model = quick_jit(make)(jax.random.key(1))
    spins = random_spins(jax.random.key(2), 8)

    @quick_jit
    def changes(model, spins):
        flipped = jnp.where(jnp.eye(8, dtype=bool), -spins, spins)
        return jax.vmap(model)(flipped) - model(spins)

    change = changes(model, spins)
    assert change.dtype == (jnp.complex64 if complex_head else jnp.float32)
    assert float(jnp.min(jnp.abs(change))) > 1e-6
    assert isinstance(fastest_updates(model), Recompute)


def test_misuse_is_named():
    with pytest.raises(ValueError, match="multiple of patch=4 sites, got 6"):
        ViT(6, key=jax.random.key(0))
    with pytest.raises(ValueError, match="multiple of heads=3 features, got 16"):
        ViT(8, heads=3, key=jax.random.key(0))
    with pytest.raises(ValueError, match="spins of shape \\(8,\\), got \\(4,\\)"):
        ViT(8, key=jax.random.key(0))(jnp.ones(4, jnp.int8))


def test_start_is_calibrated():
    """As a DysonNet: log psi varies little over configurations."""
    model = ViT(16, key=jax.random.key(3))
    spins = random_spins(jax.random.key(4), (500, 16))
    assert 0.05 < float(jnp.std(jax.jit(jax.vmap(lambda s: model(s)))(spins))) < 0.2
