"""What a step of training starts from and what it tells."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dyson.devices import placed
from dyson.networks import Network
from dyson.samplers import SamplerState


class Before(eqx.Module):
    """Parameters and optimiser as they were before the last step: with these, the local energies
    were finite."""

    parameters: Network
    optimiser: optax.OptState


class VMCState(eqx.Module):
    """What the next step needs."""

    model: Network
    sampler: SamplerState
    optimiser: optax.OptState
    key: jax.Array
    step: Int[Array, ""]
    before: Before


class VMCInfo(eqx.Module):
    """What a person wants to see of one step; energies are totals, before the step was taken.

    NaN is "not known": of chains that did not move no spread is, and R-hat takes four samples of a
    chain.
    """

    energy: Float[Array, ""]
    error: Float[Array, ""]  # one standard deviation, autocorrelation included
    variance: Float[Array, ""]
    v_score: Float[Array, ""]
    acceptance: Float[Array, ""]
    r_hat: Float[Array, ""]
    tau: Float[Array, ""]  # in samples of a chain
    step_norm: Float[Array, ""]  # Euclidean length of the parameter step

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if any(isinstance(x, Tracer) or jnp.ndim(x) for x in values.values()):
            return eqx.tree_pformat(self)
        shown = [f"{name}={_known(float(x))}" for name, x in values.items()]
        return f"VMCInfo({', '.join(shown)})"


def _known(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.8g}"


def new_state(
    model: Network,
    samples: SamplerState,
    optimiser: optax.OptState,
    key: jax.Array,
    step: Int[Array, ""],
) -> VMCState:
    """A state that nothing came before, on its devices."""
    before = Before(eqx.filter(model, eqx.is_inexact_array), optimiser)
    return placed(VMCState(model, samples, optimiser, key, step, before))
