"""Several processes run one program: what they do together, and what the first does alone.

Every process runs the same program on the same input and owns some of the devices; jax's runtime
lets a compiled program run on all of them (:mod:`dyson.devices`).  Outside of compiled programs
three things need care, and this module does them:

- files are written by one process, and the others wait until they are there;
- an error that only one of them meets must end them all: the others would wait for it for ever;
- what they decide on (a signal, a file) must be the same everywhere.

The functions here are called by all processes, in the same order.  In a program of one process they
cost nothing and start no backend.  With more, a call exchanges a kilobyte per process, which takes
milliseconds.
"""

import contextvars
import os
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

Result = TypeVar("Result")

# A sentence; what is longer is cut.
MESSAGE_BYTES = 1024
# How long a process that failed waits for the others to fail as well before it leaves.
SECONDS_TO_LEAVE_TOGETHER = 10.0

_alone = contextvars.ContextVar("alone", default=False)


class ProcessError(RuntimeError):
    """Another process failed, or the processes do not agree. The message is one sentence."""


def join() -> None:
    """Make this process one of those that SLURM, Open MPI or another launcher has started.

    Call it before anything is computed.  It is ``jax.distributed.initialize()``, which finds the
    others in the environment, with three differences: where there is no launcher a
    :class:`ProcessError` says so; an exception that nobody catches ends this process even if the
    others wait for it, and they fail in turn within seconds, instead of minutes; and a request to
    terminate (SIGTERM) keeps its meaning, which jax would take away.
    """
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ProcessError(
            f"cannot join other processes ({str(error).rstrip('.')}): start this program with srun "
            "or mpirun, or call jax.distributed.initialize with the address of the first process, "
            "before anything is computed"
        ) from error
    sys.excepthook = _leave


def several() -> bool:
    """Whether more than one process runs this program."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return not several() or jax.process_index() == 0


def on_first(function: Callable[..., object], *arguments: Any) -> None:
    """Call ``function(*arguments)`` on the first process while the others wait.

    Where it raises, every process raises: the first its own exception, the others one of the same
    type and message (a :class:`ProcessError` where there is no such type).
    """
    if not several() or _alone.get():
        function(*arguments)
        return
    error = None
    if is_first():
        token = _alone.set(True)
        try:
            function(*arguments)
        except BaseException as caught:
            error = caught
        finally:
            _alone.reset(token)
    _agree(error)


def on_all(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call ``function(*arguments)`` on every process; where one raises, all raise, as with
    :func:`on_first`."""
    if not several() or _alone.get():
        return function(*arguments)
    result, error = None, None
    try:
        result = function(*arguments)
    except BaseException as caught:
        error = caught
    _agree(error)
    return result  # pyright: ignore[reportReturnType]  (without an error there is a result)


def on_any(condition: bool) -> bool:
    """Whether the condition holds on one process at least: the same answer everywhere."""
    if not several() or _alone.get():
        return condition
    return any(_exchange("yes" if condition else ""))


def check_same(what: str, digest: str) -> None:
    """Raise :class:`ProcessError` on every process unless all have the same ``digest``."""
    if not several() or _alone.get():
        return
    digests = _exchange(digest)
    others = [str(number) for number, other in enumerate(digests) if other != digests[0]]
    if others:
        raise ProcessError(
            f"{what} differs between process 0 and process {', '.join(others)}: give every process "
            "the same network, key and files"
        )


def _agree(error: BaseException | None) -> None:
    reports = _exchange("" if error is None else _described(error))
    if error is not None:
        raise error
    for number, report in enumerate(reports):
        if report:
            raise _as_described(number, report)


def _exchange(text: str) -> list[str]:
    """What every process says, in their order."""
    encoded = text.encode(errors="replace")[:MESSAGE_BYTES]
    own = np.zeros(MESSAGE_BYTES, np.uint8)
    own[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    gathered = np.asarray(multihost_utils.process_allgather(own))
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in gathered]


def _described(error: BaseException) -> str:
    return f"{type(error).__module__}\n{type(error).__qualname__}\n{error}"


def _as_described(number: int, report: str) -> BaseException:
    """The exception of another process as one of this process."""
    module, name, message = report.split("\n", 2)
    kind = getattr(sys.modules.get(module), name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        try:
            return kind(message)
        except Exception:  # its constructor wants something else than a message
            pass
    return ProcessError(f"process {number} failed with {name}: {message}")


def _leave(kind, error, trace) -> None:
    """End this process after an exception that nobody caught.

    Where all processes fail, as they should, they leave together.  Where only this one does, the
    others wait for it in some exchange, and it would wait for them at its exit.
    """
    traceback.print_exception(kind, error, trace)
    together = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    together.start()
    together.join(SECONDS_TO_LEAVE_TOGETHER)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)
