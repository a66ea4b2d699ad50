"""An exact typewriter sweep whose proposals cost the same on every chain length."""

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int8

from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers.base import (
    Sampler,
    SamplerInfo,
    SamplerState,
    check_counts,
    checked_sector,
    global_flip,
    in_groups,
)
from dyson.samplers.environment_pass import environment_pass
from dyson.samplers.moves import EXCHANGES, Moves, local_moves
from dyson.samplers.passes import (
    environments_pay,
    forward_pass,
    has_environments,
    proposals,
    swept_network,
)


@final
class Sweep(Sampler):
    """``sweeps`` typewriter sweeps between two samples: every site in turn, left to right.

    Single spins are flipped; where the Hamiltonian conserves the magnetisation, nearest and
    next-nearest neighbours are exchanged instead, and the chains stay in one sector.

    Between what surrounds it, already visited or still to come, only a window of tokens is
    evaluated, so a proposal costs O(features^2) on any chain, **accepted moves included**, and the
    ratios are exact: the same uniforms give the same chain as full forward passes.  Works for
    :class:`DysonNet` of any depth and :class:`SpinFlip` around it.

    On a ring each sweep starts at a random token, and the few moves whose windows would wrap around
    that start are left out of this sweep (:func:`dyson.samplers.passes.proposals`).  Networks of
    another kind, rings smaller than the window, and chains so short that it costs less
    (:func:`dyson.samplers.passes.environments_pay`) are swept with full forward passes.

    One more proposal per sample flips all spins when the Hamiltonian commutes with that and the
    sector allows it.

    Arguments:
      hamiltonian: gives the number of sites, what is conserved and the symmetry.
      n_chains: independent chains.   sweeps: sweeps between samples.
      chains_at_once: chains that share a pass, which keeps a :class:`dyson.scattering.Segment`
        in memory for every block of ``dyson.samplers.environment_pass.BLOCK`` tokens.
      by_environments: evaluate proposals in windows, or by full forward passes.  The default is
        what costs less; True raises ValueError where a network has no environments.
      magnetisation: sum of the spins, where it is conserved.  The default is the smallest, 0 or 1.
    """

    n_sites: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
    sweeps: int = eqx.field(static=True)
    chains_at_once: int = eqx.field(static=True)
    magnetisation: int | None = eqx.field(static=True)
    moves: Moves
    global_flips: bool = eqx.field(static=True)
    by_environments: bool | None = eqx.field(static=True)

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        n_chains: int,
        *,
        sweeps: int = 1,
        chains_at_once: int = 8,
        magnetisation: int | None = None,
        by_environments: bool | None = None,
    ):
        check_counts("Sweep", n_chains=n_chains, sweeps=sweeps, chains_at_once=chains_at_once)
        self.n_sites = hamiltonian.n_sites
        self.n_chains = n_chains
        self.sweeps = sweeps
        self.chains_at_once = chains_at_once
        self.magnetisation = checked_sector(
            "Sweep", self.n_sites, magnetisation, conserved=hamiltonian.conserves_magnetisation
        )
        self.moves = local_moves(hamiltonian)
        self.by_environments = by_environments
        self.global_flips = hamiltonian.spin_flip_symmetric and not self.magnetisation

    def _by_environments(self, model: Network, distances: tuple[int, ...]) -> bool:
        if self.by_environments is None:
            return environments_pay(model, distances)
        if self.by_environments and not has_environments(model, distances):
            raise ValueError(
                "Sweep: by_environments=True takes a DysonNet, or SpinFlip around one, on an open "
                "chain or a ring longer than the window; leave it out for other networks"
            )
        return self.by_environments

    def sample_chains(
        self, keys: jax.Array, model: Network, state: SamplerState
    ) -> tuple[SamplerState, SamplerInfo]:
        together = lambda keys, state: self._together(keys, model, state.spins)
        return in_groups(together, keys, state, self.chains_at_once)

    def _together(
        self, keys: jax.Array, model: Network, spins: Int8[Array, "chains n_sites"]
    ) -> tuple[SamplerState, SamplerInfo]:
        """One sample of a group of chains side by side."""
        keys = jax.vmap(lambda key: jax.random.split(key, 1 + self.sweeps))(keys)
        if self.global_flips:
            flips = jax.vmap(global_flip, in_axes=(0, None, 0))
            spins = flips(keys[:, 0], model, spins)

        distances = () if self.magnetisation is None else EXCHANGES
        by_environments = self._by_environments(model, distances)
        n_proposals = len(proposals(model, distances, around=not by_environments))

        def sweep(spins: Array, keys: Array) -> tuple[Array, Array]:
            origin_keys, uniform_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
            draw = lambda key: jax.random.uniform(key, (n_proposals,))
            uniforms = jax.vmap(draw)(uniform_keys)
            if not by_environments:
                alone = lambda s, u: forward_pass(model, s, u, distances, around=True)
                swept = jax.vmap(alone)(spins, uniforms)
                return swept[0], jnp.mean(swept[1], axis=1)
            origins = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.n_sites))(
                origin_keys
            )
            return _rotated_pass(model, spins, uniforms, origins, distances)

        spins, acceptance = jax.lax.scan(sweep, spins, jnp.moveaxis(keys[:, 1:], 1, 0))
        return SamplerState(spins), SamplerInfo(jnp.mean(acceptance, axis=0))


def _rotated_pass(
    model: Any, spins: Array, uniforms: Array, origins: Array, distances: tuple[int, ...]
) -> tuple[Array, Array]:
    """A pass that starts at the token of site ``origins`` on a ring; the fraction accepted."""
    network = swept_network(model)
    size = network.token_size
    shift = origins // size * size if network.periodic else 0 * origins
    spins = jax.vmap(jnp.roll)(spins, -shift)
    spins, accepted, _ = environment_pass(model, spins, uniforms, distances, shift // size)
    return jax.vmap(jnp.roll)(spins, shift), jnp.mean(accepted, axis=0)
