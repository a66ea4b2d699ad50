"""Theorem 1: local updates are exact, and their cost does not know the size of the chain."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit
from dyson import Abacus, Recompute, SpinFlip
from dyson.abacus import supported
from dyson.abacus.links import offsets
from dyson.abacus.links.offsets import Chain
from dyson.spins import flip, random_spins
from lanes import later
from operations import operations_of_propose
from random_networks import distance_on_the_circle, hardly_decaying, random_network


@quick_jit
def every_way(updates, model, spins, moves):
    """Ratios of single flips three ways: all at once, one by one, and by the whole network."""
    bound = updates.bind(model)
    cache = bound.init(spins)
    together = bound.single_flips(cache)
    one_by_one = bound.ratios(cache, moves)
    before = model(spins)
    direct = jax.vmap(lambda move: model(flip(spins, move)) - before)(moves)
    return together, one_by_one, direct


as_users = eqx.filter_jit(every_way.__wrapped__)


def single(n_sites):
    return jnp.arange(n_sites, dtype=jnp.int32)[:, None]


# Fewer tokens than the window, odd, prime.  Larger ones and the other factors: test_exactness.
@pytest.mark.parametrize(
    "depth, complex_head, token_size, n_sites, periodic",
    [
        (2, False, 2, 6, True),
        (1, True, 1, 7, True),
        later(1, True, 1, 7, False),
        later(2, False, 2, 6, False),
        *(later(2, False, 4, 12, periodic) for periodic in (True, False)),
        *(later(2, False, 1, 7, periodic) for periodic in (True, False)),
        *(later(2, False, 1, 64, periodic) for periodic in (True, False)),
        *(later(2, False, 2, 46, periodic) for periodic in (True, False)),
        *(later(1, True, 2, 46, periodic) for periodic in (True, False)),
    ],
)
def test_every_flip_is_exact(depth, complex_head, token_size, n_sites, periodic):
    mixer = ["s4d", "real"][n_sites % 2]
    model = random_network(
        n_sites,
        seed=depth,
        depth=depth,
        periodic=periodic,
        complex_head=complex_head,
        token_size=token_size,
        mixer=mixer,
    )
    spins = random_spins(jax.random.key(n_sites), n_sites)
    together, one_by_one, direct = every_way(Abacus(), model, spins, single(n_sites))
    assert float(jnp.max(jnp.abs(direct))) > 1e-2  # the flips do something
    assert distance_on_the_circle(together, direct).max() < 1e-10
    assert distance_on_the_circle(one_by_one, direct).max() < 1e-10


@pytest.mark.parametrize(
    "kernel_size, n_sites, periodic",
    [
        later(7, 11, True),
        (5, 3, False),
        (3, 1, True),
        later(3, 1, False),
        (3, 2, True),
        later(7, 11, False),
        later(5, 3, True),
        later(3, 2, False),
    ],
)
def test_kernel_widths_and_chains_inside_the_window(kernel_size, n_sites, periodic):
    options = {"kernel_size": kernel_size, "mixer": "real", "modes": 1}
    model = random_network(n_sites, periodic=periodic, **options)
    spins = random_spins(jax.random.key(1), n_sites)
    together, one_by_one, direct = every_way(Abacus(), model, spins, single(n_sites))
    np.testing.assert_allclose(together, direct, atol=1e-10)
    np.testing.assert_allclose(one_by_one, direct, atol=1e-10)


@pytest.mark.parametrize(
    "kernel_size, periodic", [(3, True), later(5, False), later(3, False), later(5, True)]
)
def test_rows_wider_than_the_chain(kernel_size, periodic, monkeypatch):
    """As for chains of 512, 1024, .. tokens, here where forward passes are cheap."""
    monkeypatch.setattr(offsets, "ALIASED", 21)
    assert Chain(42, periodic).width == 50 and Chain(43, periodic).width == 43
    model = random_network(42, kernel_size=kernel_size, periodic=periodic, mixer="real")
    spins = random_spins(jax.random.key(1), 42)
    together, one_by_one, direct = every_way(Abacus(), model, spins, single(42))
    assert float(jnp.max(jnp.abs(direct))) > 1e-2
    np.testing.assert_allclose(together, direct, atol=1e-10)
    np.testing.assert_allclose(one_by_one, direct, atol=1e-10)


@pytest.mark.parametrize("mixer", ["s4d", later("real")])
def test_waves_that_hardly_decay(mixer):
    model = hardly_decaying(random_network(20, mixer=mixer))
    spins = random_spins(jax.random.key(2), 20)
    together, _, direct = every_way(Abacus(), model, spins, single(20))
    np.testing.assert_allclose(together, direct, atol=1e-10 * float(jnp.max(jnp.abs(direct)) + 1))


@pytest.mark.parametrize(
    "token_size, periodic", [(1, True), later(1, False), later(2, False), later(2, True)]
)
def test_several_flips_inside_a_span(token_size, periodic):
    """Any set of flips in neighbouring tokens, around the origin of a ring too."""
    n_sites, tokens = 12, 3
    model = random_network(n_sites, token_size=token_size, periodic=periodic)
    spins = random_spins(jax.random.key(3), n_sites)
    rng = np.random.default_rng(0)
    n_tokens = n_sites // token_size
    moves = []
    for base in range(n_tokens if periodic else n_tokens - tokens + 1):
        inside = (base * token_size + np.arange(tokens * token_size)) % n_sites
        chosen = rng.choice(inside, size=rng.integers(1, 4), replace=False)
        moves.append(np.pad(chosen, (0, 3 - len(chosen)), constant_values=-1))
    _, ratios, direct = every_way(
        Abacus(span=tokens * token_size), model, spins, jnp.asarray(np.array(moves), jnp.int32)
    )
    np.testing.assert_allclose(ratios, direct, atol=1e-10)


@pytest.mark.parametrize("periodic", [True, False])
def test_a_move_that_does_not_fit_is_not_answered(periodic):
    model = random_network(12, periodic=periodic)
    # far apart, the two ends, neighbours; and as many as in the test before, whose program this is
    moves = np.full((12 if periodic else 10, 3), -1, np.int32)
    moves[:3, :2] = [[1, 6], [0, 11], [4, 5]]
    _, ratios, direct = every_way(
        Abacus(span=3), model, random_spins(jax.random.key(0), 12), jnp.asarray(moves)
    )
    answered = np.array([False, periodic, True] + (len(moves) - 3) * [True])
    np.testing.assert_array_equal(np.isfinite(ratios), answered)
    np.testing.assert_allclose(ratios[answered], direct[answered], atol=1e-10)


@pytest.mark.parametrize(
    "updates, complex_head",
    [
        (Recompute(), False),
        # the others with more sites in test_exactness
        later(Abacus(), True),
        later(Abacus(), False),
        later(Recompute(), True),
    ],
)
def test_projected_network(updates, complex_head):
    model = SpinFlip(random_network(9, complex_head=complex_head))
    spins = random_spins(jax.random.key(4), 9)
    together, one_by_one, direct = every_way(updates, model, spins, single(9))
    assert distance_on_the_circle(together, direct).max() < 1e-10
    assert distance_on_the_circle(one_by_one, direct).max() < 1e-10


@pytest.mark.parametrize(
    "updates, projected",
    [
        (Abacus(), True),
        (Recompute(), False),
        later(Abacus(), False),
        later(Recompute(), True),
    ],
)
def test_commit_is_init_of_the_flipped_configuration(updates, projected):
    model = random_network(8)
    model = SpinFlip(model) if projected else model
    spins = random_spins(jax.random.key(5), 8)
    sites = jnp.array([3], jnp.int32)

    @quick_jit
    def both(model, spins):
        bound = updates.bind(model)
        cache = bound.init(spins)
        proposal = bound.propose(cache, sites)
        fresh = bound.init(flip(spins, sites))
        difference = bound.log_psi(cache) - model(spins)
        return bound.commit(cache, proposal), fresh, bound.spins(cache), difference

    committed, fresh, kept, difference = both(model, spins)
    for a, b in zip(jax.tree.leaves(committed), jax.tree.leaves(fresh), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    np.testing.assert_array_equal(kept, spins)
    assert abs(complex(difference)) < 1e-12


@pytest.mark.parametrize(
    "depth, periodic, token_size, complex_head, mixer, flips",
    [
        (1, True, 1, False, "s4d", 1),
        (2, False, 2, False, "s4", 1),
        later(2, True, 4, True, "real", 3),
        (2, False, 1, True, "power_law", 3),
        (3, True, 2, True, "real", 2),
        later(3, False, 1, False, "s4d", 1),
        later(1, False, 1, False, "s4d", 1),
        later(2, False, 1, False, "s4d", 2),
        later(2, True, 1, False, "s4d", 2),
        later(2, True, 2, False, "s4", 1),
        later(3, False, 2, True, "real", 2),
        later(6, True, 1, False, "s4d", 3),
        later(6, False, 1, False, "s4d", 3),
    ],
)
def test_operations_of_propose_do_not_grow(depth, periodic, token_size, complex_head, mixer, flips):
    def operations(n_tokens):
        return operations_of_propose(
            Abacus(span=flips),
            n_tokens * token_size,
            flips,
            depth=depth,
            periodic=periodic,
            token_size=token_size,
            complex_head=complex_head,
            mixer=mixer,
            features=4,
            hidden=2,
        )

    small, large = operations(256), operations(4096)  # cores of the same length
    assert small == large and small[0] > 300


@pytest.mark.parametrize(
    "program",
    [every_way, pytest.param(as_users, marks=[pytest.mark.optimised, pytest.mark.exhaustive])],
)
def test_single_precision_is_close(program):
    model = random_network(50, dtype=jnp.float32, features=8, hidden=4)
    spins = random_spins(jax.random.key(6), 50)
    together, _, direct = program(Abacus(), model, spins, single(50))
    assert together.dtype == jnp.float32
    assert float(jnp.max(jnp.abs(together - direct))) < 1e-3


def test_windows_count_each_token_once():
    ring, chain = Chain(4, True), Chain(4, False)
    assert chain.dilate((0,), 2) == (-2, -1, 0, 1, 2)
    assert ring.dilate((0,), 2) == (-1, 0, 1, 2)
    assert Chain(1, True).dilate((0,), 1) == (0,)
    assert [ring.offset(o) for o in (-2, -1, 0, 1, 2, 3)] == [2, -1, 0, 1, 2, -1]


def test_misuse_is_named():
    with pytest.raises(TypeError, match="expected a DysonNet or a projection"):
        Abacus().bind(eqx.nn.Identity())
    with pytest.raises(ValueError, match=r"span >= 1, got 0; .* write dyson\.AbacusPairs"):
        Abacus(span=0)
    assert not supported(eqx.nn.Identity())


@pytest.mark.optimised
def test_ten_thousand_commits_do_not_drift():
    """The cache is the one of the final configuration, and the ratios on the way sum up to the
    change of log psi."""
    model = random_network(8, features=2, mixer="real", modes=1)
    updates = quick_jit(Abacus().bind)(model)
    init = quick_jit(updates.init)
    spins = random_spins(jax.random.key(6), 8)
    sites = jax.random.randint(jax.random.key(7), (10_000, 1), 0, 8, jnp.int32)

    @quick_jit
    def walk(model, cache, sites):
        def step(carry, site):
            cache, total = carry
            proposal = updates.propose(cache, site)
            return (updates.commit(cache, proposal), total + proposal.log_ratio), None

        return jax.lax.scan(step, (cache, jnp.zeros(())), sites)[0]

    cache, total = walk(model, init(spins), sites)
    flips = np.bincount(np.asarray(sites)[:, 0], minlength=8) % 2
    final = jnp.asarray(np.where(flips == 1, -np.asarray(spins), spins))
    np.testing.assert_array_equal(updates.spins(cache), final)
    for ours, fresh in zip(jax.tree.leaves(cache), jax.tree.leaves(init(final)), strict=True):
        np.testing.assert_allclose(ours, fresh, atol=1e-8)
    change = np.subtract(*quick_jit(eqx.filter_vmap(model))(jnp.stack([final, spins])))
    assert abs(float(total) - change) < 1e-8
