"""A step of natural gradient that is checked on the samples before it is taken.

The step is ``-learning_rate * delta``, shortened where the linear model says that the state moves
further than the trust region, sqrt(step^T S step).  That model fails without warning: in directions
that the samples hardly see, a long step costs nothing in S while log psi bends.  One such step can
throw a converged state away, and small ones add up: on a critical ring they moved the slowest
excitation, which only slowly decays again, by several times the intended step.  So the step is
tried on the samples, and what log psi misses of the linear prediction is

- too much (``BENDING``): the step is made anew with a raised shift and half the memory.  The raised
  shift stays and is lowered again step by step (Levenberg and Marquardt's rule, on the state
  instead of the residual);
- tolerable: it is taken as a residual and corrected by the same solver, until little is left
  (``CLOSE``) or nothing is gained.  The state then follows imaginary time on the samples although
  the parameters act nonlinearly.

And a step that takes back the one before (``TAKEN_BACK``) raises the shift for those to come.  An
excitation of energy beyond 2 / learning_rate would grow with every step, changing its sign: one of
six sites in the odd sector, where all are seen by the samples, from V-scores of 1e-6 to 1e-3.

Phases count modulo 2 pi: what is missing of a change of Im log psi is taken on the circle, sample
by sample, before anything is averaged.  And of complex states, each sample may follow either of two
paths that agree to first order: log psi changes by -learning_rate * eps, or psi by the factor
1 - learning_rate * eps.  Near a node the parameters move psi, not its logarithm, and no smooth
path of log psi leads to the other sign: held to the first path alone, states with signs stall
before every node they have to cross.  But an amplitude that outgrows its aim counts by psi: a small
one, of little weight, may rise to a spike that no sample finds any more.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dyson.optimisers.metric import mean
from dyson.phases import around_the_common_phase

# Departure from the linear prediction, relative to it, beyond which a step is made anew ...
BENDING = 1.0
# ... unless it is small in proportion to the learning rate: what every step adds to an excitation
# decays again at the rate of learning_rate times its energy.
HARMLESS = 0.1
# Departure that needs no correction: relative, and what log psi in single precision may show.
CLOSE, ROUND_OFF = 0.1, 1e-5
RAISE, LOWER = 4.0, 0.5
MOST_TRIALS = 16
# Of the step before: what is taken back by this one where the steps of imaginary time are too long
# for an excitation, whose sign they turn (converged: some tenths at most; running away: 0.9 and up)
TAKEN_BACK = 0.8
# Beyond, nothing moves: of a state that is exact, steps are round-off and may turn for ever.
FIRMEST = 1e12

Solver = Callable[[Array, Array, Array], Array]
"""delta from eps, the shift and the direction kept."""


class Trial(NamedTuple):
    """A step on its way: the direction it takes, the change of log psi at the samples it is meant
    to make and what is missing of that, how far it goes and how it was made."""

    step: Array
    direction: Array
    target: Array
    missing: Array
    bending: Array
    distance: Array
    firmness: Array
    memory: Array
    count: Array
    anew: Array  # the next trial makes the step anew; else it corrects it
    done: Array


class Step(NamedTuple):
    """What a step is made from.

    x, eps: the centred samples of :mod:`dyson.optimisers.metric`, the derivatives they come from,
    and what each sample counts.   solve: delta.   change: of log psi at the samples, (samples,
    parts), by a step of the parameters; None if it is not to be checked.   rate, shift,
    trust_region: as they are now.   kept: the direction in memory.
    """

    x: Float[Array, "rows parameters"]
    eps: Float[Array, " rows"]
    derivatives: Float[Array, "samples parts parameters"]
    share: Float[Array, " samples"]
    solve: Solver
    change: Callable[[Array], Array] | None
    rate: Float[Array, ""]
    shift: Float[Array, ""]
    trust_region: float
    kept: Float[Array, " parameters"]

    def taken(self, firmness: Float[Array, ""], momentum: float) -> Trial:
        """The trial that is taken, from one at ``firmness`` times the shift on."""
        nothing, zero = jnp.zeros_like(self.eps), jnp.zeros((), jnp.float64)
        yes = jnp.asarray(True)
        return jax.lax.while_loop(
            # a step that is not finite is not tried again: the caller stops there
            lambda t: ~t.done & (t.count < MOST_TRIALS) & jnp.isfinite(t.distance),
            self.attempt,
            Trial(
                step=jnp.zeros_like(self.kept),
                direction=self.kept,
                target=nothing,
                missing=nothing,
                bending=zero,
                distance=zero,
                firmness=firmness,
                memory=zero + momentum,
                count=jnp.zeros((), jnp.int32),
                anew=yes,
                done=~yes,
            ),
        )

    def afterwards(self, trial: Trial) -> Float[Array, ""]:
        """The firmness that the next step should start from, before it is lowered."""
        now, before = self.x @ trial.direction, self.x @ self.kept
        back = -(now @ before) > TAKEN_BACK * (before @ before)
        return jnp.minimum(jnp.where(back, RAISE, 1) * trial.firmness, FIRMEST)

    def attempt(self, trial: Trial) -> Trial:
        """The step made anew, or corrected by what is missing."""
        anew = trial.anew
        delta = self.solve(
            jnp.where(anew, self.eps, trial.missing),
            trial.firmness * self.shift,
            jnp.where(anew, trial.memory, 0) * self.kept,
        )
        predicted = -self.rate * (self.x @ delta)
        distance = jnp.linalg.norm(predicted)
        factor = jnp.minimum(1, self.trust_region / jnp.maximum(distance, 1e-300))
        # what is cut from the step is not remembered either
        step = jnp.where(anew, -factor * self.rate * delta, trial.step + delta)
        direction = jnp.where(anew, factor * delta, trial.direction)
        target = jnp.where(anew, factor * predicted, trial.target)
        distance = jnp.where(anew, factor * distance, trial.distance)
        missing, bending = self.missed(step, target)
        better = anew | (bending < trial.bending)
        # written so that a log psi that is not finite counts as too much
        repeat = anew & ~(bending <= BENDING * distance + HARMLESS * self.rate)
        new = Trial(
            step,
            direction,
            target,
            missing,
            bending,
            distance,
            jnp.where(repeat, RAISE, 1) * trial.firmness,
            jnp.where(repeat, 0.5, 1) * trial.memory,
            trial.count + 1,
            repeat,
            bending <= CLOSE * distance + ROUND_OFF,
        )
        as_it_was = trial._replace(done=jnp.asarray(True))
        return jax.tree.map(lambda n, o: jnp.where(better, n, o), new, as_it_was)

    def missed(self, step: Array, target: Array) -> tuple[Float[Array, " rows"], Float[Array, ""]]:
        """What the samples, centred, miss of the change of log psi that they were to make; and how
        much that is."""
        if self.change is None:
            missing = target - self.x @ step
            return missing, jnp.linalg.norm(missing)
        samples, parts = self.derivatives.shape[:2]
        slope = mean(self.derivatives, self.share)
        change = self._change_that_counts(step) - slope @ step
        root = jnp.sqrt(self.share)[:, None]
        # a sample that does not count aims at nothing
        aim = target.reshape(samples, parts) / jnp.where(root > 0, root, 1)
        short = _apart(aim, change, self.share)
        if parts == 2:
            short = _nearer(short, _apart(_linear_in_psi(aim), change, self.share))
        short -= mean(short, self.share)
        counted = short if parts == 1 else _as_grown(short, root)
        return (root * short).reshape(-1), jnp.linalg.norm((root * counted).reshape(-1))

    def _change_that_counts(self, step: Array) -> Float[Array, "samples parts"]:
        """Of log psi at the samples. One that does not count may be at a node and stay there; one
        that counts little may become one, where log psi is -inf, as where psi falls by eps."""
        change = jnp.asarray(self.change(step), jnp.float64)  # pyright: ignore[reportOptionalCall]
        change = jnp.where(self.share[:, None] > 0, change, 0)
        return change.at[:, 0].max(jnp.log(jnp.finfo(change.dtype).eps))


def _apart(
    aim: Float[Array, "samples parts"],
    change: Float[Array, "samples parts"],
    share: Float[Array, " samples"],
) -> Array:
    """``aim - change`` of log psi, centred; phases on the circle, around the one that all share."""
    short = aim - change
    if short.shape[1] == 2:
        short = short.at[:, 1].set(around_the_common_phase(short[:, 1], share))
    return short - mean(short, share)


def _linear_in_psi(aim: Float[Array, "samples 2"]) -> Float[Array, "samples 2"]:
    """The change of log psi where psi, instead of its logarithm, changes by ``aim``."""
    changed = jnp.log(1 + jax.lax.complex(aim[:, 0], aim[:, 1]))
    return jnp.stack([jnp.real(changed), jnp.imag(changed)], axis=1)


def _nearer(first: Float[Array, "samples 2"], second: Float[Array, "samples 2"]) -> Array:
    """The shorter one of each sample."""
    lengths = [jnp.sum(short**2, axis=1, keepdims=True) for short in (first, second)]
    return jnp.where(lengths[1] < lengths[0], second, first)


def _as_grown(short: Float[Array, "samples 2"], root: Float[Array, "samples 1"]) -> Array:
    """What is missing, with amplitudes that outgrow their aim counted by psi, not by its logarithm:
    a sample of small weight then counts as much as it would after the step."""
    outgrown = jnp.where(root[:, 0] > 0, jnp.maximum(-short[:, 0], 0), 0)
    return short.at[:, 0].add(outgrown - jnp.expm1(outgrown))
