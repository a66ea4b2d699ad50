import contextlib
import dataclasses
import errno
import io
import json
import os
import shutil
import subprocess
import sys

import equinox as eqx
import jax
import numpy as np
import pytest

from commands import SIZE, TINY, contents, dyson, metrics
from dyson import exact, load
from dyson.app import cli, cores, new_run
from dyson.app.problem import build, problems_of
from dyson.app.run import RunDirectory, RunError
from dyson.app.settings import Settings
from dyson.app.train import read_state
from dyson.app.wording import summary
from dyson.hamiltonians import Ising
from dyson.spins import random_spins
from lanes import later

pytestmark = pytest.mark.usefixtures("compile_once")


def test_train_reports_its_energy_and_keeps_everything(finished):
    directory, (code, out, err) = finished
    assert code == 0
    result = json.loads(out)
    assert result["energy_per_site"] == pytest.approx(result["energy"] / 6)
    assert result["exact_energy"] == exact.ground_energy(Ising(6))
    deviation = abs(result["energy"] - result["exact_energy"])
    assert result["relative_error"] == pytest.approx(deviation / abs(result["exact_energy"]))
    assert (result["step"], result["samples"]) == (6, 64)
    assert sorted(contents(directory)) == [
        "checkpoint.npz",
        "config.json",
        "convergence.png",
        "metrics.jsonl",
        "result.json",
    ]
    assert json.loads((directory / "result.json").read_text()) == result
    assert [record["step"] for record in metrics(directory)] == [1, 2, 3, 4, 5, 6]
    assert (directory / "convergence.png").read_bytes().startswith(b"\x89PNG")
    # The progress goes to standard error, one line per step of so short a run.
    lines = err.splitlines()
    assert len(lines) == 6
    assert all(part in lines[-1] for part in ["6/6  E/N -", " ± ", "V ", "acc ", "R̂ ", "left"])


@pytest.mark.exhaustive
def test_a_chain_without_symmetry_and_with_more_samples_than_parameters(tmp_path):
    chain = ["--open", "--longitudinal", "0.3", "--exponent", "2", "--kac", "--token-size", "2"]
    network = ["--complex-head", "--mixer", "real", "--precision", "64"]
    directory = tmp_path / "run"
    code, out, _ = dyson(
        "train", "-d", directory, *TINY, *chain, *network, "--chains", 128, "--steps", 20, "--json"
    )
    assert code == 0
    result = json.loads(out)
    hamiltonian = Ising(6, longitudinal=0.3, exponent=2, kac=True, periodic=False)
    assert result["exact_energy"] == exact.ground_energy(hamiltonian)
    first, last = (metrics(directory)[i]["energy"] - result["exact_energy"] for i in (0, -1))
    assert abs(last) < 0.2 * abs(first)


def test_evaluate_leaves_the_run_alone(finished):
    directory, _ = finished
    before = contents(directory)
    code, out, err = dyson("evaluate", directory, "--batches", 3, "--seed", 5, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["step"], result["samples"]) == (6, 96)
    code, out, _ = dyson("evaluate", directory, "--batches", 3, "--seed", 5)
    assert code == 0
    assert out == summary(result) + "\n"
    assert contents(directory) == before


def test_an_estimate_does_not_repeat_the_samples_of_the_run(finished):
    """Not those of the final estimate, not those of another seed, and of the same seed the same."""
    directory, (_, out, _) = finished
    first, again, other = (
        json.loads(dyson("evaluate", directory, "--batches", 2, "--seed", seed, "--json")[1])
        for seed in (0, 0, 1)
    )
    assert first == again
    energies = {json.loads(out)["energy"], first["energy"], other["energy"]}
    assert len(energies) == 3
    assert max(energies) - min(energies) < 1


