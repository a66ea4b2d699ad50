"""What documents show runs: the Python blocks of README and of the pages, each file from its first
block to its last in one go."""

import re
from pathlib import Path

import jax
import pytest

from compiling import release_programs
from lanes import later

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "docs").rglob("*.md")
    if "```python" in page.read_text()
)
# Pages whose programs are those of other tests, at length.
LONG = {
    "docs/ground_states.md",
    "docs/local_updates.md",
    "docs/observables.md",
    "docs/signs_and_sectors.md",
    "docs/hodlr/gaussian_processes.md",
    "docs/hodlr/integral_equations.md",
    "docs/hodlr/signals.md",
    "docs/reading_a_state.md",
    "docs/runs.md",
    "docs/time_evolution.md",
}
# Needs other processes: tests/dyson/test_devices.py runs the same program.
ELSEWHERE = {"docs/devices.md"}
# Steps of training in README, of which the default lane makes a few.
STEPS = "for _ in range(100):"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    "page", [later(p) if p in LONG else p for p in ("README.md", *PAGES) if p not in ELSEWHERE]
)
def test_python_blocks_run(page, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.S | re.M)
    code = "\n".join(blocks)
    assert blocks and (STEPS in code) == (page == "README.md")
    if not request.config.getoption("exhaustive"):
        # the first step has compiled all that there is, and the others take minutes: as written
        # they run in the exhaustive lane
        code = code.replace(STEPS, "for _ in range(3):")
    with jax.numpy_dtype_promotion("standard"):  # as readers have it
        exec(compile(code, page, "exec"), {"__name__": "page"})
    release_programs()


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M))
    assert {
        str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")
    } == listed
    for page in listed:
        text = (ROOT / "docs" / page).read_text()
        for link in re.findall(r"\]\(([^)#:]+\.md)", text):
            assert ((ROOT / "docs" / page).parent / link).is_file(), (page, link)
