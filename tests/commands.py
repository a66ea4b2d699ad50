"""The command `dyson` in tests: run in this process, on chains of six sites."""

import contextlib
import io
import json
import shutil

from dyson.app import cli

SIZE = ["--n-sites", "6", "--features", "4", "--hidden", "2", "--depth", "1", "--chains", "8"]
TINY = [*SIZE, "--chain-length", "4", "--checkpoint-every", "2", "--batches", "2"]


def dyson(*arguments):
    """Exit code, standard output and standard error of a command, run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def contents(directory):
    """The files of a directory, by name."""
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def metrics(directory):
    """The metrics of a run without the times, which differ from run to run, and what depends on
    them."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "crc32")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def same_end(directory, undisturbed):
    """Whether two runs have come to the same end, bit for bit."""
    return (
        sorted(contents(directory)) == sorted(contents(undisturbed))
        and contents(directory)["checkpoint.npz"] == contents(undisturbed)["checkpoint.npz"]
        and metrics(directory) == metrics(undisturbed)
        and result(directory) == result(undisturbed)
    )


def result(directory):
    """The final estimate of a run without the name of its directory."""
    values = json.loads((directory / "result.json").read_text())
    return {name: value for name, value in values.items() if name != "directory"}


def copied(finished, tmp_path, *missing):
    """A copy of the finished run from which something is missing."""
    directory = shutil.copytree(finished[0], tmp_path / "run")
    for name in missing:
        (directory / name).unlink()
    return directory
