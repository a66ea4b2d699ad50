"""One line of progress, written over and over."""

import sys
from types import TracebackType
from typing import TextIO

from dyson.app import terminal


class ProgressLine:
    """A line on standard error that takes the place of the one before.

    Arguments:
      shown: whether there is one; by default on a terminal and in a notebook.
      stream: where it goes instead.
    """

    def __init__(self, shown: bool | None = None, stream: TextIO | None = None):
        self._stream = terminal.progress_stream() if stream is None else stream
        self.shown = self._stream.isatty() or _in_a_notebook() if shown is None else shown
        self._length = 0

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> None:
        """Leave what is shown, and go on below."""
        if self._length:
            self._stream.write("\n")
            self._stream.flush()
        self._length = 0

    def write(self, text: str) -> None:
        """Show this text from here on."""
        if self.shown:
            self._stream.write("\r" + text.ljust(self._length))
            self._stream.flush()
            self._length = len(text)


def _in_a_notebook() -> bool:
    """Whether this process serves a notebook."""
    return "ipykernel" in sys.modules
