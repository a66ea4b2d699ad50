"""Link tensors against the product of dense matrices that defines them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson.abacus.links.offsets import Chain
from dyson.abacus.links.reference import link_bandwidth
from dyson.abacus.links.tensors import lags_of, link_tables, neighbour_links
from lanes import later
from random_networks import in_single_precision, random_network


def random_gates(model):
    rng = np.random.default_rng(7)
    shape = (model.features, model.n_tokens)
    return [jnp.asarray(rng.normal(size=shape)) for _ in model.blocks]


def dense_links(model, gates):
    """Lambda^(l,m) by its definition: arrays [a, i, b, j] of all tokens and channels."""
    d, n = model.features, model.n_tokens
    shape = (d * n, d * n)
    units = np.eye(d * n).reshape(d * n, d, n)
    per_token = lambda matrix: np.kron(matrix, np.eye(n))
    mixers, ins, outs = [], [], []
    for block, gate in zip(model.blocks, gates, strict=True):
        columns = np.asarray(propagate(block, units)).reshape(shape)
        mixers.append(columns.T)
        ins.append(per_token(np.asarray(block.mix_scattered)))
        outs.append(np.asarray(gate).reshape(-1, 1) * per_token(np.asarray(block.mix_out)))
    links = {}
    for m in range(model.depth):
        stream = outs[m] @ mixers[m]  # change of h after block m for a source in it
        for to in range(m + 1, model.depth):
            y = mixers[to] @ ins[to] @ stream
            links[to, m] = y.reshape(d, n, d, n)
            stream = stream + outs[to] @ y
    return links


def band_of(dense, width, periodic):
    n = dense.shape[1]
    bands = []
    for offset in range(-width, width + 1):
        column = np.arange(n) + offset
        inside = periodic | ((column >= 0) & (column < n))
        entries = dense[:, np.arange(n), :, column % n]  # [i, a, b]
        bands.append(np.where(inside[:, None, None], entries, 0).transpose(1, 2, 0))
    return bands


propagate = quick_jit(lambda block, units: jax.vmap(block.propagate)(units))


@quick_jit
def tables_of(model, chain, bandwidth):
    lags = [lags_of(block.mixer, chain, bandwidth) for block in model.blocks]
    return link_tables(*lags, chain, bandwidth)


# no chunk, the smallest ring with two, full and incomplete last chunks, longer chunks
RINGS = [(1, "s4d", 1), (22, "s4d", 2), (67, "real", 2)]
CHAINS = [(37, "s4d", 1), (22, "real", 2)]
MORE = [(5, "s4d", 1), (13, "s4d", 1), (151, "s4d", 2), (160, "s4d", 1)]


@pytest.mark.parametrize(
    "n, mixer, modes, periodic",
    [
        *((*case, True) for case in RINGS),
        *((*case, False) for case in CHAINS),
        *(later(*case, True) for case in CHAINS),
        *(later(*case, False) for case in RINGS),
        *(later(*case, periodic) for case in MORE for periodic in (True, False)),
    ],
)
def test_neighbouring_layers(n, periodic, mixer, modes):
    model = random_network(n, features=2, depth=2, periodic=periodic, mixer=mixer, modes=modes)
    gates = random_gates(model)
    chain = Chain(n, periodic)
    width = link_bandwidth(model, span=1)
    first, second = model.blocks
    tables = tables_of(model, chain, width)
    links = quick_jit(neighbour_links)(tables, first, second, gates[0])
    expected = dense_links(model, gates)[1, 0]
    scale = np.abs(expected).max()
    reference = band_of(expected, width, periodic)
    np.testing.assert_allclose(np.array(links), reference, atol=1e-13 * scale, rtol=0)


@pytest.mark.parametrize("mixer", [later("s4d"), "real"])
def test_neighbouring_layers_with_awkward_poles(mixer):
    """Waves that do not decay, that decay at once, and equal ones in both blocks.

    In single precision powers underflow, also those that a ratio of poles divides by, and a pole
    close to one, rounded, has lost half the digits of its decay.
    """
    model = random_network(37, features=3, depth=2, mixer=mixer, modes=1)
    field = "raw_poles" if mixer == "real" else "log_decay"
    values = [0.0, 4.5, -4.5] if mixer == "real" else [-30.0, 4.0, 0.0]
    poles = jnp.asarray(values)[:, None]
    for block, turned in ((0, poles), (1, jnp.roll(poles, 1, axis=0))):
        where = lambda m: getattr(m.blocks[block].mixer, field)  # noqa: B023
        model = eqx.tree_at(where, model, turned)
    if mixer == "s4d":  # the same oscillation, so that the ratio of two poles is one
        for block in (0, 1):
            where = lambda m: m.blocks[block].mixer.wave  # noqa: B023
            model = eqx.tree_at(where, model, jnp.full((3, 1), 0.3))
    gates = random_gates(model)
    expected = dense_links(model, gates)[1, 0]
    scale = np.abs(expected).max()
    double = model, gates[0]
    for (network, gate), error in ((double, 1e-12), (in_single_precision(double), 1e-3)):
        tables = tables_of(network, Chain(37, True), 2)
        links = quick_jit(neighbour_links)(tables, *network.blocks, gate)
        assert links[0].dtype == gate.dtype
        np.testing.assert_allclose(
            np.array(links), band_of(expected, 2, True), atol=error * scale, rtol=0
        )
