"""Metropolis sampling with single flips and, where H has the symmetry, global flips."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers.base import Sampler, global_flip, log_uniforms
from dyson.updates import LocalUpdates, Recompute


@final
class Metropolis(Sampler):
    """``sweeps * n_sites`` proposals of single flips at random sites between two samples.

    One more proposal per sample flips all spins when the Hamiltonian commutes with that: local
    flips would take exponentially long to cross between the two magnetisations.

    Arguments:
      hamiltonian: gives the number of sites and the symmetry.
      n_chains: independent chains.   sweeps: sweeps between samples.
      updates: how ratios are computed.  The default, the full forward pass, is the cheaper one as
        long as accepted moves rebuild the cache of a reference.

    Cost per proposal: one ``propose`` and one ``commit`` of ``updates``.
    """

    n_sites: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
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
        self.sweeps = sweeps
        self.global_flips = hamiltonian.spin_flip_symmetric
        self.updates = Recompute() if updates is None else updates

    def advance(
        self, key: jax.Array, model: Network, spins: Int8[Array, " n_sites"]
    ) -> tuple[Int8[Array, " n_sites"], Float[Array, ""]]:
        site_key, uniform_key, global_key = jax.random.split(key, 3)
        n_proposals = self.sweeps * self.n_sites
        sites = jax.random.randint(site_key, (n_proposals, 1), 0, self.n_sites, jnp.int32)
        uniforms = log_uniforms(uniform_key, n_proposals)
        if self.global_flips:
            spins = global_flip(global_key, model, spins)

        def propose(cache: Any, move: tuple[Array, Array]) -> tuple[Any, Array]:
            site, log_uniform = move
            proposal = self.updates.propose(model, cache, site)
            accept = log_uniform < 2 * jnp.real(proposal.log_ratio).astype(log_uniform.dtype)
            moved = self.updates.commit(model, cache, proposal)
            return jax.tree.map(lambda new, old: jnp.where(accept, new, old), moved, cache), accept

        cache, accepted = jax.lax.scan(
            propose, self.updates.init(model, spins), (sites, uniforms)
        )
        return self.updates.spins(cache), jnp.mean(accepted)

