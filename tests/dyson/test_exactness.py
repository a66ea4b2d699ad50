"""Theorem 1 over depth, mixer, boundary, tokens, kernel, head, moves and projection.

The product of all these is hours of compilation.  By default, up to depth four, every pair of
values of any two of them occurs together.  `--exhaustive` adds depths five and six and random cases
of the whole product, as many as `--random-cases` says; with a directory in
JAX_COMPILATION_CACHE_DIR mixers of equally many poles share what they compile.
"""

import itertools
import os
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compiling import quick_jit, release_programs
from dyson import Abacus, AbacusPairs, SpinFlip, Translations
from dyson.spins import flip, random_spins
from random_networks import distance_on_the_circle, random_network

NETWORKS = {
    "depth": [1, 2, 3, 4],
    "periodic": [True, False],
    "token_size": [1, 2, 4],
    "kernel_size": [1, 3, 5],
    "complex_head": [False, True],
    "site_embedding": [False, True],
    "mixer": ["s4d", "s4", "real", "power_law"],
}
# A move lies among as many sites as these tokens hold; no span: pairs at any distance.
SPANS = [1, 3, None]
PROJECTIONS = [None, SpinFlip, Translations]


DEEP = NETWORKS | {"depth": [1, 2, 3, 4, 5, 6]}
# Of the random numbers in `pairwise`: with these it finds 17 cases; four depths and four mixers
# take at least 16.
SEED = 1227


def possible(case):
    """Translations by parts of a token are a symmetry of a ring whose tokens are alike."""
    symmetric = case.get("periodic") is not False and not case.get("site_embedding")
    return case.get("projection") is not Translations or symmetric


def pairs_of(case):
    """All pairs of two factors with their values."""
    return set(itertools.combinations(case.items(), 2))


def pairwise(factors):
    """Cases in which every pair of values of any two factors occurs together: each begins with a
    pair that is missing, and is changed value by value while that adds others."""
    rng = random.Random(SEED)
    missing = [
        ((a, x), (b, y))
        for a, b in itertools.combinations(factors, 2)
        for x, y in itertools.product(factors[a], factors[b])
        if possible({a: x, b: y})
    ]
    cases = []
    while missing:
        start, case = dict(rng.choice(missing)), {}
        while not case or not possible(case):
            case = {name: start.get(name, rng.choice(values)) for name, values in factors.items()}
        gain = lambda case: len(pairs_of(case).intersection(missing))  # noqa: B023, E731
        before = None
        while case != before:
            before = case
            for name, value in ((n, v) for n, values in factors.items() for v in values):
                other = case | {name: value}
                if possible(other) and gain(other) > gain(case):
                    case = other
        cases.append(tuple(case.values()))
        missing = [pair for pair in missing if pair not in pairs_of(case)]
    return cases


def cases_of(config):
    """The options of a network, a span and a projection."""
    moves = {"span": SPANS, "projection": PROJECTIONS}
    default = pairwise(NETWORKS | moves)
    if not config.getoption("exhaustive"):
        return default
    factors = DEEP | moves
    product = itertools.product(*factors.values())
    product = [case for case in product if possible(dict(zip(factors, case, strict=True)))]
    count = min(config.getoption("random_cases"), len(product))
    chosen = random.Random(os.environ["DYSON_CASES_SEED"]).sample(product, count)
    return list(dict.fromkeys([*default, *pairwise(factors), *chosen]))


def test_every_pair_of_values_occurs():
    factors = NETWORKS | {"span": SPANS, "projection": PROJECTIONS}
    cases = [dict(zip(factors, case, strict=True)) for case in pairwise(factors)]
    assert len(cases) == 17 and all(map(possible, cases))
    for a, b in itertools.combinations(factors, 2):
        found = {(case[a], case[b]) for case in cases}
        wanted = itertools.product(factors[a], factors[b])
        assert found == {(x, y) for x, y in wanted if possible({a: x, b: y})}


def pytest_generate_tests(metafunc):
    if "network" not in metafunc.fixturenames:
        return
    cases = cases_of(metafunc.config)
    name = lambda x: x.__name__ if isinstance(x, type) else str(x)
    metafunc.parametrize(
        "network, span, projection",
        [(tuple(network), span, projection) for *network, span, projection in cases],
        ids=lambda x: "-".join(map(name, x)) if isinstance(x, tuple) else name(x),
        indirect=["network"],
    )


@pytest.fixture
def network(request):
    yield dict(zip(NETWORKS, request.param, strict=True))
    release_programs()


def moves_of(span, n_sites, periodic, rng):
    """Sets of flips that fit, around the whole chain; pairs at every distance."""
    if span is None:
        near = [(i, i + 1) for i in range(0, n_sites - 1, 5)]
        far = [(rng.integers(n_sites - d), d) for d in range(1, n_sites, 1 + n_sites // 60)]
        moves = near + [(i, i + d) for i, d in far] + [(n_sites - 1, 0), (3, -1)]
        return jnp.asarray(np.array(moves), jnp.int32)
    moves = []
    for base in range(0, n_sites, 1 + n_sites // 30):  # anywhere in a token
        inside = base + np.arange(span)
        inside = inside % n_sites if periodic else inside[inside < n_sites]
        chosen = rng.choice(inside, size=min(len(inside), rng.integers(1, 4)), replace=False)
        moves.append(np.pad(chosen, (0, 3 - len(chosen)), constant_values=-1))
    return jnp.asarray(np.array(moves), jnp.int32)


@quick_jit
def bind(updates, model):
    return updates.bind(model)


@quick_jit
def init(bound, spins):
    return bound.init(spins)


@quick_jit
def ratios(bound, cache, moves):
    return bound.ratios(cache, moves)


@quick_jit
def ratios_of_single_flips(bound, cache):
    return bound.single_flips(cache)


@quick_jit
def by_whole_networks(model, spins, moves):
    return jax.vmap(lambda move: model(flip(spins, move)))(moves) - model(spins)


def test_ratios_are_exact(network, span, projection):
    same = [network[name] for name in NETWORKS if name != "mixer"]
    rng = np.random.default_rng(list(map(int, same)))
    # longer than two windows wherever that stays small enough to compile
    n_tokens = int(rng.integers(37, 72))
    n_sites = network["token_size"] * n_tokens
    modes = 2 if network["mixer"] in ("s4", "s4d") else 1
    model = random_network(n_sites, seed=1, features=2, modes=modes, **network)
    model = model if projection is None else projection(model)
    spins = random_spins(jax.random.key(n_sites), n_sites)
    span = None if span is None else span * network["token_size"]
    moves = moves_of(span, n_sites, network["periodic"], rng)

    bound = bind(AbacusPairs() if span is None else Abacus(span=span), model)
    cache = init(bound, spins)
    single = jnp.arange(0, n_sites, n_tokens // 30, dtype=jnp.int32)
    one = jnp.pad(single[:, None], ((0, 0), (0, moves.shape[1] - 1)), constant_values=-1)
    moves = jnp.concatenate([moves, one])
    local = ratios(bound, cache, moves)
    whole = by_whole_networks(model, spins, moves)
    assert float(jnp.max(jnp.abs(whole))) > 1e-4  # the moves do something
    assert distance_on_the_circle(local, whole).max() < 1e-9
    flips = ratios_of_single_flips(bound, cache)[single]
    assert distance_on_the_circle(flips, whole[-len(single) :]).max() < 1e-9
