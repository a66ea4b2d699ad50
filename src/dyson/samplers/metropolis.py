"""Metropolis sampling with flips of single spins, of runs of them and, by symmetry, of all."""

import math
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8

from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers.base import Sampler, SamplerInfo, SamplerState, global_flip, log_uniforms
from dyson.updates import LocalUpdates, Recompute


@final
class Metropolis(Sampler):
    """``sweeps * n_sites`` proposals between two samples, half of them flips of single spins.

    The other half flip a run of neighbouring spins whose length is log-uniform up to half the
    chain: both ends of the run gain or lose a domain wall, so walls hop over any distance.  Single
    flips move them by one site, and near a critical point a sample then takes of the order of
    n_sites^2 sweeps to forget the one before.  Updates that know local moves alone
    (``takes_any_flips`` is false) make do with single flips.

    One more proposal per sample flips all spins when the Hamiltonian commutes with that: local
    flips would take exponentially long to cross between the two magnetisations.

    Every proposal is its own inverse and is drawn without looking at the spins, so the ratio of
    amplitudes alone decides.

    Arguments:
      hamiltonian: gives the number of sites, the boundary and the symmetry.
      n_chains: independent chains.   sweeps: sweeps between samples.
      updates: how ratios are computed.  The default, the full forward pass, is the cheaper one as
        long as accepted moves rebuild the cache of a reference.

    Cost per proposal: one ``propose`` and one ``commit`` of ``updates``.
    """

    n_sites: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    sweeps: int = eqx.field(static=True)
    global_flips: bool = eqx.field(static=True)
    updates: LocalUpdates

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        n_chains: int,
        *,
        sweeps: int = 1,
        updates: LocalUpdates | None = None,
    ):
        for name, value in {"n_chains": n_chains, "sweeps": sweeps}.items():
            if value < 1:
                raise ValueError(f"Metropolis: expected {name} >= 1, got {value}")
        self.n_sites = hamiltonian.n_sites
        self.n_chains = n_chains
        self.periodic = hamiltonian.periodic
        self.sweeps = sweeps
        self.global_flips = hamiltonian.spin_flip_symmetric
        self.updates = Recompute() if updates is None else updates

    def sample_chains(
        self, keys: jax.Array, model: Network, state: SamplerState
    ) -> tuple[SamplerState, SamplerInfo]:
        chains = jax.vmap(self._advance, in_axes=(0, None, 0))
        spins, acceptance = chains(keys, model, state.spins)
        return SamplerState(spins), SamplerInfo(acceptance)

    def _advance(
        self, key: jax.Array, model: Network, spins: Int8[Array, " n_sites"]
    ) -> tuple[Int8[Array, " n_sites"], Float[Array, ""]]:
        """One chain from one sample to the next; also the fraction of accepted moves."""
        move_key, uniform_key, global_key = jax.random.split(key, 3)
        n_proposals = self.sweeps * self.n_sites
        starts, lengths = self._runs(move_key, n_proposals)
        uniforms = log_uniforms(uniform_key, n_proposals)
        if self.global_flips:
            spins = global_flip(global_key, model, spins)

        def propose(cache: Any, move: tuple[Array, Array, Array]) -> tuple[Any, Array]:
            start, length, log_uniform = move
            proposal = self.updates.propose(model, cache, self._sites(start, length))
            accept = log_uniform < 2 * jnp.real(proposal.log_ratio).astype(log_uniform.dtype)
            moved = self.updates.commit(model, cache, proposal)
            return jax.tree.map(lambda new, old: jnp.where(accept, new, old), moved, cache), accept

        cache, accepted = jax.lax.scan(
            propose, self.updates.init(model, spins), (starts, lengths, uniforms)
        )
        return self.updates.spins(cache), jnp.mean(accepted)

    @property
    def longest_run(self) -> int:
        """Flipping more than half of a ring is, up to a global flip, flipping the rest."""
        return max(1, self.n_sites // 2) if self.updates.takes_any_flips else 1

    def _runs(self, key: jax.Array, n: int) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
        """First sites and lengths of ``n`` runs."""
        start_key, kind_key, length_key = jax.random.split(key, 3)
        starts = jax.random.randint(start_key, (n,), 0, self.n_sites, jnp.int32)
        log_length = jax.random.uniform(length_key, (n,)) * math.log(self.longest_run + 1)
        long = jnp.clip(jnp.exp(log_length).astype(jnp.int32), 1, self.longest_run)
        return starts, jnp.where(jax.random.bernoulli(kind_key, shape=(n,)), long, 1)

    def _sites(self, start: Int[Array, ""], length: Int[Array, ""]) -> Int[Array, " longest"]:
        """The sites of a run, padded with -1; an open chain cuts it off at the last site."""
        steps = jnp.arange(self.longest_run, dtype=jnp.int32)
        sites, inside = start + steps, steps < length
        if self.periodic:
            sites = sites % self.n_sites
        else:
            inside &= sites < self.n_sites
        return jnp.where(inside, sites, -1)

