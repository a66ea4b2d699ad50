"""What a trained DysonNet says about the state: its scattering orders, propagators and poles.

Once a configuration is fixed, the linear stream is a Dyson series: each block propagates it freely
with its Green's function G and scatters it once at every token.  Everything here returns arrays
to plot or to fit.  Source: section 1 of arXiv:2603.11189.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int8

from dyson.abacus import Abacus
from dyson.networks import DysonNet, Network, unprojected
from dyson.phases import with_wrapped_phase
from dyson.spins import flip


def series(model: Network, spins: Int8[Array, " n_sites"]) -> Float[Array, "orders features"]:
    """Omega by the number of scatterings: orders 0 .. depth, which sum to Omega exactly.

    Omega is the mean of h over the tokens after the last block.  Order 0 is the embedding, order 1
    what one block made of it or of its own local source, and so on: the coefficients of x^k when
    every gate D is multiplied by x.  Of a projected network, those of the network within.
    O(depth) forward passes.
    """
    model = _dysonnet("series", model)
    phi, h = model.embed(model.patterns(spins))
    orders = jnp.zeros((model.depth + 1, *h.shape), h.dtype).at[0].set(h)
    for block in model.blocks:
        local = block.local(phi)
        silence = jnp.zeros_like(h)
        source = block.mixed(silence, local.sources)
        # mixed is affine in h: what it makes of each order, less what it makes of nothing
        idle = block.mixed(silence, silence)
        scattered = local.gates * (jax.vmap(lambda x: block.mixed(x, silence))(orders) - idle)  # noqa: B023
        orders = orders.at[1:].add(scattered[:-1])
        orders = orders.at[1].add(local.gates * source)
        phi = phi + local.sources
    return jnp.mean(orders, axis=2)


def propagators(model: Network) -> Float[Array, "depth features n_tokens"]:
    """The Green's functions G^(l)(r) at all distances r = 0 .. n_tokens - 1, images of a ring
    included; of a projected network, those of the network within."""
    model = _dysonnet("propagators", model)
    lags = jnp.arange(model.n_tokens)
    kernels = [
        block.mixer.kernel(lags, model.n_tokens, periodic=model.periodic) for block in model.blocks
    ]
    return jnp.stack(kernels)


class Poles(NamedTuple):
    """The exponentials of all propagators, ``Re[residue exp((i wave_number - 1/decay_length) r)]``.

    decay_length in tokens; wave_number in radians per token, -pi .. pi.
    """

    decay_length: Float[Array, "depth features modes"]
    wave_number: Float[Array, "depth features modes"]
    residue: Inexact[Array, "depth features modes"]


def poles(model: Network) -> Poles:
    """Decay length, wave number and residue of every mode; also within projections."""
    model = _dysonnet("poles", model)
    sums = [block.mixer.exponentials() for block in model.blocks]
    values = jnp.stack([s.poles for s in sums])
    return Poles(
        -1 / jnp.log(jnp.abs(values)), jnp.angle(values), jnp.stack([s.weights for s in sums])
    )


def flip_response(
    model: Network, spins: Int8[Array, " n_sites"], site: int
) -> Inexact[Array, " n_sites"]:
    """How the flip of ``site`` changes the answer of log psi to every other flip,

        log psi(site and j flipped) - log psi(site flipped) - log psi(j flipped) + log psi,

    for all sites j in order, from two references: O(n_sites).  It vanishes for a product state and
    falls off as the correlations of the network do.  At ``site`` itself it is minus twice the
    logarithm of the ratio of that flip.  Phases lie in [-pi, pi).
    """
    if not 0 <= site < model.n_sites:
        raise ValueError(
            f"flip_response: expected a site from 0 to {model.n_sites - 1}, got {site}"
        )
    updates = Abacus().bind(model)
    moved = flip(spins, jnp.array([site], jnp.int32))
    before, after = (updates.single_flips(updates.init(s)) for s in (spins, moved))
    return with_wrapped_phase(after - before)


def _dysonnet(name: str, model: Network) -> DysonNet:
    network = unprojected(model)
    if not isinstance(network, DysonNet):
        raise TypeError(
            f"{name}: expected a DysonNet or a projection of one, got {type(network).__name__}"
        )
    return network
