"""The screened typewriter against brute force: every decision, freeze and audit of a replay, the
chain without tolerance, and the distribution."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2, chisquare

from compiling import quick_jit
from dyson import Abacus, Ising, SpinFlip, Typewriter
from dyson.networks import Network
from dyson.samplers.base import SamplerState, accepts, global_moves
from dyson.samplers.screening import ENOUGH, MEMORY, ErrorTable
from dyson.samplers.typewriter import Progress
from dyson.spins import enumerate_spins, flip, random_spins, spins_to_index
from dyson.vmc import statistics
from lanes import later
from random_networks import random_network

SMALL = {"features": 3, "modes": 1, "mixer": "real"}


def screening_network(n_sites, *, depth, head, **options):
    """Scattering is strong, so that one flip changes what the next does to theta by a tenth."""
    model = random_network(n_sites, depth=depth, **(SMALL | options))
    scattering = lambda m: [block.mix_out for block in m.blocks]
    model = eqx.tree_at(scattering, model, replace_fn=lambda matrix: 3 * matrix)
    return eqx.tree_at(lambda m: m.head.weight, model, head * model.head.weight)


def chance(log_odds):
    """Of a move: Metropolis' rule, halved where the odds are even."""
    return min(1, np.exp(log_odds)) * (1 - np.exp(-abs(log_odds) / 0.25) / 2)


def plans_of(sampler):
    """All sites and uniform numbers of one call, in order."""

    @jax.jit
    def plans(key):
        index = jnp.arange(sampler.passes, dtype=jnp.int32)
        plan = jax.vmap(sampler._plan, in_axes=(None, 0))(key, index)
        return plan.sites.reshape(-1), plan.uniforms.reshape(-1)

    return plans


@pytest.mark.parametrize(
    "n_sites, interval, projected, options",
    [
        (13, 2, False, {"depth": 2, "head": 0.25}),
        later(12, 1, True, {"depth": 1, "head": 1.0, "periodic": False, "complex_head": True}),
    ],
)
def test_without_tolerance_it_is_the_brute_force_chain(n_sites, interval, projected, options):
    """Every decision after an accepted flip freezes, and is taken by a new reference."""
    n_chains = 6
    model = screening_network(n_sites, **options)
    model = SpinFlip(model) if projected else model
    hamiltonian = Ising(n_sites, longitudinal=0.1)
    sampler = Typewriter(hamiltonian, n_chains, interval=interval, mismatch=0.0, chains_at_once=4)
    plans = plans_of(sampler)

    @jax.jit
    def brute_force(key, spins):
        def propose(carry, move):
            spins, log_psi = carry
            site, uniform = move
            new = model(flip(spins, site[None]))
            accept = accepts(uniform, new - log_psi)
            return (
                jnp.where(accept, flip(spins, site[None]), spins),
                jnp.where(accept, new, log_psi),
            ), accept

        global_key, key = jax.random.split(key)
        spins = global_moves(global_key, model, spins, magnetisation=None, flips=False)
        moves = plans(key)
        (spins, _), accepted = jax.lax.scan(propose, (spins, model(spins)), moves)
        return spins, jnp.mean(accepted.astype(float))

    sample = quick_jit(sampler.sample_chains)
    state = sampler.init(jax.random.key(0), model)
    for seed in (1, 2, 3):
        keys = jax.random.split(jax.random.key(seed), n_chains)
        expected, acceptance = jax.vmap(brute_force)(keys, state.spins)
        state, info = sample(keys, model, state)
        np.testing.assert_array_equal(state.spins, expected)
        np.testing.assert_allclose(info.acceptance, acceptance, rtol=1e-12)
        assert np.all(info.mismatch == 0) and np.all(info.throughput <= 1)
    assert 0.05 < float(np.mean(info.acceptance)) < 0.95
    # pass after pass, tables fill up with what the frozen steps show
    assert float(jnp.sum(state.errors.counts[:, 0])) > ENOUGH and np.sum(info.frozen) > 0


