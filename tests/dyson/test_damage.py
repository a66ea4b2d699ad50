"""Files of a run that were damaged, edited or exchanged: refused, or as good as ever."""

import io
import json
import os
import random
import shutil
import zipfile

import jax
import numpy as np
import pytest

from commands import contents, dyson
from dyson.app import run as run_module
from dyson.app.problem import build, problems_of
from dyson.app.run import RunDirectory, RunError
from dyson.app.settings import Settings
from dyson.app.train import read_state

pytestmark = pytest.mark.usefixtures("compile_once")


def rewritten(data, *, manifest=lambda table: None, first=lambda array: array, **options):
    """A checkpoint written anew with a change, and without the checksums that would tell."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as archive,
        zipfile.ZipFile(out, "w", **options) as again,
    ):
        for name in archive.namelist():
            member = archive.read(name)
            if name == "manifest.json":
                table = json.loads(member)
                del table["crc32"]
                for entry in table["leaves"]:
                    del entry["crc32"]
                manifest(table)
                member = json.dumps(table).encode()
            if name == "leaf_00000.npy":
                stream = io.BytesIO()
                np.lib.format.write_array(stream, first(np.load(io.BytesIO(member))))
                member = stream.getvalue()
            again.writestr(name, member)
    return out.getvalue()


def in_headers(data, central, local, bits):
    """Bits set in the header of every member: in the directory of the archive and before it."""
    changed = bytearray(data)
    for magic, offset in ((b"PK\1\2", central), (b"PK\3\4", local)):
        place = changed.find(magic)
        while place >= 0:
            changed[place + offset] |= bits
            place = changed.find(magic, place + 4)
    return bytes(changed)


def bomb(data):
    """A member that says of itself that it is large."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * 10**7)
    return out.getvalue()


