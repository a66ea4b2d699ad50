"""The command `dyson`: train, resume, evaluate, plot, bench.

Results go to standard output, everything else to standard error. A wrong value is answered by one
sentence and exit code 2; a run that had to stop ends with exit code 1 and can be resumed.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import jax

try:
    import typer
    from matplotlib.figure import Figure
    from rich.console import Console

    from dyson import plotting
    from dyson.bench import app as bench_app
    from dyson.display import Display, summary
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"The command line needs {missing.name}: pip install 'dyson[terminal]' brings it."
    ) from None

from dyson import checkpoint
from dyson.devices import DeviceError
from dyson.run import Record, RunDirectory, RunError
from dyson.settings import Settings, SettingsError, option_of
from dyson.train import Problem, build, evaluate, restore, shapes, start, train
from dyson.vmc import NonFiniteError

app = typer.Typer(
    name="dyson",
    no_args_is_help=True,
    add_completion=False,
    help="Ground states of spin chains with neural quantum states and exact local updates.",
)
app.add_typer(bench_app, name="bench")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the final record as JSON.")]
ExistingRun = Annotated[Path, typer.Argument(help="Directory of an existing run.")]
Batches = Annotated[
    int, typer.Option(min=1, help="Sweeps of all chains that the final estimate averages.")
]

# Settings that do not shape the state, so that a resumed run may change them.
CHANGEABLE = (
    "steps",
    "chain_length",
    "sweeps",
    "learning_rate",
    "trust_region",
    "shift",
    "shift_floor",
    "checkpoint_every",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    # Energies and the solver need double precision; the network chooses its own.
    jax.config.update("jax_enable_x64", True)
    _use_cores(os.cpu_count() or 1)
    try:
        return app(arguments, prog_name="dyson", standalone_mode=False) or 0
    except (RunError, SettingsError, DeviceError) as error:
        return _complain(str(error), 2)
    except NonFiniteError as error:
        return _complain(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    except Exception as error:
        # Whether typer carries click inside or imports it, its complaints about the command line
        # are the exceptions that can format themselves.
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        sentence = format_message()
        # Without a command the help has been shown, and there is nothing to add.
        return _complain(sentence, 2) if sentence else 2


def _use_cores(number: int) -> None:
    """Share the chains among so many devices of the processor, unless the environment says else.

    Where a computation has already run, as inside a notebook, their number is fixed; it changes
    results by no more than the order of sums.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", number)


def _settings_options(names: Sequence[str], *, optional: bool = False) -> Callable:
    """Give a command one option per setting, from the table in `dyson.settings`.

    With `optional`, an option that is not given is None instead of the default of the setting.
    """
    kinds = get_type_hints(Settings)
    options = []
    for name in names:
        option = option_of(name)
        flag = option.flags or "--" + name.replace("_", "-")
        accepted = option.range()
        options.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if optional else getattr(Settings, name),
                annotation=Annotated[
                    kinds[name] | None if optional else kinds[name],
                    typer.Option(
                        flag,
                        help=option.help + (f" ({accepted})" if accepted else ""),
                        rich_help_panel=option.group,
                    ),
                ],
            )
        )

    def decorate(function: Callable) -> Callable:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        function.__signature__ = signature.replace(parameters=own + options)  # pyright: ignore
        function.__annotations__ = {p.name: p.annotation for p in own + options}
        return function

    return decorate


@app.command("train")
@_settings_options([field.name for field in dataclasses.fields(Settings)])
def train_command(
    *,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", "-d", help="New run directory (default: runs/ising-N-k)."),
    ] = None,
    batches: Batches = 16,
    as_json: JsonFlag = False,
    **values: Any,
) -> int:
    """Train a network and compare its energy with the exact one where that is known."""
    settings = Settings(**values)
    problem = build(settings)
    run = RunDirectory.create(directory or _free_directory(settings), settings)
    return _carry_on(run, problem, start(run, problem), batches, as_json)


