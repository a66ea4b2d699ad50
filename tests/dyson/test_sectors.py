"""States of a sector: characters, exact ratios of every product of symmetries, and nodes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import (
    Abacus,
    AbacusPairs,
    DysonNet,
    Ising,
    Recompute,
    Reflection,
    SpinFlip,
    Sweep,
    Translations,
)
from dyson.networks import projections, unprojected
from dyson.samplers.environment_pass import environment_pass
from dyson.samplers.passes import forward_pass, has_environments, proposals
from dyson.spins import enumerate_spins, flip, random_spins, spins_to_index
from dyson.vmc.ratios import fastest_updates
from lanes import later
from random_networks import distance_on_the_circle, random_network


def odd(model):
    return SpinFlip(model, parity=-1)


def mirror(parity):
    return lambda model: Reflection(model, parity)


def moved(momentum):
    return lambda model: Translations(model, momentum)


def wrapped(model, *wrappers):
    """The first of the wrappers is the innermost."""
    for wrap in wrappers:
        model = wrap(model)
    return model


PLACED = {"site_embedding": True}
OPEN = {"periodic": False}
TOKENS = {"token_size": 2}

CASES = [
    (1, {}, (odd,)),
    (2, PLACED, (moved(1), mirror(-1))),
    (3, PLACED, (odd, moved(1))),
    later(5, OPEN, (mirror(-1), odd)),
    (6, OPEN | {"mixer": "real"}, (moved(3), SpinFlip, mirror(-1))),
    later(6, OPEN, (moved(3), SpinFlip, mirror(-1))),
    later(7, PLACED | {"complex_head": True}, (moved(3), odd)),
    later(8, TOKENS, (moved(4), odd, mirror(1))),
    later(8, PLACED | {"depth": 3}, (odd, mirror(-1), moved(4))),
    later(8, PLACED | TOKENS, (mirror(1), moved(0), odd)),
    (8, {"token_size": 4, "complex_head": True}, (moved(6),)),
    later(4, PLACED, (moved(1), odd)),
    later(8, {}, (mirror(-1),)),
    later(8, OPEN | {"token_size": 4}, (SpinFlip, mirror(-1))),
    later(7, OPEN | {"complex_head": True}, (mirror(1), odd, moved(0))),
    later(8, PLACED | {"depth": 1}, (moved(5), SpinFlip)),
]


def characters(model):
    """What every symmetry multiplies the state by, with the symmetry as a function of spins."""
    for layer in projections(model):
        if isinstance(layer, Translations):
            turn = 2j * np.pi * layer.momentum / layer.n_sites
            yield np.exp(turn), lambda s: np.roll(s, 1, axis=-1)
        elif isinstance(layer, SpinFlip):
            yield layer.parity, lambda s: -s
        else:
            yield layer.parity, lambda s: s[..., ::-1]


def mean_over_images(model, amplitudes):
    """The projected state by brute force: one symmetry after the other, all translations."""
    n = model.n_sites
    spins = np.asarray(enumerate_spins(n))
    at = lambda s: amplitudes[np.asarray(spins_to_index(jnp.asarray(s)))]
    for character, symmetry in reversed(list(characters(model))):
        order = n if abs(np.imag(character)) > 1e-9 or not _twice(symmetry, spins) else 2
        images, weights, moved = [], [], spins
        for power in range(order):
            images.append(at(moved))
            weights.append(np.conj(character) ** power)
            moved = symmetry(moved)
        amplitudes = np.einsum("g,gs->s", weights, np.array(images)) / order
    return amplitudes


def _twice(symmetry, spins):
    return np.array_equal(symmetry(symmetry(spins)), spins)


@quick_jit
def all_log_psi(model):
    return jax.vmap(lambda s: model(s))(enumerate_spins(model.n_sites))


@quick_jit
def every_way(updates, model):
    """log psi of all configurations without and with the projections; and from a likely one after
    all single flips, together, one by one and by the network."""
    spins = enumerate_spins(model.n_sites)
    inner, whole = jax.vmap(lambda s: (unprojected(model)(s), model(s)))(spins)
    order = jnp.argsort(jnp.real(whole))
    reference = spins[order[-2]]
    bound = updates.bind(model)
    cache = bound.init(reference)
    sites = jnp.arange(model.n_sites, dtype=jnp.int32)[:, None]
    ratios = bound.single_flips(cache), bound.ratios(cache, sites)
    direct = jax.vmap(lambda site: whole[spins_to_index(flip(reference, site))])(sites)
    return inner, whole, reference, bound.log_psi(cache), ratios, direct


def amplitudes(log_psi):
    return np.exp(np.asarray(log_psi).astype(complex))


def check_ratios(found, tolerance):
    """Relative to the largest amplitude: nodes are compared as well."""
    _, whole, reference, start, ratios, direct = found
    largest = np.abs(amplitudes(whole)).max()
    here = amplitudes(whole)[int(spins_to_index(reference))]
    assert abs(amplitudes(start) - here) < tolerance * largest and abs(here) > 1e-3 * largest
    for log_ratio in ratios:
        after = amplitudes(log_ratio) * here
        np.testing.assert_allclose(after, amplitudes(direct), atol=tolerance * largest)


@pytest.mark.parametrize("n_sites, options, wrappers", CASES)
def test_a_state_of_its_sector_with_exact_ratios(n_sites, options, wrappers):
    """The amplitudes are the mean over the whole group, every symmetry gives its character, and
    local updates know it."""
    model = wrapped(random_network(n_sites, seed=n_sites, **options), *wrappers)
    found = every_way(Abacus(), model)
    inner, whole = map(amplitudes, found[:2])
    expected = mean_over_images(model, inner)
    largest = np.abs(whole).max()
    assert largest > 1e-6 * np.abs(inner).max()
    np.testing.assert_allclose(whole, expected, atol=1e-13 * np.abs(inner).max())
    spins = np.asarray(enumerate_spins(n_sites))
    for character, symmetry in characters(model):
        image = whole[np.asarray(spins_to_index(jnp.asarray(symmetry(spins))))]
        np.testing.assert_allclose(image, character * whole, atol=1e-13 * np.abs(inner).max())
    real = np.all(model.weights == 1) and not options.get("complex_head")
    assert jnp.isrealobj(found[1]) == real
    check_ratios(found, 1e-10)
    assert model.n_images == model.weights.size == model.images(jnp.asarray(spins[0])).shape[0]


def test_a_flip_of_a_configuration_is_one_of_every_image():
    model = wrapped(random_network(6, **PLACED), odd, moved(3), mirror(-1))
    spins, sites = random_spins(jax.random.key(0), 6), jnp.array([0, 4, -1], jnp.int32)

    @quick_jit
    def both(model):
        images = jax.vmap(flip)(model.images(spins), model.image_sites(sites))
        return images, model.images(flip(spins, sites)), flip(spins, sites)

    images, expected, first = both(model)
    np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(images[0], first)


def test_single_precision():
    model = random_network(8, seed=3, dtype=jnp.float32, **PLACED)
    found = every_way(Abacus(), wrapped(model, moved(4), odd))
    assert found[1].dtype == found[4][0].dtype == jnp.complex64
    check_ratios(found, 3e-4)


def test_pairs_across_the_ends_of_a_translated_open_chain():
    model = Translations(random_network(7, seed=1, **OPEN), 2)
    spins = random_spins(jax.random.key(1), 7)
    moves = jnp.array([[6, 0], [2, 3], [1, 5]], jnp.int32)

    @quick_jit
    def both(model, spins):
        bound = AbacusPairs().bind(model)
        return bound.ratios(bound.init(spins), moves), jax.vmap(
            lambda move: model(flip(spins, move)) - model(spins)
        )(moves)

    found, expected = both(model, spins)
    np.testing.assert_allclose(np.exp(found), np.exp(expected), rtol=1e-9)
    with pytest.raises(ValueError, match=r"span=2 of an open chain within Translations.*Pairs"):
        Abacus(span=2).bind(model)
    assert not isinstance(fastest_updates(model, reach=1, flips=2), Abacus)


def test_what_happens_at_a_node():
    """Amplitudes that cancel to exactly 0: ratios to there, from there and between two of them."""
    model = Reflection(random_network(4, seed=1, depth=1, periodic=False), -1)
    log_terms = jnp.array([0.3, 0.3])
    assert model.combine(log_terms) == -jnp.inf
    finite = model.combine(jnp.array([0.3, 0.4]))
    assert jnp.isfinite(jnp.real(finite)) and float(jnp.imag(finite)) == pytest.approx(np.pi)
    # the terms of a palindrome are the same number twice
    node, other = jnp.array([1, -1, -1, 1], jnp.int8), jnp.array([1, -1, -1, -1], jnp.int8)
    last, both = jnp.array([3, -1], jnp.int32), jnp.array([0, 3], jnp.int32)

    @quick_jit
    def ratios(updates, model):
        bound = updates.bind(model)
        moves = (other, last), (node, last), (node, both)
        return [jnp.real(bound.propose(bound.init(s), move).log_ratio) for s, move in moves]

    for updates in (Recompute(), Abacus()):
        to, away, between = map(float, ratios(updates, model))
        assert (to, away) == (-np.inf, np.inf) and np.isnan(between)


@pytest.mark.parametrize("dtype", ["float64", later("float32")])
def test_terms_that_cancel_but_for_round_off_make_a_node(dtype):
    """Whatever else is small: derivatives of what is left were infinite or noise, and a training in
    the odd sector ended there, where a sample was led to a node from one of little amplitude."""
    model = SpinFlip(random_network(4, seed=1, depth=1), -1)
    eps = float(np.finfo(dtype).eps)
    for apart, expected in ((8 * eps, -np.inf), (1e4 * eps, np.log(5e3 * eps))):
        for high in (0.0, -900.0, 900.0):
            terms = jnp.asarray(np.log1p([apart, 0]), dtype) + jnp.asarray(high, dtype)
            if high == 0:
                np.testing.assert_allclose(model.combine(terms).real, expected, rtol=0.02)
            elif apart < 1e3 * eps:
                assert model.combine(terms).real == -np.inf
    # one image is the other one moved along the ring: every program rounds their terms differently
    spins = jnp.array([1, 1, -1, -1], jnp.int8)
    single = jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, model)
    assert single(spins).real == -np.inf


CHAINS, SAMPLES, SETTLE = 256, 60, 10


@pytest.mark.parametrize(
    "wrappers, by_environments",
    [((odd,), True), ((moved(3), mirror(-1)), None), later((odd, moved(1)), None)],
)
def test_sweeps_follow_the_distribution_of_a_sector(wrappers, by_environments):
    """Also from a start at a node, which they leave and never see again."""
    network = random_network(6, seed=4, depth=1, **({} if by_environments else PLACED))
    model = wrapped(network, *wrappers)
    assert has_environments(model) == bool(by_environments)
    sampler = Sweep(Ising(6), CHAINS, by_environments=by_environments, chains_at_once=CHAINS)
    start = sampler.init(jax.random.key(0), model)
    start = eqx.tree_at(lambda s: s.spins, start, start.spins.at[: CHAINS // 2].set(1))

    @quick_jit
    def run(model, start):
        def step(state, key):
            state, _ = sampler.sample(key, model, state)
            return state, spins_to_index(state.spins)

        spins = enumerate_spins(6)
        visits = jax.lax.scan(step, start, jax.random.split(jax.random.key(1), SAMPLES))[1]
        return visits, jax.vmap(lambda s: model(s))(spins)

    visits, log_psi = run(model, start)
    p = np.abs(amplitudes(log_psi)) ** 2
    p /= p.sum()
    visits = np.asarray(visits)[SETTLE:]
    counts = np.bincount(visits.ravel(), minlength=64) / visits.size
    independent = np.sum(np.sqrt(2 / np.pi * p * (1 - p) / visits.size)) / 2
    assert np.abs(counts - p).sum() / 2 < 3 * independent
    nodes = p < 1e-20
    assert np.any(nodes) and counts[nodes].sum() == 0
    flatter = p**0.3 / np.sum(p**0.3)
    assert np.abs(counts - flatter).sum() / 2 > 5 * independent


def test_odd_states_are_swept_by_environments():
    model = odd(random_network(12, seed=2, depth=1))
    spins = random_spins(jax.random.key(0), (2, 12))
    uniforms = jax.random.uniform(jax.random.key(1), (2, len(proposals(model))))
    swept, _, log_psi = quick_jit(environment_pass)(model, spins, uniforms)
    one = jax.vmap(lambda s, u: forward_pass(model, s, u), out_axes=(0, 1, 1))
    expected, accepted, expected_log_psi = quick_jit(one)(spins, uniforms)
    assert 0.1 < float(jnp.mean(accepted)) < 0.9
    np.testing.assert_array_equal(swept, expected)
    assert distance_on_the_circle(log_psi, expected_log_psi).max() < 1e-10


def test_states_that_vanish_are_refused():
    ring, placed = random_network(6), random_network(6, **PLACED)
    with pytest.raises(ValueError, match=r"a multiple of 6, got 1: .*site_embedding=True"):
        Translations(ring, 1)
    with pytest.raises(ValueError, match="a multiple of 4, got 2: .* by 2 of its sites"):
        Translations(random_network(8, token_size=2), 2)
    zero = eqx.tree_at(lambda m: m.embed_sites, placed, jnp.zeros((4, 6)))
    assert Translations(zero).n_images == 6
    with pytest.raises(ValueError, match="site embedding of this network is zero.*site_spread"):
        Translations(zero, 1)
    with pytest.raises(ValueError, match="read backwards is zero; write DysonNet with kernel_si"):
        Reflection(SpinFlip(random_network(6, kernel_size=1)), -1)
    for both in ((moved(1), mirror(1)), (mirror(-1), odd, moved(-1))):
        with pytest.raises(ValueError, match="momentum 0 or pi with Reflection.*of 6 sites"):
            wrapped(placed, *both)
    with pytest.raises(ValueError, match="not in a sector of this symmetry yet"):
        odd(Translations(SpinFlip(ring)))
    # every ring of five spins reads the same backwards, moved
    for network in (random_network(5), Translations(random_network(5, **PLACED))):
        with pytest.raises(ValueError, match="no state of 5 sites has these characters"):
            Reflection(network, -1)
    with pytest.raises(ValueError, match="expected parity 1 or -1, got 0"):
        SpinFlip(ring, 0)
    with pytest.raises(TypeError, match="momentum to be an integer, in units of 2 pi / n_sites"):
        Translations(ring, 0.5)
    with pytest.raises(ValueError, match="site_spread >= 0, and more only with site_embedding"):
        DysonNet(4, site_spread=0.1, key=jax.random.key(0))


def test_a_grown_state_keeps_its_wave_number():
    model = odd(Translations(random_network(8, token_size=4), 2))
    longer = model.resized(12)
    assert longer.parity == -1 and longer.network.momentum == 3
    np.testing.assert_allclose(longer.weights, model.weights, atol=1e-15)
    placed = Translations(random_network(6, **PLACED), 1)
    with pytest.raises(
        ValueError, match="wave number 2 pi 1/6, got 8 sites; write a multiple of 6"
    ):
        placed.resized(8)


def test_a_drawn_site_embedding_has_every_momentum():
    """From the start on; without it the network starts the same everywhere."""
    network = DysonNet(
        6,
        features=4,
        hidden=4,
        depth=1,
        site_embedding=True,
        site_spread=0.3,
        key=jax.random.key(0),
    )
    assert 0.1 < float(jnp.std(network.embed_sites)) < 0.6
    log_psi = all_log_psi(odd(Translations(network, 1)))
    assert float(jnp.max(jnp.real(log_psi))) > -8  # far above round-off, exp(-36)
