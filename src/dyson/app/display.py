"""What a person sees while a run is under way, and the sentence at its end."""

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dyson.app.metrics import Record
from dyson.app.settings import Settings

_LINES_WITHOUT_TERMINAL = 20
# Of samples that do not tell: chains that never moved have no spread (`statistics.if_moved`).
_NOT_KNOWN = "not known"


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

    def update(self, record: Record) -> None:
        """Show one line of metrics."""
        step = record["step"]
        figures = _figures(record, grows=bool(self._settings.ladder))
        self._progress.update(self._task, completed=step, figures=figures)
        if not self._console.is_terminal and (step % self._every == 0 or step == 1):
            left = self._progress.tasks[0].time_remaining
            remaining = "" if left is None else f"  left {left:.0f} s"
            self._console.print(
                f"{step}/{self._settings.steps}  {figures}{remaining}",
                highlight=False,
                soft_wrap=True,
            )


def summary(result: Record) -> str:
    """The final estimate in one line, compared with the exact energy if that is known."""
    line = (
        f"{result['directory']}: E/N = "
        f"{uncertain(result['energy_per_site'], result['error_per_site'])}, "
        f"V-score {_short(result['v_score'])}"
    )
    if result["exact_energy_per_site"] is None:
        return line + "; no exact value is known for this chain"
    return (
        f"{line}; exact {result['exact_energy_per_site']:.10f}, "
        f"relative error {_short(result['relative_error'])}"
    )


def uncertain(value: float | None, error: float | None) -> str:
    """A value and its error bar, both to two digits of the error."""
    if value is None:
        return "not finite"
    if error is None:
        return f"{value:.6g} ± {_NOT_KNOWN}"
    digits = 10 if error <= 0 else min(10, max(1, 1 - math.floor(math.log10(error))))
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def _figures(record: Record, *, grows: bool) -> str:
    n_sites, energy, error = record["n_sites"], record["energy"], record["error"]
    return "  ".join(
        [
            f"E/N {uncertain(energy and energy / n_sites, error and error / n_sites)}",
            f"V {_short(record['v_score'])}",
            # there is no room for both
            f"N {n_sites}" if grows else f"acc {_short(record['acceptance'], '.0%')}",
            f"R̂ {_short(record['r_hat'], '.2f')}",
        ]
    )


def _short(value: float | None, form: str = ".1e") -> str:
    return _NOT_KNOWN if value is None else format(value, form)
