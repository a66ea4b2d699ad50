"""Devices and processes change nothing but the order of sums, and whatever fails, fails on all."""

import json
import os
import socket
import subprocess
import sys
import tempfile

import equinox as eqx
import jax
import numpy as np
import pytest

import devices_program
from dyson import checkpoint, devices, processes
from dyson.app.problem import build, problems_of
from dyson.app.run import RunDirectory
from dyson.app.settings import Settings
from dyson.app.train import restore, start, train
from dyson.processes import ProcessError
from lanes import later

SAMPLERS = ("sweep", "typewriter", "metropolis")
SHARED = ("four", "first of two", "second of two")
# Devices and processes differ in what all samplers share: one of them stands for the others.
CASES = [
    (pytest.param if sampler == "metropolis" else later)(where, sampler)
    for where in ("one", *SHARED)
    for sampler in SAMPLERS
]
CLOSE = {"rtol": 0, "atol": 1e-10}


def launch(*arguments, devices=1):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    # into files: a process whose pipe is full waits, and the others wait for it
    out, err = (tempfile.TemporaryFile("w+") for _ in range(2))
    process = subprocess.Popen(
        [sys.executable, devices_program.__file__, *map(str, arguments)],
        stdout=out,
        stderr=err,
        env=environment,
    )
    return process, out, err


def result(launched):
    process, out, err = launched
    process.wait(timeout=900)
    for file in (out, err):
        file.seek(0)
    with out, err:
        assert process.returncode == 0, err.read()
        return json.loads(out.read().splitlines()[-1])  # gloo says hello on standard output


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("devices")


@pytest.fixture(scope="module")
def results(directory, request):
    """What the program prints on one device, on four, and on two processes."""
    exhaustive = request.config.getoption("exhaustive")
    samplers = ",".join(SAMPLERS) if exhaustive else "metropolis"
    for name in ("one", "four", "two"):
        (directory / name).mkdir()
    found = {"one": result(launch(directory / "one", samplers))}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [launch(directory / "two", samplers, number, port) for number in (0, 1)]
    try:
        found["first of two"], found["second of two"] = map(result, both)
    finally:
        for process, *_ in both:
            process.kill()
            process.wait()
    found["four"] = result(launch(directory / "four", samplers, devices=4))
    return found


def test_the_program_runs_where_it_should(results):
    there = {name: (found["devices"], found["process"]) for name, found in results.items()}
    assert there == {
        "one": (1, 0),
        "four": (4, 0),
        "first of two": (2, 0),
        "second of two": (2, 1),
    }


@pytest.mark.parametrize("shared, sampler", CASES[len(SAMPLERS) :])
def test_three_steps_equal_those_of_one_device(results, shared, sampler):
    one, other = results["one"][sampler], results[shared][sampler]
    np.testing.assert_allclose(other["energies"], one["energies"], **CLOSE)
    assert other["state"].keys() == one["state"].keys()
    for name, values in one["state"].items():
        # spins, random keys and what the typewriter has learnt included
        np.testing.assert_allclose(other["state"][name], values, **CLOSE, err_msg=name)
        # a checkpoint of one device goes on on several
        np.testing.assert_allclose(other["from one"][name], values, **CLOSE, err_msg=name)


@pytest.mark.parametrize("where, sampler", CASES)
def test_a_checkpoint_goes_on_bit_for_bit_with_the_same_program(results, where, sampler):
    found = results[where][sampler]
    assert found["resumed"] == [True, True] and found["placed"]
    assert set(found["compilations"].values()) == {1}
    assert found["metadata"] == {"step": 2}


@pytest.mark.parametrize("shared", SHARED)
def test_an_evaluation_equals_that_of_one_device(results, shared):
    np.testing.assert_allclose(results[shared]["measured"], results["one"]["measured"], **CLOSE)


@pytest.mark.parametrize("shared", ("four", "two"))
def test_checkpoints_of_several_devices_are_those_of_one(results, directory, shared):
    samplers = [name for name in SAMPLERS if name in results["one"]]
    assert "metropolis" in samplers
    for sampler in samplers:
        _, init = devices_program.make(sampler)
        like = eqx.filter_eval_shape(init)
        one = checkpoint.load(directory / "one" / f"{sampler}.npz", like)
        other = checkpoint.load(directory / shared / f"{sampler}.npz", like)
        for name, values in devices_program.content(one).items():
            np.testing.assert_allclose(devices_program.content(other)[name], values, **CLOSE)
    assert len(list((directory / shared).iterdir())) == len(samplers)  # written once, nothing left


