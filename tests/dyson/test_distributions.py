"""Every sampler on ten sites against the enumerated |psi|^2 of a peaked network.

Chi square with the effective sample size of log psi, refused at a chance of 1e-6, and the total
variation, refused at twice what as many independent samples show on average.  The screened
typewriter, which is not exact, has its own test.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from compiling import quick_jit
from dyson import J1J2, Ising, Metropolis, Sweep
from dyson.samplers import Exchanges, Flips, Mixture, Runs
from dyson.spins import enumerate_spins, spins_to_index
from dyson.vmc import statistics
from lanes import later
from random_networks import random_network

N, CHAINS, SAMPLES, SETTLE = 10, 256, 120, 20

SAMPLERS = {
    "single flips": lambda: Metropolis(Ising(N), CHAINS, moves=Flips(N)),
    "runs and flips": lambda: Metropolis(
        Ising(N), CHAINS, moves=Mixture(Runs(N, True), Flips(N), weights=(2.0, 1.0))
    ),
    "exchanges": lambda: Metropolis(J1J2(N, j2=0.5), CHAINS),
    "distant exchanges": lambda: Metropolis(
        J1J2(N), CHAINS, moves=Mixture(Exchanges(N, True, 1), Exchanges(N, True, 4))
    ),
    "sweep": lambda: Sweep(Ising(N), CHAINS, chains_at_once=128, by_environments=True),
    "swept exchanges": lambda: Sweep(
        J1J2(N, j2=0.5), CHAINS, chains_at_once=128, by_environments=True
    ),
    "sweep all around": lambda: Sweep(Ising(N), CHAINS, by_environments=False),
}


# Ergodicity, the distribution and the laws of each sampler are tested on shorter chains as well.
AT_ONCE = {"runs and flips", "sweep"}


@pytest.mark.parametrize(
    "kind, dtype",
    [(pytest.param if kind in AT_ONCE else later)(kind, jnp.float64) for kind in SAMPLERS]
    + [later("sweep", jnp.float32)],
)
def test_samples_follow_the_enumerated_distribution(kind, dtype):
    sampler = SAMPLERS[kind]()
    model = random_network(N, seed=2, depth=2, mixer="real", modes=1, dtype=dtype)
    in_sector = getattr(sampler, "magnetisation", None) is not None
    sharper = lambda m: (*(block.mix_out for block in m.blocks), m.head.weight)
    # scattering is strong in a sector, else networks know little but the magnetisation
    factors = (4.0, 4.0, 12.0) if in_sector else (1.0, 1.0, 6.0)
    sharp = [f * x for f, x in zip(factors, sharper(model), strict=True)]
    model = eqx.tree_at(sharper, model, tuple(x.astype(dtype) for x in sharp))
    spins = np.asarray(enumerate_spins(N))
    log_psi = np.asarray(jax.jit(jax.vmap(lambda s: model(s)))(jnp.asarray(spins)), float)
    inside = spins.sum(axis=1) == 0 if in_sector else np.ones(2**N, bool)
    p = np.where(inside, np.exp(2 * (log_psi - log_psi[inside].max())), 0)
    p /= p.sum()
    assert p.max() > 5 / inside.sum()  # peaked

    @quick_jit
    def run(key, model, state):
        def step(state, key):
            state, info = sampler.sample(key, model, state)
            return state, (spins_to_index(state.spins), info.acceptance)

        return jax.lax.scan(step, state, jax.random.split(key, SAMPLES))[1]

    state = sampler.init(jax.random.key(0), model)
    visits, acceptance = run(jax.random.key(1), model, state)
    assert 0.02 < float(jnp.mean(acceptance)) < 0.98
    visits = np.asarray(visits)[SETTLE:]
    estimate = quick_jit(statistics.estimate_mean)(jnp.asarray(log_psi[visits]).T)
    size = min(visits.size, float(estimate.effective_samples))
    counts = np.bincount(visits.ravel(), minlength=2**N) / visits.size
    assert counts[~inside].sum() == 0
    common = p * size >= 5

    def chance(expected):
        """That the counts are this far from what is expected of independent samples."""
        groups = [np.append(q[common], q[~common].sum()) * size for q in (counts, expected)]
        rare = groups[1][-1] < 1
        seen, expected = ((g[:-1] if rare else g) for g in groups)
        return chi2.sf(np.sum((seen - expected) ** 2 / expected), len(seen) - 1)

    distance = np.sum(np.sqrt(2 / np.pi * p * (1 - p) / size))
    variation = lambda q: np.abs(counts - q).sum() / 2
    print(kind, "effective samples", size, "chance", chance(p), variation(p) / distance)
    assert chance(p) > 1e-6
    assert variation(p) < distance
    # and both have the power to refuse a flatter distribution, a much flatter one in a sector,
    # where the distribution is less peaked
    flatter = np.where(inside, p ** (0.25 if in_sector else 0.8), 0)
    flatter /= flatter.sum()
    assert chance(flatter) < 1e-6
    assert variation(flatter) > distance