def test_a_replay_by_hand():
    """One refresh from the middle of a pass: the changes of theta of all candidates, by forward
    passes, added up in numpy; tolerances that freeze some chains, and audits."""
    n, chains = 24, 600
    model = screening_network(n, depth=2, head=2.0)
    sampler = Typewriter(Ising(n), 1, interval=2, mismatch=1e-2)
    updates = quick_jit(Abacus().bind)(model)
    theta = jax.jit(jax.vmap(lambda s: model.head.theta(model.pooled(streams(model, s)))))
    log_cosh = lambda x: np.sum(np.log(np.cosh(x)))
    keys = jax.random.split(jax.random.key(5), chains)
    spins = np.asarray(random_spins(jax.random.key(6), (chains, n)))
    table = ErrorTable.empty(chains, sampler.candidates)
    assert sampler.candidates == 6 and table.counts.shape == (chains, 3)
    # one chain out of four freezes at tolerances around 0.1, the others trust everything
    scale = jnp.where(jnp.arange(chains) % 4 == 2, 0.06, 0.0)[:, None]
    counts = jnp.full_like(table.counts, 10.0)
    table = ErrorTable(counts, counts * scale**2 * jnp.array([0.5, 1.0, 2.0]) ** 2)
    starts = jnp.arange(chains, dtype=jnp.int32) % 3
    zero = jnp.zeros((), jnp.int32)
    frozen = jnp.where(starts > 0, 2, 0)

    @jax.jit
    def refresh(keys, spins, table, starts, frozen):
        def one(key, spins, table, start, frozen):
            before = Progress(
                spins, table, zero, start, jnp.asarray(0.4), frozen, zero, zero, zero, zero
            )
            plan = sampler._plan(key, zero)
            after = sampler._refresh(key, model, before, updates)
            return plan, after, table.tolerances(sampler.mismatch)

        return jax.vmap(one)(keys, spins, table, starts, frozen)

    plans, after, tolerances = jax.tree.map(np.asarray, refresh(keys, spins, table, starts, frozen))
    froze = mismatched = 0
    for c in range(chains):
        sites, uniforms = plans.sites[c], np.asarray(plans.uniforms[c])
        moved = [flipped(spins[c]), *(flipped(spins[c], site) for site in sites)]
        theta0, *thetas = np.asarray(theta(np.stack(moved)))
        total, now, flips, accepted, errors = 0, log_cosh(theta0), 0, [], []
        stop, index = 0, 1
        for step in range(int(starts[c]), sampler.candidates):
            new = log_cosh(theta0 + total + thetas[step] - theta0)
            acceptance = chance(2 * (new - now))
            if step == starts[c] and frozen[c]:
                errors.append((int(frozen[c]), abs(acceptance - 0.4)))
            tolerance = tolerances[c][int(np.log2(flips))] if flips else 0
            if abs(uniforms[step] - acceptance) < tolerance:
                stop, index = step, 0
                froze += 1
                np.testing.assert_allclose(after.frozen_acceptance[c], acceptance, atol=1e-10)
                break
            accept = uniforms[step] < acceptance
            if step == plans.audited[c]:
                both = flipped(spins[c], *accepted), flipped(spins[c], *accepted, sites[step])
                old, new_theta = np.asarray(theta(np.stack(both)))
                exact = chance(2 * (log_cosh(new_theta) - log_cosh(old)))
                assert after.mismatches[c] == ((uniforms[step] < exact) != accept)
                mismatched += int(after.mismatches[c])
                if flips:
                    errors.append((flips, abs(acceptance - exact)))
            if accept:
                total, now, flips = total + thetas[step] - theta0, new, flips + 1
                accepted.append(int(sites[step]))
        np.testing.assert_array_equal(after.spins[c], flipped(spins[c], *accepted))
        assert (after.step[c], after.index[c], after.accepted[c]) == (stop, index, flips)
        assert after.frozen_flips[c] == (0 if index else flips)
        assert (after.refreshes[c], after.freezes[c]) == (1, 1 - index)
        expected_counts, expected_squares = np.array(table.counts[c]), np.array(table.squares[c])
        for flips, error in errors:
            b = int(np.log2(flips))
            expected_counts[b] = expected_counts[b] * (1 - 1 / MEMORY) + 1
            expected_squares[b] = expected_squares[b] * (1 - 1 / MEMORY) + error**2
        np.testing.assert_allclose(after.errors.counts[c], expected_counts, rtol=1e-12)
        np.testing.assert_allclose(after.errors.squares[c], expected_squares, atol=1e-10)
    assert 15 < froze < 135 and mismatched > 0


