"""The command `dyson`: train, resume, evaluate, plot, bench.

Results go to standard output, everything else to standard error. Exit codes, each but 0 with one
sentence: 2 for a wrong value or a damaged file; 1 for a run that had to stop and can be resumed;
130 and 143 for a command that was interrupted or told to terminate.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax

try:
    import typer
    from rich.console import Console

    from dyson.app.bench import app as bench_app
    from dyson.app.display import Display
    from dyson.app.options import (
        BATCHES,
        BATCHES_UNTIL,
        Batches,
        Config,
        ExistingRun,
        JsonFlag,
        MostBatches,
        Sites,
        Until,
        named,
        settings_options,
    )
    from dyson.app.pictures import drawn, picture_file
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"The command line needs {missing.name}: pip install 'dyson[terminal]' brings it."
    ) from None

from dyson.app import terminal
from dyson.app.choices import AUTO_SAMPLER
from dyson.app.compilation import keep_programs, unreadable
from dyson.app.cores import EnvironmentValueError, moved, overruled, use_cores
from dyson.app.engine import engine_sentence
from dyson.app.estimates import evaluate, evaluation_key, final_key, is_reached
from dyson.app.interruption import Interruption, answered
from dyson.app.memory import check_memory, is_out_of_memory
from dyson.app.metrics import Record
from dyson.app.new_run import next_run, settings_from
from dyson.app.problem import Problems, build, doubt, problems_of
from dyson.app.progress import ProgressLine
from dyson.app.ranges import SettingsError, flag_of
from dyson.app.run import PICTURE, RunDirectory, RunError, RunStopped
from dyson.app.settings import CHANGEABLE, Settings, names
from dyson.app.train import grown_state, read_state, restore, sampler_of, start, train
from dyson.app.wording import summary
from dyson.devices import DeviceError
from dyson.files import atomic_write, reason
from dyson.vmc.vmc import NonFiniteError

app = typer.Typer(
    name="dyson",
    no_args_is_help=True,
    add_completion=False,
    help="Ground states of spin chains with neural quantum states and exact local updates.",
)
app.add_typer(bench_app, name="bench")

_interruption = Interruption()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Without `arguments` it is that of this process, which the command then has to itself: a signal
    may end it at once, and its standard streams are made to take everything that is written.
    """
    global _interruption
    _interruption = Interruption()
    own_process = arguments is None
    with answered(_interruption, own_process=own_process):
        if own_process:
            terminal.prepare()
            keep_programs()
        code = _answer(arguments)
        failure = terminal.finish() if own_process else None
        if failure is not None and code == 0:
            code = _complain(f"cannot write to standard output: {reason(failure)}", 1)
    return code


def _answer(arguments: Sequence[str] | None) -> int:
    """Run a command; every error that has a sentence is answered with it."""
    # Energies and the solver need double precision; the network chooses its own.
    jax.config.update("jax_enable_x64", True)
    try:
        use_cores()
        with terminal.warnings_as_sentences(unless=unreadable):
            code = app(arguments, prog_name="dyson", standalone_mode=False) or 0
        # So typer reports a KeyboardInterrupt, which it does not let pass.
        return _complain(_interruption.sentence, _interruption.code) if code == 130 else code
    except _Stopped as stopped:
        return _complain(str(stopped), _interruption.code)
    except (KeyboardInterrupt, typer.Abort):
        return _complain(_interruption.sentence, _interruption.code)
    except (RunStopped, NonFiniteError) as error:
        return _complain(str(error), 1)
    except (RunError, SettingsError, DeviceError, EnvironmentValueError) as error:
        return _complain(str(error), 2)
    except MemoryError as error:
        return _complain(f"there is not enough memory: {error or 'choose smaller numbers'}", 1)
    except OSError as error:
        return _complain(
            f"cannot write to {error.filename or 'standard output'}: {reason(error)}", 1
        )
    except Exception as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        # Without a command the help has been shown, and there is nothing to add.
        return _complain(sentence, 2) if sentence else 2


def _sentence(error: Exception) -> str | None:
    """What others say about the command line or the environment in the form of an exception."""
    # Whether typer carries click inside or imports it, its complaints about the command line are
    # the exceptions that can format themselves.
    if (format_message := getattr(error, "format_message", None)) is not None:
        return format_message()
    text = str(error)
    if isinstance(error, RuntimeError) and text.startswith("Unable to initialize backend"):
        return text
    return None


