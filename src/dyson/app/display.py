"""What a person sees while a run is under way."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dyson.app.metrics import Record
from dyson.app.settings import Settings
from dyson.app.wording import figures

_LINES_WITHOUT_TERMINAL = 20


class Display:
    """A progress bar on a terminal; elsewhere (a log, a pipe) a line every twentieth of the run."""

    def __init__(self, console: Console, settings: Settings, step: int):
        self._console, self._settings = console, settings
        self._every = max(1, settings.steps // _LINES_WITHOUT_TERMINAL)
        self._progress = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=8),  # all fits in the 80 columns of a plain terminal
            TextColumn("{task.fields[figures]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(
            "", total=settings.steps, completed=step, figures="compiling"
        )

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def compiling(self, what: str) -> None:
        """Show what is compiled, until the next metrics come; on a terminal only."""
        self._progress.update(self._task, figures=f"compiling {what}")
        self._progress.refresh()  # the compiler may keep the thread that does so from running

    def update(self, record: Record) -> None:
        """Show one line of metrics."""
        step = record["step"]
        shown = figures(record, grows=bool(self._settings.ladder))
        self._progress.update(self._task, completed=step, figures=shown)
        if not self._console.is_terminal and (step % self._every == 0 or step == 1):
            left = self._progress.tasks[0].time_remaining
            remaining = "" if left is None else f"  left {left:.0f} s"
            self._console.print(
                f"{step}/{self._settings.steps}  {shown}{remaining}",
                highlight=False,
                soft_wrap=True,
            )
