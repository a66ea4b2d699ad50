"""Variational Monte Carlo as two functions: ``init`` and ``step``.

One step draws samples of |psi|^2, evaluates their local energies and logarithmic derivatives, and
hands both to an optax transformation.  Samples are spread over all devices; every chain has its
own random stream, so the result does not depend on how many there are (up to summation order).
"""

import dataclasses
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from dyson.devices import by_chain, everywhere, gathered, placed
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers import Sampler, SamplerState, check_fit
from dyson.updates import LocalUpdates
from dyson.vmc.growth import carried_over, repeated
from dyson.vmc.measurement import Measurement, draw, joined, measured
from dyson.vmc.state import VMCInfo, VMCState, new_state
from dyson.vmc.statistics import MIN_STEPS_SPLIT, DiagnosticWarning
from dyson.vmc.step import DERIVATIVES, ENERGIES, improved


class NonFiniteError(FloatingPointError):
    """A step met a value that is not finite.

    ``state`` can be used: its local energies were finite.  It is the one that was given, or, where
    the step before had led to a network of no use, that before this step, with the chains as they
    are now.
    """

    def __init__(self, state: VMCState, step: int, what: str):
        self.state = state
        super().__init__(
            f"step {step}: {what} is not finite. The state after step {int(state.step)} is kept; "
            "go on from it with a smaller learning rate (or a larger shift of sr, minsr and "
            "spring) or more samples"
        )


