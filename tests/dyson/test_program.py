"""Training from a program: the driver of the command, with objects in place of names."""

import contextlib
import io
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dyson
from commands import contents, metrics, result
from commands import dyson as command
from dyson.app import program
from dyson.app.progress import ProgressLine
from dyson.app.ranges import SettingsError
from dyson.app.run import RunError

pytestmark = pytest.mark.usefixtures("compile_once")

SIZE = {"features": 4, "hidden": 2, "depth": 1}
TINY = {"chains": 8, "chain_length": 4, "batches": 2}


def test_it_is_the_same_run_as_that_of_the_command(finished, tmp_path, capsys):
    """Bit for bit; and the command goes on with it."""
    trained = dyson.train(
        n_sites=6, steps=6, checkpoint_every=2, directory=tmp_path / "run", **SIZE, **TINY
    )
    directory, (_, out, _) = finished
    for name in ("checkpoint.npz", "config.json"):
        assert contents(tmp_path / "run")[name] == contents(directory)[name]
    assert metrics(tmp_path / "run") == metrics(directory)
    assert result(tmp_path / "run") == result(directory)
    assert trained.energy == json.loads(out)["energy"]
    assert (trained.error, trained.directory) == (trained.estimate["error"], tmp_path / "run")
    assert bool(eqx.tree_equal(trained.model, dyson.load(directory)))
    assert capsys.readouterr() == ("", "")  # nobody watches
    code, _, err = command("resume", tmp_path / "run", "--steps", 7, "--batches", 1)
    assert code == 0, err


def test_objects_stand_in_for_names(finished):
    """The same chain, and the same network, made by hand."""
    directory, _ = finished
    network = lambda n_sites, key: dyson.SpinFlip(
        dyson.DysonNet(n_sites, dtype=jnp.float32, key=key, **SIZE)
    )
    sampler = lambda hamiltonian: dyson.Sweep(hamiltonian, 8)
    trained = dyson.train(dyson.Ising(6), network, sampler=sampler, steps=6, chains=8, batches=2)
    untimed = [{k: v for k, v in each.items() if k != "seconds"} for each in trained.log]
    assert untimed == metrics(directory)
    assert bool(eqx.tree_equal(trained.model, dyson.load(directory)))
    np.testing.assert_array_equal(trained.column("step"), np.arange(1, 7))
    trained.log[2]["energy"] = None
    assert np.isnan(trained.column("energy")[2])
    assert repr(trained).startswith("Trained(SpinFlip of 6 sites, 6 steps, E/N = -1.2")
    state, _ = trained.vmc.step(trained.state)
    assert int(state.step) == 7


def test_a_model_and_any_optimiser(finished):
    """Plain gradient descent by an amount of zero leaves the model that was given as it was."""
    model = dyson.load(finished[0])
    trained = dyson.train(dyson.Ising(6), model, optimiser=optax.sgd(0.0), steps=2, **TINY)
    assert bool(eqx.tree_equal(trained.model, model))
    exact = dyson.exact.ground_energy(dyson.Ising(6))
    assert abs(trained.energy - exact) < 10 * trained.error


def test_a_run_that_cannot_start_leaves_nothing_behind(tmp_path, monkeypatch):
    def too_large(*arguments):
        raise MemoryError

    monkeypatch.setattr(program, "start", too_large)
    with pytest.raises(MemoryError):
        dyson.train(n_sites=6, directory=tmp_path / "run", **SIZE, **TINY)
    assert contents(tmp_path / "run") == {}


def test_callbacks_see_every_step_and_may_stop_it():
    seen, states = [], []

    def watch(record, state):
        seen.append(record["step"])
        states.append(state)

    stop = lambda record, state: record["step"] == 2
    trained = dyson.train(n_sites=6, steps=6, callbacks=[stop, watch], **SIZE, **TINY)
    assert seen == [1, 2] == [each["step"] for each in trained.log]
    assert bool(eqx.tree_equal(states[-1].model, trained.model))
    assert len(dyson.train(n_sites=6, steps=3, callbacks=stop, **SIZE, **TINY).log) == 2


def test_a_line_tells_how_far_it_is_where_it_is_asked_for():
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        dyson.train(n_sites=6, steps=2, sampler="auto", progress=True, **SIZE, **TINY)
    *shown, last = err.getvalue().split("\r")
    assert "sweeps by forward passes on 6 sites" in shown[1] and shown[1].endswith("\n")
    words = [
        "compiling the sampler, 6 sites",
        "compiling the step, 6 sites",
        "1/2  E/N",
        "2/2  E/N",
    ]
    words += ["evaluating 1/2"]
    for text, word in zip(shown[2:], words, strict=True):
        assert text.startswith(word)
    assert last.startswith("evaluating 2/2") and last.endswith("\n") and last.count("\n") == 1


def test_a_line_takes_the_place_of_a_longer_one():
    out = io.StringIO()
    with ProgressLine(stream=out) as line:
        line.write("nobody sees this")
    assert out.getvalue() == ""
    with ProgressLine(True, out) as line:
        line.write("long")
        line.write("ab")
    assert out.getvalue() == "\rlong\rab  \n"


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"n_site": 6}, SettingsError, "unknown setting n_site; did you mean n_sites"),
        ({"hamiltonian": "isng"}, SettingsError, "did you mean ising"),
        ({"hamiltonian": dyson.Ising, "coupling": 1.0}, SettingsError, "--coupling belongs to"),
        (
            {"hamiltonian": lambda n: 3},
            SettingsError,
            "hamiltonian: expected a Hamiltonian, got int",
        ),
        (
            {"optimiser": optax.sgd(0.1), "learning_rate": 0.1},
            SettingsError,
            "--learning-rate belo",
        ),
        ({"optimiser": optax.sgd(0.1), "directory": "x"}, SettingsError, "got an object for optim"),
        ({"directory": "."}, RunError, "is not empty; name a new directory"),
        ({"chains": 10**8}, SettingsError, "--chains 100000000 with --chain-length 4"),
    ],
)
def test_misuse_gives_one_sentence(tmp_path, monkeypatch, arguments, error, message):
    (tmp_path / "thesis.txt").write_text("the only copy")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as caught:
        dyson.train(**arguments)
    assert "\n" not in str(caught.value) and list(contents(tmp_path)) == ["thesis.txt"]


def test_objects_have_to_fit_each_other():
    ising = dyson.Ising(6)
    with pytest.raises(SettingsError, match="the Hamiltonian has 6 sites, where 8 were asked for"):
        dyson.train(ising, n_sites=8)
    network = dyson.DysonNet(8, key=jax.random.key(0), **SIZE)
    with pytest.raises(SettingsError, match="the network has 8 sites, where 6 were asked for"):
        dyson.train(ising, network)
    with pytest.raises(SettingsError, match="the sampler given has 4 chains, where 8 were"):
        dyson.train(ising, sampler=dyson.Sweep(ising, 4), chains=8)
    with pytest.raises(SettingsError, match="--chains must be at least 2, got 1"):
        dyson.train(ising, sampler=dyson.Sweep(ising, 1))
