"""Metropolis sampling with moves of any kind."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from dyson.baselines import LinearTheta
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network, unprojected
from dyson.samplers.base import (
    Sampler,
    SamplerInfo,
    SamplerState,
    accepts,
    check_counts,
    checked_sector,
    global_moves,
)
from dyson.samplers.fit import check_fit
from dyson.samplers.moves import Moves, Runs, local_moves
from dyson.updates import BoundUpdates, CachedTheta, LocalUpdates, Recompute


@final
class Metropolis(Sampler):
    """``sweeps * n_sites`` proposals between two samples.

    What is proposed is the choice of ``moves`` (:mod:`dyson.samplers.moves`).  By default they
    follow the Hamiltonian: exchanges of nearest and next-nearest neighbours where it conserves the
    magnetisation, so that the chains stay in one sector; otherwise flips of single spins and of
    runs of them, so that domain walls hop.

    One more proposal per sample is a configuration drawn afresh
    (:func:`dyson.samplers.base.global_moves`), and another flips all spins when the Hamiltonian
    commutes with that and the sector allows it: local moves would take exponentially long to cross
    between the two magnetisations.

    Every proposal is its own inverse and is drawn without looking at the spins, so the ratio of
    amplitudes alone decides.

    Arguments:
      hamiltonian: gives the number of sites, the boundary and the symmetry.
      n_chains: independent chains.   sweeps: sweeps between samples.
      updates: how ratios are computed; if not given, with theta in a cache where it is linear in
        the spins (:class:`dyson.CachedTheta`), else by full forward passes.  Those that rebuild
        their reference after every accepted move, as ABACUS, are refused: they cost more than
        forward passes, and :class:`Sweep` does better than either.
      moves: what is proposed, if not the default; refused where they miss what the Hamiltonian
        connects.
      magnetisation: sum of the spins at the start, which conserving moves keep.  The default is
        the smallest, 0 or 1.

    Cost per proposal: one ``propose`` and one ``commit`` of ``updates``.
    """

    n_sites: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
    sweeps: int = eqx.field(static=True)
    magnetisation: int | None = eqx.field(static=True)
    global_flips: bool = eqx.field(static=True)
    updates: LocalUpdates | None
    moves: Moves

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        n_chains: int,
        *,
        sweeps: int = 1,
        updates: LocalUpdates | None = None,
        moves: Moves | None = None,
        magnetisation: int | None = None,
    ):
        check_counts("Metropolis", n_chains=n_chains, sweeps=sweeps)
        if updates is not None and updates.rebuilds:
            raise ValueError(
                f"Metropolis: {type(updates).__name__} rebuilds its reference at every proposal, "
                "which takes longer than the forward pass that it spares; use dyson.Sweep("
                "hamiltonian, n_chains), which is exact at a constant cost per proposal, or leave "
                "out updates"
            )
        if moves is None:
            moves = local_moves(hamiltonian)
            any_flips = updates is None or updates.takes_any_flips
            if any_flips and not moves.conserves_magnetisation:
                moves = Runs(hamiltonian.n_sites, hamiltonian.periodic)
        check_fit("Metropolis", moves, hamiltonian)
        self.n_sites = hamiltonian.n_sites
        self.n_chains = n_chains
        self.sweeps = sweeps
        self.updates = updates
        self.moves = moves
        self.magnetisation = checked_sector(
            "Metropolis", self.n_sites, magnetisation, conserved=moves.conserves_magnetisation
        )
        self.global_flips = hamiltonian.spin_flip_symmetric and not self.magnetisation

    def sample_chains(
        self, keys: jax.Array, model: Network, state: SamplerState
    ) -> tuple[SamplerState, SamplerInfo]:
        bound = (self.updates or _updates_of(model)).bind(model)
        advance = lambda key, spins: self._advance(key, model, spins, bound)
        spins, acceptance = jax.vmap(advance)(keys, state.spins)
        return SamplerState(spins), SamplerInfo(acceptance)

    def _advance(
        self,
        key: jax.Array,
        model: Network,
        spins: Int8[Array, " n_sites"],
        bound: BoundUpdates,
    ) -> tuple[Int8[Array, " n_sites"], Float[Array, ""]]:
        """One chain from one sample to the next; also the fraction of moves that were made."""
        move_key, uniform_key, global_key = jax.random.split(key, 3)
        n_proposals = self.sweeps * self.n_sites
        moves = self.moves.draw(move_key, n_proposals)
        uniforms = jax.random.uniform(uniform_key, (n_proposals,))
        spins = global_moves(
            global_key, model, spins, magnetisation=self.magnetisation, flips=self.global_flips
        )

        def propose(cache: Any, step: tuple[Any, Array]) -> tuple[Any, Array]:
            move, uniform = step
            sites = self.moves.sites(move, bound.spins(cache))
            proposal = bound.propose(cache, sites)
            # a move that changes nothing does not count
            accept = accepts(uniform, proposal.log_ratio) & jnp.any(sites >= 0)
            moved = bound.commit(cache, proposal)
            return jax.tree.map(lambda new, old: jnp.where(accept, new, old), moved, cache), accept

        cache, accepted = jax.lax.scan(propose, bound.init(spins), (moves, uniforms))
        return bound.spins(cache), jnp.mean(accepted)


def _updates_of(model: Network) -> LocalUpdates:
    """Those that cost least, of all that need not be made anew after an accepted move."""
    return CachedTheta() if isinstance(unprojected(model), LinearTheta) else Recompute()