DAMAGED = {
    "a list for the leaves": lambda d: rewritten(d, manifest=lambda m: m.update(leaves=3)),
    "no leaves": lambda d: rewritten(d, manifest=lambda m: m.pop("leaves")),
    "no metadata": lambda d: rewritten(d, manifest=lambda m: m.pop("metadata")),
    "a name that is a list": lambda d: rewritten(
        d, manifest=lambda m: m["leaves"][0].update(name=["a"])
    ),
    "a kind that is a list": lambda d: rewritten(
        d, manifest=lambda m: m["leaves"][0].update(kind=[])
    ),
    "a shape of words": lambda d: rewritten(d, manifest=lambda m: m["leaves"][0].update(shape="x")),
    "a negative shape": lambda d: rewritten(
        d, manifest=lambda m: m["leaves"][0].update(shape=[-1, 2])
    ),
    "another generator": lambda d: rewritten(
        d, manifest=lambda m: [e.update(generator="rbg") for e in m["leaves"] if "generator" in e]
    ),
    "no such generator": lambda d: rewritten(
        d, manifest=lambda m: [e.update(generator="dice") for e in m["leaves"] if "generator" in e]
    ),
    "two leaves of one name": lambda d: rewritten(
        d, manifest=lambda m: m["leaves"][0].update(name=m["leaves"][1]["name"])
    ),
    "version true": lambda d: rewritten(d, manifest=lambda m: m.update(version=True)),
    "another shape": lambda d: rewritten(d, first=lambda a: np.ones(3, np.float32)),
    "another type": lambda d: rewritten(d, first=lambda a: a.astype(np.float64)),
    "another byte order": lambda d: rewritten(d, first=lambda a: a.astype(">f4")),
    "half an array": lambda d: rewritten(d, first=lambda a: a[:1]),
    "compressed": lambda d: rewritten(d, compression=zipfile.ZIP_DEFLATED),
    "encrypted": lambda d: in_headers(d, 8, 6, 1),
    "no such compression": lambda d: in_headers(d, 10, 8, 99),
    "a version of zip to come": lambda d: in_headers(d, 6, 4, 0xFF),
    "a bomb": bomb,
    "nested": lambda d: rewritten(
        d, manifest=lambda m: m.update(metadata=json.loads("[" * 900 + "]" * 900))
    ),
    "empty": lambda d: b"",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_checkpoint_gives_one_sentence(finished, tmp_path, damage):
    directory = shutil.copytree(finished[0], tmp_path / "run")
    file = directory / "checkpoint.npz"
    file.write_bytes(damage(file.read_bytes()))
    before = contents(directory)
    for command in (["evaluate", directory], ["resume", directory, "--steps", 99]):
        code, out, err = dyson(*command)
        assert (code, out) == (2, "")
        assert err.startswith("dyson: ") and err.count("\n") == 1
        assert str(file) in err
    assert contents(directory) == before


@pytest.mark.parametrize("name", ["leaf_00000.npy", "manifest.json"])
def test_an_archive_written_anew_by_another_program_has_to_be_the_same(finished, tmp_path, name):
    directory = shutil.copytree(finished[0], tmp_path / "run")
    file, out = directory / "checkpoint.npz", io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(out, "w") as again:
        for each in archive.namelist():
            member = archive.read(each)
            if each == name == "manifest.json":
                member = member.replace(b'"step": 6', b'"step": 4')
            elif each == name:
                member = member[:-1] + bytes([member[-1] ^ 1])
            again.writestr(each, member)
    file.write_bytes(out.getvalue())
    code, _, err = dyson("evaluate", directory)
    assert (code, err) == (2, f"dyson: {file} is damaged or not a checkpoint of dyson\n")


def test_a_checkpoint_of_another_run_is_not_taken_for_that_of_this_one(finished, tmp_path):
    """The same shapes, and another chain."""
    directory = shutil.copytree(finished[0], tmp_path / "run")
    run = RunDirectory.open(directory)
    RunDirectory(directory, Settings(**vars(run.settings) | {"field": 0.5}))._write_config()
    code, _, err = dyson("evaluate", directory)
    assert code == 2
    assert "was computed with --field 1.0, where" in err and err.endswith("says 0.5\n")
    file = directory / "checkpoint.npz"
    file.write_bytes(rewritten(file.read_bytes(), manifest=lambda m: m["metadata"].update(step=5)))
    run._write_config()
    code, _, err = dyson("evaluate", directory)
    assert (code, err) == (2, f"dyson: {file} holds step 6 and says 5\n")


CONFIGS = {
    "400 digits": lambda c: c.replace(b'"coupling": -1.0', b'"coupling": 1' + b"0" * 400),
    "5000 digits": lambda c: c.replace(b'"seed": 0', b'"seed": 1' + b"0" * 5000),
    "beyond floats": lambda c: c.replace(b'"coupling": -1.0', b'"coupling": -1e999'),
    "nested": lambda c: b"[" * 100_000,
    "nested inside": lambda c: c.replace(b'"s4d"', b"[" * 500 + b"]" * 500),
    "not a number": lambda c: c.replace(b'"field": 1.0', b'"field": NaN'),
    "a string": lambda c: c.replace(b'"field": 1.0', b'"field": "1.0"'),
    "null": lambda c: c.replace(b'"steps": 6', b'"steps": null'),
    "version true": lambda c: c.replace(b'"version": 1', b'"version": true'),
    "a name twice": lambda c: c.replace(b'"seed": 0', b'"seed": 0, "seed": 1'),
    "another value": lambda c: c.replace(b'"coupling": -1.0', b'"coupling": -1.5'),
    "another seed": lambda c: c.replace(b'"seed": 0', b'"seed": 3'),
    "lines in a name": lambda c: c.replace(b'"seed"', b'"se\\n\\u001b[31med"'),
    "lone surrogate": lambda c: c.replace(b'"s4d"', b'"\\ud800"'),
    "null for what has a default": lambda c: c.replace(b'"field": 1.0', b'"field": null'),
    "another Hamiltonian": lambda c: c.replace(b'"ising"', b'"xxz"'),
    "a Hamiltonian from nowhere": lambda c: c.replace(b'"ising"', b'"no_such_module:x"'),
    "no Hamiltonian": lambda c: c.replace(b'"ising"', b'"\\n"'),
    "changes of nothing": lambda c: c.replace(b'"crc32"', b'"changes": [3], "crc32"'),
    "not text": lambda c: b"\xff" + c,
    "large": lambda c: c + b" " * 2**21,
}


@pytest.mark.parametrize("damage", CONFIGS.values(), ids=CONFIGS)
def test_a_damaged_config_gives_one_sentence(finished, tmp_path, damage):
    directory = shutil.copytree(finished[0], tmp_path / "run")
    file = directory / "config.json"
    changed = damage(file.read_bytes())
    assert changed != file.read_bytes()
    file.write_bytes(changed)
    for command in ("evaluate", "resume", "plot"):
        code, out, err = dyson(command, directory)
        assert (code, out) == (2, "")
        assert err.startswith("dyson: ") and err.count("\n") == 1 and len(err) < 500
        assert err[:-1].isprintable()


METRICS = {
    "a string for a step": lambda m: m.replace(b'"step": 5,', b'"step": "5",'),
    "null for a step": lambda m: m.replace(b'"step": 5,', b'"step": null,'),
    "true for a step": lambda m: m.replace(b'"step": 1,', b'"step": true,'),
    "not a number": lambda m: m.replace(b'"energy": -', b'"energy": NaN, "x": -', 1),
    "a string": lambda m: m.replace(b'"energy": -', b'"energy": "high", "x": -', 1),
    "a list": lambda m: m.replace(b'"tau": ', b'"tau": [], "x": ', 1),
    "another value": lambda m: m.replace(b'"energy": -', b'"energy": -1', 1),
    "400 digits": lambda m: m.replace(b'"tau": ', b'"tau": 1' + b"0" * 400, 1),
    "nested": lambda m: b'{"step": ' + b"[" * 100_000 + b"\n" + m,
    "a line lost": lambda m: m.split(b"\n", 1)[1],
    "a line twice": lambda m: m.split(b"\n", 1)[0] + b"\n" + m,
    "no lines": lambda m: b"",
    "lines lost at the end": lambda m: m[: m.rindex(b"\n", 0, -1) + 1],
    "no end of a line": lambda m: m[:-1],
    "not text": lambda m: b"\xff" + m,
}


@pytest.mark.parametrize("damage", METRICS.values(), ids=METRICS)
def test_damaged_metrics_give_one_sentence(finished, tmp_path, damage):
    directory = shutil.copytree(finished[0], tmp_path / "run")
    file = directory / "metrics.jsonl"
    changed = damage(file.read_bytes())
    assert changed != file.read_bytes()
    file.write_bytes(changed)
    before = contents(directory)
    for command in (["resume", directory, "--steps", 99], ["plot", directory]):
        code, out, err = dyson(*command)
        assert (code, out) == (2, "")
        assert err.startswith("dyson: ") and err.count("\n") == 1 and len(err) < 500
        assert str(file) in err
    assert contents(directory) == before


def test_a_value_changed_on_purpose_is_accepted_without_its_checksum(tmp_path):
    run = RunDirectory.create(tmp_path / "run", Settings())
    file = run.path / "config.json"
    lines = file.read_text().replace('"steps": 150,', '"steps": 200,').splitlines()
    assert '"crc32"' in lines[-2]
    file.write_text("\n".join([*lines[:-3], "  }", "}"]))
    assert RunDirectory.open(run.path).settings == Settings(steps=200)


def test_what_is_no_file_is_not_read(finished, tmp_path):
    """A pipe that nobody writes to, a device without an end, a directory."""
    directory = shutil.copytree(finished[0], tmp_path / "run")
    for name in ("config.json", "metrics.jsonl", "checkpoint.npz"):
        kept = (directory / name).read_bytes()
        for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)):
            (directory / name).unlink()
            make(directory / name)
            code, _, err = dyson("resume", directory, "--steps", 9)
            assert code == 2 and err.count("\n") == 1
            if (directory / name).is_dir():
                (directory / name).rmdir()
                (directory / name).write_bytes(b"")
        (directory / name).unlink()
        (directory / name).write_bytes(kept)


