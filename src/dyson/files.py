"""Files that survive a crash, and files that cannot be trusted.

Writing: a file appears under its name only when it is complete and on disk. Reading: a run may have
been copied, cut, edited or exchanged, so whatever is read has a limit, and JSON is taken literally:
no NaN, no number beyond the range of floats, no name twice, no bottomless nesting.
"""

import contextlib
import errno
import json
import math
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

_CHECK = "crc32"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, *, new: bool = False) -> Iterator[BinaryIO]:
    """A binary file that replaces `path` in one step once it is complete and on disk.

    With `new` it takes the name only if nobody has it: of several processes that try at once, on
    one machine or on many, one succeeds and the others raise `FileExistsError`. When the block
    raises, the file of that name, if any, stays as it was.
    """
    path = Path(path)
    # A name of its own for every writer: two that write the same file replace it one by one.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if new:
            _take_name(temporary, path)
        else:
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _synchronise_directory(path.parent)


def remove_leftovers(directory: Path, name: str) -> None:
    """Drop what killed writers of the file `name` left behind; only its owner may ask for that."""
    with contextlib.suppress(OSError):
        for file in directory.iterdir():
            if is_leftover(file.name, name):
                file.unlink(missing_ok=True)


def is_leftover(entry: str, name: str) -> bool:
    """Whether a directory entry is an unfinished write of the file `name`."""
    return entry.startswith(f".{name}.") and entry.endswith(".tmp")


def open_file(path: str | os.PathLike) -> BinaryIO:
    """A regular file, to read. Raises `OSError` for anything else: reading a pipe or a device may
    never end."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_file(path: str | os.PathLike, most: int) -> bytes:
    """The content of a regular file; raises `OSError`, or `ValueError` beyond `most` bytes."""
    with open_file(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError(f"it is larger than {most} bytes")
        return file.read(most)


def parse_json(data: bytes) -> Any:
    """The value of strict JSON; raises `ValueError`."""
    try:
        return json.loads(
            data.decode(),
            parse_constant=_no_number,
            parse_float=_finite,
            object_pairs_hook=_table,
        )
    except (RecursionError, MemoryError) as error:
        raise ValueError("it is nested too deeply") from error


def with_check(table: dict[str, Any]) -> dict[str, Any]:
    """The table and a checksum of it, which `without_check` verifies."""
    return table | {_CHECK: _checksum(table)}


def without_check(table: dict[str, Any]) -> dict[str, Any]:
    """The table of `with_check`; raises `ValueError` where it is not what was written.

    A table without a checksum passes: a person who edits a file removes it.
    """
    rest = {name: value for name, value in table.items() if name != _CHECK}
    if _CHECK in table and table[_CHECK] != _checksum(rest):
        raise ValueError(f'it was changed after it was written ("{_CHECK}" does not fit)')
    return rest


def reason(error: BaseException) -> str:
    """What the system says of an error, in a few words."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _checksum(table: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(table, allow_nan=False).encode()):08x}"


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError("a number is beyond the range of floats")
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def _take_name(temporary: Path, path: Path) -> None:
    """Rename without replacing. A hard link is that in one step, also on network file systems;
    where there are none, the name is reserved first."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _synchronise_directory(directory: Path) -> None:
    """The new name itself lives in the directory, which not every system lets us synchronise."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
