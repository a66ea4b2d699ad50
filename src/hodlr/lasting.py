"""Functions with derivatives of their own that last.

`jax.custom_jvp` is forgotten where the derivative of a `lax.scan` or `lax.map` is split into a part
that is known and a part that is linear: a second derivative then differentiates the function as it
is written (jax 0.10.2). A function that holds one argument constant because its rule knows it to be
a function of another would have wrong second derivatives there, without a word. A primitive keeps
its rule everywhere.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, PyTree


class Lasting:
    """A function of arrays in pytrees, and what is given by `derivative`: with (values, primals,
    tangents) the rule returns the change of the values, linear in the tangents."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.rule: Callable[..., Any] | None = None
        functools.update_wrapper(self, function)

    def derivative(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        self.rule = rule
        return rule

    def __call__(self, *arguments: PyTree[Array]) -> Any:
        leaves, tree = jax.tree.flatten(arguments)
        values = _call.bind(*leaves, lasting=self, tree=tree, axes=())
        return jax.tree.unflatten(_structure(self, tree, leaves), values)


_call = Primitive("lasting")
_call.multiple_results = True

# What vmap has added, inner first: of every leaf the axis it runs along, or None.
Axes = tuple[tuple[int | None, ...], ...]


@functools.cache
def _flat(lasting: Lasting, tree: Any, axes: Axes) -> Callable[..., Any]:
    """The function of leaves, to leaves, compiled."""

    def function(*leaves):
        return tuple(jax.tree.leaves(lasting.function(*jax.tree.unflatten(tree, leaves))))

    for along in axes:
        function = jax.vmap(function, in_axes=along)
    return jax.jit(function)


@functools.cache
def _flat_rule(lasting: Lasting, tree: Any, axes: Axes) -> Callable[..., Any]:
    """The rule of (leaves of the values, leaves, their tangents), to leaves."""
    rule = lasting.rule
    assert rule is not None

    def change(values, leaves, tangents):
        structure = _structure(lasting, tree, leaves)
        primals, moved = (jax.tree.unflatten(tree, a) for a in (leaves, tangents))
        return tuple(jax.tree.leaves(rule(jax.tree.unflatten(structure, values), primals, moved)))

    for along in axes:
        change = jax.vmap(change, in_axes=(0, along, along))
    return change


def _structure(lasting: Lasting, tree: Any, leaves: Any) -> Any:
    shapes = [jax.ShapeDtypeStruct(jnp.shape(a), jnp.result_type(a)) for a in leaves]
    return _value_structure(lasting, tree, tuple(shapes))


@functools.cache
def _value_structure(lasting: Lasting, tree: Any, shapes: tuple[Any, ...]) -> Any:
    values = jax.eval_shape(lasting.function, *jax.tree.unflatten(tree, shapes))
    return jax.tree.structure(values)


def _evaluate(*leaves, lasting, tree, axes):
    return _flat(lasting, tree, axes)(*leaves)


def _shapes(*leaves, lasting, tree, axes):
    known = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in leaves]
    values = jax.eval_shape(_flat(lasting, tree, axes), *known)
    return [ShapedArray(a.shape, a.dtype) for a in values]


def _differentiate(primals, tangents, **call):
    values = _call.bind(*primals, **call)
    moved = [ad.instantiate_zeros(t) for t in tangents]
    return values, _flat_rule(**call)(tuple(values), tuple(primals), tuple(moved))


def _batch(leaves, dims, *, axes, **call):
    along = tuple(None if d is None else 0 for d in dims)
    first = [a if d is None else jnp.moveaxis(a, d, 0)
             for a, d in zip(leaves, dims, strict=True)]  # fmt: skip
    values = _call.bind(*first, axes=(*axes, along), **call)
    return values, [0] * len(values)


_call.def_impl(_evaluate)
_call.def_abstract_eval(_shapes)
ad.primitive_jvps[_call] = _differentiate
batching.primitive_batchers[_call] = _batch
mlir.register_lowering(_call, mlir.lower_fun(_evaluate, multiple_results=True))
