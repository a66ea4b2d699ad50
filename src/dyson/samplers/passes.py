"""Typewriter passes over the chain: what they propose, which way of making them pays, and the one
by full forward passes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, Int8

from dyson import scattering as env
from dyson.abacus.costs import forward_pass as forward_cost
from dyson.networks import DysonNet, Network, Projection, SpinFlip, unprojected
from dyson.samplers.base import accepts
from dyson.spins import flip

# Tokens per block and root of the features from which on environments cost less.
CROSSING = 6.5


class Plan(NamedTuple):
    """Which moves a pass proposes at every token that it visits, in order.

    masks: (moves, tokens) spins to flip, as bits of the patterns of the token and those behind it.
    """

    masks: np.ndarray
    targets: int
    first: int

    @property
    def span(self) -> int:
        return self.masks.shape[1]


def has_environments(model: Network, distances: tuple[int, ...] = ()) -> bool:
    """Whether passes over this network can use environments: decided by its type and size."""
    network = model.network if isinstance(model, SpinFlip) else model
    if not isinstance(network, DysonNet):
        return False
    return not network.periodic or plan_of(network, distances).targets > 0


class ProposalCosts(NamedTuple):
    """Multiply-adds of a proposal of a pass, by full forward passes and by environments."""

    forward: float
    environments: float | None
    """None where the network has none."""


def proposal_costs(model: Network, distances: tuple[int, ...] = ()) -> ProposalCosts:
    """What a proposal of a pass costs, of a :class:`DysonNet` or a projection of one.

    That by environments does not grow with the chain, but faster with the features than that of a
    forward pass (side by side, as a sweep makes them).  It is counted as the multiply-adds that a
    forward pass does in the time it takes, by a rule through three networks: on one core, with 8
    features and 1 block, 16 and 2, 32 and 2, the two met at about 25, 50 and 75 tokens.
    """
    network = unprojected(model)
    if not isinstance(network, DysonNet):
        raise TypeError(
            "proposal_costs: expected a DysonNet or a projection of one, got "
            f"{type(network).__name__}, of which only forward passes are known"
        )
    images = model.n_images if isinstance(model, Projection) else 1
    forward = images * forward_cost(network)
    crossing = CROSSING * network.depth * network.features**0.5
    has = has_environments(model, distances)
    return ProposalCosts(forward, forward / network.n_tokens * crossing if has else None)


def environments_pay(model: Network, distances: tuple[int, ...] = ()) -> bool:
    """Whether a pass by environments costs less than one by forward passes
    (:func:`proposal_costs`)."""
    if not has_environments(model, distances):
        return False
    forward, environments = proposal_costs(model, distances)
    return environments is not None and environments <= forward


def plan_of(network: DysonNet, distances: tuple[int, ...]) -> Plan:
    """The moves of a pass by environments: single flips, or exchanges at these distances."""
    size, half = network.token_size, env.half_window(network)
    moves = [(s, s + d) for s in range(size) for d in distances] or [(s,) for s in range(size)]
    span = 1 + max(site for move in moves for site in move) // size
    masks = np.zeros((len(moves), span), np.int32)
    for mask, move in zip(masks, moves, strict=True):
        for site in move:
            mask[site // size] += 1 << (size - 1 - site % size)
    if not network.periodic:
        return Plan(masks, network.n_tokens, 0)
    return Plan(masks, network.n_tokens - 2 * half - (span - 1), half)


def proposals(
    model: Network, distances: tuple[int, ...] = (), *, around: bool = False
) -> Int[np.ndarray, "proposals flips"]:
    """The sites that each proposal of a pass would flip.

    Single flips, or exchanges of spins the given ``distances`` apart, site after site.  By
    environments a ring is passed from end to end as if it were cut, so moves whose windows lie
    across the cut are left out, unless it is to go all ``around``.  On an open chain a partner
    beyond the end is -1: no move.
    """
    n, first, last = model.n_sites, 0, model.n_sites
    periodic = getattr(unprojected(model), "periodic", True)
    if has_environments(model, distances) and not around:
        network = swept_network(model)
        plan = plan_of(network, distances)
        first = plan.first * network.token_size
        last = first + plan.targets * network.token_size
    sites = np.arange(first, last, dtype=np.int32)
    if not distances:
        return sites[:, None]
    partners = sites[:, None] + np.array(distances, np.int32)
    partners = partners % n if periodic else np.where(partners < n, partners, -1)
    return np.stack([np.repeat(sites, len(distances)), partners.reshape(-1)], axis=1)


def forward_pass(
    model: Network,
    spins: Int8[Array, " n_sites"],
    uniforms: Float[Array, " proposals"],
    distances: tuple[int, ...] = (),
    *,
    around: bool = False,
) -> tuple[Int8[Array, " n_sites"], Bool[Array, " proposals"], Inexact[Array, " proposals"]]:
    """A pass of one chain by full forward passes: the definition of
    :func:`dyson.samplers.environment_pass.environment_pass`, or
    on a ring, where that leaves moves out, all ``around``.

    Exchanges of equal spins are no moves.  Returns the configuration, which moves were accepted,
    and log psi after each proposal.
    """

    def propose(carry: tuple[Array, Array], move: tuple[Array, Array, Array]) -> Any:
        spins, log_psi = carry
        sites, uniform, starts = move
        moved = flip(spins, sites)
        new = model(moved)
        accept = accepts(uniform, new - log_psi)
        if distances:
            accept &= (sites[1] >= 0) & (spins[sites[0]] != spins[sites[1]])
        accept |= starts
        carry = jnp.where(accept, moved, spins), jnp.where(accept, new, log_psi)
        return carry, (accept, carry[1])

    moves = proposals(model, distances, around=around)
    # The first one flips nothing and only evaluates log psi: the network is then compiled once.
    moves = jnp.asarray(np.pad(moves, ((1, 0), (0, 0)), constant_values=-1))
    uniforms = jnp.pad(uniforms, (1, 0))
    starts = jnp.arange(len(moves)) == 0
    unknown = jnp.zeros((), jax.eval_shape(model, spins).dtype)
    (spins, _), (accepted, values) = jax.lax.scan(
        propose, (spins, unknown), (moves, uniforms, starts)
    )
    return spins, accepted[1:], values[1:]


def swept_network(model: Network) -> DysonNet:
    """The network whose tokens a pass visits."""
    network = model.network if isinstance(model, SpinFlip) else model
    if not isinstance(network, DysonNet):
        raise TypeError(
            "environment_pass: expected a DysonNet or SpinFlip around one, got "
            f"{type(network).__name__}; write forward_pass for other networks"
        )
    return network