def mutated(data, rng):
    """One random change: bits, bytes, pieces moved, doubled, cut out or overwritten."""
    changed = bytearray(data)
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    kind = rng.randrange(6)
    if kind == 0:
        changed[a] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[a] = rng.randrange(256)
    elif kind == 2:
        del changed[a : min(b, a + rng.randrange(1, 40))]
    elif kind == 3:
        changed[a:a] = data[b : b + rng.randrange(1, 40)]
    elif kind == 4:
        changed[a : a + 16] = bytes(16)
    else:
        del changed[a:]
    return bytes(changed)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "checkpoint.npz"])
def test_whatever_happens_to_a_file_nothing_changes_in_silence(finished, tmp_path, name):
    """Settings, metrics and state are read as they were written, or not at all."""
    directory = shutil.copytree(finished[0], tmp_path / "run")
    problems = problems_of(RunDirectory.open(directory).settings, build)

    def everything():
        run = RunDirectory.open(directory)
        lines = [json.dumps(record) for record in run.records()]
        leaves = jax.tree.leaves(read_state(run, problems))
        keys = jax.dtypes.prng_key
        plain = [
            jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, keys) else x for x in leaves
        ]
        return run.settings, lines, [np.asarray(leaf).tobytes() for leaf in plain]

    expected = everything()
    data = (directory / name).read_bytes()
    rng = random.Random(5)
    refused = 0
    for _ in range(25):
        (directory / name).write_bytes(mutated(data, rng))
        try:
            settings, lines, leaves = everything()
        except RunError:
            refused += 1
            continue
        assert (settings, leaves) == (expected[0], expected[2])
        assert lines == expected[1][: len(lines)]
    assert refused > 10


def test_limits_are_above_what_dyson_writes():
    assert run_module._MOST_CONFIG > 100 * len(json.dumps(Settings().to_json()))
