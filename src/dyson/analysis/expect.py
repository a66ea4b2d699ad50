"""Expectation values with error bars, of any tree of observables, in one pass over the samples."""

import warnings
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, Int8, PyTree

from dyson.analysis.observables import Observable, TwoCopies, is_observable, observed
from dyson.batching import in_chunks
from dyson.devices import at_samples, everywhere
from dyson.hamiltonians import Row
from dyson.networks import Network
from dyson.updates import LocalUpdates
from dyson.vmc.ratios import row_ratios, samples_per_chunk
from dyson.vmc.statistics import DiagnosticWarning, Estimate, estimate_mean, if_moved


def expect(
    observables: Any,
    model: Network,
    spins: Int8[Array, "n_chains length n_sites"],
    *,
    magnetisation: int | None = None,
    updates: LocalUpdates | None = None,
    chunk_size: int | None = None,
) -> Any:
    """Value, error bar, τ and R̂ of every observable, as :class:`dyson.statistics.Estimate`.

    All of them are evaluated on the same samples, and configurations that several need share one
    reference.  Error bars contain the autocorrelation of the chains; of values that are functions
    of means, as a Binder cumulant, they are those of the linear part of that function (the delta
    method), and ``variance`` is that of the linear part for one sample.

    Arguments:
      observables: any tree of Hamiltonians, functions of the spins (n_sites,) of one configuration,
        and :class:`dyson.Observable`, of which :mod:`dyson.analysis` has many.
      model: the state.
      spins: samples of |psi|^2 by chain, as ``VMC.sample`` returns them.
      magnetisation: where the chains stay in one sector (``sampler.magnetisation``), which one:
        amplitudes outside of it count as zero, for there psi is not that of the state.
      updates, chunk_size: as in :func:`dyson.local_energies`.

    Returns the same tree with an estimate for each observable, or a tree of them where it has many
    values; fields of an array have its shape.

    Warns with :class:`dyson.vmc.statistics.DiagnosticWarning` where all samples have the same
    magnetisation and none was given.  Raises `TypeError` for what is no observable, `ValueError`
    for sizes that do not fit.

    Cost: per sample what the observables say, each ratio O(1) with ABACUS.
    """
    chosen, structure = checked(observables, model, spins, magnetisation)
    within = magnetisation is not None
    local = local_values(chosen, updates, chunk_size, within, everywhere(model), spins)
    moving = jnp.any(spins != spins[:1, :1])
    return jax.tree.unflatten(structure, estimated(chosen, local, moving))


Chosen = list[Observable | TwoCopies]


def checked(
    observables: Any, model: Network, spins: Array, magnetisation: int | None
) -> tuple[Chosen, Any]:
    """The observables of a tree in a row, and the tree; refuses what does not fit."""
    leaves, structure = jax.tree.flatten(observables, is_leaf=is_observable)
    if not isinstance(spins, jax.Array | np.ndarray):
        raise TypeError(
            f"expect: expected spins (n_chains, length, n_sites), got {type(spins).__name__}; "
            "write samples.spins"
        )
    if spins.ndim != 3:
        raise ValueError(
            f"expect: expected spins of shape (n_chains, length, n_sites), got {spins.shape}; "
            "write spins[None] for a single chain"
        )
    n_sites = spins.shape[2]
    chosen = [observed(leaf, n_sites) for leaf in leaves]
    for each in (*chosen, model):
        if getattr(each, "n_sites", n_sites) != n_sites:
            raise ValueError(
                f"expect: the samples have {n_sites} sites, {type(each).__name__} has "
                f"{each.n_sites}"
            )
    _check_sector(chosen, spins, magnetisation)
    return chosen, structure


def estimates(observable: Any, local: PyTree[Array]) -> PyTree[Estimate]:
    """Estimates of the values of an observable from its local values, arrays (chains, steps, …).

    ``observable.of_means`` is expanded at the means; what it makes of the deviations is a series
    whose mean is zero and whose error is that of the value.
    """
    local = jax.tree.map(_inexact, local)
    # shifting by one of the values first keeps digits, and makes a constant exactly constant
    shifted = jax.tree.map(lambda x: x - x[:1, :1], local)
    offset = jax.tree.map(lambda x: jnp.mean(x, axis=(0, 1)), shifted)
    means = jax.tree.map(lambda x, o: x[0, 0] + o, local, offset)
    deviations = jax.tree.map(lambda x, o: x - o, shifted, offset)
    values, linear = jax.linearize(observable.of_means, means)
    series = jax.vmap(jax.vmap(linear))(deviations)
    return jax.tree.map(_estimate, values, series)


@eqx.filter_jit
def local_values(
    observables: Chosen,
    updates: LocalUpdates | None,
    chunk_size: int | None,
    within: bool,
    model: Network,
    spins: Int8[Array, "n_chains length n_sites"],
) -> list[PyTree[Array]]:
    """Of every observable on every sample: arrays (chains, length, ...), or of half as many chains
    where it takes two copies.  ``within``: no moves that change the magnetisation."""
    single = [x for x in observables if isinstance(x, Observable)]
    double = [x for x in observables if isinstance(x, TwoCopies)]
    local = iter(_by_chain(_of_samples(single, updates, chunk_size, within), model, spins))
    half = spins.shape[0] // 2
    of_pairs = iter([])
    if double:
        if not half:
            raise ValueError("expect: two copies of a state are samples of at least two chains")
        pairs = jnp.stack([spins[:half], spins[half : 2 * half]], axis=2)
        of_pairs = iter(_by_chain(_values_of_pairs(double, chunk_size), model, pairs))
    return [next(local if isinstance(each, Observable) else of_pairs) for each in observables]


