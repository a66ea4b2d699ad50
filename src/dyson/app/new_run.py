"""Where a new run begins: its settings from options and a file, and a directory for it."""

import contextlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dyson.app.run import OccupiedError, RunDirectory, RunError
from dyson.app.settings import Settings, SettingsError
from dyson.files import read_file, reason

_MOST_CONFIG = 2**20


def settings_from(options: Mapping[str, Any], config: Path | None = None) -> Settings:
    """The settings that the options ask for, the others as in a file or by default.

    Arguments:
      options: settings by name; None for what was not asked for.
      config: a TOML file of names and values, or the directory of a run.

    Raises `SettingsError` that names the file, or `RunError` where the directory holds no run.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    if config is None:
        return Settings.from_table(asked)
    if config.is_dir():
        run = RunDirectory.open(config)
        return Settings.from_table(run.settings.to_table() | asked)
    stored = _table(config)
    try:
        return Settings.from_table(stored | asked)
    except SettingsError as error:
        raise SettingsError(f"with {config}: {error}") from error


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(file, _MOST_CONFIG).decode())
    except OSError as error:
        raise RunError(f"cannot read {file}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file} is not TOML: {error}") from error


def next_run(settings: Settings) -> RunDirectory:
    """A new run in the first directory that nobody has."""
    while True:
        # Another process may take the same name a moment earlier.
        with contextlib.suppress(OccupiedError):
            return RunDirectory.create(free_directory(settings), settings)


def free_directory(settings: Settings) -> Path:
    """The first of runs/ising-64-1, runs/ising-64-2, … that does not exist, with the name of the
    Hamiltonian and the number of sites."""
    name = settings.hamiltonian.rpartition(":")[2]
    number = 1
    while (path := Path("runs") / f"{name}-{settings.n_sites}-{number}").exists():
        number += 1
    return path
