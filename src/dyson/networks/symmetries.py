"""The sectors of a chain: parity under the global flip, momentum, parity under reflection."""

from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, Int8

from dyson.fields import with_fields
from dyson.networks.base import Network
from dyson.networks.projection import Projection, projections, unprojected


@final
class SpinFlip(Projection):
    """[psi(sigma) + parity psi(-sigma)] / 2: states with psi(-sigma) = parity psi(sigma).

    Without it a network trained on a Hamiltonian that commutes with the global flip converges to a
    mixture of parity sectors.  Two images.

    Arguments:
      network: any network or projection.
      parity: 1 for the even sector, -1 for the odd one, in which log psi is complex.
    """

    parity: int = eqx.field(static=True)

    def __init__(self, network: Network, parity: int = 1):
        self.network, self.parity = network, _checked_parity("SpinFlip", parity)

    @property
    def own_weights(self) -> np.ndarray:
        return np.array([1.0, self.parity])

    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "2 n_sites"]:
        return jnp.stack([spins, -spins])

    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "2 flips"]:
        return jnp.stack([sites, sites])


@final
class Reflection(Projection):
    """[psi(sigma_1 .. sigma_n) + parity psi(sigma_n .. sigma_1)] / 2: states of this parity when
    the chain is read backwards.

    Two images.  On a ring it goes with momentum 0 or pi, other momenta change their sign.

    Arguments:
      network: any network or projection.
      parity: 1 or -1, with which log psi is complex.
    """

    parity: int = eqx.field(static=True)

    def __init__(self, network: Network, parity: int = 1):
        self.network, self.parity = network, _checked_parity("Reflection", parity)
        if parity == -1 and unprojected(network).mirror_symmetric:
            raise ValueError(
                "Reflection: the odd part of a network that is the same read backwards is zero; "
                "write DysonNet with kernel_size=3 or more"
            )
        _check_momentum("Reflection", network, True)

    @property
    def own_weights(self) -> np.ndarray:
        return np.array([1.0, self.parity])

    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "2 n_sites"]:
        return jnp.stack([spins, spins[::-1]])

    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "2 flips"]:
        return jnp.stack([sites, jnp.where(sites < 0, sites, self.n_sites - 1 - sites)])


@final
class Translations(Projection):
    """The mean of exp(-i k r) psi(T^r sigma), T sigma = ``jnp.roll(sigma, 1)``: states of the ring
    with psi(T sigma) = exp(i k) psi(sigma), k = 2 pi momentum / n_sites.

    A DysonNet on a ring is invariant under translations by whole tokens as it is: with one image
    per spin of a token, k is then a multiple of 2 pi / token_size, and zero with single spins.  For
    any other k the network has to tell the sites apart, as a DysonNet with a site embedding, one on
    an open chain, or a ViT does; all n_sites translations are its images.

    Arguments:
      network: any network or projection.
      momentum: k in units of 2 pi / n_sites, an integer.  log psi is complex except for k = 0.
    Raises `ValueError` for momenta that the network cannot have.
    """

    momentum: int = eqx.field(static=True)

    def __init__(self, network: Network, momentum: int = 0):
        if not isinstance(momentum, int):
            raise TypeError(
                "Translations: expected momentum to be an integer, in units of 2 pi / n_sites, got "
                f"{momentum!r}"
            )
        n_sites, period = network.n_sites, unprojected(network).period
        self.network, self.momentum = network, momentum % n_sites
        if self.momentum * period % n_sites:
            raise ValueError(
                f"Translations: expected a momentum that is a multiple of {n_sites // period}, got "
                f"{momentum}: psi of this network does not change under translations by {period} "
                "of its sites, and its other momenta are zero; write "
                "DysonNet(..., site_embedding=True, site_spread=0.3)"
            )
        _check_sites_differ(network, self.momentum)
        _check_momentum("Translations", self, any(_reflections(network)))

    @property
    def _shifts(self) -> np.ndarray:
        return np.arange(unprojected(self).period, dtype=np.int32)

    @property
    def own_weights(self) -> np.ndarray:
        turns = self.momentum * self._shifts.astype(int)
        if 2 * self.momentum % self.n_sites == 0:
            return 1.0 - 2 * (2 * turns // self.n_sites % 2)
        return np.exp(-2j * np.pi * (turns % self.n_sites) / self.n_sites)

    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "own n_sites"]:
        return jax.vmap(lambda shift: jnp.roll(spins, shift))(jnp.asarray(self._shifts))

    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "own flips"]:
        shifts = jnp.asarray(self._shifts, sites.dtype)[:, None]
        return jnp.where(sites < 0, sites, (sites + shifts) % self.n_sites)

    def resized(self, n_sites: int) -> "Translations":
        """The projection of the resized network on the same wave number k."""
        momentum, rest = divmod(self.momentum * n_sites, self.n_sites)
        if rest:
            raise ValueError(
                f"Translations.resized: expected a ring that has the wave number 2 pi "
                f"{self.momentum}/{self.n_sites}, got {n_sites} sites; write a multiple of "
                f"{self.n_sites // np.gcd(self.momentum, self.n_sites)}"
            )
        return with_fields(self, network=self.network.resized(n_sites), momentum=momentum)


def _reflections(model: Network) -> list[Projection]:
    return [p for p in projections(model) if isinstance(p, Reflection)]


def _checked_parity(name: str, parity: int) -> int:
    if parity not in (1, -1):
        raise ValueError(f"{name}: expected parity 1 or -1, got {parity!r}")
    return parity


def _check_momentum(name: str, model: Network, reflected: bool) -> None:
    """Reflection turns k into -k: their characters multiply where these are the same."""
    for layer in projections(model):
        if reflected and isinstance(layer, Translations) and 2 * layer.momentum % layer.n_sites:
            raise ValueError(
                f"{name}: expected momentum 0 or pi with Reflection, which turns k into -k, got "
                f"momentum={layer.momentum} of {layer.n_sites} sites; leave one of them out"
            )


def _check_sites_differ(network: Network, momentum: int) -> None:
    """A site embedding is zero unless it was drawn or trained."""
    places = getattr(unprojected(network), "embed_sites", None)
    known = isinstance(places, jax.Array) and not isinstance(places, Tracer)
    if momentum and known and not np.any(np.asarray(places)):
        raise ValueError(
            "Translations: the site embedding of this network is zero, and so is what it has of "
            f"momentum {momentum}; write DysonNet(..., site_embedding=True, site_spread=0.3)"
        )
