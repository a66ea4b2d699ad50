"""A run belongs to one process at a time, and a name to one run."""

import errno
import os
import subprocess
import sys

import pytest

from commands import contents, copied, dyson
from dyson.app import claim, new_run
from dyson.app.run import RunDirectory
from dyson.app.settings import Settings

pytestmark = pytest.mark.usefixtures("compile_once")


def test_a_run_in_use_is_left_alone(finished, tmp_path):
    directory = copied(finished, tmp_path)
    before = contents(directory)
    with RunDirectory.open(directory).claim():
        code, _, err = dyson("resume", directory, "--steps", 8)
    assert code == 2
    assert err == (
        f"dyson: {directory} is in use by process {os.getpid()} on {os.uname().nodename}; "
        "wait for it or stop it\n"
    )
    assert contents(directory) == before
    # Looking at it disturbs nobody.
    with RunDirectory.open(directory).claim():
        assert dyson("plot", directory)[0] == 0


HOLD = """
import sys
from pathlib import Path
from dyson.app.claim import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_no_longer_holds_its_directory(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(claim.InUseError), claim.claimed(tmp_path):
            pass
        holder.kill()
    with claim.claimed(tmp_path) as holds:
        assert holds
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_locked_the_caller_hears_so(finished, tmp_path, monkeypatch):
    directory = copied(finished, tmp_path, "convergence.png")

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    code, _, err = dyson("resume", directory, "--batches", 2)
    assert code == 0
    assert err == (
        f"dyson: warning: the file system of {directory} keeps no locks: see that no other process "
        "trains there\n"
    )


def test_an_owner_that_ends_while_another_one_comes_passes_the_directory_on(tmp_path, monkeypatch):
    """The file that was opened is gone when it is locked: one of that name is another one."""
    lock, seen = claim._lock, []

    def late(descriptor):
        if not seen:
            (tmp_path / claim.LOCK).unlink()
        seen.append(descriptor)
        return lock(descriptor)

    monkeypatch.setattr(claim, "_lock", late)
    with claim.claimed(tmp_path) as holds:
        assert holds and len(seen) == 2
        with pytest.raises(claim.InUseError), claim.claimed(tmp_path):
            pass


RACE = """
import errno, os, pathlib, sys, tempfile, time, warnings
warnings.simplefilter("ignore")  # jax warns of forks, its threads have not begun
from dyson.app.run import RunDirectory, RunError
from dyson.app.settings import Settings

def no_links(*arguments):
    raise OSError(errno.EPERM, "Operation not permitted")

root, link = pathlib.Path(sys.argv[1]), os.link
for number in range(60):
    os.link = link if number % 2 else no_links
    path, start, children = root / str(number), time.time() + 0.01, []
    for seed in range(3):
        child = os.fork()
        if child == 0:
            while time.time() < start:
                pass
            try:
                RunDirectory.create(path, Settings(seed=seed))
            except RunError:
                os._exit(2)
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0, 2, 2], codes
    assert os.listdir(path) == ["config.json"], os.listdir(path)
    assert RunDirectory.open(path).settings.seed == codes.index(0)
"""


def test_of_processes_that_make_the_same_run_at_once_one_succeeds(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)], check=False, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_default_directory_taken_a_moment_ago_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = iter(["taken", "free"])
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.json").write_text("{}")
    monkeypatch.setattr(new_run, "free_directory", lambda settings: tmp_path / next(names))
    assert new_run.next_run(Settings()).path == tmp_path / "free"
