"""Runs that stop or are disturbed at any moment of their life, and go on as if they had not."""

import errno
import json
import signal
import subprocess
import sys

import pytest

from commands import TINY, contents, copied, dyson, metrics, same_end
from dyson import checkpoint
from dyson.app import cli
from dyson.app.display import Display
from dyson.app.run import RunDirectory

pytestmark = pytest.mark.usefixtures("compile_once")


def test_an_interrupted_run_resumes_bit_for_bit(finished, tmp_path, monkeypatch):
    directory = tmp_path / "run"
    update, handler = Display.update, signal.getsignal(signal.SIGINT)

    def interrupt(display, record):
        update(display, record)
        if record["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "update", interrupt)
        code, out, err = dyson("train", "-d", directory, *TINY, "--steps", 6)
    assert (code, out) == (130, "")
    sentence = f"dyson: stopped after step 3 of 6; dyson resume {directory} goes on from there"
    assert err.splitlines()[-1] == sentence
    assert signal.getsignal(signal.SIGINT) is handler
    assert "result.json" not in contents(directory)

    code, out, _ = dyson("resume", directory, "--batches", 2)
    assert code == 0
    assert out.startswith(f"{directory}, 6 sites: E/N = ")
    undisturbed = finished[0]
    for name in ("checkpoint.npz", "config.json"):
        assert (directory / name).read_bytes() == (undisturbed / name).read_bytes()
    assert metrics(directory) == metrics(undisturbed)

    # Once complete, it goes on only when asked for more steps.
    before = contents(directory)
    code, _, err = dyson("resume", directory)
    assert code == 2
    assert err == f"dyson: {directory} has taken 6 steps already; give --steps a larger number\n"
    assert contents(directory) == before


KILLED = """
import os, signal, sys
from dyson.app import cli
from dyson.app.display import Display

def die(display, record):
    if record["step"] == 5:
        os.kill(os.getpid(), signal.SIGKILL)

Display.update = die
cli.main(sys.argv[1:])
"""


def test_a_killed_run_resumes_bit_for_bit(finished, tmp_path):
    directory = tmp_path / "run"
    command = [
        sys.executable,
        "-c",
        KILLED,
        "train",
        "-d",
        str(directory),
        *TINY,
        "--steps",
        "5000",
    ]
    assert subprocess.run(command, check=False, timeout=300).returncode == -signal.SIGKILL
    assert [record["step"] for record in metrics(directory)] == [1, 2, 3, 4, 5]
    # The last line may be half written, and so may the next checkpoint.
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "en')
    (directory / ".checkpoint.npz.tmp").write_bytes(b"half")

    code, out, _ = dyson("resume", directory, "--steps", 6, "--batches", 2, "--json")
    assert code == 0
    undisturbed = finished[0]
    assert (directory / "checkpoint.npz").read_bytes() == (
        undisturbed / "checkpoint.npz"
    ).read_bytes()
    assert metrics(directory) == metrics(undisturbed)
    assert json.loads(out)["energy"] == json.loads(finished[1][1])["energy"]
    assert sorted(contents(directory)) == sorted(contents(undisturbed))


@pytest.mark.parametrize(
    "left_over", [[], [".config.json.1f.tmp", ".checkpoint.npz.2e.tmp", ".lock"]]
)
def test_a_run_killed_before_its_first_checkpoint_starts_from_step_0(finished, tmp_path, left_over):
    directory = copied(
        finished, tmp_path, "checkpoint.npz", "metrics.jsonl", "result.json", "convergence.png"
    )
    for name in left_over:
        (directory / name).write_bytes(b"half")
    code, _, err = dyson("train", "-d", directory, *TINY)
    assert code == 2 and "resume the run in it" in err
    for command in ("evaluate",):
        code, _, err = dyson(command, directory)
        assert code == 2
        assert err == f"dyson: {directory} holds no trained network yet: dyson resume {directory}\n"
    code, _, _ = dyson("resume", directory, "--batches", 2)
    assert code == 0
    assert same_end(directory, finished[0])


@pytest.mark.parametrize(
    "missing", [["result.json"], ["convergence.png"], ["result.json", "convergence.png"]]
)
def test_a_run_killed_in_its_final_evaluation_is_completed(finished, tmp_path, missing):
    directory = copied(finished, tmp_path, *missing)
    code, out, _ = dyson("resume", directory, "--batches", 2, "--json")
    assert code == 0
    assert json.loads(out)["energy"] == json.loads(finished[1][1])["energy"]
    assert same_end(directory, finished[0])
    code, _, err = dyson("resume", directory)
    assert code == 2 and "give --steps a larger number" in err


def test_a_result_of_an_earlier_step_or_that_cannot_be_read_is_none(finished, tmp_path):
    directory = copied(finished, tmp_path)
    for text in ('{"step": 4, "energy": -1.0}', "[" * 5000, "3"):
        (directory / "result.json").write_text(text)
        assert not RunDirectory.open(directory).is_evaluated()


def test_metrics_without_their_checkpoint_are_not_overwritten(finished, tmp_path):
    directory = copied(finished, tmp_path, "checkpoint.npz")
    before = contents(directory)
    for command in ("resume", "evaluate"):
        code, _, err = dyson(command, directory)
        assert code == 2
        assert "checkpoint.npz is missing; put it back, or remove" in err
    assert contents(directory) == before


def test_an_interrupt_before_anything_is_written_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interrupted(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build", interrupted)
    code, out, err = dyson("train", "--n-sites", 8)
    assert (code, out, err) == (130, "", "dyson: interrupted; nothing was started\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "moment, words",
    [
        ("start", "interrupted; dyson resume {} starts the run from step 0"),
        ("train", "interrupted; dyson resume {} goes on with the run"),
        ("evaluate", "interrupted in the final evaluation; dyson resume {} completes it"),
    ],
)
def test_a_signal_at_any_moment_gets_a_sentence(tmp_path, monkeypatch, moment, words, number, code):
    # a name that a shell would take apart
    directory = tmp_path / "a run"
    monkeypatch.setattr(cli, moment, lambda *_, **__: signal.raise_signal(number))
    if moment != "start":
        monkeypatch.setattr(cli, "start", lambda *_: None)
    if moment == "evaluate":
        model = type("Model", (), {"n_sites": 6})()
        state = type("State", (), {"step": 6, "model": model})()
        monkeypatch.setattr(cli, "train", lambda *_, **__: state)
        monkeypatch.setattr(cli, "final_key", lambda *_: None)
        monkeypatch.setattr(cli, "start", lambda *_: state)
    if moment == "train":
        monkeypatch.setattr(cli, "start", lambda *_: type("State", (), {"step": 0})())
    got, out, err = dyson("train", "-d", directory, *TINY)
    assert (got, out) == (code, "")
    assert err == "dyson: " + words.format(f"'{directory}'") + "\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


BUSY = """
import hashlib, os, signal, sys, threading
from dyson.app.interruption import Interruption, answered
interruption = Interruption()
interruption.patient = sys.argv[2] == "patient"
numbers = [int(number) for number in sys.argv[1].split(",")]

def send():
    for number in numbers:
        os.kill(os.getpid(), number)
        while interruption._received is None:
            pass

with answered(interruption, own_process=True):
    threading.Thread(target=send).start()
    # One call for an hour: like a compiler, it lets no signal handler run.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize("numbers, patience, code", [("15", "none", 143), ("15,2", "patient", 130)])
def test_a_signal_is_answered_while_a_program_compiles(numbers, patience, code):
    done = subprocess.run(
        [sys.executable, "-c", BUSY, numbers, patience],
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr == b"dyson: interrupted; nothing was started\n"


IMPORTING = """
import os, signal, sys

class Moment:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            os.kill(os.getpid(), int(sys.argv[1]))

sys.meta_path.insert(0, Moment())
import dyson_command
sys.exit(dyson_command.main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_while_packages_are_imported(number):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, str(int(number))],
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (128 + number, b"")
    assert done.stderr == b"dyson: interrupted; nothing was started\n"


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_full_disk_stops_a_run_that_can_be_resumed(finished, tmp_path, monkeypatch, fails_at):
    """At the first checkpoint, in training and at the end of it."""
    directory = tmp_path / "run"
    save, calls = checkpoint.save, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) >= fails_at:
            raise FULL
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", full)
        code, _, err = dyson("train", "-d", directory, *TINY, "--steps", 6)
    assert code == 1
    assert err.splitlines()[-1] == (
        f"dyson: cannot write to {directory}: No space left on device; the run can be resumed once "
        f"that is mended: dyson resume {directory}"
    )
    assert dyson("resume", directory, "--batches", 2)[0] == 0
    assert same_end(directory, finished[0])


@pytest.mark.parametrize("name", ["metrics.jsonl", "result.json", "convergence.png"])
def test_whatever_cannot_be_written_the_run_goes_on_later(finished, tmp_path, monkeypatch, name):
    directory = tmp_path / "run"
    replace, append = RunDirectory._replace, RunDirectory.append

    def full(run, other, data):
        with run._writing():
            if other == name:
                raise FULL
        replace(run, other, data)

    def half_a_line(run, record):
        if name == "metrics.jsonl" and record["step"] == 4:
            with open(run.path / name, "ab") as file:
                file.write(b'{"step": 4, ')
            with run._writing():
                raise FULL
        append(run, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "_replace", full)
        patch.setattr(RunDirectory, "append", half_a_line)
        code, _, err = dyson("train", "-d", directory, *TINY, "--steps", 6)
    assert code == 1
    assert err.splitlines()[-1].endswith(f"once that is mended: dyson resume {directory}")
    assert dyson("resume", directory, "--batches", 2)[0] == 0
    assert same_end(directory, finished[0])


def test_a_run_that_does_not_fit_leaves_nothing_behind(tmp_path, monkeypatch):
    directory = tmp_path / "run"

    def too_large(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(cli, "start", too_large)
        code, _, err = dyson("train", "-d", directory, *TINY)
    assert code == 2 and err.startswith("dyson: the run does not fit into memory")
    assert contents(directory) == {}


def test_a_step_that_does_not_fit_stops_a_run_that_can_be_resumed(tmp_path, monkeypatch):
    directory = tmp_path / "run"

    def too_large(*arguments, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(cli, "train", too_large)
        code, _, err = dyson("train", "-d", directory, *TINY)
    assert code == 1 and err.endswith(f"a smaller --chain-length: dyson resume {directory}\n")
