"""ABACUS as a user asks for it, and which way of updating serves a network."""

from collections.abc import Callable
from typing import Any, ClassVar, final

import equinox as eqx

from dyson.abacus.bound import AbacusUpdates, NetworkUpdates, ProjectedUpdates
from dyson.abacus.costs import links_pay, pairs_pay, windows_pay
from dyson.abacus.forward import ForwardUpdates
from dyson.abacus.links.reference import link_bandwidth
from dyson.abacus.links.updates import LinkUpdates
from dyson.abacus.pairs import PairUpdates, pair_partition
from dyson.abacus.windows import WindowUpdates
from dyson.networks import DysonNet, Network, Projection, Translations, projections, unprojected
from dyson.scattering import Partition, half_window, partition_of
from dyson.updates import LocalUpdates


@final
class Abacus(LocalUpdates):
    """Exact ratios from a cached reference: Theorem 1 of arXiv:2603.11189.

    ``propose`` touches the window of the move only, O(features^2), for any size of the chain;
    ``single_flips`` shares one reference among all flips.

    Works for :class:`DysonNet` of every depth and for projections of one (which keep one reference
    per image).  The flipped sites must lie among ``span`` neighbouring sites; a move that does not
    fit the tokens of these gives NaN rather than a wrong ratio.  Translations of an open chain tear
    spans of more than one site apart: ``bind`` raises ValueError, write :class:`AbacusPairs`.

    Up to depth 2 a cache holds link tensors, for deeper networks windows within what surrounds
    them; on chains that windows would cover, the configuration alone.  ``init`` costs O(n).
    """

    takes_any_flips: ClassVar[bool] = False
    rebuilds: ClassVar[bool] = True
    span: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if not isinstance(self.span, int) or self.span < 1:
            raise ValueError(
                f"Abacus: expected span >= 1, got {self.span}; for pairs at any distance write "
                "dyson.AbacusPairs()"
            )

    def bind(self, model: Network) -> AbacusUpdates:
        network = _dysonnet("Abacus", model)
        span = self._tokens(network)
        if self.span > 1 and not keeps_neighbours(model):
            raise ValueError(
                f"Abacus: span={self.span} of an open chain within Translations, which move its "
                "ends next to each other; write dyson.AbacusPairs() for pairs, dyson.Recompute() "
                "for more flips"
            )
        if network.depth <= 2:
            return _projected(model, _made(LinkUpdates, network, span))
        parts = _partition(network, span)
        if parts is None:
            return _projected(model, ForwardUpdates(network, span))
        return _projected(model, _made(WindowUpdates, network, parts))

    def pays(self, model: Network) -> bool:
        """Whether the flips of all sites, or as many moves within the span, cost less than as many
        forward passes (:mod:`dyson.abacus.costs`); nothing is computed."""
        network = _dysonnet("Abacus", model)
        span = self._tokens(network)
        if network.depth <= 2:
            return links_pay(network, link_bandwidth(network, span), listed=self.span > 1)
        parts = _partition(network, span)
        return parts is not None and windows_pay(network, parts)

    def _tokens(self, network: DysonNet) -> int:
        """Those that hold so many neighbouring sites wherever the first of these lies, as it does
        somewhere else in every translated image."""
        return 1 + -(-(self.span - 1) // network.token_size)


@final
class AbacusPairs(LocalUpdates):
    """Exact ratios of one or two flips at any distance, as :class:`Abacus` otherwise.

    A cache holds windows and the segments between and around any two of them; on chains that these
    would cover, the configuration alone.  ``init`` costs O(n log n), ``propose`` O(features^2).
    """

    takes_any_flips: ClassVar[bool] = False
    rebuilds: ClassVar[bool] = True

    def bind(self, model: Network) -> AbacusUpdates:
        network = _dysonnet("AbacusPairs", model)
        parts = _partition_for_pairs(network)
        if parts is None:
            return _projected(model, ForwardUpdates(network, None))
        return _projected(model, _made(PairUpdates, network, parts))

    def pays(self, model: Network) -> bool:
        """Whether a move costs less than a forward pass; nothing is computed."""
        network = _dysonnet("AbacusPairs", model)
        parts = _partition_for_pairs(network)
        return parts is not None and pairs_pay(network, parts)


def supported(model: Any) -> bool:
    """Whether exact local updates are built for this network."""
    return isinstance(unprojected(model), DysonNet)


def keeps_neighbours(model: Network) -> bool:
    """Whether neighbouring sites stay neighbours in every image of a projected network."""
    moved = any(isinstance(p, Translations) for p in projections(model))
    return not moved or getattr(unprojected(model), "periodic", True)


def _partition(network: DysonNet, span: int) -> Partition | None:
    """For moves of ``span`` neighbouring tokens."""
    half = half_window(network)
    return partition_of(network.n_tokens, half, span, periodic=network.periodic)


def _partition_for_pairs(network: DysonNet) -> Partition | None:
    half = half_window(network)
    return pair_partition(network.n_tokens, half, periodic=network.periodic)


@eqx.filter_jit
def _made(kind: Callable[..., NetworkUpdates], network: DysonNet, size: Any) -> NetworkUpdates:
    """With its tables, in one program."""
    return kind(network, size)


def _projected(model: Network, updates: NetworkUpdates) -> AbacusUpdates:
    return ProjectedUpdates(model, updates) if isinstance(model, Projection) else updates


def _dysonnet(name: str, model: Network) -> DysonNet:
    network = unprojected(model)
    if not isinstance(network, DysonNet):
        raise TypeError(
            f"{name}: expected a DysonNet or a projection of one, got {type(network).__name__}; "
            "use dyson.Recompute() for other networks"
        )
    return network