def test_a_trained_network_is_loaded_in_one_call(finished, tmp_path, monkeypatch):
    model = load(finished[0])
    run = RunDirectory.open(finished[0])
    state = read_state(run, problems_of(run.settings, build))
    assert bool(eqx.tree_equal(model, state.model))
    spins = random_spins(jax.random.key(3), (6,))
    log_psi = eqx.filter_jit(model)
    assert np.isfinite(log_psi(spins)) and log_psi(spins) == log_psi(-spins)
    for name, message in [
        ("nowhere", "nowhere is not a run directory"),
        ("new", "new holds no trained network yet: dyson resume "),
    ]:
        if name == "new":
            RunDirectory.create(tmp_path / name, run.settings)
        with pytest.raises(RunError, match=message):
            load(tmp_path / name)
    wide = RunDirectory.create(tmp_path / "wide", Settings(precision=64))
    jax.config.update("jax_enable_x64", False)
    try:
        # single precision needs nothing, and the bits do not depend on it
        assert bool(eqx.tree_equal(load(finished[0]), model))
        with pytest.raises(RunError, match="holds a network in double precision; write jax.config"):
            load(wide.path)
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_picture_replaces_nothing_but_a_picture(finished, tmp_path):
    directory = shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "thesis.txt").write_text("the only copy")
    (tmp_path / "link").symlink_to(directory / "metrics.jsonl")
    (tmp_path / "folder").mkdir()
    (directory / "result.json").unlink()
    before = contents(directory)
    for output, message in [
        (directory / "metrics.jsonl", "is another file of the run"),
        (directory / "config.json", "is another file of the run"),
        (directory / "result.json", "is another file of the run"),
        (directory / ".." / "run" / "checkpoint.npz", "is another file of the run"),
        (tmp_path / "link", "exists and is not a PNG picture"),
        (tmp_path / "thesis.txt", "exists and is not a PNG picture"),
        (tmp_path / "folder", "is not a file that a picture could replace"),
        ("/dev/null", "is not a file that a picture could replace"),
    ]:
        code, out, err = dyson("plot", directory, "-o", output)
        assert (code, out) == (2, "")
        assert err.startswith("dyson: ") and message in err and err.count("\n") == 1
    assert contents(directory) == before
    assert (tmp_path / "thesis.txt").read_text() == "the only copy"
    for output in ("convergence.png", "new.png"):
        assert dyson("plot", directory, "-o", directory / output)[0] == 0


def test_plot_draws_into_the_directory_or_elsewhere(finished, tmp_path):
    directory = shutil.copytree(finished[0], tmp_path / "copy")
    (directory / "convergence.png").unlink()
    assert dyson("plot", directory) == (0, f"{directory / 'convergence.png'}\n", "")
    assert (directory / "convergence.png").exists()
    code, _, _ = dyson("plot", directory, "-o", tmp_path / "figure.png")
    assert code == 0 and (tmp_path / "figure.png").exists()
    code, _, err = dyson("plot", directory, "-o", tmp_path / "none" / "figure.png")
    assert code == 2
    assert err.startswith("dyson: cannot write") and err.count("\n") == 1


def test_a_non_finite_value_stops_the_run_with_its_state_saved(tmp_path):
    directory = tmp_path / "run"
    # The sum of six such bonds overflows.
    code, out, err = dyson(
        "train", "-d", directory, *TINY, "--coupling", "-1e308", "--steps", 6, "--json"
    )
    assert (code, out) == (1, "")
    assert "is not finite" in err and "smaller learning rate" in err
    assert err.count("\n") == 1
    assert metrics(directory) == []
    with np.load(directory / "checkpoint.npz") as archive:
        assert all(np.all(np.isfinite(archive[f"leaf_{i:05d}"])) for i in range(5))


