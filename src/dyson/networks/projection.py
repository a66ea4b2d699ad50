"""Projection of a network on the sector of trivial symmetry: amplitudes averaged over a group."""

import abc
import functools
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, Int8

from dyson.networks.base import Network


class Projection(Network):
    """The mean of psi over the images of a configuration, of any network or projection.

    Local updates stay local: every image is updated separately and the amplitudes are combined, so
    the cost grows with the number of images and nothing becomes approximate.
    """

    network: Network

    @property
    def n_sites(self) -> int:
        return self.network.n_sites

    @property
    def n_images(self) -> int:
        one_site = jax.ShapeDtypeStruct((1,), jnp.int32)
        return jax.eval_shape(self.image_sites, one_site).shape[0]

    @abc.abstractmethod
    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "own n_sites"]:
        """The configurations under this symmetry alone, the first of them ``spins`` itself."""

    @abc.abstractmethod
    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "own flips"]:
        """Where the given sites (padded with -1) lie in those."""

    def images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "images n_sites"]:
        """The configurations whose amplitudes are averaged, the first of them ``spins`` itself."""
        images = self.own_images(spins)
        if isinstance(self.network, Projection):
            images = jax.vmap(self.network.images)(images)
        return images.reshape(-1, self.n_sites)

    def image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "images flips"]:
        """Where the given sites (padded with -1) lie in the images."""
        moved = self.own_image_sites(sites)
        if isinstance(self.network, Projection):
            moved = jax.vmap(self.network.image_sites)(moved)
        return moved.reshape(-1, sites.shape[0])

    def combine(self, log_terms: Inexact[Array, " images"]) -> Inexact[Array, ""]:
        """log of the mean of exp(log_terms)."""
        count = jnp.asarray(log_terms.shape[0], log_terms.dtype)
        return functools.reduce(jnp.logaddexp, log_terms) - jnp.log(count)

    def resized(self, n_sites: int) -> "Projection":
        """The projection of the resized network."""
        return eqx.tree_at(lambda p: p.network, self, self.network.resized(n_sites))

    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        return self.combine(jax.vmap(unprojected(self))(self.images(spins)))


@final
class SpinFlip(Projection):
    """psi(sigma) + psi(-sigma) of a network, halved.

    Without it a network trained on a Hamiltonian that commutes with the global flip converges to a
    mixture of parity sectors.
    """

    def __init__(self, network: Network):
        self.network = network

    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "2 n_sites"]:
        return jnp.stack([spins, -spins])

    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "2 flips"]:
        return jnp.stack([sites, sites])


@final
class Translations(Projection):
    """The mean over translations by fewer sites than a token has.

    A network on a ring is invariant under translations by whole tokens as it is; with this it is
    under all of them: momentum zero.  One image per spin of a token.
    """

    def __init__(self, network: Network):
        inner = unprojected(network)
        if not getattr(inner, "periodic", False) or not hasattr(inner, "token_size"):
            raise ValueError(
                "Translations: expected a network of tokens on a ring, got "
                f"{type(inner).__name__} on an open chain or without tokens; "
                "write DysonNet(n_sites, periodic=True, ...)"
            )
        if getattr(inner, "embed_sites", None) is not None:
            raise ValueError(
                "Translations: expected a network that does not know where a token is; "
                "leave site_embedding out of DysonNet"
            )
        self.network = network

    @property
    def _shifts(self) -> range:
        return range(unprojected(self).token_size)  # pyright: ignore[reportAttributeAccessIssue]

    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "own n_sites"]:
        return jnp.stack([jnp.roll(spins, shift) for shift in self._shifts])

    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "own flips"]:
        moved = [(sites + shift) % self.n_sites for shift in self._shifts]
        return jnp.stack([jnp.where(sites < 0, sites, x) for x in moved])


def unprojected(model: Network) -> Network:
    """The network within all projections."""
    while isinstance(model, Projection):
        model = model.network
    return model
