"""Modules with other values in some fields, static ones included."""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx

Module = TypeVar("Module", bound=eqx.Module)


def with_fields(module: Module, **values: Any) -> Module:
    """The same module with other values in the named fields.

    ``equinox.tree_at`` reaches no static field, and ``dataclasses.replace`` calls the constructor,
    which would draw parameters.
    """
    new = object.__new__(type(module))
    for field in dataclasses.fields(module):
        value = values[field.name] if field.name in values else getattr(module, field.name)
        object.__setattr__(new, field.name, value)
    return new
