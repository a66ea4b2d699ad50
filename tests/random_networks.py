"""Networks with random parameters of order one, far from their careful initial values."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dyson import DysonNet, RealPoles


def random_network(n_sites, seed=0, **options) -> DysonNet:
    """A small DysonNet in which every parameter is a normal number of order one.

    Only the shapes are traced, so that making one compiles nothing.
    """
    options = {"features": 4, "hidden": 2, "modes": 2} | options
    shapes = eqx.filter_eval_shape(lambda key: DysonNet(n_sites, key=key, **options), _key())
    rng = np.random.default_rng(seed)

    def draw(path, shape):
        # matrices have unit gain; scales of the two normalisations scatter around one
        numbers = rng.normal(size=shape.shape) / max(shape.shape[-1], 1) ** 0.5
        around = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(around + numbers, shape.dtype)

    arrays, static = eqx.partition(shapes, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    model = eqx.combine(jax.tree_util.tree_map_with_path(draw, arrays), static)
    return eqx.tree_at(lambda m: m.blocks, model, tuple(map(_bounded_response, model.blocks)))


def _key():
    return jax.random.key(0)


def in_single_precision(tree):
    """The same numbers, rounded."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree)


def hardly_decaying(model):
    """The same network with waves that last 10^4 tokens, and responses as in its own weights."""
    blocks = []
    for block in model.blocks:
        real = isinstance(block.mixer, RealPoles)
        name, slow = ("raw_poles", 20.0) if real else ("log_decay", -20.0)
        mixer = eqx.tree_at(
            lambda m: getattr(m, name),  # noqa: B023
            block.mixer,
            jnp.full_like(getattr(block.mixer, name), slow),
        )
        if real:
            mixer = eqx.tree_at(lambda m: m.weights, mixer, 1e-4 * mixer.weights)
        blocks.append(eqx.tree_at(lambda b: b.mixer, block, mixer))
    assert float(jnp.max(jnp.abs(blocks[0].mixer.exponentials().poles))) > 0.9998
    return eqx.tree_at(lambda m: m.blocks, model, tuple(blocks))


def _bounded_response(block):
    """Slow real modes must not amplify: a uniform input is answered by weight / (1 - |pole|)."""
    if not isinstance(block.mixer, RealPoles):
        return block
    damping = 1 - jnp.abs(jnp.tanh(block.mixer.raw_poles))
    return eqx.tree_at(lambda b: b.mixer.weights, block, block.mixer.weights * damping)


def distance_on_the_circle(a, b):
    """|a - b| of logarithms: the imaginary part counts modulo 2 pi."""
    difference = np.asarray(a) - np.asarray(b)
    if np.iscomplexobj(difference):
        phase = (difference.imag + np.pi) % (2 * np.pi) - np.pi
        difference = difference.real + 1j * phase
    return np.abs(difference)