def test_chains_that_do_not_divide_are_refused_everywhere(results):
    four, *two = (results[name]["complaints"] for name in SHARED)
    assert four["7 chains"] == [
        "DeviceError",
        "7 chains cannot be shared equally among 4 devices: take 4 or 8 chains, or run on 1 device",
    ]
    assert "take 4 chains, or run on 1 device" in four["1 chain"][1]
    assert "take 4 or 8 chains, or run on 3 devices" in four["6 chains"][1]
    for each in two:
        assert "take 6 or 8 chains, or run on 1 device" in each["7 chains"][1]
        assert "take 2 chains, or run on 1 device" in each["1 chain"][1]
        assert each["6 chains"] is None


def test_an_error_on_one_process_is_raised_on_all(results):
    first, second = (results[name]["complaints"] for name in SHARED[1:])
    for each in (first, second):
        assert each["not finite"][0] == "NonFiniteError" and "step 4" in each["not finite"][1]
        assert each["no directory"][0] == "FileNotFoundError"
        assert each["no file"][0] == "CheckpointError" and "metropolis1" in each["no file"][1]
        assert each["first fails"] == each["last fails"] == ["FileNotFoundError", "nothing here"]
        assert each["other network"][0] == "ProcessError"
        assert "differs between process 0 and process 1" in each["other network"][1]
        assert each["any"] == [True, False] and each["all"]
    # an exception that takes more than a message is told in words
    assert first["odd error"] == ["Odd", "strange error"]
    assert second["odd error"][0] == "ProcessError"
    assert "process 0 failed with" in second["odd error"][1]
    assert second["long"][0] == "OSError" and set(second["long"][1]) == {"ψ"}
    assert (first["nested"], second["nested"]) == ([1], [])


def test_a_resumed_run_compiles_no_second_step(tmp_path):
    settings = Settings(n_sites=4, features=4, hidden=2, depth=1, chains=8, steps=2)
    problems = problems_of(settings, build)
    run = RunDirectory.create(tmp_path / "run", settings)
    with devices_program.compilations() as compiled:
        train(run, problems, start(run, problems))
        run = run.change(steps=4)
        state = train(run, problems, restore(run, problems))
    counts = [compiled.count(f"jit({name})") for name in devices_program.PROGRAMS]
    assert int(state.step) == 4 and counts == [1, 1, 1]


def test_a_state_is_placed_once():
    """Outside of programs, arrays that lie where they belong are not touched."""
    _, init = devices_program.make("sweep")
    state = init()
    again = devices.placed(state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert after is before


def test_values_that_belong_nowhere_stay_where_they_are():
    like = {"host": np.zeros(3), "number": 1, "shape": jax.ShapeDtypeStruct((2,), float)}
    tree = {"host": np.ones(3), "number": 2, "shape": jax.numpy.ones(2)}
    moved = devices.laid_out_like(tree, like)
    assert moved["host"] is tree["host"] and moved["shape"] is tree["shape"]
    assert moved["number"] == 2


def test_one_process_alone_needs_no_others():
    calls = []
    processes.on_first(lambda: calls.append("first"))
    assert processes.on_all(lambda: calls) == ["first"]
    assert processes.is_first() and not processes.several()
    assert processes.on_any(True) and not processes.on_any(False)
    processes.check_same("nothing", "here")
    with pytest.raises(OSError, match="full"):
        processes.on_first(lambda: (_ for _ in ()).throw(OSError("full")))


def test_without_a_launcher_nothing_can_be_joined():
    hook = sys.excepthook
    with pytest.raises(ProcessError, match="start this program with srun or mpirun"):
        processes.join()
    assert sys.excepthook is hook


BESIDE = """
import jax
import numpy as np
from jax.sharding import Mesh

jax.config.update("jax_enable_x64", True)
from dyson import train

if {beside}:
    jax.set_mesh(Mesh(np.array(jax.devices()), ("theirs",)))
small = dict(n_sites=6, features=3, hidden=2, depth=1, chains=4, steps=2, batches=1)
print(train("ising", progress=False, precision=64, **small).energy)
"""


@pytest.mark.exhaustive
def test_another_library_may_have_set_the_devices_in_a_line():
    """NetKet does so when it is imported; every array of the program then says where it lies."""
    energies = []
    for beside in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", BESIDE.format(beside=beside)],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        energies.append(float(done.stdout))
    assert energies[0] == energies[1]
