import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dyson import checkpoint
from dyson.app.ranges import SettingsError
from dyson.app.run import RunDirectory, RunError
from dyson.app.settings import Settings, option_of


def test_settings_survive_json():
    settings = Settings(n_sites=12, exponent=2.5, periodic=False, mixer="real", seed=3)
    for each in (Settings(), settings):
        text = json.dumps(each.to_json(), allow_nan=False)
        assert Settings.from_json(json.loads(text)) == each
    assert Settings.from_json(Settings().to_json()).exponent == math.inf


@pytest.mark.parametrize(
    "values, message",
    [
        ({"n_sites": 0}, "--n-sites must be at least 1, got 0"),
        ({"n_sites": 4.0}, "--n-sites must be of type int, got 4.0"),
        ({"n_sites": True}, "--n-sites must be of type int, got True"),
        ({"n_sites": "4"}, "--n-sites must be of type int, got '4'"),
        ({"n_sites": 6, "token_size": 4}, "--n-sites must be a multiple of --token-size, got 6"),
        ({"token_size": 3}, "--token-size must be one of 1, 2, 4, got 3"),
        ({"kernel_size": 4}, "--kernel-size must be odd, got 4"),
        ({"mixer": "lstm"}, "--mixer must be one of s4d, real, s4, power_law, got lstm"),
        ({"exponent": 0}, "--exponent must be greater than 0, got 0"),
        ({"exponent": math.nan}, "--exponent must be greater than 0, got nan"),
        ({"coupling": math.nan}, "--coupling must be a finite number, got nan"),
        ({"field": math.inf}, "--field must be a finite number, got inf"),
        ({"learning_rate": math.inf}, "--learning-rate must be a finite number, got inf"),
        ({"learning_rate": -0.1}, "--learning-rate must be greater than 0, got -0.1"),
        ({"seed": 2**32}, "--seed must be from 0 to 4294967295, got 4294967296"),
        ({"seed": 2**63}, "--seed must be from 0 to 4294967295, got 9223372036854775808"),
        ({"n_sites": 10**30}, r"--n-sites must be at most 1000000, got 10+"),
        ({"n_sites": 10**400}, r"--n-sites must be at most 1000000, got 10+\.\.\.0+$"),
        ({"kernel_size": 10**11 + 1}, "--kernel-size must be at most 100001, got 100000000001"),
        ({"chains": 10**12}, "--chains must be at most 100000000, got"),
        ({"coupling": 10**400}, r"--coupling must be a finite number, got 10+\.\.\."),
        ({"coupling": "x" * 10**6}, r"--coupling must be of type float, got 'x+\.\.\.x+'$"),
    ],
)
def test_settings_outside_their_range_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        Settings(**values)


def test_every_setting_has_help():
    for field in dataclasses.fields(Settings):
        option = option_of(field.name)
        assert option.help.endswith(".") and option.group


def test_a_run_directory_keeps_settings_metrics_and_state(tmp_path):
    settings = Settings(n_sites=6, steps=3)
    run = RunDirectory.create(tmp_path / "new" / "run", settings)
    assert run.records() == []
    state = {"x": jnp.arange(3.0)}
    for step in (1, 2, 3):
        run.append({"step": step, "energy": -step / 3, "r_hat": None})
    run.save_state(state, 2)
    run.save_result({"energy": -1.0})

    again = RunDirectory.open(tmp_path / "new" / "run")
    assert again.settings == settings
    assert again.saved() == (2, jax.device_count())
    np.testing.assert_array_equal(again.load_state(state)["x"], state["x"])
    again.forget_after(2)
    assert again.records() == [
        {"step": 1, "energy": -1 / 3, "r_hat": None},
        {"step": 2, "energy": -2 / 3, "r_hat": None},
    ]


def test_changes_are_noted(tmp_path):
    run = RunDirectory.create(tmp_path / "run", Settings(steps=3))
    run.save_state({}, 3)
    assert run.change() is run
    run.change(steps=9).change(steps=9, learning_rate=0.01)
    again = RunDirectory.open(run.path)
    assert again.settings == Settings(steps=9, learning_rate=0.01)
    assert again.changes == (
        {"after_step": 3, "steps": 9},
        {"after_step": 3, "steps": 9, "learning_rate": 0.01},
    )
    with pytest.raises(SettingsError, match="--steps must be at least 1, got 0"):
        again.change(steps=0)


def test_an_empty_directory_may_be_used_and_any_other_is_left_alone(tmp_path):
    RunDirectory.create(tmp_path / "a", Settings())
    (tmp_path / "b").mkdir()
    RunDirectory.create(tmp_path / "b", Settings())
    before = (tmp_path / "b" / "config.json").read_bytes()
    with pytest.raises(RunError, match="b is not empty; name a new directory, or resume"):
        RunDirectory.create(tmp_path / "b", Settings(n_sites=8))
    assert (tmp_path / "b" / "config.json").read_bytes() == before
    with pytest.raises(RunError, match="cannot make the run directory .*: Not a directory"):
        RunDirectory.create(tmp_path / "b" / "config.json" / "c", Settings())


