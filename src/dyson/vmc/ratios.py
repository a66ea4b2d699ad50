"""Ratios of the amplitudes of connected configurations, kind by kind, from few references."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int8

from dyson.abacus import Abacus, AbacusPairs, keeps_neighbours, supported
from dyson.baselines import LinearTheta
from dyson.hamiltonians import Row
from dyson.networks import Network, unprojected
from dyson.updates import BoundUpdates, CachedTheta, LocalUpdates, Recompute

# Working memory for one chunk of samples.  A processor gains nothing from more than its caches
# hold; an accelerator needs the parallelism.
MEMORY_BUDGET = {"cpu": 4 * 2**20, "gpu": 4 * 2**30, "tpu": 4 * 2**30}

# Neighbouring sites up to which moves are evaluated in one window.
LONGEST_SPAN = 4


def fastest_updates(model: Network, reach: int = 0, flips: int = 1) -> LocalUpdates:
    """ABACUS where it is built for the network and pays, theta in a cache where that is linear in
    the spins, else the full forward pass.

    For moves of at most so many ``flips``, of sites up to ``reach`` apart.
    """
    if isinstance(unprojected(model), LinearTheta):
        return CachedTheta()
    near = reach == 0 or (reach < LONGEST_SPAN and keeps_neighbours(model))
    # far apart, two windows take two flips; a window that holds more of them would be a long one
    if not supported(model) or not (near or flips <= 2):
        return Recompute()
    updates = Abacus(span=1 + reach) if near else AbacusPairs()
    return updates if updates.pays(model) else Recompute()


def samples_per_chunk(*bound: BoundUpdates) -> int:
    """How many samples fit the memory budget of the default device side by side."""
    budget = MEMORY_BUDGET.get(jax.default_backend(), MEMORY_BUDGET["cpu"])
    return max(1, budget // max(1, sum(updates.bytes_per_sample() for updates in bound)))


class RowRatios(NamedTuple):
    """Local updates of a network for rows of given kinds.

    Kinds that are served by the same updates share one reference per configuration and one
    program; all single flips are evaluated once, whoever asks for them.
    """

    bound: tuple[BoundUpdates, ...]
    serves: tuple[int, ...]
    """Which of them serves each row."""
    log_psi: jnp.dtype

    def ratios(
        self, sample: Int8[Array, " n_sites"], rows: Sequence[Row]
    ) -> tuple[Inexact[Array, " c"], ...]:
        """ψ(σ') / ψ(σ) of every entry of every row, in the precision of the network; zero for an
        entry that vanishes."""
        log_ratios: dict[int, Array] = {}
        for index, bound in enumerate(self.bound):
            mine = [k for k, serving in enumerate(self.serves) if serving == index]
            log_ratios |= _log_ratios(bound, sample, {k: rows[k] for k in mine})
        # an entry that vanishes for this sample may lead out of its sector, where psi means
        # nothing and the ratio may overflow
        return tuple(
            jnp.where(row.elements == 0, 0, jnp.exp(log_ratios[k])) for k, row in enumerate(rows)
        )

    def terms(
        self, sample: Int8[Array, " n_sites"], rows: Sequence[Row]
    ) -> tuple[Inexact[Array, " c"], ...]:
        """H_σσ' ψ(σ') / ψ(σ) of every entry of every row, in the wider precision of both."""
        return products(rows, self.ratios(sample, rows))


def products(
    rows: Sequence[Row], ratios: Sequence[Inexact[Array, " c"]]
) -> tuple[Inexact[Array, " c"], ...]:
    """Elements times ratios, in the wider precision of both."""
    terms = []
    for row, ratio in zip(rows, ratios, strict=True):
        dtype = np.promote_types(ratio.dtype, row.elements.dtype)
        terms.append(row.elements.astype(dtype) * ratio.astype(dtype))
    return tuple(terms)


def _log_ratios(
    bound: BoundUpdates, sample: Int8[Array, " n_sites"], rows: dict[int, Row]
) -> dict[int, Array]:
    """Of rows that share a reference: flips of every site at once, all other moves as one list."""
    cache = bound.init(sample)
    result: dict[int, Array] = {}
    each_site = [k for k, row in rows.items() if row.each_site]
    if each_site:
        result |= dict.fromkeys(each_site, bound.single_flips(cache))
    others = {k: row.sites for k, row in rows.items() if not row.each_site}
    if others:
        width = max(sites.shape[1] for sites in others.values())
        padded = [
            jnp.pad(sites, ((0, 0), (0, width - sites.shape[1])), constant_values=-1)
            for sites in others.values()
        ]
        ratios = bound.ratios(cache, jnp.concatenate(padded))
        ends = np.cumsum([sites.shape[0] for sites in padded])
        result |= dict(zip(others, jnp.split(ratios, ends[:-1]), strict=True))
    return result


def row_ratios(
    model: Network,
    sample: Int8[Array, " n_sites"] | jax.ShapeDtypeStruct,
    rows: Sequence[Row],
    updates: LocalUpdates | None = None,
) -> RowRatios:
    """The updates for rows like these (shapes are enough): those given, or for each kind the
    cheapest, and one window for all that are near."""
    near = max((row.reach for row in rows if row.reach < LONGEST_SPAN), default=0)
    distinct: list[LocalUpdates] = []
    serves = []
    for row in rows:
        if updates is None:
            reach = near if row.reach < LONGEST_SPAN else row.reach
            chosen = fastest_updates(model, reach, flips=row.sites.shape[-1])
        else:
            chosen = updates
        if chosen not in distinct:
            distinct.append(chosen)
        serves.append(distinct.index(chosen))
    log_psi = jax.eval_shape(model, sample).dtype
    return RowRatios(tuple(each.bind(model) for each in distinct), tuple(serves), log_psi)
