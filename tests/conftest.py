"""Settings shared by every test.

Double precision and strict promotion are switched on here, before any array exists: a test that
wants single precision asks for it by dtype. Warnings are errors (see pyproject.toml).
"""

import os

import jax
import pytest

# Commands that a test starts leave the folders of the user alone.
os.environ["DYSON_CACHE"] = "off"
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_addoption(parser):
    parser.addoption(
        "--whole-product", action="store_true", help="All combinations of test_exactness: hours."
    )


@pytest.fixture(autouse=True)
def _quick_compilation(request):
    """Most programs run for milliseconds, and optimising them takes a third of all time.

    Where the optimised program is the point, and where it must be that of another process, a test
    is marked ``optimised``.
    """
    quick = request.node.get_closest_marker("optimised") is None
    jax.config.update("jax_disable_most_optimizations", quick)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module", autouse=True)
def _release_compiled_programs():
    """Every compiled program keeps pages of memory mapped, and Linux allows a process 65 530
    mappings: beyond that the compiler crashes.  A module's programs go when it is done."""
    yield
    jax.clear_caches()
