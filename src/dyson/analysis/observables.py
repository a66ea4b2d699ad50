"""What is measured: local values of one configuration, and what is made of their means.

Every :class:`dyson.Hamiltonian` is an observable, and so is a function of the spins; here are those
that are neither.  σ are Pauli matrices; letters X, Y and Z stand for the axes.
"""

import abc
from collections.abc import Callable
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int8, PyTree

from dyson.hamiltonians import Hamiltonian, Row
from dyson.vmc.statistics import v_score

Terms = tuple[Inexact[Array, " c"], ...]
"""For each of the rows, elements times ratios of amplitudes."""


class Observable(eqx.Module):
    """Local values o(σ), whose means over samples of |ψ|² are taken, and a function of the means.

    A local value may need the ratios ψ(σ')/ψ(σ) of configurations that differ on a few sites: they
    are asked for as ``rows``, like those of a Hamiltonian, and come as elements times ratios.
    """

    n_sites: eqx.AbstractVar[int]

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        """Configurations whose ratios are needed; none if not said otherwise."""
        return ()

    @abc.abstractmethod
    def local(self, spins: Int8[Array, " n"], terms: Terms) -> PyTree[Array]:
        """Numbers or arrays, real or complex."""

    def of_means(self, means: PyTree[Array]) -> PyTree[Array]:
        """The values, from the means of what is local: real parts if not said otherwise."""
        return jax.tree.map(jnp.real, means)


class TwoCopies(eqx.Module):
    """An observable of two independent configurations at a time."""

    n_sites: eqx.AbstractVar[int]

    @abc.abstractmethod
    def local_of_two(
        self,
        log_psi: Callable[[Array], Array],
        first: Int8[Array, " n"],
        second: Int8[Array, " n"],
    ) -> PyTree[Array]:
        """Numbers or arrays, real or complex."""

    @abc.abstractmethod
    def of_means(self, means: PyTree[Array]) -> PyTree[Array]:
        """The values, from the means of what is local."""


@final
class Operator(Observable):
    """⟨A⟩ of a Hermitian operator given by its rows."""

    operator: Hamiltonian

    def __init__(self, operator: Hamiltonian):
        self.operator = operator

    @property
    def n_sites(self) -> int:
        return self.operator.n_sites

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        return self.operator.rows(spins)

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> Inexact[Array, ""]:
        return local_value(self.operator, spins, terms)


@final
class Energy(Observable):
    """⟨H⟩, the variance ⟨H²⟩ - ⟨H⟩² and the V-score of an energy, as a dictionary.

    The second moment is the mean of |E_loc|², so that it costs nothing on top of the first.
    """

    hamiltonian: Hamiltonian

    def __init__(self, hamiltonian: Hamiltonian):
        self.hamiltonian = hamiltonian

    @property
    def n_sites(self) -> int:
        return self.hamiltonian.n_sites

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        return self.hamiltonian.rows(spins)

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> tuple[Array, Array]:
        energy = local_value(self.hamiltonian, spins, terms)
        return energy, jnp.abs(energy) ** 2

    def of_means(self, means: tuple[Array, Array]) -> dict[str, Array]:
        energy = jnp.real(means[0])
        variance = means[1] - jnp.abs(means[0]) ** 2
        infinity = jnp.asarray(self.hamiltonian.trace_per_dimension, energy.dtype)
        score = v_score(self.n_sites, energy, variance, infinity)
        return {"energy": energy, "variance": variance, "v_score": score}


@final
class SpinFunction(Observable):
    """A function of the spins, diagonal in σᶻ: what an own function becomes."""

    function: Callable[[Array], PyTree[Array]] = eqx.field(static=True)
    n_sites: int = eqx.field(static=True)

    def __init__(self, function: Callable[[Array], PyTree[Array]], n_sites: int):
        self.function, self.n_sites = function, n_sites

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> PyTree[Array]:
        return self.function(spins)


@final
class Magnetisation(Observable):
    r"""M = Σ_i w_i σᶻ_i / n and its powers: a dictionary of

        mean ⟨M⟩, modulus ⟨|M|⟩, square ⟨M²⟩, fourth ⟨M⁴⟩, binder 1 - ⟨M⁴⟩ / 3⟨M²⟩².

    **Arguments**
      n_sites: sites.
      weights: w_i, (n_sites,); ones if not given, ``(-1.0) ** np.arange(n)`` for the staggered one.

    Along other axes ⟨M⟩ is ``PauliStrings(n, [("X", 1 / n)])``.
    """

    weights: Float[Array, " n"]
    n_sites: int = eqx.field(static=True)

    def __init__(self, n_sites: int, weights: Any = None):
        values = np.ones(n_sites) if weights is None else np.asarray(weights)
        if values.shape != (n_sites,):
            raise ValueError(
                f"Magnetisation: expected weights of shape ({n_sites},), got {values.shape}"
            )
        self.weights, self.n_sites = jnp.asarray(values, dtype=float), n_sites

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> dict[str, Array]:
        m = jnp.mean(self.weights * spins.astype(self.weights.dtype))
        return {"mean": m, "modulus": jnp.abs(m), "square": m**2, "fourth": m**4}

    def of_means(self, means: dict[str, Array]) -> dict[str, Array]:
        return means | {"binder": 1 - means["fourth"] / (3 * means["square"] ** 2)}


