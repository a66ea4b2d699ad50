"""What benchmarks print: every measurement is a line of JSON that says where it was made."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer.main

from dyson.app.bench import app, everything, interval_exponent
from dyson.app.bench.report import record
from dyson.app.bench.screened import Screened
from dyson.app.bench.timing import Spread, spread_of

ROOT = Path(__file__).parents[2]
WHERE = {"bench", "device", "cores", "dyson", "jax"}
COMMANDS = typer.main.get_command(app).commands

# Options with which each takes seconds, and the fields of its lines.
SMALL = {
    "local-energy": (["--sizes", "4", "--samples", "1"], {"way", "us", "us_low", "us_high"}),
    "proposal": (["--sizes", "8", "--chains", "2"], {"way", "us", "us_per_flip", "accepted"}),
    "throughput": (
        ["--sizes", "8", "--couplings=-1.4", "--steps", "1", "--interval", "2"],
        {"coupling", "flips", "frozen", "mismatch"},
    ),
    "interval-exponent": (
        ["--sizes", "8,16", "--tails", "1.5", "--intervals", "1,2"],
        {"tails"},
    ),
    "training-time": (["--sizes", "4", "--chains", "2", "--steps", "2"], {"way", "step"}),
    "accuracy": (
        ["--n-sites", "4", "--steps", "1", "--seeds", "1", "--couplings", "1", "--exponents", "2"],
        {"network", "n_sites", "energy", "v_score", "exact"},
    ),
    "chains": (
        ["--quick", "--chains", "dipolar", "--steps", "2"],
        {"chain", "n_sites", "energy", "relative_error", "v_score", "samples", "seconds"},
    ),
    "seeds": (
        ["--systems", "critical", "--seeds", "1", "--steps", "21"],
        {"system", "seed", "good"},
    ),
}


def test_a_record_says_where_it_was_made_and_holds_no_value_that_json_lacks():
    values = {"way": "A", "us": 1.5, "error": float("nan"), "best": [1.0], "exact": None}
    line = record("proposal", values)
    assert set(line) == WHERE | set(values)
    assert (line["bench"], line["us"], line["error"]) == ("proposal", 1.5, None)
    assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_every_benchmark_has_a_short_form_and_is_among_all():
    assert {*everything.DRAWN, *everything.PRINTED, "all"} == set(COMMANDS)
    for name, command in COMMANDS.items():
        options = {option for each in command.params for option in each.opts}
        assert "--quick" in options
        assert ("--output" in options) == (name in everything.DRAWN)


def test_the_spread_of_runs():
    assert spread_of([3.0, 1.0, 2.0]).times(2.0) == Spread(4.0, 2.0, 6.0)


def test_the_best_interval_lies_between_those_measured():
    """A parabola in logarithms has its top where it was put."""
    widths = np.array([1, 2, 4, 8])
    flips = np.exp(-((np.log(widths) - np.log(3.0)) ** 2))
    rows = [Screened(64, w, f, f, f, 0.4, 0.0, 0.0) for w, f in zip(widths, flips, strict=True)]
    assert interval_exponent.best_interval(rows) == pytest.approx(3.0)
    assert interval_exponent.best_interval(rows[:2]) == 2.0


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", SMALL)
def test_benchmarks_print_valid_records_and_draw(name, tmp_path):
    options, fields = SMALL[name]
    file = tmp_path / "picture.png"
    output = ["--output", file] if name in everything.DRAWN else []
    command = [sys.executable, "-m", "dyson_command", "bench", name, *options, *output]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode in (0, 1 if name == "seeds" else 0), done.stderr
    assert lines and all(set(line) >= WHERE | fields for line in lines)
    assert {line["bench"] for line in lines} == {name}
    assert not output or file.stat().st_size > 1000


def test_tables_of_the_documents_are_those_of_the_records():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    texts = {page: page.read_text() for page in tables.PAGES}
    shown = [name for text in texts.values() for _, name, _ in tables.TABLE.findall(text)]
    assert set(shown) == set(tables.TABLES)
    for page, text in texts.items():
        assert tables.rewritten(text) == text, f"{page.name}: run python docs/tables.py"
