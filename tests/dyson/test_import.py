"""What importing does, and who imports whom."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import hodlr

SOURCE = Path(hodlr.__file__).parents[1]

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


def modules():
    """Every module of both packages, with the names it imports from them."""
    files = [file for name in ("hodlr", "dyson") for file in (SOURCE / name).rglob("*.py")]
    names = {".".join(file.relative_to(SOURCE).with_suffix("").parts): file for file in files}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}
    imported = {}
    for name, file in names.items():
        found = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
        imported[name] = {x for x in found if x.split(".")[0] in ("hodlr", "dyson")}
    assert len(imported) > 100
    return imported


def test_imports_go_one_way():
    imported = modules()
    of_module = lambda x: x if x in imported else x.rpartition(".")[0]
    graph = {name: {of_module(x) for x in found} - {name} for name, found in imported.items()}
    assert set().union(*graph.values()) <= graph.keys()
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError
    for name, found in graph.items():
        if name.startswith("hodlr"):
            assert not any(x.startswith("dyson") for x in found), name


# The house from the roof down: what a package or module imports lies below it.
FLOORS = """
    app analysis vmc samplers abacus updates scattering baselines networks mixers exact hamiltonians
    optimisers checkpoint devices batching processes files phases spins fields hodlr
""".split()


def test_imports_go_down():
    def floor(module):
        names = module.split(".")
        return FLOORS.index(names[0] if names[0] == "hodlr" else names[1])

    imported = modules()
    for name, found in imported.items():
        if name == "dyson":  # the front door
            continue
        for x in found - {"dyson"}:
            if "." in x and x.split(".")[0] == "dyson" and f"{name}.".startswith("dyson.app."):
                if x.split(".")[1] not in FLOORS:  # the application comes in by the front door
                    continue
            assert floor(x) >= floor(name), (name, x)


def test_dyson_uses_the_public_names_of_hodlr():
    for name, found in modules().items():
        if name.startswith("dyson"):
            public = {x.removeprefix("hodlr.") for x in found if x.startswith("hodlr.")}
            assert all("." not in x and hasattr(hodlr, x) for x in public), (name, public)


def test_the_library_does_not_know_the_application():
    of_application = lambda name: name.startswith("dyson.app")
    for name, found in modules().items():
        if name == "dyson" or name.startswith("hodlr") or of_application(name):
            continue
        used = {x for x in found if x.startswith("dyson.") and of_application(x)}
        assert not used, (name, used)
