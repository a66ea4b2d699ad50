"""What Ctrl-C (SIGINT) and a request to terminate (SIGTERM) do to the command.

Everything on disk is whole at every moment, so a signal may end the process at any moment: with one
sentence that says how to go on. That must also hold while the main thread is inside a compiler for
a minute, where Python runs no signal handlers; a thread of its own listens for the signals. Only
while steps are being taken does the first signal wait for the current one, and the second does not.

A process that called the command as a function is not ended, it gets a `KeyboardInterrupt`.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from dyson.app import terminal

NOTHING = "interrupted; nothing was started"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """How the command answers signals at this moment."""

    def __init__(self) -> None:
        self.sentence: str = NOTHING
        """What is said when the command ends at once."""
        self.patient: bool = False
        """Let the first signal wait until `requested` is looked at."""
        self._received: int | None = None
        self._over = False

    @property
    def requested(self) -> bool:
        """A signal has come and waits."""
        return self._received is not None

    @property
    def code(self) -> int:
        """The exit code that tells a shell which signal ended the command."""
        return 128 + (self._received or signal.SIGINT)

    def finish(self) -> None:
        """Nothing is left to interrupt: signals are ignored from here on."""
        self._over = True

    def receive(self, number: int, leave: Callable[[], None]) -> None:
        """Answer a signal."""
        if self._over:
            return
        first, self._received = self._received is None, number
        if not (self.patient and first):
            leave()


@contextlib.contextmanager
def answered(interruption: Interruption, *, own_process: bool) -> Iterator[None]:
    """Let `interruption` answer the signals of this process while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are none of its business
        return
    handle = _listen(interruption) if own_process else _raising(interruption)
    previous = {each: signal.signal(each, handle) for each in _SIGNALS}
    try:
        yield
    finally:
        interruption.finish()
        for each, handler in previous.items():
            # The last moments of the process, in which others tidy up, are not for interrupting.
            signal.signal(each, signal.SIG_IGN if own_process else handler)


def _raising(interruption: Interruption) -> Callable[[int, FrameType | None], None]:
    def leave() -> None:
        raise KeyboardInterrupt

    return lambda number, frame: interruption.receive(number, leave)


def _listen(interruption: Interruption) -> Callable[[int, FrameType | None], None]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def leave() -> None:
        terminal.last_words(interruption.sentence)
        os._exit(interruption.code)

    def listen() -> None:
        while True:
            for number in os.read(reader, 16):
                if number in _SIGNALS:
                    interruption.receive(number, leave)

    threading.Thread(target=listen, daemon=True, name="signals").start()
    return lambda number, frame: None
