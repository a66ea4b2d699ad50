"""Batched LAPACK calls come one after the other: side by side on the CPU, those of jaxlib 0.10.2
may wait for each other's threads for ever, as two levels of `from_dense` once did."""

import re

import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest

import hodlr
from hodlr.lowrank import in_turn


def batched_calls(function, *arguments):
    """Of the compiled program: for every call of LAPACK on more than one matrix, the calls that it
    waits for, directly or not."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    entry = text[text.index("\nENTRY ") :]
    waits, calls = {}, []
    for line in entry.splitlines():
        found = re.match(r"\s+(?:ROOT )?(%\S+) = (.*?) ([\w-]+)\((.*)", line)
        if not found:
            continue
        name, shape, operation, rest = found.groups()
        operands = re.findall(r"%[\w.-]+", rest.split("), ")[0])
        waits[name] = set(operands).union(*(waits.get(x, set()) for x in operands))
        batch = re.search(r"\[(\d+),(\d+),(\d+)[,\]]", shape)
        if operation == "custom-call" and "lapack" in line and batch and int(batch[1]) > 1:
            calls.append(name)
    return calls, waits


def some_matrix(scale):
    rng = np.random.default_rng(0)
    return scale * (rng.normal(size=(64, 64)) + np.eye(64))


def as_operator(scale):
    return lineax.MatrixLinearOperator(jnp.asarray(some_matrix(scale)))


def entries(scale):
    return lambda i, j: scale / (1.0 + jnp.abs(i - j).astype(scale.dtype))


BUILDERS = {
    "from_dense": lambda x: hodlr.from_dense(some_matrix(x), rank=3, leaf_size=4),
    "compress": lambda x: hodlr.compress(
        hodlr.from_dense(some_matrix(x), rank=5, leaf_size=8), rank=3
    ),
    "from_operator": lambda x: hodlr.from_operator(
        as_operator(x), rank=3, leaf_size=8, key=jax.random.key(0)
    )[0],
    "from_entries": lambda x: hodlr.from_entries(
        entries(x), 64, rank=3, leaf_size=8, key=jax.random.key(0)
    )[0],
}


@pytest.mark.parametrize("name", BUILDERS)
def test_of_two_batched_calls_one_waits_for_the_other(name):
    calls, waits = batched_calls(BUILDERS[name], jnp.asarray(2.0))
    assert len(calls) > 1
    for first, second in zip(calls, calls[1:], strict=False):
        assert first in waits[second] or second in waits[first], (first, second)


def test_in_turn_hands_on_what_it_gets():
    before, x = jnp.asarray([1.0, jnp.nan]), jnp.arange(3.0)
    np.testing.assert_array_equal(in_turn(before, x)[0], x)
    np.testing.assert_array_equal(in_turn(None, x)[0], x)
    assert np.all(np.isnan(in_turn(before[::-1], x)[0]))
    slope = jax.grad(lambda b, x: jnp.sum(in_turn(b, x)[0] ** 2), argnums=(0, 1))(before, x)
    np.testing.assert_array_equal(slope[0], 0)
    np.testing.assert_array_equal(slope[1], 2 * x)