@pytest.mark.parametrize(
    "config, message",
    [
        (None, "is not a run directory: .*config.json: No such file or directory"),
        ("{", "is not a run directory: .*config.json is not JSON"),
        ("[1]", "is not a run directory: .* was not written by dyson"),
        ('{"format": "something else"}', "is not a run directory: .* was not written by dyson"),
        ('{"format": "dyson-run", "version": 7}', "has version 7, this dyson reads version 1"),
        ('{"format": "dyson-run", "version": 1}', "config.json is not valid: the settings are not"),
        (
            '{"format": "dyson-run", "version": 1, "settings": {"n_sites": 3}}',
            "config.json is not valid: missing setting chain_length, chains, ",
        ),
        (
            '{"format": "dyson-run", "version": 1, "settings": {"colour": 3}}',
            "config.json is not valid: unknown setting colour",
        ),
    ],
)
def test_foreign_directories_are_refused(tmp_path, config, message):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(RunError, match=message):
        RunDirectory.open(tmp_path)


def test_a_stored_value_outside_its_range_is_refused(tmp_path):
    run = RunDirectory.create(tmp_path / "run", Settings())
    file = run.path / "config.json"
    file.write_text(file.read_text().replace('"n_sites": 64', '"n_sites": -64'))
    with pytest.raises(RunError, match="--n-sites must be at least 1, got -64"):
        RunDirectory.open(run.path)
    config = {"format": "dyson-run", "version": 1, "settings": Settings().to_json(), "changes": 3}
    file.write_text(json.dumps(config))
    with pytest.raises(RunError, match="the changes are not a list"):
        RunDirectory.open(run.path)


def test_a_line_that_a_crash_lost_is_missed(tmp_path):
    """The checkpoint never reaches the disk before the metrics up to it."""
    run = RunDirectory.create(tmp_path / "run", Settings())
    for step in (1, 2, 3):
        run.append({"step": step})
    run.save_state({}, 3)
    file = run.path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for kept in ([], lines[:2], [*lines[:2], lines[2][:-1]]):
        file.write_text("".join(kept))
        for action in (run.records, lambda: run.forget_after(3)):
            with pytest.raises(RunError, match="ends with step .* is that of step 3"):
                action()
    file.write_text(lines[0] + lines[2])
    with pytest.raises(RunError, match=r"a line is not that of step 2 \(line 2\)"):
        run.records()


@pytest.mark.parametrize(
    "path, command",
    [
        ("run", "dyson resume run"),
        ("a run", "dyson resume 'a run'"),
        ("-d", "dyson resume ./-d"),
        ("$(rm -r x)'", "dyson resume '$(rm -r x)'\"'\"''"),
    ],
)
def test_the_command_that_goes_on_can_be_typed(path, command):
    assert RunDirectory(Path(path), Settings()).resume_command == command


def test_a_line_cut_short_is_dropped_and_a_damaged_one_is_reported(tmp_path):
    run = RunDirectory.create(tmp_path / "run", Settings())
    run.append({"step": 1})
    file = run.path / "metrics.jsonl"
    with file.open("a") as stream:
        stream.write('{"step": 2, "ener')
    assert run.records() == [{"step": 1}]
    run.forget_after(1)
    run.append({"step": 2})
    assert run.records() == [{"step": 1}, {"step": 2}]
    for line, message in [("{]\n", "a line is not JSON"), ('{"a": 1}\n', "does not name its step")]:
        file.write_text(line)
        with pytest.raises(RunError, match=message):
            run.records()
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(RunError, match="cannot read .*metrics.jsonl"):
        run.records()


def test_missing_and_damaged_checkpoints_are_reported(tmp_path):
    run = RunDirectory.create(tmp_path / "run", Settings())
    for action in (run.saved, lambda: run.load_state({})):
        with pytest.raises(RunError, match="cannot read .*checkpoint.npz: No such file"):
            action()
    run.save_state({"x": jnp.ones(2)}, 1)
    with pytest.raises(RunError, match="does not fit what it is loaded into"):
        run.load_state({"x": jnp.ones(3)})
    (run.path / "checkpoint.npz").write_bytes(b"")
    with pytest.raises(RunError, match="damaged or not a checkpoint"):
        run.saved()
    checkpoint.save(run.path / "checkpoint.npz", {}, {"step": 3})
    with pytest.raises(RunError, match="does not say which step it was written after"):
        run.saved()


def test_a_directory_that_vanished_is_reported(tmp_path):
    run = RunDirectory(tmp_path / "gone", Settings())
    actions = [
        lambda: run.append({"step": 1}),
        lambda: run.save_state({}, 1),
        lambda: run.save_result({}),
        lambda: run.forget_after(0),
    ]
    for action in actions:
        with pytest.raises(RunError, match="cannot write to .*gone: No such file or directory"):
            action()
