"""What the screened typewriter does on a network: what its two benchmarks measure."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dyson import Typewriter
from dyson.app.bench.networks import Subject
from dyson.networks import Network
from dyson.samplers import TypewriterInfo

CHAINS = 8
# Samples until the chains have settled and the table of errors is full, and samples measured.
SETTLE, MEASURED = 24, 16


class Screened(NamedTuple):
    """Of one network and interval: accepted flips per refresh, the median, the lowest and the
    highest of the chains; and fractions of the proposals, means over chains and samples."""

    n_sites: int
    interval: int
    flips: float
    flips_low: float
    flips_high: float
    accepted: float
    frozen: float
    mismatch: float


def measured(subject: Subject, interval: int) -> Screened:
    """Follow the chains from the given configurations."""
    hamiltonian, model, spins = subject
    sampler = Typewriter(hamiltonian, CHAINS, interval=interval, chains_at_once=CHAINS)
    info = _follow(sampler, model, spins)
    flips = jnp.sum(info.throughput * info.refreshes, axis=0) / jnp.sum(info.refreshes, axis=0)
    spread = (float(f(np.asarray(flips))) for f in (np.median, np.min, np.max))
    others = (float(jnp.mean(x)) for x in (info.acceptance, info.frozen, info.mismatch))
    return Screened(hamiltonian.n_sites, interval, *spread, *others)


@eqx.filter_jit
def _follow(sampler: Typewriter, model: Network, spins: jax.Array) -> TypewriterInfo:
    state = sampler.init(jax.random.key(0), model)
    state = eqx.tree_at(lambda s: s.spins, state, spins)
    keys = jax.random.split(jax.random.key(1), SETTLE + MEASURED)
    step = lambda state, key: sampler.sample(key, model, state)
    info = jax.lax.scan(step, state, keys)[1]
    return jax.tree.map(lambda x: x[SETTLE:].astype(float), info)
