"""Settings shared by every test, and the two lanes: by default one case for each kind, with
``--exhaustive`` everything.

Double precision and strict promotion are switched on here, before any array exists: a test that
wants single precision asks for it by dtype. Warnings are errors (see pyproject.toml).
"""

import gc
import importlib.util
import os
import pkgutil
import random

import hypothesis
import jax
import jaxtyping
import pytest

from compiling import release_programs

# Commands that a test starts leave the folders of the user alone, and compile as this process does:
# runs are compared bit for bit.
os.environ["DYSON_CACHE"] = "off"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Tracing makes objects by the million, nearly all of which stay: looking for those that do not
# after every few hundred takes a fifth of its time.
gc.set_threshold(100_000, 20, 100)

# Nearly all time goes into compiling programs that run for milliseconds: let that be in one pass
# and one piece, which takes a third of the time.  Processes that a test starts inherit it.
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def pytest_addoption(parser):
    group = parser.getgroup("dyson")
    group.addoption(
        "--exhaustive", action="store_true", help="Everything: an hour and a quarter on two cores."
    )
    group.addoption(
        "--annotations", action="store_true", help="Check annotations wherever they are passed."
    )
    group.addoption(
        "--random-cases", type=int, default=200, metavar="N",
        help="With --exhaustive: how many cases of the whole product of test_exactness.",
    )  # fmt: skip
    group.addoption(
        "--cases-seed", type=int, metavar="SEED", help="Which random cases; runs print theirs."
    )


def physics():
    """The modules of dyson but for the application, which checks what people type itself."""
    (folder,) = importlib.util.find_spec("dyson").submodule_search_locations
    return [
        f"dyson.{module.name}" for module in pkgutil.iter_modules([folder]) if module.name != "app"
    ]


def pytest_configure(config):
    """Options that have to be the same in all processes of a run go to them by the environment.

    With --annotations, those of types and shapes are checked whenever a function of the library
    is called; neither package has been imported by then.
    """
    if config.getoption("annotations"):
        jaxtyping.install_import_hook(["hodlr", *physics()], "typechecking.checked")
    examples = 25 if config.getoption("exhaustive") else 3
    hypothesis.settings.register_profile(
        "lane", max_examples=examples, deadline=None, derandomize=True
    )
    hypothesis.settings.load_profile("lane")
    if not hasattr(config, "workerinput"):
        if config.getoption("numprocesses", None):
            # each worker has a core: further threads would wait in a loop for one
            os.environ["OPENBLAS_NUM_THREADS"] = "1"
        if not config.getoption("exhaustive"):
            os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"
        seed = config.getoption("cases_seed")
        os.environ["DYSON_CASES_SEED"] = str(random.randrange(10**6) if seed is None else seed)


def pytest_report_header(config):
    if config.getoption("exhaustive"):
        return f"random cases of exactness: --cases-seed {os.environ['DYSON_CASES_SEED']}"
    return None


def pytest_collection_modifyitems(config, items):
    """Leave to the other lane what is marked for it; and where large programs are compiled, watch
    the coverage of the first and the last case of a test only: it takes as long as tracing."""
    if not config.getoption("exhaustive"):
        late = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in set(late)]
    tests = [item.nodeid.partition("[")[0] for item in items]
    for index in range(1, len(items) - 1):
        alike = tests[index - 1] == tests[index] == tests[index + 1]
        if alike and hasattr(items[index].module, "quick_jit"):
            items[index].add_marker("no_cover")


@pytest.fixture(autouse=True)
def _optimised(request):
    """Most programs run for milliseconds, and optimising them would take longer: that is left to
    the exhaustive lane, where a test asks for it."""
    optimised = request.config.getoption("exhaustive") and (
        request.node.get_closest_marker("optimised") is not None
    )
    jax.config.update("jax_disable_most_optimizations", not optimised)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def _release_compiled_programs():
    yield
    release_programs()