class VMC(eqx.Module):
    """Functional variational Monte Carlo.

    Arguments:
      hamiltonian, sampler: what is minimised and how it is sampled.
      optimiser: any optax transformation of the gradient of the energy.  Those that take extra
        arguments receive ``derivatives`` (samples, parts, parameters), ``energies`` (samples,) and
        ``response``, the change of log psi at the samples as a function of an update (phases modulo
        2 pi); and, as line searches want them, ``value``, ``grad`` and ``value_fn``, the energy as
        a function of the parameters by weighing the samples anew.
      chain_length: samples of each chain per step; fewer than four leave R-hat unknown.
      warm_up: samples of each chain thrown away at the start, in rounds of ``chain_length``.
      blur: probability, below one, with which samples of a state with signs or phases are moved on
        by an entry of H, so that its nodes are seen (:mod:`dyson.vmc.blur`), and some drawn afresh;
        zero leaves them as they are.  Optimisers that take extra arguments receive their
        ``weights`` (samples,).
      updates, chunk_size: passed to :func:`dyson.local_energies`.
    """

    hamiltonian: Hamiltonian
    sampler: Sampler
    optimiser: optax.GradientTransformationExtraArgs = eqx.field(static=True)
    chain_length: int = eqx.field(static=True)
    warm_up: int = eqx.field(static=True)
    blur: float = eqx.field(static=True)
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
        blur: float = 0.5,
        updates: LocalUpdates | None = None,
        chunk_size: int | None = None,
    ):
        if chain_length < 1 or warm_up < 0:
            raise ValueError(
                f"VMC: expected chain_length >= 1 and warm_up >= 0, got {chain_length}, {warm_up}"
            )
        if not 0 <= blur < 1:
            raise ValueError(f"VMC: expected 0 <= blur < 1, got {blur}")
        if chain_length < MIN_STEPS_SPLIT or sampler.n_chains * chain_length == 1:
            unknown = "R-hat" if sampler.n_chains * chain_length > 1 else "error bar, R-hat"
            warnings.warn(
                f"VMC: with {sampler.n_chains} chains of {chain_length} samples the {unknown} of "
                f"the energy is not known; R-hat takes chain_length >= {MIN_STEPS_SPLIT}",
                DiagnosticWarning,
                stacklevel=3,
            )
        check_fit(f"VMC with {type(sampler).__name__}", sampler.moves, hamiltonian)
        self.hamiltonian, self.sampler = hamiltonian, sampler
        self.optimiser = optax.with_extra_args_support(optimiser)
        self.chain_length, self.warm_up, self.blur = chain_length, warm_up, float(blur)
        self.updates, self.chunk_size = updates, chunk_size

    def init(self, key: jax.Array, model: Network) -> VMCState:
        """Chains warmed up on the initial network."""
        start_key, warm_key, key = jax.random.split(key, 3)
        samples = by_chain(self.sampler.init(start_key, model))
        model, warm_key, key = everywhere((model, warm_key, key))
        samples = self._warmed(warm_key, model, samples)
        optimiser = self.optimiser.init(eqx.filter(model, eqx.is_inexact_array))
        return new_state(model, samples, optimiser, key, jnp.zeros((), jnp.int32))

    def grown(self, state: VMCState) -> VMCState:
        """The state of a chain of another length continued on this one.

        The network is resized (:meth:`dyson.DysonNet.resized`), the optimiser keeps its memory and
        its step, and the chains start from their configurations repeated, warmed up.  ValueError
        where this VMC has another optimiser.

            state = vmc_of_64.grown(state_of_32)
        """
        start_key, warm_key, key = jax.random.split(state.key, 3)
        sampler = self.sampler
        model = state.model.resized(sampler.n_sites)
        shape = sampler.n_chains, sampler.n_sites
        spins = repeated(start_key, gathered(state.sampler.spins), shape, sampler.magnetisation)
        fresh = sampler.init(start_key, model)
        samples = by_chain(eqx.tree_at(lambda s: s.spins, fresh, spins))
        model, warm_key, key = everywhere((model, warm_key, key))
        samples = self._warmed(warm_key, model, samples)
        parameters = eqx.filter(model, eqx.is_inexact_array)
        shapes = eqx.filter_eval_shape(self.optimiser.init, parameters)
        optimiser = carried_over(state.optimiser, shapes)
        return new_state(model, samples, optimiser, key, state.step)

    def _warmed(self, key: jax.Array, model: Network, samples: SamplerState) -> SamplerState:
        """After so many samples of each chain as are thrown away at a start."""
        for _ in range(-(-self.warm_up // self.chain_length)):
            samples, *_ = draw(self.sampler, self.chain_length, key, model, samples)
            key = jax.random.split(key)[1]
        return samples

    def step(self, state: VMCState) -> tuple[VMCState, VMCInfo]:
        """One optimisation step.

        Raises :class:`NonFiniteError` with a state to go on from; warns with
        :class:`dyson.vmc.statistics.DiagnosticWarning` where no chain moved.
        """
        state = placed(state)
        samples, measurement = self._measured(state.key, state.model, state.sampler, self.blur)
        new, info, finite, moving = improved(self._how, self.optimiser, state, samples, measurement)
        finite, moving = jax.device_get((finite, moving))
        if not all(finite.values()):
            broken = ", ".join(name for name, ok in finite.items() if not ok)
            usable = state if finite[ENERGIES] and finite[DERIVATIVES] else _stepped_back(state)
            raise NonFiniteError(usable, int(state.step) + 1, broken)
        if not moving:
            warnings.warn(
                "VMC: no chain moved in a step, so that its error bar, V-score, tau and R-hat are "
                "not known; use more sweeps, moves that fit the state, or a smaller learning rate "
                "from the start",
                DiagnosticWarning,
                stacklevel=2,
            )
        return new, info

    def measure(
        self, key: jax.Array, model: Network, samples: SamplerState
    ) -> tuple[SamplerState, Measurement]:
        """Draw as many samples as one step, by its programs, and leave the network as it is.

        Returns the state of the chains and what was measured, whole on every device; of a state
        with signs or phases, blurred samples with their weights.
        """
        return self._measured_everywhere(key, model, samples, self.blur)

    def sample(self, state: VMCState, length: int) -> tuple[VMCState, Measurement]:
        """At least ``length`` samples of every chain and their local energies, of a state that is
        left as it is: for :func:`dyson.expect` and whatever else.

        They are drawn ``chain_length`` at a time and are not blurred.  The state returned has its
        chains and its random key moved on, so that the next call draws others.
        """
        if length < 1:
            raise ValueError(f"VMC.sample: expected length >= 1, got {length}")
        state, parts = placed(state), []
        for _ in range(-(-length // self.chain_length)):
            samples, part = self._measured_everywhere(state.key, state.model, state.sampler, 0.0)
            key = jax.random.split(state.key)[1]
            state = placed(dataclasses.replace(state, sampler=samples, key=key))
            parts.append(part)
        return state, joined(parts)

    def _measured_everywhere(
        self, key: jax.Array, model: Network, samples: SamplerState, blur: float
    ) -> tuple[SamplerState, Measurement]:
        key, model = everywhere((key, model))
        samples, measurement = self._measured(key, model, by_chain(samples), blur)
        return samples, everywhere(measurement)

    def _measured(
        self, key: jax.Array, model: Network, samples: SamplerState, blur: float
    ) -> tuple[SamplerState, Measurement]:
        """With the chains spread over the devices."""
        samples, spins, acceptance = draw(self.sampler, self.chain_length, key, model, samples)
        # an array, so that all probabilities share one program
        probability = jnp.asarray(blur)
        return samples, measured(*self._how, probability, key, model, spins, acceptance)

    @property
    def _how(self) -> tuple[Hamiltonian, LocalUpdates | None, int | None]:
        """What local energies take."""
        return self.hamiltonian, self.updates, self.chunk_size


def _stepped_back(state: VMCState) -> VMCState:
    """With the network and the optimiser before the last step."""
    _, static = eqx.partition(state.model, eqx.is_inexact_array)
    model: Network = eqx.combine(state.before.parameters, static)
    step = jnp.maximum(state.step - 1, 0)
    return VMCState(model, state.sampler, state.before.optimiser, state.key, step, state.before)
