"""The directory that holds a training run.

    config.json       the settings, and what was changed when the run was resumed
    metrics.jsonl     one line per step
    checkpoint.npz    the state after some step; the run continues from it bit for bit
    result.json       the final estimate, once the run is complete
    convergence.png   energy and V-score against the step
    .lock             held by the process that trains (`dyson.app.claim`)

At every moment the files tell how far the run has come, so it can be taken up from wherever it
stopped: no checkpoint, a checkpoint before the last step, no result, no picture. Nothing here
overwrites what another program left: a new run wants a new or empty directory. Files are read as
strictly as they are written, and every error is one sentence.
"""

import contextlib
import dataclasses
import json
import os
import reprlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from dyson import checkpoint
from dyson.app import metrics
from dyson.app.claim import LOCK, InUseError, claimed
from dyson.app.metrics import Record
from dyson.app.ranges import SettingsError, flag_of
from dyson.app.settings import CHANGEABLE, Settings
from dyson.checkpoint import CheckpointError
from dyson.files import (
    atomic_write,
    is_leftover,
    parse_json,
    read_file,
    reason,
    remove_leftovers,
    with_check,
    without_check,
)

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint.npz"
RESULT, PICTURE = "result.json", "convergence.png"
FILES = (CONFIG, METRICS, CHECKPOINT, RESULT, PICTURE)

_FORMAT = "dyson-run"
_VERSION = 1
# A config takes a kilobyte, a line of metrics a quarter: nothing that dyson writes comes near.
_MOST_CONFIG = 2**20
_MOST_METRICS = 2**32


class RunError(Exception):
    """A run directory cannot be made or used as asked. The message is one sentence."""


class OccupiedError(RunError):
    """A new run was to be made where there is something already."""


