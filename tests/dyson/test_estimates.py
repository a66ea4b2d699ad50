"""Estimates of trained states: until an error bar is reached, and on chains of other lengths."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from commands import contents, dyson
from dyson.app.estimates import FIRST_BATCHES, _Drawn, evaluate, evaluation_key, is_reached
from dyson.app.problem import build, problems_of
from dyson.app.run import RunDirectory
from dyson.app.train import grown_state, read_state
from dyson.vmc.measurement import Measurement, joined

pytestmark = pytest.mark.usefixtures("compile_once")


@pytest.fixture(scope="module")
def trained(finished):
    run = RunDirectory.open(finished[0])
    problems = problems_of(run.settings, build)
    return run, problems(6), read_state(run, problems)


def test_an_estimate_is_that_of_all_its_samples_together(trained):
    _, problem, state = trained
    record = evaluate(problem, state, batches=3, key=evaluation_key(4))
    samples, parts = state.sampler, []
    for batch in range(3):
        key = jax.random.fold_in(evaluation_key(4), batch)
        samples, measured = problem.vmc.measure(key, state.model, samples)
        parts.append(measured)
    estimate = joined(parts).estimate()
    for name, value in [
        ("energy", estimate.mean),
        ("error", estimate.error),
        ("tau", estimate.tau),
    ]:
        assert record[name] == float(np.real(value))
    assert record["samples"] == 96


def test_samples_are_drawn_until_the_error_bar_is_reached(trained):
    _, problem, state = trained
    first = evaluate(problem, state, batches=FIRST_BATCHES, key=evaluation_key(0))
    relative = first["error"] / abs(first["energy"])
    seen = []
    watch = lambda drawn, wanted: seen.append((drawn, wanted))
    draw = lambda until: evaluate(
        problem, state, batches=200, key=evaluation_key(0), until=until, on_batch=watch
    )
    assert draw(1.01 * relative) == first
    assert seen[-1] == (FIRST_BATCHES, FIRST_BATCHES)
    more = draw(0.6 * relative)
    assert is_reached(more, 0.6 * relative) and not is_reached(first, 0.6 * relative)
    assert more["error"] <= 0.6 * relative * abs(more["energy"])
    drawn = [number for number, _ in seen[FIRST_BATCHES:]]
    assert drawn == list(range(1, len(drawn) + 1)) and more["samples"] == 32 * len(drawn)
    assert FIRST_BATCHES < len(drawn) < 200
    # as many as one look after another says, and the same whichever way they were asked for
    assert more == evaluate(problem, state, batches=len(drawn), key=evaluation_key(0))


def test_chains_that_stand_still_are_known_by_it(trained):
    """With the configurations left out as with them."""
    _, problem, _ = trained
    still = jnp.ones((4, 3, 6), jnp.int8)
    energies = jnp.arange(12.0).reshape(4, 3)
    for spins, acceptance in [(still, 1.0), (still.at[2, 1, 3].set(-1), 1.0), (-still, 0.0)]:
        part = Measurement(spins, energies, jnp.full((4, 3), acceptance))
        drawn = _Drawn()
        for _ in range(2):
            drawn.add(part)
        expected = joined([part, part]).estimate()
        known = None if jnp.isnan(expected.error) else float(expected.error)
        assert drawn.record(problem)["error"] == known
    assert known is None


def test_nothing_is_reached_where_nothing_is_known():
    assert not is_reached({"energy": -1.0, "error": None}, 1.0)
    assert not is_reached({"energy": None, "error": 0.1}, 1.0)
    assert is_reached({"energy": -2.0, "error": 0.1}, 0.05)


def test_the_command_draws_until_then_or_says_that_it_did_not(finished):
    directory, _ = finished
    before = contents(directory)
    code, out, err = dyson("evaluate", directory, "--until", 0.05, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["error"] <= 0.05 * abs(result["energy"])
    code, out, err = dyson("evaluate", directory, "--until", 1e-9, "--batches", 18, "--json")
    assert code == 0 and json.loads(out)["samples"] == 18 * 32
    assert err.startswith("dyson: warning: the error bar is ") and err.count("\n") == 1
    assert "after 18 batches, more than 1e-09 of the energy; --batches allows for more" in err
    for until in (0, -1, "nan"):
        code, _, err = dyson("evaluate", directory, "--until", until)
        assert code == 2 and err.startswith("dyson: --until must be greater than 0, got")
    assert contents(directory) == before


def test_a_state_is_evaluated_on_another_chain(finished, trained):
    directory, _ = finished
    before = contents(directory)
    code, out, err = dyson("evaluate", directory, "--sites", 8, "--batches", 2, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    run, _, state = trained
    longer = build(run.settings.alone_on(8))
    grown = grown_state(state, longer)
    assert grown.model.n_sites == 8 and bool(
        np.all(grown.model.network.embed_local == state.model.network.embed_local)
    )
    expected = evaluate(longer, grown, batches=2, key=evaluation_key(0))
    assert {name: result[name] for name in expected} == expected
    assert result["exact_energy"] == longer.exact_energy and result["n_sites"] == 8
    same = dyson("evaluate", directory, "--batches", 2, "--json")
    assert dyson("evaluate", directory, "--sites", 6, "--batches", 2, "--json") == same
    code, _, err = dyson("evaluate", directory, "--sites", 0)
    assert (code, err) == (2, "dyson: --n-sites must be at least 1, got 0\n")
    assert contents(directory) == before