@final
class Function(Observable):
    """A function of the values of other observables; its error bar is that of its linear part.

    ``Function(lambda x: x["zz"] - x["z"] ** 2, {"zz": …, "z": …}, n_sites)``.
    """

    function: Callable[[Any], PyTree[Array]] = eqx.field(static=True)
    parts: Any
    """Observables, Hamiltonians and functions of the spins."""
    n_sites: int = eqx.field(static=True)

    def __init__(self, function: Callable[[Any], PyTree[Array]], parts: Any, n_sites: int):
        self.function, self.n_sites = function, n_sites
        self.parts = jax.tree.map(lambda x: observed(x, n_sites), parts, is_leaf=is_observable)
        if any(isinstance(part, TwoCopies) for part in self._leaves()):
            raise TypeError("Function: expected observables of one configuration, got one of two")

    def rows(self, spins: Int8[Array, " n"]) -> tuple[Row, ...]:
        return sum((part.rows(spins) for part in self._leaves()), ())

    def local(self, spins: Int8[Array, " n"], terms: Terms) -> list[PyTree[Array]]:
        rest, values = list(terms), []
        for part in self._leaves():
            own = len(jax.eval_shape(part.rows, spins))
            values.append(part.local(spins, tuple(rest[:own])))
            rest = rest[own:]
        return values

    def of_means(self, means: list[PyTree[Array]]) -> PyTree[Array]:
        values = [part.of_means(x) for part, x in zip(self._leaves(), means, strict=True)]
        structure = jax.tree.structure(self.parts, is_leaf=is_observable)
        return self.function(jax.tree.unflatten(structure, values))

    def _leaves(self) -> list[Any]:
        return jax.tree.leaves(self.parts, is_leaf=is_observable)


@final
class Renyi2(TwoCopies):
    r"""Rényi entropies S₂ = -log Tr ρ_A² of any regions A, in nats, by swapping them between two
    copies,

        Tr ρ_A² = ⟨ψ(σ_A τ_B) ψ(τ_A σ_B) / ψ(σ) ψ(τ)⟩,

    with σ and τ from different chains: half of the chains are paired with the other half.  Its
    spread grows like exp(S₂): error bars tell.  M. Hastings et al., PRL 104, 157201 (2010).

    **Arguments** `regions` (cuts, n_sites), true inside of A.
    **Cost** two forward passes per cut and pair.
    """

    regions: Bool[Array, "cuts n"]
    n_sites: int = eqx.field(static=True)

    def __init__(self, regions: Any):
        values = np.asarray(regions)
        if values.ndim != 2 or values.dtype != bool:
            raise ValueError(
                "Renyi2: expected regions as an array of bool of shape (cuts, n_sites), got "
                f"{values.dtype} of shape {values.shape}; write regions[None] for one cut"
            )
        self.regions, self.n_sites = jnp.asarray(values), values.shape[1]

    def local_of_two(
        self,
        log_psi: Callable[[Array], Array],
        first: Int8[Array, " n"],
        second: Int8[Array, " n"],
    ) -> Inexact[Array, " cuts"]:
        before = log_psi(first) + log_psi(second)

        def swapped(region: Bool[Array, " n"]) -> Inexact[Array, ""]:
            one, other = jnp.where(region, first, second), jnp.where(region, second, first)
            return jnp.exp(log_psi(one) + log_psi(other) - before)

        return jax.vmap(swapped)(self.regions)

    def of_means(self, means: Inexact[Array, " cuts"]) -> Float[Array, " cuts"]:
        return -jnp.log(jnp.real(means))


def local_value(
    operator: Hamiltonian, spins: Int8[Array, " n"], terms: Terms
) -> Inexact[Array, ""]:
    """Diagonal entry plus all terms of a row."""
    total = operator.diagonal(spins)
    for term in terms:
        dtype = np.promote_types(total.dtype, term.dtype)
        total = total.astype(dtype) + jnp.sum(term).astype(dtype)
    return total


def observed(observable: Any, n_sites: int) -> Observable | TwoCopies:
    """What a leaf of a tree of observables stands for; `TypeError` for anything else."""
    if isinstance(observable, Observable | TwoCopies):
        return observable
    if isinstance(observable, Hamiltonian):
        return Operator(observable)
    if callable(observable):
        return SpinFunction(observable, n_sites)
    raise TypeError(
        "expected an observable, a Hamiltonian or a function of the spins, got "
        f"{type(observable).__name__}"
    )


def is_observable(leaf: Any) -> bool:
    """Where the leaves of a tree of observables are."""
    return isinstance(leaf, Observable | TwoCopies | Hamiltonian) or callable(leaf)
