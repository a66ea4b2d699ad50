"""The protocol of all samplers: ``init`` and ``sample``, state in, state out."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Int8

from dyson.networks import Network, SpinFlip, projections
from dyson.samplers.moves import Moves
from dyson.spins import random_spins, spins_in_sector

# Logarithm of the odds below which a move counts as even.  Autocorrelation of sweeps over exact
# ground states of 14 sites, in sweeps, with 0 (Metropolis) / 0.1 / 0.25 / heat bath: log psi of the
# critical Ising ring 2.2 / 1.9 / 1.8 / 2.6, ordered 1.1 / 1.1 / 1.1 / 1.2, in a strong field
# 37 / 1.0 / 0.9 / 1.1, nearly flat 770 / 1 / 1 / 1; Heisenberg ring 3.1 / 3.1 / 2.6 / 2.1.
FLATNESS = 0.25

# Sites of the longest chain on which configurations drawn afresh are proposed: a training draws a
# million or so, which beyond is no share of the sector worth the time.
FRESH_UP_TO = 32


class SamplerState(eqx.Module):
    """What the next call needs: one configuration per chain.

    Amplitudes are not kept: every call evaluates them with the model it is given, so a parameter
    step can never leave a stale one behind.
    """

    spins: Int8[Array, "*n_chains n_sites"]


class SamplerInfo(eqx.Module):
    """What a person wants to see of one call."""

    acceptance: Float[Array, " *n_chains"]


class Sampler(eqx.Module):
    """Every chain has a random stream of its own, so results do not depend on how many chains run
    side by side or on how many devices they are spread over.

    A sampler of one's own fills in the fields and ``sample_chains``, and asks ``check_fit`` in its
    constructor whether its moves reach what the Hamiltonian connects.
    """

    n_sites: eqx.AbstractVar[int]
    n_chains: eqx.AbstractVar[int]
    magnetisation: eqx.AbstractVar[int | None]
    """The sector that the chains stay in, as the sum of the spins; None where they reach all."""
    moves: eqx.AbstractVar[Moves]
    """What is proposed, one by one or side by side: which configurations can be reached."""

    def init(self, key: jax.Array, model: Network) -> SamplerState:
        """Independent fair spins; where the magnetisation is conserved, given that."""
        self.check(model)
        return SamplerState(spins_of_chains(key, self.n_chains, self.n_sites, self.magnetisation))

    def check(self, model: Network) -> None:
        """Whether the network is one of this chain."""
        if getattr(model, "n_sites", self.n_sites) != self.n_sites:
            raise ValueError(
                f"{type(self).__name__}: the Hamiltonian has {self.n_sites} sites, "
                f"the model {model.n_sites}"
            )

    def sample(
        self, key: jax.Array, model: Network, state: SamplerState
    ) -> tuple[SamplerState, SamplerInfo]:
        """The next sample of every chain."""
        keys = jax.random.split(key, state.spins.shape[0])
        return self.sample_chains(keys, model, state)

    @abc.abstractmethod
    def sample_chains(
        self, keys: jax.Array, model: Network, state: SamplerState
    ) -> tuple[SamplerState, SamplerInfo]:
        """As :meth:`sample`, with the key of each chain: what runs on one of several devices.

        Every array of the state and of the info has a leading axis of chains.
        """


def in_groups(
    function: Callable[[jax.Array, Any], Any],
    keys: jax.Array,
    state: SamplerState,
    size: int,
) -> Any:
    """``function(keys, state)`` for at most ``size`` chains at a time, in bounded memory.

    Even groups, as large as allowed, share one program; the last chain fills the last group up.
    """
    n_chains = keys.shape[0]
    groups = -(-n_chains // size)
    if groups == 1:
        return function(keys, state)
    each = -(-n_chains // groups)
    pick = jnp.minimum(jnp.arange(groups * each), n_chains - 1).reshape(groups, each)
    batches = jax.tree.map(lambda x: x[pick], (keys, state))
    results = jax.lax.map(lambda batch: function(*batch), batches)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n_chains], results)


def spins_of_chains(
    key: jax.Array, n_chains: int, n_sites: int, magnetisation: int | None
) -> Int8[Array, "n_chains n_sites"]:
    """Independent fair spins, given the magnetisation if there is one."""
    if magnetisation is None:
        return random_spins(key, (n_chains, n_sites))
    draw = lambda k: spins_in_sector(k, n_sites, magnetisation)
    return jax.vmap(draw)(jax.random.split(key, n_chains))


def check_counts(name: str, **counts: int) -> None:
    """Refuse counts of a sampler that are not positive."""
    for argument, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: expected {argument} >= 1, got {value}")


def checked_sector(
    name: str, n_sites: int, magnetisation: int | None, *, conserved: bool
) -> int | None:
    """The sector of a sampler: that asked for, or the one of smallest magnetisation; None where it
    is not conserved."""
    if not conserved:
        if magnetisation is not None:
            raise ValueError(
                f"{name}: magnetisation={magnetisation} needs moves that conserve it; "
                "use a Hamiltonian that does, or dyson.Metropolis with moves=Exchanges(..)"
            )
        return None
    magnetisation = n_sites % 2 if magnetisation is None else magnetisation
    if abs(magnetisation) > n_sites or (n_sites - magnetisation) % 2:
        raise ValueError(
            f"{name}: no configuration of {n_sites} spins has magnetisation {magnetisation}"
        )
    return magnetisation


def acceptance(log_odds: Float[Array, " *shape"]) -> Float[Array, " *shape"]:
    """The probability to make a move that multiplies ``|psi|^2`` by exp(log_odds):

        a(x) = min(1, e^x) (1 - e^(-|x| / w) / 2),      w = FLATNESS,

    which obeys detailed balance, a(x) = e^x a(-x).  Where the odds are far from even it is
    Metropolis' rule, the most mobile one there is.  Where they are even it is that of a heat bath,
    a coin: Metropolis' rule would make every move there, so that a sweep over a flat state flips
    all spins and the chain goes back and forth between two configurations for ever.
    """
    size = jnp.abs(log_odds)
    even = jnp.exp(-size / jnp.asarray(FLATNESS, log_odds.dtype)) / 2
    return jnp.exp(jnp.minimum(log_odds, 0)) * (1 - even)


def accepts(
    uniform: Float[Array, " *shape"], log_ratio: Inexact[Array, " *shape"]
) -> Bool[Array, " *shape"]:
    """Whether a move is made that adds ``log_ratio`` to log psi; not if that is not a number."""
    return uniform < acceptance(2 * jnp.real(log_ratio).astype(uniform.dtype))


def global_moves(
    key: jax.Array,
    model: Network,
    spins: Int8[Array, " n_sites"],
    *,
    magnetisation: int | None,
    flips: bool,
) -> Int8[Array, " n_sites"]:
    """Propose a configuration drawn afresh from the sector, on chains of up to ``FRESH_UP_TO``
    sites; then, with ``flips``, to flip all spins.

    Local moves do not find what lies apart, across configurations of no amplitude; a training
    that no sample corrects there lets it grow, and the energy of the samples says nothing of it.
    Costs two forward passes for each proposal, and none to flip the spins of a network within
    :class:`SpinFlip`: both configurations have the same probability.
    """
    fresh_key, flip_key = jax.random.split(key)
    if spins.shape[0] <= FRESH_UP_TO:
        spins = fresh_proposal(fresh_key, model, spins, magnetisation)
    if flips and any(isinstance(layer, SpinFlip) for layer in projections(model)):
        return jnp.where(accepts(_uniform(flip_key), jnp.zeros(())), -spins, spins)
    return _either(flip_key, model, spins, -spins) if flips else spins


def fresh_proposal(
    key: jax.Array,
    model: Network,
    spins: Int8[Array, " n_sites"],
    magnetisation: int | None,
) -> Int8[Array, " n_sites"]:
    """The configuration after the proposal of another one of the sector, all equally likely."""
    fresh_key, key = jax.random.split(key)
    (fresh,) = spins_of_chains(fresh_key, 1, spins.shape[0], magnetisation)
    return _either(key, model, spins, fresh)


def _either(key: jax.Array, model: Network, spins: Array, other: Array) -> Array:
    # side by side, so that the network is compiled once
    log_psi, proposed = jax.vmap(model)(jnp.stack([spins, other]))
    return jnp.where(accepts(_uniform(key), proposed - log_psi), other, spins)


def _uniform(key: jax.Array) -> Float[Array, ""]:
    return jax.random.uniform(key, (), jnp.zeros(()).dtype)