class _Stopped(Exception):
    """The command was interrupted and has ended in good order. The message is one sentence."""


@app.command("train")
@settings_options(names())
def train_command(
    *,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--directory",
            "-d",
            help="New run directory (default: runs/ising-N-k, by the name of the Hamiltonian).",
            parser=named,
        ),
    ] = None,
    config: Config = None,
    batches: Batches = 16,
    as_json: JsonFlag = False,
    **values: Any,
) -> int:
    """Train a network and compare its energy with the exact one where that is known."""
    settings = settings_from(values, config)
    use_cores(chains=settings.chains)
    problems = problems_of(settings, build)
    check_memory(problems(settings.n_sites), settings, batches=batches)
    terminal.warn(overruled())
    terminal.warn(doubt(settings))
    with _new_run(directory, settings) as run:
        return _carry_on(run, problems, None, batches, as_json)


@app.command("resume")
@settings_options(CHANGEABLE, with_defaults=False)
def resume_command(
    directory: ExistingRun,
    *,
    batches: Batches = 16,
    as_json: JsonFlag = False,
    **values: Any,
) -> int:
    """Continue a run from wherever it stopped, bit for bit as if it had not stopped.

    The options change settings from here on, for instance to train further (--steps) or to get past
    a step that failed (a smaller --learning-rate, a larger --shift-floor, a larger --chain-length).
    """
    changes = {name: value for name, value in values.items() if value is not None}
    run = RunDirectory.open(directory)
    _interruption.sentence = f"interrupted; {run.resume_command} goes on with the run"
    with run.claim() as holds:
        terminal.warn(None if holds else _unlocked(run))
        run = RunDirectory.open(directory)  # as the last owner has left it
        settings = dataclasses.replace(run.settings, **changes)
        saved, devices = run.saved() if run.has_state() else (None, None)
        # Sums in the same order, for the same bits, on a machine with other cores.
        use_cores(devices, chains=settings.chains)
        if saved is not None and (
            settings.steps < saved or (settings.steps == saved and run.is_evaluated())
        ):
            raise RunError(
                f"{directory} has taken {saved} steps already; give --steps a larger number"
            )
        problems = problems_of(settings, build)
        check_memory(problems(settings.n_sites), settings, batches=batches)
        terminal.warn(overruled())
        if devices is None:
            run = run.change(**changes)
            return _carry_on(run, problems, None, batches, as_json)
        terminal.warn(moved(devices))
        state = restore(run, problems)
        return _carry_on(run.change(**changes), problems, state, batches, as_json)


