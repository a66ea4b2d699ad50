"""Variational states: log psi of one configuration; batch with ``jax.vmap``.

``base.Network`` is the interface.  ``dysonnet`` puts together token embeddings, ``blocks`` (two
streams: phi, local and nonlinear, and h, linear once the configuration is fixed) and the ``head``;
``projection`` averages over a group, and ``symmetries`` are those of a chain.
"""

from dyson.networks.base import Network
from dyson.networks.blocks import Block
from dyson.networks.dysonnet import DysonNet
from dyson.networks.head import LogCoshHead
from dyson.networks.projection import Projection, projections, unprojected
from dyson.networks.symmetries import Reflection, SpinFlip, Translations

__all__ = [
    "Block",
    "DysonNet",
    "LogCoshHead",
    "Network",
    "Projection",
    "Reflection",
    "SpinFlip",
    "Translations",
    "projections",
    "unprojected",
]