@app.command("resume")
@_settings_options(CHANGEABLE, optional=True)
def resume_command(
    directory: ExistingRun,
    *,
    batches: Batches = 16,
    as_json: JsonFlag = False,
    **values: Any,
) -> int:
    """Continue a run from its checkpoint, bit for bit as if it had not stopped.

    The options change settings from here on, for instance to train further (--steps) or to get past
    a step that failed (a smaller --learning-rate, a larger --shift-floor, a larger --chain-length).
    """
    run = RunDirectory.open(directory)
    changes = {name: value for name, value in values.items() if value is not None}
    settings = dataclasses.replace(run.settings, **changes)
    saved, devices = run.saved()
    _use_cores(devices)  # sums in the same order, for the same bits, on a machine with other cores
    if settings.steps <= saved:
        raise RunError(f"{directory} has taken {saved} steps already; give --steps a larger number")
    problem = build(settings)
    state = restore(run, problem)
    return _carry_on(run.change(**changes), problem, state, batches, as_json)


@app.command("evaluate")
def evaluate_command(
    directory: ExistingRun,
    batches: Batches = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Estimate the energy of a trained network from fresh samples; the run stays as it is."""
    run = RunDirectory.open(directory)
    problem = build(run.settings)
    state = run.load_state(shapes(problem))
    record = {"directory": str(directory), "step": int(state.step)}
    _report(record | evaluate(problem, state, batches=batches, seed=seed), as_json)


@app.command("plot")
def plot_command(
    directory: ExistingRun,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG file (default: in the directory).")
    ] = None,
) -> None:
    """Draw the energy and the V-score of a run against the step."""
    run = RunDirectory.open(directory)
    file = output or run.path / "convergence.png"
    _draw(run, build(run.settings), file)
    print(file)


def _carry_on(run: RunDirectory, problem: Problem, state: Any, batches: int, as_json: bool) -> int:
    """Train to the end, then evaluate, draw and report."""
    console = Console(stderr=True)
    with _stop_on_signal() as stopped:
        with Display(console, run.settings, int(state.step)) as display:
            state = train(run, problem, state, on_step=display.update, stop=stopped)
        if stopped():
            _draw(run, problem, run.path / "convergence.png")
            return _complain(
                f"stopped after step {int(state.step)} of {run.settings.steps}; "
                f"dyson resume {run.path} goes on from there",
                130,
            )
    result = {"directory": str(run.path), "step": int(state.step)}
    result |= evaluate(problem, state, batches=batches, seed=run.settings.seed)
    run.save_result(result)
    _draw(run, problem, run.path / "convergence.png")
    _report(result, as_json)
    return 0


def _report(result: Record, as_json: bool) -> None:
    print(json.dumps(result, allow_nan=False) if as_json else summary(result))


def _draw(run: RunDirectory, problem: Problem, file: Path) -> None:
    records = run.records()
    columns = [
        [float("nan") if record.get(name) is None else record[name] for record in records]
        for name in ("step", "energy", "error", "v_score")
    ]
    figure = Figure(figsize=(7, 6), layout="constrained")
    plotting.convergence(
        *columns,
        n_sites=run.settings.n_sites,
        exact=problem.exact_energy,
        figure=figure,
    )
    try:
        with checkpoint.atomic_write(file) as stream:
            figure.savefig(stream, format="png", dpi=150)
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror or error}") from error


def _free_directory(settings: Settings) -> Path:
    """The first of runs/ising-N-1, runs/ising-N-2, … that does not exist."""
    number = 1
    while (path := Path("runs") / f"ising-{settings.n_sites}-{number}").exists():
        number += 1
    return path


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Let the first interrupt or termination end the current step, and the second act at once."""
    received = []

    def note(number, frame):
        received.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    previous = {each: signal.signal(each, note) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)


def _complain(sentence: str, code: int) -> int:
    print(f"dyson: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