@eqx.filter_jit
def estimated(
    observables: Chosen, local: list[PyTree[Array]], moving: Array
) -> list[PyTree[Estimate]]:
    """From the local values of samples that move, or do not."""
    found = [estimates(each, values) for each, values in zip(observables, local, strict=True)]
    known = lambda estimate: if_moved(moving, estimate)
    return jax.tree.map(known, found, is_leaf=lambda x: isinstance(x, Estimate))


def _of_samples(
    observables: list[Observable],
    updates: LocalUpdates | None,
    chunk_size: int | None,
    within: bool,
):
    """As a function of the model and of samples in a row."""

    def evaluate(model: Network, flat: Int8[Array, "samples n_sites"]) -> list[PyTree[Array]]:
        def rows(sample: Array) -> list[tuple[Row, ...]]:
            return [observable.rows(sample) for observable in observables]

        shapes = jax.eval_shape(rows, flat[0])
        ratios = row_ratios(model, flat[0], sum(shapes, ()), updates)
        at_once = samples_per_chunk(*ratios.bound) if chunk_size is None else chunk_size

        def local(sample: Array) -> list[PyTree[Array]]:
            all_rows: Sequence[Row] = sum(rows(sample), ())
            if within:
                all_rows = [_within_sector(sample, row) for row in all_rows]
            terms = iter(ratios.terms(sample, all_rows))
            return [
                observable.local(sample, tuple(next(terms) for _ in shape))
                for observable, shape in zip(observables, shapes, strict=True)
            ]

        return in_chunks(local, flat, at_once)

    return evaluate


def _values_of_pairs(observables: list[TwoCopies], chunk_size: int | None):
    def evaluate(model: Network, flat: Int8[Array, "samples 2 n_sites"]) -> list[PyTree[Array]]:
        def local(pair: Array) -> list[PyTree[Array]]:
            return [each.local_of_two(model, pair[0], pair[1]) for each in observables]

        # several forward passes for each
        at_once = 16 if chunk_size is None else chunk_size
        return in_chunks(local, flat, at_once)

    return evaluate


def _by_chain(evaluate: Any, model: Network, spins: Array) -> PyTree[Array]:
    """Values with leading axes (chains, steps), computed on the devices of the chains."""

    def mine(model: Network, spins: Array) -> PyTree[Array]:
        shape = spins.shape[:2]
        values = evaluate(model, spins.reshape(-1, *spins.shape[2:]))
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), values)

    return at_samples(mine)(model, spins)


def _within_sector(sample: Int8[Array, " n_sites"], row: Row) -> Row:
    """Without the moves that change the magnetisation."""
    flipped = jnp.where(row.sites >= 0, sample[row.sites], 0)
    stays = jnp.sum(flipped, axis=-1, dtype=jnp.int32) == 0
    return Row(row.sites, jnp.where(stays, row.elements, 0), row.reach, row.each_site)


def _check_sector(
    observables: list[Observable | TwoCopies], spins: Array, magnetisation: int | None
) -> None:
    """Whether the samples are from the sector that was named, or look as if one should be."""
    total = np.unique(np.asarray(jnp.sum(spins, axis=-1, dtype=jnp.int32)))
    if magnetisation is not None:
        if np.any(total != magnetisation):
            raise ValueError(
                f"expect: magnetisation={magnetisation} was given, but the samples have "
                f"{', '.join(map(str, total[:4]))}; leave it out where chains change it"
            )
        return
    single = [each for each in observables if isinstance(each, Observable)]
    shapes = jax.eval_shape(lambda s: [each.rows(s) for each in single], spins[0, 0])
    if total.size == 1 and any(shapes) and not _keep_sector(single):
        if bool(jnp.any(spins != spins[:1, :1])):
            warnings.warn(
                f"expect: all samples have magnetisation {total[0]}; if the chains stay there, "
                f"write expect(…, magnetisation={total[0]}), without which psi is taken for what "
                "the network says outside of that sector",
                DiagnosticWarning,
                stacklevel=3,
            )


def _keep_sector(observables: list[Observable]) -> bool:
    """Whether all of them are Hamiltonians that conserve the magnetisation."""
    inner = [getattr(x, "operator", getattr(x, "hamiltonian", None)) for x in observables]
    return all(getattr(x, "conserves_magnetisation", False) for x in inner)


def _inexact(x: Array) -> Array:
    exact = not jnp.issubdtype(x.dtype, jnp.inexact)
    return x.astype(jnp.zeros(()).dtype) if exact else x


def _estimate(
    value: Inexact[Array, " *shape"], series: Inexact[Array, "chains steps *shape"]
) -> Estimate:
    flat = series.reshape(*series.shape[:2], -1)
    found = jax.vmap(estimate_mean, in_axes=-1)(flat)
    shaped = Estimate(*(x.reshape(value.shape) for x in found))
    return shaped._replace(mean=value)
