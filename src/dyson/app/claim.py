"""The exclusive use of a run directory.

One process trains in a directory; a second one would mix its lines into the same files. The claim
is a lock that the kernel holds on the file `.lock`, so it ends with the process however that ends,
kill -9 and power cuts included, and what is left of the file means nothing.

What holds where: on a local file system, and on a network file system whose server keeps locks (NFS
since version 4, Lustre and GPFS with flock), among all processes of all machines. On a file system
without locks nothing can be claimed, and the caller hears so; a directory is still given to one
*new* run only (`files.atomic_write` with `new`).
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # not a Unix
    fcntl = None

LOCK = ".lock"

_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class InUseError(Exception):
    """Another process holds the directory. The message is one sentence."""


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[bool]:
    """Hold an existing directory for the length of the block.

    Yields False where the file system keeps no locks. Raises `InUseError`, or `OSError` where
    nothing can be written.
    """
    file = directory / LOCK
    descriptor, holds = _locked(file)
    try:
        with contextlib.suppress(OSError):  # says who it is, nothing depends on it
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield holds
    finally:
        # Gone before it is released: whoever waits for this file finds out in `_locked`.
        with contextlib.suppress(OSError):
            os.unlink(file)
        os.close(descriptor)


def _locked(file: Path) -> tuple[int, bool]:
    """A descriptor of the file, and whether it is locked."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            holds = _lock(descriptor)
            if _is_still(descriptor, file):
                return descriptor, holds
        except BlockingIOError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise InUseError(
                f"{file.parent} is in use by {owner}; wait for it or stop it"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        # The last owner removed the file between our opening and our locking it.
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):  # how some network file systems refuse
            raise BlockingIOError from error
        if error.errno in _WITHOUT_LOCKS:
            return False
        raise
    return True


def _is_still(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> str:
    try:
        text = os.pread(descriptor, 200, 0).decode("ascii", "replace").strip()
    except OSError:
        text = ""
    return text if text.startswith("process ") and text.isprintable() else "another process"
