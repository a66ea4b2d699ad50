"""A finished run, for the tests that look at, damage or stop one.

The library is imported where it is used: by then --annotations has them checked.
"""

import dataclasses
import functools

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="module")
def compile_once(runs, tmp_path_factory):
    """Most of the time goes into compiling the same programs: share them, subprocesses included."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    from dyson.app import cli

    # `dyson.app.train.build` for commands in this process: what it returns does not depend on the
    # number of steps, and the programs compiled for one problem serve the next command.
    once = runs.setdefault("problems", functools.lru_cache(cli.build))
    with pytest.MonkeyPatch.context() as patch:
        # What is compared bit for bit has to add in the same order: one device everywhere, whatever
        # the machine and whichever test comes first.
        patch.setenv("JAX_NUM_CPU_DEVICES", "1")
        before = {name: getattr(jax.config, name) for name in options}
        for name, value in options.items():
            patch.setenv(name.upper(), str(value))
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        patch.setattr(
            cli, "build", lambda settings: once(dataclasses.replace(settings, steps=10**6))
        )
        yield
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def runs():
    """What lasts from file to file."""
    return {}


@pytest.fixture(scope="module")
def finished(compile_once, runs, tmp_path_factory):
    """A run of six steps that nothing disturbed, and what it printed."""
    from commands import TINY, dyson

    if "finished" not in runs:
        directory = tmp_path_factory.mktemp("runs") / "finished"
        arguments = "train", "-d", directory, *TINY, "--steps", 6, "--json"
        runs["finished"] = directory, dyson(*arguments)
    return runs["finished"]
