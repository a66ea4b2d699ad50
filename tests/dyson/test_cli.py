import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from commands import TINY, contents, dyson, metrics
from dyson import cli, exact
from dyson.display import Display, summary, uncertain
from dyson.hamiltonians import Ising
from dyson.settings import Settings

# other processes compile with all optimisations, and runs are compared bit for bit
pytestmark = [pytest.mark.optimised, pytest.mark.usefixtures("compile_once")]

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
    "arguments, message", WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG]
)
def test_a_wrong_value_gives_one_sentence(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = dyson(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("dyson: ") and message in err
    assert err.count("\n") == 1
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
    # A checkpoint of another network: the settings were edited by hand.
    (directory / "checkpoint.npz").write_bytes(data)
    config = directory / "config.json"
    config.write_text(config.read_text().replace('"features": 4', '"features": 5'))
    code, _, err = dyson("evaluate", directory)
    assert code == 2
    assert "does not fit what it is loaded into" in err and err.count("\n") == 1


def test_the_default_directory_is_the_next_free_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "ising-64-1").mkdir(parents=True)
    assert os.fspath(cli._free_directory(Settings())) == "runs/ising-64-2"


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


def test_the_installed_command_answers_without_a_traceback():
    command = [sys.executable, "-m", "dyson.cli", "resume", "nowhere"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith("dyson: nowhere is not a run directory")


def test_a_terminal_sees_a_progress_bar():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=80)
    record = {"step": 3, "energy": -7.5, "error": 0.06, "v_score": 2e-3}
    record |= {"acceptance": 0.4, "r_hat": None}
    with Display(console, Settings(n_sites=6, steps=4), 2) as display:
        display.update(record)
    shown = stream.getvalue()
    for part in ["3/4", "E/N -1.250 ± 0.010", "V 2.0e-03", "acc 40%", "R̂ –", "left --:--"]:
        assert part in shown


def test_numbers_are_shown_to_two_digits_of_their_error():
    assert uncertain(-1.2732919, 0.00012) == "-1.27329 ± 0.00012"
    assert uncertain(-1.2732919, 0.0096) == "-1.2733 ± 0.0096"
    assert uncertain(-12.7, 3.4) == "-12.7 ± 3.4"
    assert uncertain(-1.0, 0.0) == "-1.0000000000 ± 0.0000000000"
    assert uncertain(None, 0.1) == "not finite"


def test_the_summary_says_when_no_exact_value_is_known():
    result = {"directory": "d", "energy_per_site": -1.25, "error_per_site": 0.01, "v_score": 1e-3}
    line = summary(result | {"exact_energy_per_site": None, "relative_error": None})
    assert (
        line == "d: E/N = -1.250 ± 0.010, V-score 1.0e-03; no exact value is known for this chain"
    )
    line = summary(result | {"exact_energy_per_site": -1.26, "relative_error": 0.0079})
    assert line.endswith("; exact -1.2600000000, relative error 7.9e-03")