WRONG = [
    (["train", "--n-sites", "-4"], "--n-sites must be at least 1, got -4"),
    (["train", "--n-sites", "7", "--token-size", "2"], "got 7 sites in tokens of 2"),
    (["train", "--n-sites", "six"], "'--n-sites'"),
    (["train", "--mixer", "lstm"], "--mixer must be one of s4d, real, s4, power_law, got lstm"),
    (["train", "--exponent", "0"], "--exponent must be greater than 0, got 0"),
    (["train", "--kernel-size", "4"], "--kernel-size must be odd, got 4"),
    (["train", "--batches", "0"], "'--batches'"),
    (["train", "--batches", 10**30], "'--batches'"),
    (["train", "--seed", 2**63], "--seed must be from 0 to 4294967295"),
    (["train", "--n-sites", 10**9], "--n-sites must be at most 1000000, got 1000000000"),
    (["train", "--n-sites", 10**30], "--n-sites must be at most 1000000, got 1000"),
    (["train", "--n-sites", "1" + 5000 * "0"], "'--n-sites'"),
    (["train", "--n-sites", 8, "--chains", 10**12], "--chains must be at most 100000000"),
    (["train", "--n-sites", 8, "--features", 10**10], "--features must be at most 100000"),
    (["train", "--kernel-size", 10**11 + 1], "--kernel-size must be at most 100001"),
    (["train", "--steps", 10**18], "--steps must be at most 1000000000"),
    (["train", "--coupling", "1e400"], "--coupling must be a finite number, got inf"),
    (["train", "--n-sites", 8, "--chains", 10**8], "--chains 100000000 with --chain-length 4"),
    (["train", "--n-sites", 8, "--chain-length", 10**8], "--chains 128 with --chain-length 1000"),
    (["train", *SIZE[:-1], 20_000, "--batches", 10**7], "--batches 10000000 with --chains 20000"),
    (
        ["train", "--features", 10**5, "--kernel-size", 101],
        "parameters of the network need at least",
    ),
    (["bench", "local-energy", "--sizes", 10**30], "--sizes"),
    (["bench", "proposal", "--sizes", "8,1000000000"], "--sizes"),
    (["bench", "accuracy", "--exponents", "4,0"], "--exponents: expected positive numbers"),
    (["bench", "training-time", "--sizes", "8,10"], "--sizes takes multiples of 4"),
    (["train", "-d", ""], "'--directory' / '-d': the name is empty"),
    (["resume", ""], "the name is empty"),
    (["evaluate", ""], "the name is empty"),
    (["plot", "run", "-o", ""], "'--output' / '-o': the name is empty"),
    (["train", "--colour", "red"], "--colour"),
    (["train", "surplus"], "surplus"),
    (["resume"], "directory"),
    (["resume", "run", "--n-sites", "6"], "--n-sites"),
    (["resume", "nowhere"], "nowhere is not a run directory"),
    (["evaluate", "nowhere"], "nowhere is not a run directory"),
    (["plot", "nowhere"], "nowhere is not a run directory"),
    (["destroy"], "destroy"),
]


