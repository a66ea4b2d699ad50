"""Restricted Boltzmann machines: the common shallow networks for quantum states of spins."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, Int8

from dyson.networks import Network
from dyson.networks.dysonnet import INITIAL_SPREAD
from dyson.networks.head import from_parts, log_cosh


class LinearTheta(Network):
    """log psi = sum_i a_i sigma_i + sum_j log cosh(theta_j), theta linear in the spins.

    A flip changes theta by a column of its weights, so that exact local updates cost O(hidden) with
    theta in a cache: :class:`dyson.CachedTheta`.  Complex numbers are stored as real parameters,
    with a leading axis of one or two parts.
    """

    bias: eqx.AbstractVar[Float[Array, "parts units"]]

    @abc.abstractmethod
    def theta(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, " hidden"]:
        """The arguments of log cosh."""

    @abc.abstractmethod
    def columns(self, sites: Int[Array, " flips"]) -> Inexact[Array, "flips hidden"]:
        """The derivatives of theta by the spins of these sites."""

    @abc.abstractmethod
    def fields(self, sites: Int[Array, " flips"]) -> Inexact[Array, " flips"]:
        """a_i of these sites."""

    def __call__(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, ""]:
        name = type(self).__name__
        if spins.shape != (self.n_sites,):
            raise ValueError(
                f"{name}: expected spins of shape {(self.n_sites,)}, got {spins.shape}; use "
                "jax.vmap(model) for a batch"
            )
        fields = self.fields(jnp.arange(self.n_sites, dtype=jnp.int32))
        return jnp.sum(fields * spins.astype(fields.dtype)) + jnp.sum(log_cosh(self.theta(spins)))


class RBM(LinearTheta):
    """A restricted Boltzmann machine with ``density * n_sites`` hidden units.

        log psi = sum_i a_i sigma_i + sum_j log cosh(sum_i W_ji sigma_i + b_j)

    Cost O(density n_sites^2) per configuration and O(density n_sites) per flip with
    :class:`dyson.CachedTheta`.

    Arguments:
      n_sites: sites of the chain.
      density: hidden units per site.
      complex_weights: complex a, W and b, for states with signs.
      dtype: float32 or float64; the default float of jax if not given.
      key: for the initial parameters.
    Source: Carleo and Troyer, Science 355, 602 (2017).
    """

    weight: Float[Array, "parts hidden n_sites"]
    bias: Float[Array, "parts hidden"]
    field: Float[Array, "parts n_sites"]
    n_sites: int = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        density: int = 1,
        complex_weights: bool = False,
        dtype=None,
        key: jax.Array,
    ):
        hidden = density * n_sites
        shapes = (hidden, n_sites), (hidden,), (n_sites,)
        parameters = _start("RBM", n_sites, density, shapes, complex_weights, dtype, key)
        self.n_sites, (self.weight, self.bias, self.field) = n_sites, parameters

    def theta(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, " hidden"]:
        return from_parts(self.weight @ spins.astype(self.weight.dtype) + self.bias)

    def columns(self, sites: Int[Array, " flips"]) -> Inexact[Array, "flips hidden"]:
        return from_parts(self.weight[..., sites]).T

    def fields(self, sites: Int[Array, " flips"]) -> Inexact[Array, " flips"]:
        return from_parts(self.field[:, sites])


class SymmetricRBM(LinearTheta):
    """A restricted Boltzmann machine on a ring that does not change under translations.

        log psi = a sum_i sigma_i + sum_f sum_r log cosh(sum_i W_fi sigma_(i+r) + b_f)

    Cost O(density n_sites^2) per configuration and O(density n_sites) per flip with
    :class:`dyson.CachedTheta`.

    Arguments:
      n_sites: sites of the ring.
      density: filters f, each of which is moved to all sites.
      complex_weights, dtype, key: as in :class:`RBM`.
    Source: Carleo and Troyer, Science 355, 602 (2017), supplement.
    """

    weight: Float[Array, "parts filters n_sites"]
    bias: Float[Array, "parts filters"]
    field: Float[Array, " parts"]
    n_sites: int = eqx.field(static=True)

    def __init__(
        self,
        n_sites: int,
        *,
        density: int = 1,
        complex_weights: bool = False,
        dtype=None,
        key: jax.Array,
    ):
        shapes = (density, n_sites), (density,), ()
        parameters = _start("SymmetricRBM", n_sites, density, shapes, complex_weights, dtype, key)
        self.n_sites, (self.weight, self.bias, self.field) = n_sites, parameters

    @property
    def period(self) -> int:
        """Every translation leaves psi as it is."""
        return 1

    def theta(self, spins: Int8[Array, " n_sites"]) -> Inexact[Array, " hidden"]:
        shifts = jnp.arange(self.n_sites, dtype=jnp.int32)
        moved = jax.vmap(lambda shift: jnp.roll(spins, -shift))(shifts)  # symmetric
        theta = self.weight @ moved.astype(self.weight.dtype) + self.bias[..., None]
        return from_parts(theta).reshape(-1)

    def columns(self, sites: Int[Array, " flips"]) -> Inexact[Array, "flips hidden"]:
        shifts = jnp.arange(self.n_sites, dtype=sites.dtype)
        columns = from_parts(self.weight[..., (sites[:, None] - shifts) % self.n_sites])
        return jnp.swapaxes(columns, 0, 1).reshape(sites.shape[0], -1)

    def fields(self, sites: Int[Array, " flips"]) -> Inexact[Array, " flips"]:
        return jnp.broadcast_to(from_parts(self.field), sites.shape)


def _start(
    name: str,
    n_sites: int,
    density: int,
    shapes: tuple[tuple[int, ...], ...],
    complex_weights: bool,
    dtype,
    key: jax.Array,
) -> tuple[Array, Array, Array]:
    """Weights, biases and fields at the start.

    The biases are of order one: around theta = 0 log cosh is quadratic, and the first steps of
    natural gradient would overshoot.  No phases come from them, and no fields are there.
    """
    for argument, value in (("n_sites", n_sites), ("density", density)):
        if value < 1:
            raise ValueError(f"{name}: expected {argument} >= 1, got {value}")
    dtype = jnp.zeros(()).dtype if dtype is None else jnp.dtype(dtype)
    parts = 2 if complex_weights else 1
    weight_key, bias_key = jax.random.split(key)
    weights, biases, fields = ((parts, *shape) for shape in shapes)
    scale = jnp.asarray(INITIAL_SPREAD / n_sites / density**0.5, dtype)
    weight = scale * jax.random.normal(weight_key, weights, dtype)
    bias = jax.random.normal(bias_key, biases, dtype).at[1:].set(0)
    return weight, bias, jnp.zeros(fields, dtype)
