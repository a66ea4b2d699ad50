"""Derivatives and natural gradients against their definitions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from dyson import SpinFlip, log_derivatives, minsr, spring, sr
from dyson.optimisers import energy_gradient
from dyson.optimisers.checked_step import CLOSE, HARMLESS, ROUND_OFF
from dyson.optimisers.metric import centred, centred_samples, shares
from dyson.spins import random_spins
from lanes import later
from random_networks import random_network


@pytest.mark.parametrize("complex_head", [False, True])
def test_log_derivatives_are_the_slopes_of_log_psi(complex_head):
    model = SpinFlip(random_network(5, complex_head=complex_head, depth=1))
    spins = random_spins(jax.random.key(0), (3, 5))
    parameters, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    rows = eqx.filter_jit(log_derivatives)(model, spins, chunk_size=2)
    assert rows.shape == (3, 2 if complex_head else 1, flat.size)
    evaluate = jax.jit(jax.vmap(lambda f, s: eqx.combine(unravel(f), static)(s), in_axes=(None, 0)))
    direction = jnp.asarray(np.random.default_rng(0).normal(size=flat.size))
    step = 1e-5
    slope = evaluate(flat + step * direction, spins) - evaluate(flat - step * direction, spins)
    slope = np.asarray(slope) / (2 * step)
    ours = np.asarray(rows @ direction)
    np.testing.assert_allclose(ours[:, 0], slope.real, rtol=1e-6, atol=1e-7)
    if complex_head:
        np.testing.assert_allclose(ours[:, 1], slope.imag, rtol=1e-6, atol=1e-7)


def samples(seed, n=20, parts=1, parameters=7, dtype=np.float64):
    rng = np.random.default_rng(seed)
    derivatives = jnp.asarray(rng.normal(size=(n, parts, parameters)).astype(dtype))
    energies = rng.normal(size=n) + (1j * rng.normal(size=n) if parts == 2 else 0)
    return derivatives, jnp.asarray(energies)


@pytest.mark.parametrize("n, parts", [(5, 2), (30, 1), later(5, 1), later(30, 2)])
def test_both_forms_solve_the_defining_equation(n, parts):
    derivatives, energies = samples(n, n, parts)
    o = np.asarray(derivatives)
    o = o[:, 0] + 1j * o[:, 1] if parts == 2 else o[:, 0]
    e = np.asarray(energies)
    o, e = o - o.mean(0), e - e.mean()
    metric, gradient = (o.conj().T @ o).real / n, (o.conj().T @ e).real / n
    unit = np.eye(7) if parts == 1 else np.diag(np.diag(metric))
    expected = -0.3 * np.linalg.solve(metric + 1e-3 * unit, gradient)
    np.testing.assert_allclose(energy_gradient(derivatives, energies), 2 * gradient, rtol=1e-12)
    for make in (sr, minsr):
        optimiser = make(0.3, shift=1e-3, trust_region=1e9)
        updates, state = optimiser.update(
            jnp.zeros(7), optimiser.init(jnp.zeros(7)), derivatives=derivatives, energies=energies
        )
        np.testing.assert_allclose(updates, expected, rtol=1e-9)
        distance = np.sqrt(expected @ metric @ expected)
        assert abs(float(state.distance) / distance - 1) < 1e-9 and int(state.count) == 1


def test_spring_solves_for_what_the_step_before_leaves():
    (first, e1), (second, e2) = samples(4, n=5), samples(5, n=5)
    optimiser = spring(0.5, shift=1e-3, trust_region=1e9, momentum=0.7)
    state = optimiser.init(jnp.zeros(7))
    kept = np.zeros(7)
    for derivatives, energies in ((first, e1), (second, e2)):
        updates, state = optimiser.update(
            jnp.zeros(7), state, derivatives=derivatives, energies=energies
        )
        o, e = np.asarray(derivatives[:, 0]), np.asarray(energies)
        x, eps = (o - o.mean(0)) / 5**0.5, (e - e.mean()) / 5**0.5
        rest = np.linalg.solve(x @ x.T + 1e-3 * np.eye(5), eps - 0.7 * x @ kept)
        kept = 0.7 * kept + x.T @ rest
        np.testing.assert_allclose(updates, -0.5 * kept, rtol=1e-9)
    with pytest.raises(ValueError, match="0 <= momentum < 1, got 1"):
        spring(momentum=1)


def test_spring_without_memory_is_minsr():
    derivatives, energies = samples(6)
    results = []
    for optimiser in (spring(momentum=0), minsr()):
        arguments = {"derivatives": derivatives, "energies": energies}
        results.append(optimiser.update(jnp.zeros(7), optimiser.init(jnp.zeros(7)), **arguments)[0])
    np.testing.assert_allclose(*results, rtol=1e-12)


@pytest.mark.parametrize("make", [sr, minsr, spring])
def test_trust_region_shortens_and_keeps_the_direction(make):
    derivatives, energies = samples(1)
    steps = []
    for limit in (1e9, 1e-2):
        optimiser = make(0.5, shift=1e-3, trust_region=limit)
        updates, state = optimiser.update(
            jnp.zeros(7), optimiser.init(jnp.zeros(7)), derivatives=derivatives, energies=energies
        )
        steps.append((np.asarray(updates), float(state.distance)))
    (free, far), (short, near) = steps
    assert far > 1e-2 and abs(near - 1e-2) < 1e-12
    cosine = short @ free / np.linalg.norm(short) / np.linalg.norm(free)
    assert abs(cosine - 1) < 1e-12


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("make", [sr, later(minsr), spring])
def test_a_step_that_bends_log_psi_is_made_firmer(make, parts):
    """log psi is linear in all parameters but the last, which the samples hardly see and which
    bends it strongly."""
    derivatives, energies = samples(8, parts=parts)
    derivatives = derivatives.at[..., -1].multiply(1e-3)
    alike = shares(None, energies.size)
    x, _ = centred_samples(derivatives, energies, alike)
    curvature = jnp.asarray(np.random.default_rng(9).normal(size=derivatives.shape[:2]))

    def straight(update):
        return derivatives @ update

    def bent(update):
        return derivatives @ update + curvature * update[-1] ** 2

    def bending(update, response):
        return float(np.linalg.norm(centred(response(update), alike).reshape(-1) - x @ update))

    optimiser = make(0.3, shift=1e-6, trust_region=1e9)
    arguments = {"derivatives": derivatives, "energies": energies}
    state = optimiser.init(jnp.zeros(7))
    free, _ = optimiser.update(jnp.zeros(7), state, **arguments)
    agreed, calm = optimiser.update(jnp.zeros(7), state, response=straight, **arguments)
    np.testing.assert_array_equal(agreed, free)
    assert float(calm.firmness) == 1
    checked, firm = optimiser.update(jnp.zeros(7), state, response=bent, **arguments)
    allowed = float(firm.distance) + HARMLESS * 0.3
    assert bending(free, bent) > 10 * allowed  # the case is one
    assert bending(checked, bent) <= allowed and float(firm.firmness) > 1
    # once log psi is straight, the shift comes down to its schedule again
    relax = jax.jit(
        lambda firm: optimiser.update(jnp.zeros(7), firm, response=straight, **arguments)[1]
    )
    for _ in range(30):
        firm = relax(firm)
    assert float(firm.firmness) == 1 and float(firm.shift) == 1e-6


@pytest.mark.parametrize("make", [sr, spring])
def test_steps_of_complex_states_do_not_depend_on_the_units_of_parameters(make):
    derivatives, energies = samples(16, parts=2)
    units = jnp.asarray([0.1, 0.3, 1.0, 3.0, 10.0, 0.5, 2.0])
    steps = []
    for unit in (jnp.ones(7), units):
        optimiser = make(0.3, shift=1e-2, trust_region=1e9)
        state = optimiser.init(jnp.zeros(7))
        for _ in range(2):  # the second one remembers the first
            step, state = optimiser.update(
                jnp.zeros(7), state, derivatives=derivatives / unit, energies=energies
            )
        steps.append(step / unit)
    np.testing.assert_allclose(*steps, rtol=1e-5)


@pytest.mark.parametrize("make", [sr, later(minsr), later(spring)])
def test_a_spike_from_an_amplitude_of_no_weight_is_no_step(make):
    """log psi is straight at all samples but one, which hardly counts and rises far beyond its aim:
    by its logarithm little is missing, by psi the state would be another one."""
    derivatives, energies = samples(17, parts=2)
    weights = jnp.ones(20).at[3].set(1e-8)

    def rising(gain):
        def change(update):
            straight = derivatives @ update
            return straight.at[3, 0].add(gain * jnp.sum(update**2) / size**2)

        return change

    optimiser = make(0.3, shift=1e-3, trust_region=0.1)
    arguments = {"derivatives": derivatives, "energies": energies, "weights": weights}
    state = optimiser.init(jnp.zeros(7))
    free, _ = optimiser.update(jnp.zeros(7), state, **arguments)
    size = float(jnp.linalg.norm(free))
    harmless, calm = optimiser.update(jnp.zeros(7), state, response=rising(1.0), **arguments)
    np.testing.assert_array_equal(harmless, free)
    assert float(calm.firmness) == 1
    step, firm = optimiser.update(jnp.zeros(7), state, response=rising(12.0), **arguments)
    assert float(firm.firmness) > 1
    assert 1e-4 * np.exp(float(rising(12.0)(step)[3, 0])) / 20**0.5 < 0.2


@pytest.mark.parametrize("make", [sr, minsr, spring])
def test_a_step_that_bends_log_psi_a_little_is_corrected(make):
    """With more parameters than samples, any change of log psi at the samples can be made."""
    derivatives, energies = samples(10, n=5)
    alike = shares(None, energies.size)
    x, _ = centred_samples(derivatives, energies, alike)
    curvature = jnp.asarray(np.random.default_rng(11).normal(size=derivatives.shape[:2]))

    def bent(update):
        return derivatives @ update + curvature * jnp.sum(update**2)

    optimiser = make(0.3, shift=1e-8, trust_region=1e9)
    arguments = {"derivatives": derivatives, "energies": energies}
    state = optimiser.init(jnp.zeros(7))
    free, _ = optimiser.update(jnp.zeros(7), state, **arguments)
    corrected, after = optimiser.update(jnp.zeros(7), state, response=bent, **arguments)
    distance = float(after.distance)

    def missing(update):
        return float(np.linalg.norm(x @ free - centred(bent(update), alike).reshape(-1)))

    assert CLOSE * distance + ROUND_OFF < missing(free) < distance  # the case is one
    assert missing(corrected) <= CLOSE * distance + ROUND_OFF
    assert float(after.firmness) == 1
    # what spring remembers is the direction in which the linear model points
    np.testing.assert_allclose(-0.3 * after.direction, free, rtol=1e-12)


@pytest.mark.parametrize("make", [sr, minsr, spring])
def test_a_step_beyond_which_log_psi_is_not_finite_is_made_firmer(make):
    derivatives, energies = samples(12)

    def cliff(update):
        return derivatives @ update + jnp.where(jnp.linalg.norm(update) > 1e-2, jnp.nan, 0)

    optimiser = make(0.3, shift=1e-3, trust_region=1e9)
    update, state = optimiser.update(
        jnp.zeros(7), optimiser.init(jnp.zeros(7)),
        derivatives=derivatives, energies=energies, response=cliff,
    )  # fmt: skip
    assert 0 < float(jnp.linalg.norm(update)) <= 1e-2 and float(state.firmness) > 1


@pytest.mark.parametrize(
    "make, common",
    [
        (sr, 3.0),
        (minsr, 0.0),
        (spring, 3.0),
        later(sr, 0.0),
        later(minsr, 3.0),
        later(spring, 0.0),
    ],
)
def test_turns_of_the_phase_do_not_count(make, common):
    """A change of Im log psi is known modulo 2 pi, sample by sample, and one that all samples share
    (here it comes close to half a turn) is none of the state."""
    derivatives, energies = samples(13, parts=2)
    derivatives = derivatives.at[:, 1, 0].add(1e3)  # a parameter that is nearly a common phase
    turns = jnp.asarray(np.random.default_rng(14).integers(-2, 3, size=20), float)

    def bent(update):
        return derivatives @ update + 0.3 * jnp.sum(update**2) * derivatives[..., 1]

    def jumping(update):
        change = bent(update)
        return change.at[:, 1].add(2 * np.pi * turns + common)

    optimiser = make(0.3, shift=1e-3, trust_region=1e9)
    arguments = {"derivatives": derivatives, "energies": energies}
    state = optimiser.init(jnp.zeros(7))
    expected, calm = optimiser.update(jnp.zeros(7), state, response=bent, **arguments)
    update, after = optimiser.update(jnp.zeros(7), state, response=jumping, **arguments)
    assert float(jnp.linalg.norm(expected)) > 1e-3 and float(after.firmness) == float(calm.firmness)
    np.testing.assert_allclose(update, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [sr, minsr, spring])
def test_a_node_is_crossed(make):
    """psi itself is linear in the parameters, and the step turns its sign at half of the samples:
    log psi changes by something else than its slope says, yet nothing is wrong."""
    derivatives, _ = samples(15, n=6, parts=2, parameters=20)
    derivatives = derivatives - jnp.mean(derivatives, axis=0)
    energies = jnp.array([2.0, -2.0] * 3)

    def linear_psi(update):
        ratio = 1 + jax.lax.complex(*jnp.moveaxis(derivatives @ update, -1, 0))
        return jnp.stack([jnp.log(jnp.abs(ratio)), jnp.angle(ratio)], axis=-1)

    optimiser = make(1.0, shift=1e-6, trust_region=1e9)
    arguments = {"derivatives": derivatives, "energies": energies}
    state = optimiser.init(jnp.zeros(20))
    free, _ = optimiser.update(jnp.zeros(20), state, **arguments)
    by_slope = derivatives @ free
    np.testing.assert_allclose(by_slope[:, 0], -energies, rtol=1e-4)
    bent = float(jnp.linalg.norm(linear_psi(free) - by_slope))
    assert bent > float(jnp.linalg.norm(by_slope))  # the case is one
    update, after = optimiser.update(jnp.zeros(20), state, response=linear_psi, **arguments)
    assert float(after.firmness) == 1
    np.testing.assert_allclose(update, free, rtol=1e-9, atol=1e-12)


def imaginary_time(make, steps, rate):
    """How far the energies of eight configurations lie apart, step by step, where log psi of each
    is a parameter and each counts |psi|^2: nothing is unseen, and excitations reach up to 25."""
    rng = np.random.default_rng(16)
    full = -np.abs(rng.normal(size=(8, 8)))
    full = full + full.T + np.diag(rng.uniform(0, 18, size=8))
    assert rate * np.ptp(np.linalg.eigvalsh(full)) > 4  # Euler's steps are stable up to 2
    optimiser, derivatives = make(rate, shift=1e-7), jnp.eye(8)[:, None]

    @jax.jit
    def step(log_psi, state):
        psi = jnp.exp(log_psi - jnp.max(log_psi))
        energies = full @ psi / psi
        update, state = optimiser.update(
            log_psi, state, derivatives=derivatives, energies=energies, weights=psi**2,
            response=lambda update: update[:, None],
        )  # fmt: skip
        apart = jnp.sqrt(jnp.sum(psi**2 * (energies - energies[0]) ** 2) / jnp.sum(psi**2))
        return log_psi + update, state, apart

    log_psi, found = jnp.zeros(8), []
    state = optimiser.init(log_psi)
    for _ in range(steps):
        log_psi, state, apart = step(log_psi, state)
        found.append(float(apart))
    return np.array(found), state


@pytest.mark.parametrize("make", [minsr, later(sr)])
def test_steps_too_long_for_an_excitation_become_firmer(make):
    found, state = imaginary_time(make, 400, rate=0.2)
    assert found[0] > 1 and np.all(found[300:] < 1e-6)
    assert 1 <= float(state.firmness) < 1e12


@pytest.mark.parametrize("weight", [0.0, 1e-24])
def test_a_sample_that_does_not_count_may_fall_to_a_node(weight):
    """Its log psi of -inf is no reason for a firmer step; that of any other is."""
    derivatives, energies = samples(4)
    weights = jnp.ones(20).at[3].set(weight)

    def response(falls):
        return lambda update: (derivatives @ update).at[falls].set(-jnp.inf)

    optimiser = minsr(0.1)
    arguments = {"derivatives": derivatives, "energies": energies, "weights": weights}
    state = optimiser.init(jnp.zeros(7))
    _, after = optimiser.update(jnp.zeros(7), state, response=response(3), **arguments)
    assert float(after.firmness) == 1
    _, after = optimiser.update(jnp.zeros(7), state, response=response(4), **arguments)
    assert float(after.firmness) > 100


def test_a_step_that_is_not_finite_comes_back():
    derivatives, energies = samples(2)
    optimiser = spring()
    update, _ = optimiser.update(
        jnp.zeros(7),
        optimiser.init(jnp.zeros(7)),
        derivatives=derivatives.at[0, 0, 0].set(jnp.nan),
        energies=energies,
        response=lambda update: derivatives @ update,
    )
    assert bool(jnp.any(jnp.isnan(update)))


def test_single_precision_samples_are_solved_in_double():
    """Two nearly equal directions: in float32 their difference would be lost in the Gram matrix."""
    rng = np.random.default_rng(3)
    base = rng.normal(size=(40, 1, 1)).astype(np.float32)
    split = 1e-4 * rng.normal(size=(40, 1, 1)).astype(np.float32)
    derivatives = jnp.asarray(np.concatenate([base, base + split], axis=-1))
    energies = jnp.asarray(rng.normal(size=40))
    optimiser = minsr(1.0, shift=1e-10, trust_region=1e9)
    updates, _ = optimiser.update(
        jnp.zeros(2), optimiser.init(jnp.zeros(2)), derivatives=derivatives, energies=energies
    )
    o = np.asarray(derivatives[:, 0], np.float64)
    o, e = o - o.mean(0), np.asarray(energies) - np.mean(energies)
    expected = -np.linalg.solve(o.T @ o / 40 + 1e-10 * np.eye(2), o.T @ e / 40)
    np.testing.assert_allclose(updates, expected, rtol=1e-4)


def test_a_rate_may_be_a_schedule():
    optimiser = sr(optax.constant_schedule(0.1), shift=0.5)
    derivatives, energies = samples(2)
    _, state = optimiser.update(
        jnp.zeros(7), optimiser.init(jnp.zeros(7)), derivatives=derivatives, energies=energies
    )
    assert float(state.shift) == 0.5


@pytest.mark.parametrize("name", ["learning_rate", "shift", "trust_region"])
def test_misuse_is_named(name):
    with pytest.raises(ValueError, match=f"expected {name} > 0, got -1"):
        minsr(**{name: -1.0})


def test_complex_parameters_are_refused():
    class Holomorphic(eqx.Module):
        weight: jax.Array

        def __call__(self, spins):
            return jnp.sum(self.weight)

    with pytest.raises(TypeError, match="expected real parameters, got complex128"):
        log_derivatives(Holomorphic(jnp.ones(2, complex)), jnp.ones((2, 3), jnp.int8))