def flipped(spins, *sites):
    spins = np.array(spins)
    spins[list(sites)] *= -1
    return spins


def streams(model, spins):
    phi, h = model.embed(model.patterns(spins))
    for block in model.blocks:
        phi, h = block(phi, h)
    return h


@pytest.mark.exhaustive
def test_samples_follow_the_enumerated_distribution():
    """Chi square with the effective sample size of log psi (false alarm 1e-6), total variation;
    the same program with a tolerance that trusts too much reports its mismatches."""
    n, n_chains, n_samples = 10, 128, 80
    model = screening_network(n, depth=2, head=0.25)
    log_psi = np.asarray(jax.jit(jax.vmap(lambda s: model(s)))(enumerate_spins(n)), float)
    p = np.exp(2 * (log_psi - log_psi.max()))
    p /= p.sum()
    assert p.max() > 20 / 2**n  # peaked

    @quick_jit
    def run(sampler, key, state):
        def step(state, key):
            state, info = sampler.sample(key, model, state)
            return state, (spins_to_index(state.spins), info)

        return jax.lax.scan(step, state, jax.random.split(key, n_samples))[1]

    def sampled(mismatch):
        sampler = Typewriter(Ising(n), n_chains, interval=2, mismatch=mismatch, chains_at_once=128)
        visits, info = run(sampler, jax.random.key(1), sampler.init(jax.random.key(0), model))
        visits = np.asarray(visits)[20:]
        estimate = quick_jit(statistics.estimate_mean)(jnp.asarray(log_psi[visits]).T)
        size = min(visits.size, float(estimate.effective_samples))
        counts = np.bincount(visits.ravel(), minlength=2**n) / visits.size
        return counts, size, jax.tree.map(lambda x: np.mean(np.asarray(x)[20:]), info)

    counts, size, info = sampled(1e-3)
    common = p * size >= 5

    def chance(expected):
        """That the counts are this far from what is expected of independent samples."""
        groups = [np.append(q[common], q[~common].sum()) * size for q in (counts, expected)]
        return chi2.sf(np.sum((groups[0] - groups[1]) ** 2 / groups[1]), common.sum())

    assert chance(p) > 1e-6
    # twice what `size` independent samples of p show on average
    distance = np.sum(np.sqrt(2 / np.pi * p * (1 - p) / size))
    assert np.abs(counts - p).sum() / 2 < distance
    # and both have the power to refuse a flatter distribution
    flatter = p**0.8 / np.sum(p**0.8)
    assert chance(flatter) < 1e-6
    assert np.abs(counts - flatter).sum() / 2 > distance
    assert 0.05 < info.acceptance < 0.98 and info.throughput > 0

    _, _, careless = sampled(0.9)
    print("mismatch", info.mismatch, careless.mismatch, "frozen", info.frozen, careless.frozen)
    # of 60 * 128 * 6 audits: a rate of 1e-3 is known to 1.5e-4
    assert info.mismatch < 2e-3
    assert careless.mismatch > 5 * info.mismatch and careless.frozen < info.frozen


