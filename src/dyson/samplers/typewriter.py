"""The screened typewriter: one reference of ABACUS serves many proposals."""

import math
from typing import ClassVar, final

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from dyson.abacus import Abacus, AbacusUpdates, supported
from dyson.hamiltonians import Hamiltonian
from dyson.networks import Network
from dyson.samplers.base import (
    Sampler,
    SamplerInfo,
    SamplerState,
    acceptance,
    check_counts,
    global_moves,
    in_groups,
)
from dyson.samplers.fit import check_fit
from dyson.samplers.moves import Flips, Moves
from dyson.samplers.screening import ErrorTable
from dyson.spins import flip


class TypewriterState(SamplerState):
    """The configurations, and what every chain has learnt about its errors."""

    errors: ErrorTable


class TypewriterInfo(SamplerInfo):
    """Of one call; every array has one entry per chain."""

    throughput: Float[Array, " *n_chains"]
    """Accepted flips per refresh of the reference."""
    refreshes: Int[Array, " *n_chains"]
    frozen: Float[Array, " *n_chains"]
    """Fraction of the proposals at which the chain froze and was refreshed."""
    mismatch: Float[Array, " *n_chains"]
    """Fraction of the audited proposals that an exact ratio would have decided otherwise."""
    audited: Int[Array, " *n_chains"]
    """Proposals compared with the exact decision, drawn at random."""


class Pass(eqx.Module):
    """The proposals that one reference is meant to serve, in order, and the one that is audited."""

    sites: Int[Array, " *candidates"]
    uniforms: Float[Array, " *candidates"]
    audited: Int[Array, ""]


class Replay(eqx.Module):
    """What became of the proposals of a pass, each array over the candidates."""

    accepted: Bool[Array, " *candidates"]
    decided: Bool[Array, " *candidates"]
    acceptance: Float[Array, " *candidates"]
    flips: Int[Array, " *candidates"]
    """Accepted since the refresh, before this proposal."""


class Progress(eqx.Module):
    """One chain in the middle of a call: the next proposal is ``step`` of pass ``index``."""

    spins: Int8[Array, " n_sites"]
    errors: ErrorTable
    index: Int[Array, ""]
    step: Int[Array, ""]
    frozen_acceptance: Float[Array, ""]
    frozen_flips: Int[Array, ""]  # 0: the last refresh was not forced
    accepted: Int[Array, ""]
    refreshes: Int[Array, ""]
    freezes: Int[Array, ""]
    mismatches: Int[Array, ""]


