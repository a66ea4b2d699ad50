"""Projection of a network on a sector: amplitudes averaged over a group with its characters."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int, Int8

from dyson.networks.base import Network

# On longer chains every combination of characters has states, by enumeration of the small ones:
# some configuration is changed by every symmetry.
MOST_SITES_OF_EMPTY_SECTORS = 6

# A mean of terms that is less than so many times eps of the largest one is zero.  The terms are
# exponentials of numbers up to a hundred or so, whose round-off they multiply.
ROUND_OFF = 100


class Projection(Network):
    """The mean of w_g psi(g sigma) over the symmetries g, of any network or projection.

    The weights w_g are the characters of the sector.  Local updates stay local: every image is
    updated separately and the amplitudes are combined, so the cost grows with the number of images
    and nothing becomes approximate.

    log psi is real for a real network where all weights are 1, else complex: log|psi| + i pi where
    a real psi is negative.  At a *node*, where the terms cancel to exactly 0, it is -inf: moves to
    there have the log-ratio -inf and moves away +inf, so that a Markov chain leaves a node at once
    and never enters one; from node to node it is NaN, which no sampler accepts.  Local energies and
    derivatives of log psi at a node are not finite.  Terms that cancel but for round-off make one
    too (``ROUND_OFF``): what is left of them differs from program to program, derivatives included.

    Raises `ValueError` where nothing would be left: a symmetry twice, characters that do not
    multiply (reflection with a momentum other than 0 and pi), sectors of chains of up to six sites
    that have no states.
    """

    network: Network

    @property
    def n_sites(self) -> int:
        return self.network.n_sites

    @property
    def n_images(self) -> int:
        return self.weights.size

    @property
    def weights(self) -> np.ndarray:
        """(images,) what the amplitudes of the images are multiplied by, real or complex."""
        own = self.own_weights
        if isinstance(self.network, Projection):
            return np.multiply.outer(own, self.network.weights).ravel()
        return own

    @property
    @abc.abstractmethod
    def own_weights(self) -> np.ndarray:
        """(own,) the weights of this symmetry alone, the first of them 1; floats or complex."""

    @abc.abstractmethod
    def own_images(self, spins: Int8[Array, " n_sites"]) -> Int8[Array, "own n_sites"]:
        """The configurations under this symmetry alone, the first of them ``spins`` itself."""

    @abc.abstractmethod
    def own_image_sites(self, sites: Int[Array, " flips"]) -> Int[Array, "own flips"]:
        """Where the given sites (padded with -1) lie in those."""

    def __check_init__(self):
        name, others = type(self).__name__, [type(p) for p in projections(self.network)]
        if type(self) in others:
            raise ValueError(
                f"{name}: expected a network that is not in a sector of this symmetry yet, got "
                f"{name} within; leave one of them out"
            )
        if self._is_empty():
            raise ValueError(
                f"{name}: no state of {self.n_sites} sites has these characters together with those"
                " of the symmetries within; expected more sites or other characters"
            )

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
        """log of the mean of weight times exp(log_term)."""
        weights = self.weights
        top = jax.lax.stop_gradient(jnp.max(jnp.real(log_terms)))
        top = jnp.where(jnp.isfinite(top), top, 0)
        terms = jnp.exp(log_terms - top.astype(log_terms.dtype))
        if np.iscomplexobj(weights):
            terms = terms.astype(np.result_type(terms.dtype, np.complex64))
        mean = jnp.mean(jnp.asarray(weights, terms.dtype) * terms)
        if jnp.iscomplexobj(mean) or not np.all(weights == 1):
            cancelled = jnp.abs(mean) < ROUND_OFF * float(jnp.finfo(mean.dtype).eps)
            mean = jnp.where(cancelled, 0, mean)
        if jnp.iscomplexobj(mean) or np.all(weights == 1):
            return jnp.log(mean) + top.astype(mean.dtype)
        phase = jnp.where(mean < 0, jnp.asarray(np.pi, mean.dtype), 0)
        return jax.lax.complex(jnp.log(jnp.abs(mean)) + top, phase)

    def log_ratio(
        self,
        log_terms: Inexact[Array, " images"],
        changes: Inexact[Array, " images"],
        log_psi: Inexact[Array, ""],
    ) -> Inexact[Array, ""]:
        """What changes of the terms add to log psi, which is ``combine(log_terms)``."""
        # Referring the terms to psi first avoids the cancellation of two large logarithms; at a
        # node there is nothing to refer to.
        size = jnp.real(log_psi)
        size = jnp.where(jnp.isfinite(size), size, 0)
        terms = log_terms - size.astype(log_terms.dtype) + changes
        return self.combine(terms) - (log_psi - size.astype(log_psi.dtype))

    def resized(self, n_sites: int) -> "Projection":
        """The projection of the resized network."""
        return eqx.tree_at(lambda p: p.network, self, self.network.resized(n_sites))

    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        return self.combine(jax.vmap(unprojected(self))(self.images(spins)))

    def _is_empty(self) -> bool:
        """Whether no configuration is left, translations that change nothing within included: the
        weights of the symmetries that keep a configuration cancel, for each of them."""
        n = self.n_sites
        if n > MOST_SITES_OF_EMPTY_SECTORS or np.all(self.weights == 1):
            return False
        spins = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.int8)
        with jax.ensure_compile_time_eval():
            images = np.asarray(jax.jit(jax.vmap(self.images))(jnp.asarray(spins)))
        shifts = np.arange(0, n, unprojected(self).period)
        moved = images[..., (np.arange(n) + shifts[:, None]) % n]
        kept = np.all(moved == spins[:, None, None], axis=-1)
        return bool(np.max(np.abs(np.einsum("sgt,g->s", kept, self.weights))) < 1e-9)


def projections(model: Network) -> list[Projection]:
    """All that a network is wrapped in, from the outermost inwards."""
    found = []
    while isinstance(model, Projection):
        found.append(model)
        model = model.network
    return found


def unprojected(model: Network) -> Network:
    """The network within all projections."""
    while isinstance(model, Projection):
        model = model.network
    return model
