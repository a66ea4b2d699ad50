"""Variational Monte Carlo as two functions: ``init`` and ``step``.

One step draws samples of |psi|^2, evaluates their local energies and logarithmic derivatives, and
hands both to an optax transformation.  Samples are spread over all devices; every chain has its
own random stream, so the result does not depend on how many there are (up to summation order).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from dyson.devices import over_chains, placed
from dyson.hamiltonians import Hamiltonian
from dyson.jacobian import SAMPLES_AT_ONCE, log_derivatives
from dyson.local_energy import in_chunks, local_energies
from dyson.networks import Network
from dyson.optimisers import force
from dyson.samplers import Sampler, SamplerState, check_fit
from dyson.statistics import estimate_mean, v_score
from dyson.updates import LocalUpdates


class VMCState(eqx.Module):
    """What the next step needs."""

    model: Network
    sampler: SamplerState
    optimiser: optax.OptState
    key: jax.Array
    step: Int[Array, ""]


class VMCInfo(eqx.Module):
    """What a person wants to see of one step; energies are totals, before the step was taken."""

    energy: Float[Array, ""]
    error: Float[Array, ""]  # one standard deviation, autocorrelation included
    variance: Float[Array, ""]
    v_score: Float[Array, ""]
    acceptance: Float[Array, ""]
    r_hat: Float[Array, ""]
    tau: Float[Array, ""]  # in samples of a chain
    step_norm: Float[Array, ""]  # Euclidean length of the parameter step


class NonFiniteError(FloatingPointError):
    """A step produced a value that is not finite; ``state`` is the last good one."""

    def __init__(self, state: VMCState, what: str):
        self.state = state
        super().__init__(
            f"step {int(state.step) + 1}: {what} is not finite. The state before the step is kept; "
            "go on from it with a smaller learning rate, a larger diagonal shift or more samples"
        )


class VMC(eqx.Module):
    """Functional variational Monte Carlo.

    Arguments:
      hamiltonian, sampler: what is minimised and how it is sampled.
      optimiser: any optax transformation.  Those that take extra arguments receive
        ``derivatives`` (samples, parts, parameters), ``energies`` (samples,) and ``response``, the
        change of log psi at the samples as a function of an update.
      chain_length: samples of each chain per step.
      warm_up: samples of each chain thrown away at the start.
      updates, chunk_size: passed to :func:`dyson.local_energies`.
    """

    hamiltonian: Hamiltonian
    sampler: Sampler
    optimiser: optax.GradientTransformationExtraArgs = eqx.field(static=True)
    chain_length: int = eqx.field(static=True)
    warm_up: int = eqx.field(static=True)
    updates: LocalUpdates | None
    chunk_size: int | None = eqx.field(static=True)

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        sampler: Sampler,
        optimiser: optax.GradientTransformation,
        *,
        chain_length: int = 4,
        warm_up: int = 8,
        updates: LocalUpdates | None = None,
        chunk_size: int | None = None,
    ):
        if chain_length < 1 or warm_up < 0:
            raise ValueError(
                f"VMC: expected chain_length >= 1 and warm_up >= 0, got {chain_length}, {warm_up}"
            )
        check_fit(f"VMC with {type(sampler).__name__}", sampler.moves, hamiltonian)
        self.hamiltonian, self.sampler = hamiltonian, sampler
        self.optimiser = optax.with_extra_args_support(optimiser)
        self.chain_length, self.warm_up = chain_length, warm_up
        self.updates, self.chunk_size = updates, chunk_size

    def init(self, key: jax.Array, model: Network) -> VMCState:
        """Chains warmed up on the initial network."""
        start_key, warm_key, key = jax.random.split(key, 3)
        samples = self.sampler.init(start_key, model)
        if self.warm_up:
            samples = _warm_up(self, warm_key, model, samples)
        parameters = eqx.filter(model, eqx.is_inexact_array)
        optimiser = self.optimiser.init(parameters)
        return placed(VMCState(model, samples, optimiser, key, jnp.zeros((), jnp.int32)))

    def step(self, state: VMCState) -> tuple[VMCState, VMCInfo]:
        """One optimisation step; raises :class:`NonFiniteError` and keeps the state otherwise."""
        new_state, info, finite = _step(self, state)
        if not bool(jnp.all(jnp.stack(list(finite.values())))):
            broken = ", ".join(name for name, ok in finite.items() if not bool(ok))
            raise NonFiniteError(state, broken)
        return new_state, info

    def measure(
        self, key: jax.Array, model: Network, samples: SamplerState
    ) -> tuple[SamplerState, Array, Array]:
        """Draw as many samples as one step and leave the network as it is.

        Returns the state of the chains, the local energies (n_chains, chain_length) and the
        fraction of accepted moves (n_chains, chain_length).
        """
        return _measure(self, key, model, samples)


@eqx.filter_jit
def _measure(
    vmc: VMC, key: Array, model: Network, samples: SamplerState
) -> tuple[SamplerState, Array, Array]:
    def measure(keys: Array, model: Network, samples: SamplerState):
        samples, spins, acceptance = _draw(vmc, keys, model, samples, vmc.chain_length)
        return samples, _local_energies(vmc, model, spins), acceptance

    return over_chains(measure)(jax.random.split(key, vmc.sampler.n_chains), model, samples)


@eqx.filter_jit
def _step(vmc: VMC, state: VMCState) -> tuple[VMCState, VMCInfo, dict[str, Array]]:
    sample_key, key = jax.random.split(state.key)

    def measure(keys: Array, model: Network, samples: SamplerState):
        samples, spins, acceptance = _draw(vmc, keys, model, samples, vmc.chain_length)
        derivatives = log_derivatives(model, spins.reshape(-1, spins.shape[-1]))
        derivatives = derivatives.reshape(*spins.shape[:2], *derivatives.shape[1:])
        return samples, spins, _local_energies(vmc, model, spins), derivatives, acceptance

    keys = jax.random.split(sample_key, vmc.sampler.n_chains)
    samples, spins, energies, derivatives, acceptance = over_chains(measure)(
        keys, state.model, state.sampler
    )
    estimate = estimate_mean(energies)
    flat_energies = energies.reshape(-1)
    flat_derivatives = derivatives.reshape(-1, *derivatives.shape[2:])

    parameters, static = eqx.partition(state.model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(parameters)
    gradient = unravel(force(flat_derivatives, flat_energies).astype(flat.dtype))
    updates, optimiser = vmc.optimiser.update(
        gradient,
        state.optimiser,
        parameters,
        derivatives=flat_derivatives,
        energies=flat_energies,
        response=_response(parameters, static, spins),
    )
    model: Network = eqx.combine(optax.apply_updates(parameters, updates), static)  # pyright: ignore[reportAssignmentType]
    energy = jnp.real(estimate.mean)
    infinity = vmc.hamiltonian.trace_per_dimension.astype(energy.dtype)
    step_norm = jnp.linalg.norm(ravel_pytree(updates)[0])
    info = VMCInfo(
        energy=energy,
        error=estimate.error,
        variance=estimate.variance,
        v_score=v_score(vmc.hamiltonian.n_sites, energy, estimate.variance, infinity),
        acceptance=jnp.mean(acceptance),
        r_hat=estimate.r_hat,
        tau=estimate.tau,
        step_norm=step_norm,
    )
    finite = {
        "the local energy": jnp.all(jnp.isfinite(energies)),
        "a derivative of log psi": jnp.all(jnp.isfinite(derivatives)),
        "the parameter step": jnp.isfinite(step_norm),
    }
    return placed(VMCState(model, samples, optimiser, key, state.step + 1)), info, finite


def _response(parameters: Network, static: Network, spins: Array):
    """The change of log psi at the samples, (samples, parts), as a function of an update."""

    chains, length, n_sites = spins.shape

    def log_psi(_, model: Network, spins: Array) -> Array:
        values = in_chunks(model, spins.reshape(-1, n_sites), SAMPLES_AT_ONCE)
        parts = [values] if jnp.isrealobj(values) else [jnp.real(values), jnp.imag(values)]
        return jnp.stack(parts, axis=-1).reshape(-1, length, len(parts))

    def evaluate(parameters: Network) -> Array:
        model: Network = eqx.combine(parameters, static)
        values = over_chains(log_psi)(jnp.arange(chains), model, spins)
        return values.reshape(chains * length, -1)

    before = evaluate(parameters)

    def response(update: optax.Updates) -> Array:
        return evaluate(optax.apply_updates(parameters, update)) - before  # pyright: ignore[reportArgumentType]

    return response


@eqx.filter_jit
def _warm_up(vmc: VMC, key: Array, model: Network, samples: SamplerState) -> SamplerState:
    def burn(keys: Array, model: Network, samples: SamplerState) -> SamplerState:
        return _draw(vmc, keys, model, samples, vmc.warm_up)[0]

    return over_chains(burn)(jax.random.split(key, vmc.sampler.n_chains), model, samples)


def _draw(
    vmc: VMC, keys: Array, model: Network, samples: SamplerState, length: int
) -> tuple[SamplerState, Array, Array]:
    """``length`` samples of every chain: the state of the chains, spins (chains, length, n_sites)
    and acceptance (chains, length)."""

    def draw(samples: SamplerState, step_keys: Array):
        samples, info = vmc.sampler.sample_chains(step_keys, model, samples)
        return samples, (samples.spins, info.acceptance)

    step_keys = jnp.swapaxes(jax.vmap(lambda k: jax.random.split(k, length))(keys), 0, 1)
    samples, (spins, acceptance) = jax.lax.scan(draw, samples, step_keys)
    return samples, jnp.swapaxes(spins, 0, 1), jnp.swapaxes(acceptance, 0, 1)


def _local_energies(vmc: VMC, model: Network, spins: Array) -> Array:
    """Of samples (chains, length, n_sites)."""
    flat = spins.reshape(-1, spins.shape[-1])
    energies = local_energies(
        vmc.hamiltonian, model, flat, updates=vmc.updates, chunk_size=vmc.chunk_size
    )
    return energies.reshape(spins.shape[:2])