@pytest.mark.parametrize("n_sites, interval", [(1, 1), (2, 1), (7, 2), (10, 3), (31, 3), (31, 40)])
def test_every_site_is_proposed_as_often(n_sites, interval):
    """Candidates of a pass differ and lie in every second interval; none is preferred."""
    sampler = Typewriter(Ising(n_sites), 1, interval=interval, sweeps=1)
    assert sampler.candidates == max(1, n_sites // (2 * interval))
    assert n_sites <= sampler.passes * sampler.candidates < n_sites + 2 * sampler.candidates
    keys = jax.random.split(jax.random.key(0), 3000)
    plans = jax.jit(jax.vmap(lambda key: sampler._plan(key, jnp.int32(1)).sites))(keys)
    plans = np.sort(np.asarray(plans), axis=1)
    assert plans.min() >= 0 and plans.max() < n_sites
    assert np.all(np.diff(plans, axis=1) > 0)
    if n_sites > 1:
        assert chisquare(np.bincount(plans.ravel(), minlength=n_sites)).pvalue > 1e-6


def test_even_and_odd_intervals_take_turns():
    sampler = Typewriter(Ising(24), 1, interval=3)
    index = jnp.arange(2, dtype=jnp.int32)
    plans = jax.jit(lambda key: jax.vmap(sampler._plan, in_axes=(None, 0))(key, index).sites)
    for seed in range(20):
        sites = np.asarray(plans(jax.random.key(seed))).ravel()
        rotated = [np.bincount((sites - r) % 24 // 3, minlength=8) for r in range(24)]
        assert any(np.all(each == 1) for each in rotated)


def test_the_table_of_errors():
    table = jax.tree.map(lambda x: x[0], ErrorTable.empty(1, 100))
    assert table.counts.shape == (7,)
    for flips, b in ((1, 0), (2, 1), (3, 1), (4, 2), (63, 5), (64, 6), (100, 6)):
        seen = table.observe(jnp.int32(flips), jnp.asarray(0.5), jnp.asarray(True))
        assert np.argmax(seen.counts) == b and float(jnp.sum(seen.counts)) == 1
    unseen = table.observe(jnp.int32(3), jnp.asarray(0.5), jnp.asarray(False))
    assert float(jnp.sum(unseen.counts)) == 0
    observe = jax.jit(lambda t, error: t.observe(jnp.int32(3), error, jnp.asarray(True)))
    for count in range(1, ENOUGH + 2):
        assert jnp.isinf(table.tolerances(jnp.asarray(1e-3))[1])
        table = observe(table, jnp.asarray(0.1 if count % 2 else 0.3))
    spread = np.sqrt((5 * 0.01 + 4 * 0.09) / 9)
    tolerances = table.tolerances(jnp.asarray(1e-3))
    assert tolerances[1] == pytest.approx(spread * np.log1p(spread / 1e-3), rel=0.02)
    assert jnp.isinf(tolerances[0]) and float(table.tolerance(tolerances, jnp.int32(0))) == 0
    assert np.all(np.isinf(table.tolerances(jnp.asarray(0.0))))
    # ten memories later nothing is left of the large errors
    for _ in range(10 * MEMORY):
        table = observe(table, jnp.asarray(1e-3))
    assert float(jnp.sqrt(table.squares[1] / table.counts[1])) == pytest.approx(1e-3, rel=0.1)
    assert float(table.counts[1]) == pytest.approx(MEMORY, rel=1e-3)
    broken = observe(table, jnp.asarray(jnp.nan))
    assert bool(jnp.all(jnp.isfinite(broken.squares)))


def test_misuse_is_named():
    class Flat(Network):
        n_sites: int = 4

        def __call__(self, spins):
            return jnp.zeros(())

    sampler = Typewriter(Ising(4), 2)
    with pytest.raises(ValueError, match="interval >= 1, got 0"):
        Typewriter(Ising(4), 2, interval=0)
    with pytest.raises(ValueError, match="0 <= mismatch < 1, got 1.5"):
        Typewriter(Ising(4), 2, mismatch=1.5)
    with pytest.raises(ValueError, match="the Hamiltonian has 5 sites"):
        Typewriter(Ising(5), 2).init(jax.random.key(0), random_network(4))
    with pytest.raises(TypeError, match="got Flat; use dyson.Metropolis"):
        sampler.sample(jax.random.key(0), Flat(), sampler.init(jax.random.key(0), Flat()))
    plain = SamplerState(jnp.ones((2, 4), jnp.int8))
    with pytest.raises(TypeError, match="write state = sampler.init"):
        sampler.sample(jax.random.key(0), random_network(4), plain)
