"""Every notebook runs, at the small sizes that its own cells name.

A cell with a ``small`` text in its metadata sets sizes; the tests run that text in its place.
"""

import json
from pathlib import Path

import jax
import matplotlib
import matplotlib.pyplot as plt
import pytest

from compiling import release_programs
from lanes import later

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
# Full size only: its sizes are what it is about.
LARGE = {"structured_matrices"}
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def cells(name):
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", [later(name) for name in NAMES if name not in LARGE])
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    names = {"__name__": "notebook"}
    with jax.numpy_dtype_promotion("standard"):  # as readers have it
        for number, cell in enumerate(cells(name)):
            source = cell["metadata"].get("small", "".join(cell["source"]))
            exec(compile(source, f"{name}, cell {number}", "exec"), names)
            plt.close("all")
    release_programs()


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_says_how_small_it_can_be_and_holds_no_trace_of_a_machine(name):
    sized = [cell for cell in cells(name) if "small" in cell["metadata"]]
    assert (len(sized) == 1) == (name not in LARGE)
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    folders = [f"/{folder}/" for folder in ("home", "root", "tmp", "work")]
    for trace in (*folders, "Warning", "Traceback"):
        assert trace not in text, trace
    for cell in cells(name):
        for output in cell["outputs"]:
            assert output["output_type"] in ("stream", "display_data", "execute_result")
            assert output.get("name") != "stderr"