@pytest.mark.parametrize(
    "arguments, message", WRONG, ids=[" ".join(map(str, arguments))[:60] for arguments, _ in WRONG]
)
def test_a_wrong_value_gives_one_sentence(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = dyson(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("dyson: ") and message in err
    assert err.count("\n") == 1 and len(err) < 6000
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_or_existing_directory_is_not_touched(finished, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("the only copy")
    (foreign / "config.json").write_text('{"format": "another program"}')
    before = contents(foreign)
    for command in (["train", "-d", foreign], ["resume", foreign], ["plot", foreign]):
        code, out, err = dyson(*command)
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    assert contents(foreign) == before

    directory, _ = finished
    before = contents(directory)
    code, _, err = dyson("train", "-d", directory, *TINY)
    assert code == 2
    assert "is not empty; name a new directory, or resume the run in it" in err
    assert contents(directory) == before


def test_damaged_runs_give_one_sentence(finished, tmp_path):
    directory = shutil.copytree(finished[0], tmp_path / "copy")
    data = (directory / "checkpoint.npz").read_bytes()
    (directory / "checkpoint.npz").write_bytes(data[:-100])
    for command in ("resume", "evaluate"):
        code, _, err = dyson(command, directory)
        assert code == 2
        assert "damaged or not a checkpoint" in err and err.count("\n") == 1
    # A checkpoint of another network: the settings are those of another run.
    (directory / "checkpoint.npz").write_bytes(data)
    settings = RunDirectory.open(directory).settings
    RunDirectory(directory, dataclasses.replace(settings, features=5))._write_config()
    code, _, err = dyson("evaluate", directory)
    assert code == 2
    assert "does not fit what it is loaded into" in err and err.count("\n") == 1


def test_the_default_directory_is_the_next_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "ising-64-1").mkdir(parents=True)
    assert os.fspath(new_run.free_directory(Settings())) == "runs/ising-64-2"


@pytest.mark.parametrize("command", [[], ["train"], ["resume"], ["evaluate"], ["plot"], ["bench"]])
def test_help_describes_every_command(command):
    code, out, _ = dyson(*command, "--help")
    assert code == 0
    assert "Usage: dyson" in out
    if command == ["train"]:
        for name in Settings.__dataclass_fields__:
            assert "--" + name.replace("_", "-") in out


def test_without_a_command_the_help_is_shown():
    code, out, err = dyson()
    assert code == 2
    assert "Usage: dyson" in out + err


def installed(*arguments, **environment):
    """The command as a person starts it, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "dyson_command", *arguments],
        check=False,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def test_the_installed_command_answers_without_a_traceback(tmp_path):
    # a terminal that knows no letters but English ones, and a name that is no text
    name = os.fsencode(tmp_path) + b"/caf\xe9"
    done = installed(b"resume", name, PYTHONIOENCODING="ascii", MPLBACKEND="module://nowhere")
    assert done.returncode == 2
    assert done.stderr.startswith(b"dyson: " + name + b" is not a run directory")
    done = installed("train", "--help", PYTHONIOENCODING="ascii", MPLBACKEND="nonsense")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"--coupling" in done.stdout and b"alpha" in done.stdout


@pytest.mark.parametrize(
    "variable, value, message",
    [
        ("JAX_NUM_CPU_DEVICES", "0", b"JAX_NUM_CPU_DEVICES must be a number from 1 to 4096"),
        later("JAX_NUM_CPU_DEVICES", "abc", b"the environment is not valid: "),
        ("JAX_ENABLE_X64", "perhaps", b"the environment is not valid: "),
        (
            "XLA_FLAGS",
            "--xla_force_host_platform_device_count=many",
            b"XLA_FLAGS --xla_force_host_platform_device_count must be a number",
        ),
    ],
)
def test_an_environment_that_is_not_valid_gives_one_sentence(variable, value, message):
    done = installed("train", "--n-sites", "6", **{variable: value})
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"dyson: " + message)
    assert done.stderr.count(b"\n") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_output_that_cannot_be_written():
    command = [sys.executable, "-m", "dyson_command", "--help"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
        assert done.stderr == (b"dyson: cannot write to standard output: No space left on device\n")
        done = subprocess.run([*command[:-1], "resume", "nowhere"], check=False, stderr=full)
        assert done.returncode == 2


def test_progress_that_cannot_be_written_stops_nothing(finished, tmp_path):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    for directory, stream in ((tmp_path / "a", Full()), (tmp_path / "b", None)):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(stream):
            code = cli.main(["train", "-d", str(directory), *TINY, "--steps", "6"])
            assert cli.main(["train", "-d", str(directory)]) == 2
        assert code == 0
        assert out.getvalue().startswith(f"{directory}, 6 sites: E/N = ")
        assert out.getvalue().count("\n") == 1
        assert metrics(directory) == metrics(finished[0])


def test_a_run_that_goes_on_with_other_devices_says_so(finished, tmp_path, monkeypatch):
    directory = shutil.copytree(finished[0], tmp_path / "run")
    run = RunDirectory.open(directory)
    state = read_state(run, problems_of(run.settings, build))
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    run.save_state(state, 6)
    monkeypatch.undo()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4 --xla_other")
    code, _, err = dyson("resume", directory, "--steps", 7, "--batches", 1)
    assert code == 0
    count = jax.device_count()
    had = f"{count} device" if count == 1 else f"{count} devices"
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert warnings == [
        f"dyson: warning: XLA_FLAGS asks for 4 devices, the run has {had}: "
        "set JAX_NUM_CPU_DEVICES=4 instead",
        f"dyson: warning: the run was computed on 3 devices and goes on with {count}: sums are "
        "taken in another order, so that it no longer agrees bit for bit with a run that had not "
        "stopped",
    ]


def test_chains_are_shared_among_as_many_cores_as_divide_them(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: asked.append(value))
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    for variable in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
        monkeypatch.delenv(variable, raising=False)
    for chains in (None, 128, 7, 24):
        cores.use_cores(chains=chains)
    cores.use_cores(3, chains=128)
    assert asked == [12, 8, 7, 12, 3]
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    cores.use_cores(chains=128)
    assert len(asked) == 5
