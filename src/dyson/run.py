"""The directory that holds a training run.

    config.json       the settings, and what was changed when the run was resumed
    metrics.jsonl     one line per step
    checkpoint.npz    the state after some step; the run continues from it bit for bit
    result.json       the final estimate, once the run is complete
    convergence.png   energy and V-score against the step

Nothing here overwrites what another program left: a new run wants a new or empty directory.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax

from dyson import checkpoint
from dyson.checkpoint import CheckpointError
from dyson.settings import Settings, SettingsError

_FORMAT = "dyson-run"
_VERSION = 1

Record = dict[str, Any]
"""One line of metrics: names and plain numbers, with None for values that are not finite."""


class RunError(Exception):
    """A run directory cannot be made or used as asked. The message is one sentence."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The files of one run. Make it with `create` or `open`."""

    path: Path
    settings: Settings
    changes: tuple[dict[str, Any], ...] = ()
    """What was changed when the run was resumed, and after which step."""

    @classmethod
    def create(cls, path: str | os.PathLike, settings: Settings) -> "RunDirectory":
        """A new run in a directory that does not exist yet or is empty."""
        path = Path(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {_reason(error)}") from error
        if occupied:
            raise RunError(f"{path} is not empty; name a new directory, or resume the run in it")
        run = cls(path, settings)
        run._write_config()
        return run

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """An existing run."""
        path = Path(path)
        file = path / "config.json"
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{path} is not a run directory: {file}: {_reason(error)}") from error
        except ValueError as error:
            raise RunError(f"{path} is not a run directory: {file} is not JSON") from error
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            raise RunError(f"{path} is not a run directory: {file} was not written by dyson")
        if config.get("version") != _VERSION:
            raise RunError(
                f"{path} has version {config.get('version')}, this dyson reads version {_VERSION}"
            )
        try:
            settings = Settings.from_json(config.get("settings"))
        except SettingsError as error:
            raise RunError(f"{file} is not valid: {error}") from error
        changes = config.get("changes", [])
        if not isinstance(changes, list):
            raise RunError(f"{file} is not valid: the changes are not a list")
        return cls(path, settings, tuple(changes))

    def change(self, **values: Any) -> "RunDirectory":
        """The same run going on with other settings; the change is noted in config.json."""
        settings = dataclasses.replace(self.settings, **values)
        if settings == self.settings:
            return self
        note = {"after_step": self.saved()[0]} | values
        run = RunDirectory(self.path, settings, (*self.changes, note))
        run._write_config()
        return run

    def save_state(self, state: Any, step: int) -> None:
        """Replace the checkpoint."""
        try:
            metadata = {"step": step, "devices": jax.device_count()}
            checkpoint.save(self.path / "checkpoint.npz", state, metadata)
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {_reason(error)}") from error

    def load_state(self, like: Any) -> Any:
        """The state in the checkpoint, with the structure of `like`."""
        try:
            return checkpoint.load(self.path / "checkpoint.npz", like)
        except CheckpointError as error:
            raise RunError(str(error)) from error

    def saved(self) -> tuple[int, int]:
        """The step of the checkpoint, and the number of devices that it was computed on."""
        file = self.path / "checkpoint.npz"
        try:
            metadata = checkpoint.load_metadata(file)
        except CheckpointError as error:
            raise RunError(str(error)) from error
        metadata = metadata if isinstance(metadata, dict) else {}
        step, devices = metadata.get("step"), metadata.get("devices")
        if type(step) is not int or type(devices) is not int:
            raise RunError(f"{file} does not say which step it was written after")
        return step, devices

    def append(self, record: Record) -> None:
        """Add one line to the metrics."""
        try:
            with open(self.path / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {_reason(error)}") from error

    def records(self) -> list[Record]:
        """The metrics so far. A last line cut short by a crash is left out."""
        file = self.path / "metrics.jsonl"
        try:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise RunError(f"cannot read {file}: {_reason(error)}") from error
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        try:
            records = [json.loads(line) for line in lines]
        except ValueError as error:
            raise RunError(f"{file} is damaged: a line is not JSON") from error
        if not all(isinstance(record, dict) and "step" in record for record in records):
            raise RunError(f"{file} is damaged: a line does not name its step")
        return records

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that the checkpoint does not contain: they will come again."""
        kept = [record for record in self.records() if record["step"] <= step]
        text = "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept)
        self._replace("metrics.jsonl", text)

    def save_result(self, result: Record) -> None:
        """Write the final estimate."""
        self._write_json("result.json", result)

    def _write_config(self) -> None:
        config: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
        config["settings"] = self.settings.to_json()
        if self.changes:
            config["changes"] = self.changes
        self._write_json("config.json", config)

    def _write_json(self, name: str, value: Any) -> None:
        self._replace(name, json.dumps(value, indent=2, allow_nan=False) + "\n")

    def _replace(self, name: str, text: str) -> None:
        try:
            with checkpoint.atomic_write(self.path / name) as file:
                file.write(text.encode())
        except OSError as error:
            raise RunError(f"cannot write to {self.path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