@final
class Typewriter(Sampler):
    """The screened typewriter sampler of arXiv:2603.11189 with ABACUS, ``sweeps`` per sample.

    The chain is cut into intervals of about ``interval`` sites.  A pass proposes one flip in every
    second of them, at a random position; even and odd intervals take turns, behind a rotation
    drawn anew for every two passes.  The changes of theta of all candidates are computed
    against one reference, then accepted or rejected in order, adding up those accepted.

    The sum is not exact once a flip was accepted: it screens the next.  A step whose uniform number
    lies within tau of the approximate acceptance therefore *freezes* the chain; the reference is
    rebuilt there, which decides that step exactly, and the pass goes on.  tau comes from a running
    table of observed errors (:class:`~dyson.samplers.screening.ErrorTable`) that stays with the
    chain across calls and parameter steps: nothing is trusted before errors have been seen.

    Positions and intervals are drawn without looking at the spins, so each step would leave
    |psi|^2 invariant if it were decided exactly; what remains is the rate of mismatched decisions,
    which is measured: one random proposal of every pass is compared with two forward passes.

    Works for :class:`DysonNet` of any depth and projections of one, any number of sites
    and any interval, ring or open chain; single flips, so every magnetisation is sampled, and
    Hamiltonians that conserve it are refused.  One more proposal per sample is a configuration
    drawn afresh, and another flips all spins when the Hamiltonian commutes with that, both exact.

    Differs from the paper in deciding a frozen step from the rebuilt reference, which is exact
    and needed anyway, and in letting chains that run side by side be at different passes.

    Arguments:
      hamiltonian: gives the number of sites and the symmetry.
      n_chains: independent chains.   sweeps: sweeps of about n_sites proposals between samples.
      interval: sites per interval W.  The default, the square root of the number of sites, is the
        best growth for tails 1/r^2 (Fig. 4 of the paper: W ~ N^(2/(2+alpha))).
      mismatch: the rate of wrong decisions that tau aims not to exceed; 0 decides everything
        exactly.  The measured rate is usually far below.
      chains_at_once: chains that share a pass; each keeps a reference in memory.

    Cost per refresh: one reference, O(n log n), and O(1) for each of the n / (2 interval)
    proposals, of which at most as many are accepted.
    """

    magnetisation: ClassVar[None] = None

    n_sites: int = eqx.field(static=True)
    n_chains: int = eqx.field(static=True)
    moves: Moves
    sweeps: int = eqx.field(static=True)
    interval: int = eqx.field(static=True)
    mismatch: Float[Array, ""]
    chains_at_once: int = eqx.field(static=True)
    global_flips: bool = eqx.field(static=True)

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        n_chains: int,
        *,
        sweeps: int = 1,
        interval: int | None = None,
        mismatch: float = 1e-3,
        chains_at_once: int = 8,
    ):
        interval = max(1, math.isqrt(hamiltonian.n_sites)) if interval is None else interval
        check_counts(
            "Typewriter",
            n_chains=n_chains,
            sweeps=sweeps,
            interval=interval,
            chains_at_once=chains_at_once,
        )
        if not 0 <= mismatch < 1:
            raise ValueError(f"Typewriter: expected 0 <= mismatch < 1, got {mismatch}")
        self.moves = Flips(hamiltonian.n_sites)
        check_fit("Typewriter", self.moves, hamiltonian)
        self.n_sites = hamiltonian.n_sites
        self.n_chains = n_chains
        self.sweeps = sweeps
        self.interval = interval
        self.mismatch = jnp.asarray(float(mismatch))
        self.chains_at_once = chains_at_once
        self.global_flips = hamiltonian.spin_flip_symmetric

    @property
    def candidates(self) -> int:
        """Proposals of a pass: intervals of which every second is used."""
        return max(1, self.n_sites // (2 * self.interval))

    @property
    def passes(self) -> int:
        """Of one sample: pairs of even and odd passes that propose about n_sites flips a sweep."""
        return 2 * self.sweeps * -(-self.n_sites // (2 * self.candidates))

    def init(self, key: jax.Array, model: Network) -> TypewriterState:
        spins = super().init(key, model).spins
        return TypewriterState(spins, ErrorTable.empty(self.n_chains, self.candidates))

    def sample_chains(
        self, keys: jax.Array, model: Network, state: SamplerState
    ) -> tuple[TypewriterState, TypewriterInfo]:
        if not supported(model):
            raise TypeError(
                "Typewriter: expected a DysonNet or a projection of one, got "
                f"{type(model).__name__}; use dyson.Metropolis for other networks"
            )
        if not isinstance(state, TypewriterState):
            raise TypeError(
                f"Typewriter: expected a TypewriterState, got {type(state).__name__}; "
                "write state = sampler.init(key, model)"
            )
        updates = Abacus().bind(model)
        advance = lambda key, state: self._advance(key, model, state, updates)
        together = jax.vmap(advance)
        return in_groups(together, keys, state, self.chains_at_once)

    def _advance(
        self,
        key: jax.Array,
        model: Network,
        state: TypewriterState,
        updates: AbacusUpdates,
    ) -> tuple[TypewriterState, TypewriterInfo]:
        """One chain from one sample to the next."""
        global_key, key = jax.random.split(key)
        spins = global_moves(
            global_key, model, state.spins, magnetisation=None, flips=self.global_flips
        )
        zero = jnp.zeros((), jnp.int32)
        start = Progress(
            spins, state.errors, zero, zero, jnp.zeros(()), zero, zero, zero, zero, zero
        )
        end = jax.lax.while_loop(
            lambda progress: progress.index < self.passes,
            lambda progress: self._refresh(key, model, progress, updates),
            start,
        )
        proposals = self.passes * self.candidates
        real = lambda count: jnp.asarray(count, jnp.zeros(()).dtype)
        info = TypewriterInfo(
            acceptance=real(end.accepted) / real(proposals),
            throughput=real(end.accepted) / real(end.refreshes),
            refreshes=end.refreshes,
            frozen=real(end.freezes) / real(proposals),
            mismatch=real(end.mismatches) / real(self.passes),
            audited=jnp.asarray(self.passes, jnp.int32),
        )
        return TypewriterState(end.spins, end.errors), info

    def _refresh(
        self, key: jax.Array, model: Network, progress: Progress, updates: AbacusUpdates
    ) -> Progress:
        """Build a reference and follow the pass with it, to its end or to where it freezes.

        A step that froze comes first: no flip was accepted since, so it is decided exactly, and
        shows the error of the acceptance that was not trusted.
        """
        plan = self._plan(key, progress.index)
        cache = updates.init(progress.spins)
        changes = jax.vmap(lambda site: updates.change(cache, site[None]))(plan.sites)
        tolerances = progress.errors.tolerances(self.mismatch)
        no_change = jax.tree.map(lambda x: jnp.zeros_like(x[0]), changes)
        log_ratio = lambda change: jnp.real(updates.log_ratio(cache, change))

        def decide(carry: tuple[Array, ...], candidate: tuple[Array, ...]):
            total, log_psi, flips, stopped = carry
            step, change, uniform = candidate
            moved = log_ratio(total + change)
            probability = acceptance((2 * (moved - log_psi)).astype(uniform.dtype))
            distance = jnp.abs(uniform - probability)
            waits = step < progress.step
            close = distance < progress.errors.tolerance(tolerances, flips)
            stopped |= ~waits & close
            decided = ~waits & ~stopped
            accepted = decided & (uniform < probability)
            carry = (
                jnp.where(accepted, total + change, total),
                jnp.where(accepted, moved, log_psi),
                flips + accepted.astype(flips.dtype),
                stopped,
            )
            return carry, Replay(accepted, decided, probability, flips)

        zero = jnp.zeros((), jnp.int32)
        begin = (no_change, jnp.zeros_like(log_ratio(no_change)), zero, jnp.asarray(False))
        steps = jnp.arange(self.candidates, dtype=jnp.int32)
        end, replay = jax.lax.scan(decide, begin, (steps, changes, plan.uniforms))
        flips, froze = end[2], end[3]

        error = jnp.abs(replay.acceptance[progress.step] - progress.frozen_acceptance)
        errors = progress.errors.observe(progress.frozen_flips, error, progress.frozen_flips > 0)
        errors, mismatch = self._audit(model, progress.spins, plan, replay, errors)
        stop = progress.step + jnp.sum(replay.decided, dtype=jnp.int32)
        here = jnp.minimum(stop, self.candidates - 1)
        return Progress(
            spins=flip(progress.spins, jnp.where(replay.accepted, plan.sites, -1)),
            errors=errors,
            index=progress.index + jnp.where(froze, 0, 1),
            step=jnp.where(froze, stop, 0),
            frozen_acceptance=jnp.where(froze, replay.acceptance[here], 0),
            frozen_flips=jnp.where(froze, flips, 0),
            accepted=progress.accepted + flips,
            refreshes=progress.refreshes + 1,
            freezes=progress.freezes + froze.astype(jnp.int32),
            mismatches=progress.mismatches + mismatch.astype(jnp.int32),
        )

    def _plan(self, key: jax.Array, index: Int[Array, ""]) -> Pass:
        """The proposals of pass number ``index``, drawn without looking at the spins.

        Intervals end at the multiples of n / (2 candidates), rounded down, so that no number of
        sites and no interval is special; behind the rotation one of them wraps around the end,
        on an open chain as well, where it falls into two pieces.
        """
        # one rotation for both passes of a pair, under a number that no pass has
        rotation_key = jax.random.fold_in(key, self.passes + index // 2)
        place_key, uniform_key, audit_key = jax.random.split(jax.random.fold_in(key, index), 3)
        intervals = 2 * self.candidates
        bounds = jnp.arange(intervals + 1, dtype=jnp.int32) * self.n_sites // intervals
        first = 2 * jnp.arange(self.candidates, dtype=jnp.int32) + index % 2
        # the only empty interval is that of a single site
        length = jnp.maximum(bounds[first + 1] - bounds[first], 1)
        place = jax.random.randint(place_key, length.shape, 0, length, jnp.int32)
        rotation = jax.random.randint(rotation_key, (), 0, self.n_sites, jnp.int32)
        return Pass(
            (bounds[first] + place + rotation) % self.n_sites,
            jax.random.uniform(uniform_key, (self.candidates,)),
            jax.random.randint(audit_key, (), 0, self.candidates, jnp.int32),
        )

    def _audit(
        self,
        model: Network,
        spins: Int8[Array, " n_sites"],
        plan: Pass,
        replay: Replay,
        errors: ErrorTable,
    ) -> tuple[ErrorTable, Bool[Array, ""]]:
        """Compare one proposal with forward passes, if it was decided in this replay."""
        step = plan.audited
        earlier = jnp.arange(self.candidates, dtype=jnp.int32) < step
        before = flip(spins, jnp.where(replay.accepted & earlier, plan.sites, -1))
        log_psi = jax.vmap(lambda s: model(s))(
            jnp.stack([before, flip(before, plan.sites[step][None])])
        )
        uniform = plan.uniforms[step]
        log_odds = (2 * jnp.real(log_psi[1] - log_psi[0])).astype(uniform.dtype)
        exact = acceptance(log_odds)
        error = jnp.abs(exact - replay.acceptance[step])
        happened, flips = replay.decided[step], replay.flips[step]
        mismatch = happened & ((uniform < exact) != replay.accepted[step])
        return errors.observe(flips, error, happened & (flips > 0)), mismatch
