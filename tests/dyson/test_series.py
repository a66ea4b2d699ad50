"""Scattering orders, propagators, poles and responses against the network itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dyson
from compiling import quick_jit
from dyson import SpinFlip
from dyson.baselines import ViT
from dyson.spins import flip, random_spins
from random_networks import distance_on_the_circle, random_network


def omega(model, spins):
    phi, h = model.embed(model.patterns(spins))
    for block in model.blocks:
        phi, h = block(phi, h)
    return jnp.mean(h, axis=1)


def gates_times(model, factor):
    """The same network with every gate multiplied: the scattering scaled, the rest as it was."""
    scaled = tuple(
        eqx.tree_at(lambda b: b.mix_out, block, factor * block.mix_out) for block in model.blocks
    )
    return eqx.tree_at(lambda m: m.blocks, model, scaled)


@pytest.mark.parametrize("depth, periodic", [(1, True), (3, True), (3, False)])
def test_orders_are_the_coefficients_of_the_scattering_strength(depth, periodic):
    model = random_network(9, depth=depth, periodic=periodic)
    spins = random_spins(jax.random.key(0), (9,))
    orders = quick_jit(dyson.series)(model, spins)
    assert orders.shape == (depth + 1, 4)
    evaluate = quick_jit(omega)
    scale = float(jnp.abs(orders).max())
    for x in (1.0, 0.3, -2.0):
        expected = evaluate(gates_times(model, x), spins)
        polynomial = np.polynomial.polynomial.polyval(x, np.asarray(orders))
        np.testing.assert_allclose(polynomial, expected, atol=1e-12 * scale * abs(x) ** depth)


@pytest.mark.parametrize("mixer", ["s4d", "real"])
def test_propagators_answer_a_unit_source_and_are_sums_of_the_poles(mixer):
    model = random_network(11, depth=2, periodic=False, mixer=mixer)
    kernels, poles = quick_jit(lambda m: (dyson.propagators(m), dyson.poles(m)))(model)
    assert kernels.shape == (2, 4, 11) and poles.residue.shape == (2, 4, 2)
    unit = jnp.zeros((4, 11)).at[:, 0].set(1)
    lags = np.arange(1, 11)
    for layer, block in enumerate(model.blocks):
        answer = quick_jit(lambda block, unit: block.propagate(unit))(block, unit)
        np.testing.assert_allclose(answer, kernels[layer], atol=1e-12)
        decay, wave, residue = (np.asarray(x[layer])[..., None] for x in poles)
        waves = residue * np.exp((1j * wave - 1 / decay) * lags)
        np.testing.assert_allclose(waves.real.sum(1), kernels[layer, :, 1:], atol=1e-12)


@pytest.mark.parametrize("project", [False, True])
def test_flip_response_is_the_mixed_difference_of_log_psi(project):
    network = random_network(8, depth=2, complex_head=True)
    model = SpinFlip(network) if project else network
    spins = random_spins(jax.random.key(1), (8,))
    response = quick_jit(lambda m, s: dyson.flip_response(m, s, 3))(model, spins)
    log_psi = quick_jit(model)

    def value(*sites):
        moved = spins
        for site in sites:
            moved = flip(moved, jnp.array([site], jnp.int32))
        return log_psi(moved)

    expected = [value(3, j) - value(3) - value(j) + value() for j in range(8)]
    assert distance_on_the_circle(response, np.array(expected)).max() < 1e-11
    with pytest.raises(ValueError, match="expected a site from 0 to 7, got 8"):
        dyson.flip_response(model, spins, 8)


def test_projected_networks_are_read_within():
    network = random_network(6, depth=2)
    model = SpinFlip(network)
    spins = random_spins(jax.random.key(1), (6,))

    @quick_jit
    def readings(model, spins):
        return dyson.series(model, spins), dyson.propagators(model), *dyson.poles(model)

    for one, other in zip(readings(model, spins), readings(network, spins), strict=True):
        np.testing.assert_array_equal(one, other)
    vit = ViT(6, features=4, heads=2, patch=2, depth=1, hidden=2, key=jax.random.key(0))
    for read in (dyson.propagators, dyson.poles, lambda model: dyson.series(model, spins)):
        with pytest.raises(TypeError, match="expected a DysonNet or a projection of one, got ViT"):
            read(vit)
