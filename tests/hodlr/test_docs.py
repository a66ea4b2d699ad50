"""The python blocks of every page run, in order, and what they assert holds."""

import re
from pathlib import Path

import jax
import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "hodlr").glob("*.md"))


def test_there_are_pages():
    assert {page.stem for page in PAGES} == {"gaussian_processes", "integral_equations", "signals"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page):
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks and any("assert" in block for block in blocks)
    names: dict[str, object] = {}
    # As a reader has it, who has not asked for strict promotion.
    with jax.numpy_dtype_promotion("standard"):
        for block in blocks:
            exec(compile(block, str(page), "exec"), names)
