"""Compiled programs of the command, kept from run to run.

Compiling takes longer than many a training run, and the programs depend on nothing but the shapes,
the versions and the processor.  They are kept in a folder of the user: that named by
JAX_COMPILATION_CACHE_DIR, else by DYSON_CACHE, else ~/.cache/dyson; DYSON_CACHE=off keeps nothing.
"""

import contextlib
import hashlib
import os
import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import jax

# Seconds of compilation that are worth a file: the hundred small programs of a start take as long
# together as a large one.
WORTH = 0.0
# Bytes beyond which the programs used longest ago are dropped, down to half of it.
MOST = 2**30
UNREADABLE = "Error reading persistent compilation cache entry"


def keep_programs() -> None:
    """Load compiled programs from the folder and store new ones there, where there is one."""
    if _in_use() is not None or (folder := _folder()) is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _drop_oldest(folder)
    except OSError:  # a home that cannot be written to is no reason not to compute
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH)


def unreadable(warning: str) -> bool:
    """Whether jax says that a program in the folder is damaged, as one whose writer was killed; it
    compiles anew.  The folder is emptied then, so that it says so once.  A folder that was given to
    jax is left alone."""
    folder = _folder()
    if UNREADABLE not in warning or folder is None or _in_use() != str(folder):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return True


def _in_use() -> str | None:
    """Where jax keeps programs, if it does."""
    return jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]


def _folder() -> Path | None:
    chosen = os.environ.get("DYSON_CACHE")
    if chosen == "off":
        return None
    try:
        base = Path(chosen) if chosen else _of_the_user() / "dyson"
    except RuntimeError:  # no home
        return None
    return base / f"{jax.__version__}-{version('jaxlib')}-{_processor()}"


def _of_the_user() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _processor() -> str:
    """Programs may use any instruction of the processor that they were compiled on, and several
    kinds of machines may share a home."""
    known = [platform.machine(), platform.system()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        known += sorted({line for line in lines if line.startswith(("flags", "Features"))})
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]


def _drop_oldest(folder: Path) -> None:
    files = [(file, file.stat()) for file in folder.iterdir() if file.is_file()]
    total = sum(about.st_size for _, about in files)
    if total <= MOST:
        return
    for file, about in sorted(files, key=lambda item: max(item[1].st_atime, item[1].st_mtime)):
        file.unlink(missing_ok=True)
        total -= about.st_size
        if total <= MOST // 2:
            return