@app.command("evaluate")
def evaluate_command(
    directory: ExistingRun,
    batches: MostBatches = None,
    until: Until = None,
    sites: Sites = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the samples.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Estimate the energy of a trained network from fresh samples; the run stays as it is."""
    run = RunDirectory.open(directory)
    if until is not None and not until > 0:
        raise SettingsError(f"--until must be greater than 0, got {until}")
    if not run.has_state():
        raise RunError(f"{run.path} holds no trained network yet: {run.resume_command}")
    use_cores(chains=run.settings.chains)
    settings, problems = run.settings, problems_of(run.settings, build)
    problem, grows = problems(run.saved_sites()), sites is not None and sites != run.saved_sites()
    if sites is not None and grows:
        settings = settings.alone_on(sites)
        problem = build(settings)
    most = batches or (BATCHES if until is None else BATCHES_UNTIL)
    check_memory(problem, settings, batches=most)
    with ProgressLine() as line:
        state = read_state(run, problems)
        if grows:
            line.write(f"compiling {sampler_of(problem.hamiltonian.n_sites)}")
            state = grown_state(state, problem)
        record = {"directory": str(directory), "step": int(state.step)}
        record |= evaluate(
            problem,
            state,
            batches=most,
            key=evaluation_key(seed),
            until=until,
            on_batch=lambda drawn, wanted: line.write(f"batch {drawn} of {wanted}"),
        )
    _report(record, as_json)
    if until is not None and not is_reached(record, until):
        error = "not known" if record["error"] is None else f"{record['error']:.1e}"
        terminal.warn(
            f"the error bar is {error} after {most} batches, more than {until} of the energy; "
            "--batches allows for more"
        )


@app.command("plot")
def plot_command(
    directory: ExistingRun,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="PNG file (default: in the directory).",
            parser=named,
        ),
    ] = None,
) -> None:
    """Draw the energy and the V-score of a run against the step."""
    run = RunDirectory.open(directory)
    use_cores()
    file = run.path / PICTURE if output is None else picture_file(run, output)
    picture = drawn(run, problems_of(run.settings, build))
    try:
        with atomic_write(file) as stream:
            stream.write(picture)
    except OSError as error:
        raise RunError(f"cannot write {file}: {reason(error)}") from error
    print(file)


@contextlib.contextmanager
def _new_run(directory: Path | None, settings: Settings) -> Iterator[RunDirectory]:
    """A new run that this process holds."""
    run = RunDirectory.create(directory, settings) if directory else next_run(settings)
    with run.claim(new=True) as holds:
        terminal.warn(None if holds else _unlocked(run))
        yield run


def _first_state(run: RunDirectory, problems: Problems) -> Any:
    """Start a run."""
    _interruption.sentence = f"interrupted; {run.resume_command} starts the run from step 0"
    try:
        return start(run, problems)
    except Exception as error:
        if is_out_of_memory(error):
            raise SettingsError(
                "the run does not fit into memory; choose smaller numbers for --chains, "
                "--chain-length or the network"
            ) from error
        raise


def _carry_on(
    run: RunDirectory, problems: Problems, state: Any, batches: int, as_json: bool
) -> int:
    """Train to the end, then evaluate, draw and report; from the start where there is no state."""
    if run.settings.sampler == AUTO_SAMPLER:
        terminal.complain(engine_sentence([problems(n_sites) for n_sites in run.settings.sizes]))
    state = _trained(run, problems, state)
    if _interruption.requested:
        # Whoever ends a process waits half a minute at most: no picture now, `dyson plot` draws it.
        raise _Stopped(
            f"stopped after step {int(state.step)} of {run.settings.steps}; "
            f"{run.resume_command} goes on from there"
        )
    _interruption.sentence = (
        f"interrupted in the final evaluation; {run.resume_command} completes it"
    )
    result = {"directory": str(run.path), "step": int(state.step)}
    problem = problems(state.model.n_sites)
    result |= evaluate(
        problem, state, batches=batches, key=final_key(run.settings.seed, state.step)
    )
    run.save_result(result)
    run.save_picture(drawn(run, problems))
    _interruption.finish()
    _report(result, as_json)
    return 0


def _trained(run: RunDirectory, problems: Problems, state: Any) -> Any:
    """The state after the last step, or after that in which a signal came."""
    console = Console(file=terminal.progress_stream())
    with Display(console, run.settings, 0 if state is None else int(state.step)) as display:
        if state is None:
            display.compiling(sampler_of(run.settings.sizes[0]))
            state = _first_state(run, problems)
        _interruption.sentence = f"interrupted; {run.resume_command} goes on with the run"

        def on_step(record: Record, state: Any) -> None:
            # The first step compiles, which may take a minute; there is nothing to lose before it.
            _interruption.patient = True
            display.update(record)

        def on_compile(what: str) -> None:
            # A state that grows has been saved: nobody has to wait for the longer chain.
            _interruption.patient = False
            display.compiling(what)

        try:
            return train(
                run,
                problems,
                state,
                on_step=on_step,
                on_compile=on_compile,
                stop=lambda: _interruption.requested,
            )
        except NonFiniteError as error:
            rate = run.settings.of("optimiser")["learning_rate"]
            smaller = f"{flag_of('learning_rate')} {rate / 4:.3g}"
            raise RunStopped(f"{error}, as {run.resume_command} {smaller}") from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise RunStopped(
                "a step does not fit into memory; the run can be resumed where there is more, "
                f"or with a smaller --chain-length: {run.resume_command}"
            ) from error
        finally:
            _interruption.patient = False


def _report(result: Record, as_json: bool) -> None:
    print(json.dumps(result, allow_nan=False) if as_json else summary(result))


def _unlocked(run: RunDirectory) -> str:
    return f"the file system of {run.path} keeps no locks: see that no other process trains there"


def _complain(sentence: str, code: int) -> int:
    terminal.complain(sentence)
    return code


if __name__ == "__main__":
    sys.exit(main())
