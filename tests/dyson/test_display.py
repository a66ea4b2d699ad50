"""What a person sees of a run."""

import io

from rich.console import Console

from dyson.app.display import Display
from dyson.app.settings import Settings
from dyson.app.wording import summary, uncertain


def test_a_terminal_sees_a_progress_bar():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=80)
    record = {"step": 3, "n_sites": 6, "energy": -7.5, "error": 0.06, "v_score": 2e-3}
    record |= {"acceptance": 0.4, "r_hat": None}
    with Display(console, Settings(n_sites=6, steps=4), 2) as display:
        display.compiling("the step, 6 sites")
        assert "2/4" in stream.getvalue() and "compiling the step, 6 sites" in stream.getvalue()
        display.update(record)
    shown = stream.getvalue()
    for part in ["3/4", "E/N -1.250 ± 0.010", "V 2.0e-03", "acc 40%", "R̂ not known", "left --:--"]:
        assert part in shown


def test_a_log_sees_no_word_of_compilation():
    stream = io.StringIO()
    with Display(Console(file=stream), Settings(), 0) as display:
        display.compiling("the step, 64 sites")
    assert stream.getvalue().strip() == ""


def test_numbers_are_shown_to_two_digits_of_their_error():
    assert uncertain(-1.2732919, 0.00012) == "-1.27329 ± 0.00012"
    assert uncertain(-1.2732919, 0.0096) == "-1.2733 ± 0.0096"
    assert uncertain(-12.7, 3.4) == "-12.7 ± 3.4"
    assert uncertain(-1.0, 0.0) == "-1.0000000000 ± 0.0000000000"
    assert uncertain(None, 0.1) == "not finite"
    assert uncertain(-1.25, None) == "-1.25 ± not known"


def test_the_summary_says_when_no_exact_value_is_known():
    result = {"directory": "d", "n_sites": 8, "v_score": 1e-3}
    result |= {"energy_per_site": -1.25, "error_per_site": 0.01}
    line = summary(result | {"exact_energy_per_site": None, "relative_error": None})
    assert line == (
        "d, 8 sites: E/N = -1.250 ± 0.010, V-score 1.0e-03; no exact value is known for this chain"
    )
    line = summary(result | {"exact_energy_per_site": -1.26, "relative_error": 0.0079})
    assert line.endswith("; exact -1.2600000000, relative error 7.9e-03")
