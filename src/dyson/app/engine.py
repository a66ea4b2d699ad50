"""Which way of sampling a run takes, and why, in a sentence."""

from collections.abc import Sequence

from dyson.app.problem import Problem
from dyson.networks import DysonNet, unprojected
from dyson.samplers import Sweep
from dyson.samplers.moves import EXCHANGES
from dyson.samplers.passes import environments_pay, proposal_costs

WINDOWS, FORWARD = "windows", "forward passes"


def engine_sentence(problems: Sequence[Problem]) -> str:
    """How every chain of a run is swept, with what a proposal costs by the cost model of
    `dyson.samplers.passes`, either way; for runs that leave the choice to it."""
    chosen = [_chosen(problem) for problem in problems]
    # the chains of a ladder on which nothing changes are told together
    told = [each for number, each in enumerate(chosen) if number == 0 or each != chosen[number - 1]]
    reasons = _reasons(problems[-1])
    ways = " and ".join(
        f"by {way} {'from' if number else 'on'} {problems[chosen.index(way)].hamiltonian.n_sites} "
        f"sites{' on' if number else ''}"
        for number, way in enumerate(told)
    )
    return f"--sampler auto sweeps {ways}: {reasons}"


def _chosen(problem: Problem) -> str:
    return WINDOWS if environments_pay(problem.network_shapes, _distances(problem)) else FORWARD


def _reasons(problem: Problem) -> str:
    model = problem.network_shapes
    network = unprojected(model)
    if not isinstance(network, DysonNet):
        return f"{type(network).__name__} has no windows"
    forward, windows = proposal_costs(model, _distances(problem))
    n_sites = problem.hamiltonian.n_sites
    at = f"on {n_sites} sites a proposal by a forward pass costs {forward:.2g} multiply-adds"
    if windows is None:
        return f"{at}, and there are no windows"
    return f"{at}, by a window {windows:.2g}"


def _distances(problem: Problem) -> tuple[int, ...]:
    sampler = problem.vmc.sampler
    assert isinstance(sampler, Sweep)
    return () if sampler.magnetisation is None else EXCHANGES
