import subprocess
import sys

IMPORT = """
import jax
# Any computation would have to start this platform, which does not exist.
jax.config.update("jax_platforms", "none")
before = dict(jax.config.values)
import dyson
import hodlr
assert dict(jax.config.values) == before, "importing changed the configuration of jax"
import sys
heavy = {"matplotlib", "typer", "rich"} & set(sys.modules)
assert not heavy, f"importing the libraries brought in {heavy}"
for name in dyson.__all__:
    getattr(dyson, name)
"""

ALONE = """
import hodlr, sys
assert not any(name.split(".")[0] == "dyson" for name in sys.modules)
"""


def silent(program):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_importing_changes_nothing_and_needs_no_terminal_extra():
    silent(IMPORT)


def test_hodlr_stands_alone():
    silent(ALONE)
