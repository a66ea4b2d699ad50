"""Theorem 1 over depth, mixer, boundary, tokens, kernel, head, moves and projection.

The product of all these has some thousand cases, many hours of compilation.  Here is a set in which
every pair of values of any two of them occurs together; `--more-cases N` adds N random ones.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from allpairspy import AllPairs

from compiling import quick_jit
from dyson import Abacus, SpinFlip, Translations
from dyson.spins import flip, random_spins
from random_networks import distance_on_the_circle, random_network

# A move lies among as many sites as these tokens hold; no span: pairs at any distance.
FACTORS = {
    "depth": [1, 2, 3, 4, 5, 6],
    "mixer": ["s4d", "s4", "real", "power_law"],
    "periodic": [True, False],
    "token_size": [1, 2, 4],
    "kernel_size": [1, 3, 5],
    "complex_head": [False, True],
    "span": [1, 3, None],
    "projection": [None, SpinFlip, Translations],
}


def possible(case):
    """Translations by parts of a token are a symmetry of a ring."""
    case = dict(zip(FACTORS, case, strict=False))
    return case.get("projection") is not Translations or case["periodic"]


def pytest_generate_tests(metafunc):
    cases = list(map(tuple, AllPairs(list(FACTORS.values()), filter_func=possible)))
    more = metafunc.config.getoption("more_cases")
    product = list(filter(possible, itertools.product(*FACTORS.values())))
    chosen = np.random.default_rng(0).permutation(len(product))[:more]
    cases += [product[i] for i in chosen]
    name = lambda x: getattr(x, "__name__", str(x))  # noqa: E731
    metafunc.parametrize("case", cases, ids=lambda case: "-".join(map(name, case)))


def moves_of(case, span, n_sites, rng):
    """Sets of flips that fit, around the whole chain; pairs at every distance."""
    if span is None:
        near = [(i, i + 1) for i in range(0, n_sites - 1, 5)]
        far = [(rng.integers(n_sites - d), d) for d in range(1, n_sites, 1 + n_sites // 60)]
        moves = near + [(i, i + d) for i, d in far] + [(n_sites - 1, 0), (3, -1)]
        return jnp.asarray(np.array(moves), jnp.int32)
    moves = []
    for base in range(0, n_sites, 1 + n_sites // 30):  # anywhere in a token
        inside = base + np.arange(span)
        inside = inside % n_sites if case["periodic"] else inside[inside < n_sites]
        chosen = rng.choice(inside, size=min(len(inside), rng.integers(1, 4)), replace=False)
        moves.append(np.pad(chosen, (0, 3 - len(chosen)), constant_values=-1))
    return jnp.asarray(np.array(moves), jnp.int32)


@quick_jit
def ratios(updates, model, spins, moves):
    """Of all single flips and of the moves: locally, and by whole networks."""
    updates = updates.bind(model)
    cache = updates.init(model, spins)
    local = jax.vmap(lambda move: updates.propose(model, cache, move).log_ratio)(moves)
    single = jnp.arange(0, model.n_sites, max(model.n_sites // 32, 1), dtype=jnp.int32)
    every = updates.single_flips(model, cache)[single]
    both = jnp.concatenate([jnp.pad(single[:, None], ((0, 0), (0, moves.shape[1] - 1)),
                                    constant_values=-1), moves])
    whole = jax.vmap(lambda move: model(flip(spins, move)) - model(spins))(both)
    return jnp.concatenate([every, local]), whole


@pytest.fixture(autouse=True)
def _release_compiled_program():
    """Some dozens of these programs are all that a process can keep (see conftest.py)."""
    yield
    jax.clear_caches()


def test_ratios_are_exact(case):
    case = dict(zip(FACTORS, case, strict=True))
    rng = np.random.default_rng(list(map(ord, repr(sorted(case.items(), key=str)))))
    # longer than two windows wherever that stays small enough to compile
    n_sites = case["token_size"] * int(rng.integers(37, 72))
    names = "depth", "mixer", "periodic", "token_size", "kernel_size", "complex_head"
    model = random_network(
        n_sites, seed=1, features=2, modes=2 if case["mixer"] == "s4" else 1,
        **{name: case[name] for name in names},
    )
    model = model if case["projection"] is None else case["projection"](model)
    spins = random_spins(jax.random.key(n_sites), n_sites)
    span = None if case["span"] is None else case["span"] * case["token_size"]
    local, whole = ratios(Abacus(span=span), model, spins, moves_of(case, span, n_sites, rng))
    assert float(jnp.max(jnp.abs(whole))) > 1e-4  # the moves do something
    assert distance_on_the_circle(local, whole).max() < 1e-9