class RunStopped(RunError):
    """A run had to stop and can be resumed. The message is one sentence and says how."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The files of one run. Make it with `create` or `open`."""

    path: Path
    settings: Settings
    changes: tuple[dict[str, Any], ...] = ()
    """What was changed when the run was resumed, and after which step."""

    @classmethod
    def create(cls, path: str | os.PathLike, settings: Settings) -> "RunDirectory":
        """A new run in a directory that does not exist yet or is empty.

        Of several processes that try at once one succeeds.
        """
        run = cls(Path(path), settings)
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            if _is_free(run.path):
                run._write_config(new=True)
                return run
        except FileExistsError as error:
            if not run.path.is_dir():
                raise RunError(f"cannot make the run directory {path}: {reason(error)}") from error
        except OSError as error:
            raise RunError(f"cannot make the run directory {path}: {reason(error)}") from error
        raise OccupiedError(f"{path} is not empty; name a new directory, or resume the run in it")

    @classmethod
    def open(cls, path: str | os.PathLike) -> "RunDirectory":
        """An existing run."""
        path = Path(path)
        file = path / CONFIG
        try:
            config = parse_json(read_file(file, _MOST_CONFIG))
        except OSError as error:
            raise RunError(f"{path} is not a run directory: {file}: {reason(error)}") from error
        except ValueError as error:
            raise RunError(
                f"{path} is not a run directory: {file} is not JSON ({error})"
            ) from error
        if not isinstance(config, dict) or config.get("format") != _FORMAT:
            raise RunError(f"{path} is not a run directory: {file} was not written by dyson")
        version = config.get("version")
        if type(version) is not int or version != _VERSION:
            found = reprlib.repr(version)
            raise RunError(f"{path} has version {found}, this dyson reads version {_VERSION}")
        try:
            settings = Settings.from_json(config.get("settings"))
            changes = _checked_changes(config.get("changes", []))
            without_check(config)
        except ValueError as error:
            raise RunError(f"{file} is not valid: {error}") from error
        return cls(path, settings, changes)

    @contextlib.contextmanager
    def claim(self, *, new: bool = False) -> Iterator[bool]:
        """Keep all other processes from training here; see `dyson.app.claim.claimed`.

        A `new` run that cannot start leaves nothing behind, so that its directory may be used
        again.
        """
        with contextlib.ExitStack() as stack:
            try:
                holds = stack.enter_context(claimed(self.path))
            except InUseError as error:
                raise RunError(str(error)) from error
            except OSError as error:
                raise self._stopped(error) from error
            for name in FILES:
                remove_leftovers(self.path, name)
            try:
                yield holds
            except RunStopped:
                raise
            except Exception:
                if new and not (self.path / CHECKPOINT).exists():
                    with contextlib.suppress(OSError):
                        (self.path / CONFIG).unlink()
                raise

    @property
    def resume_command(self) -> str:
        """What a person types to go on with this run."""
        path = os.fspath(self.path)
        return f"dyson resume {shlex.quote(os.path.join('.', path) if path[:1] == '-' else path)}"

    def change(self, **values: Any) -> "RunDirectory":
        """The same run going on with other settings; the change is noted in config.json."""
        settings = dataclasses.replace(self.settings, **values)
        if settings == self.settings:
            return self
        note = {"after_step": self.saved()[0] if self.has_state() else 0} | values
        run = RunDirectory(self.path, settings, (*self.changes, note))
        with self._writing():
            run._write_config()
        return run

    def has_state(self) -> bool:
        """Whether a checkpoint was written. Metrics without one belong to a run that lost it."""
        if (self.path / CHECKPOINT).exists():
            return True
        if self._lines():
            raise RunError(
                f"{self.path / CHECKPOINT} is missing; put it back, or remove "
                f"{self.path / METRICS} to start from step 0"
            )
        return False

    def save_state(self, state: Any, step: int, *, n_sites: int | None = None) -> None:
        """Replace the checkpoint. The metrics up to it are on disk before it is.

        `n_sites` is the chain of the state, by default that of the run.
        """
        metadata = {"step": step, "devices": jax.device_count(), "settings": self._fixed()}
        metadata["n_sites"] = n_sites or self.settings.n_sites
        with self._writing():
            if (self.path / METRICS).exists():
                with open(self.path / METRICS, "ab") as file:
                    os.fsync(file.fileno())
            checkpoint.save(self.path / CHECKPOINT, state, metadata)

    def load_state(self, like: Any, *, within: str = "") -> Any:
        """The state in the checkpoint, with the structure of `like`; see `checkpoint.load`."""
        return self._load(like, within)[0]

    def load_state_and_step(self, like: Any) -> tuple[Any, int]:
        """The state, and the step that the same file says it was saved after."""
        state, metadata = self._load(like, "")
        return state, self._step_and_devices(metadata)[0]

    def saved(self) -> tuple[int, int]:
        """The step of the checkpoint, and the number of devices that it was computed on."""
        return self._step_and_devices(self._metadata())

    def saved_sites(self) -> int:
        """The number of sites of the state in the checkpoint."""
        n_sites = _table(self._metadata()).get("n_sites")
        if type(n_sites) is not int or n_sites not in self.settings.sizes:
            raise RunError(f"{self.path / CHECKPOINT} does not say on which chain of the run it is")
        return n_sites

    def append(self, record: Record) -> None:
        """Add one line to the metrics."""
        with self._writing(), open(self.path / METRICS, "ab") as file:
            file.write(metrics.line(record))

    def records(self) -> list[Record]:
        """The metrics so far. A last line cut short by a crash is left out."""
        file = self.path / METRICS
        try:
            step, _ = self.saved()  # looked at first: a run under way writes it last
        except RunError:
            step = 0  # the lines can be looked at all the same
        try:
            records = metrics.parse(self._lines())
        except ValueError as error:
            raise RunError(f"{file} is damaged: {error}") from error
        if len(records) < step:
            raise RunError(
                f"{file} ends with step {len(records)} and the checkpoint is that of step {step}; "
                "put the missing lines back"
            )
        return records

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that the checkpoint does not contain: they will come again."""
        lines = self._lines()
        if len(self.records()) < step:
            raise RunError(f"{self.path / METRICS} ends before step {step}")
        self._replace(METRICS, b"".join(lines[:step]))

    def save_result(self, result: Record) -> None:
        """Write the final estimate."""
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        self._replace(RESULT, text.encode())

    def is_evaluated(self) -> bool:
        """Whether the state in the checkpoint was evaluated and its metrics drawn.

        A result that cannot be read is as good as none: the estimate can be repeated.
        """
        try:
            result = _table(parse_json(read_file(self.path / RESULT, _MOST_CONFIG)))
        except (OSError, ValueError):
            return False
        return result.get("step") == self.saved()[0] and (self.path / PICTURE).exists()

    def save_picture(self, picture: bytes) -> None:
        """Write the drawing of the metrics."""
        self._replace(PICTURE, picture)

    def _fixed(self) -> dict[str, Any]:
        """The settings that no resumed run may change: those of every state of this run."""
        return {k: v for k, v in self.settings.to_json().items() if k not in CHANGEABLE}

    def _metadata(self) -> Any:
        try:
            return checkpoint.load_metadata(self.path / CHECKPOINT)
        except CheckpointError as error:
            raise RunError(str(error)) from error

    def _load(self, like: Any, within: str) -> tuple[Any, Any]:
        file = self.path / CHECKPOINT
        try:
            state, metadata = checkpoint.load_with_metadata(file, like, within=within)
        except CheckpointError as error:
            raise RunError(str(error)) from error
        fixed = self._fixed()
        stored = _table(_table(metadata).get("settings", fixed))
        for name in [*fixed, *(stored.keys() - fixed.keys())]:
            found, value = stored.get(name), fixed.get(name)
            if found != value:
                raise RunError(
                    f"{file} was computed with {flag_of(name)[:40]} {reprlib.repr(found)}, "
                    f"where {self.path / CONFIG} says {value}"
                )
        return state, metadata

    def _step_and_devices(self, metadata: Any) -> tuple[int, int]:
        step, devices = (_table(metadata).get(name) for name in ("step", "devices"))
        if type(step) is not int or type(devices) is not int or step < 0 or devices < 1:
            raise RunError(f"{self.path / CHECKPOINT} does not say which step it was written after")
        return step, devices

    def _lines(self) -> list[bytes]:
        file = self.path / METRICS
        try:
            return metrics.complete_lines(read_file(file, _MOST_METRICS))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, MemoryError) as error:
            raise RunError(f"cannot read {file}: {reason(error)}") from error

    def _write_config(self, *, new: bool = False) -> None:
        config: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
        config["settings"] = self.settings.to_json()
        if self.changes:
            config["changes"] = self.changes
        text = json.dumps(with_check(config), indent=2, allow_nan=False) + "\n"
        with atomic_write(self.path / CONFIG, new=new) as file:
            file.write(text.encode())

    def _replace(self, name: str, data: bytes) -> None:
        with self._writing(), atomic_write(self.path / name) as file:
            file.write(data)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._stopped(error) from error

    def _stopped(self, error: OSError) -> RunStopped:
        return RunStopped(
            f"cannot write to {self.path}: {reason(error)}; the run can be resumed once that is "
            f"mended: {self.resume_command}"
        )


def _is_free(directory: Path) -> bool:
    """Whether a directory holds nothing, but for what a start that was killed has left."""
    entries = [entry.name for entry in directory.iterdir()]
    return all(entry == LOCK or is_leftover(entry, CONFIG) for entry in entries)


def _checked_changes(changes: Any) -> tuple[dict[str, Any], ...]:
    if not isinstance(changes, list):
        raise SettingsError("the changes are not a list")
    for change in changes:
        if not isinstance(change, dict) or change.keys() - {"after_step", *CHANGEABLE}:
            raise SettingsError("a change is not a table of settings that a run may change")
    return tuple(changes)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
