"""Standard output and error of the command, whatever they are connected to.

A name of a directory comes out as the bytes that it consists of, a letter that the terminal does
not know as a similar one, progress that nobody can take is dropped.
"""

import codecs
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO, cast

_HANDLER = "dyson.similar"
_SIMILAR = {
    "±": "+/-",
    "–": "-",
    "—": "-",
    "−": "-",
    "…": "...",
    "·": "*",
    "∞": "inf",
    "Σ": "sum",
    "α": "alpha",
    "β": "beta",
    "ψ": "psi",
    "σ": "sigma",
    "≥": ">=",
    "≤": "<=",
    "\N{COMBINING CIRCUMFLEX ACCENT}": "^",
    "²": "^2",
}
_SHOW_CURSOR = b"\x1b[?25h"


def prepare() -> None:
    """Make the streams of this process safe to write to."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed by whoever started us: the next file opened would get this number, and with it
            # everything that others print.
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error(_HANDLER, _similar)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def finish() -> OSError | None:
    """Write out what is buffered. What cannot be written is dropped, and the error returned."""
    failure = None
    for stream in filter(None, (sys.stderr, sys.stdout)):
        try:
            stream.flush()
        except OSError as error:
            failure = error if stream is sys.stdout else failure
            # Or the interpreter tries once more when it ends, and complains.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return failure


def complain(sentence: str) -> None:
    """One line on standard error, if there is anyone to read it."""
    print(f"dyson: {one_line(sentence)}", file=progress_stream(), flush=True)


def warn(sentence: str | None) -> None:
    """A warning in one line, if there is anything to say."""
    if sentence is not None:
        complain(f"warning: {sentence}")


@contextlib.contextmanager
def warnings_as_sentences(*, unless: Callable[[str], bool]) -> Iterator[None]:
    """What the library warns of, a line each and once, in place of Python's own form; `unless`
    somebody else has taken care of it."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        if not unless(str(message)):
            warn(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def last_words(sentence: str) -> None:
    """The same from any thread at any moment, past all buffers and locks."""
    line = f"dyson: {one_line(sentence)}\n".encode(errors="surrogateescape")
    with contextlib.suppress(OSError):
        # A progress bar has hidden the cursor and stands in the middle of a line.
        os.write(2, (b"\n" + _SHOW_CURSOR if os.isatty(2) else b"") + line)


def one_line(text: str) -> str:
    """Text that came from anywhere without line breaks and control characters."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else ascii(c)[1:-1] for c in text
    )


def progress_stream() -> TextIO:
    """Standard error for what need not arrive."""
    return cast(TextIO, Lossy(sys.stderr or io.StringIO()))


class Lossy(io.TextIOBase):
    """A stream that drops what cannot be written: a log on a full disk must not stop a run."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def _similar(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    similar = _SIMILAR.get(character)
    if similar is None:
        similar = "?" if character.isprintable() else ascii(character)[1:-1]
    return similar, error.start + 1
