"""Objects of the user's own, named as ``module:object``.

The module is looked for where Python looks, and in the current directory first.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from dyson.app.choices import nearest


def called(option: str, name: str, *arguments: Any, kind: type, **options: Any) -> Any:
    """What the object of this name makes of the arguments.

    Arguments:
      option: what it was named with, for messages.   name: ``module:object``.
      kind: the class that the result has to be of.

    `ValueError` with one sentence where it cannot be imported, fails, or makes something else.
    """
    shown = ", ".join([*map(str, arguments), *(f"{each}=…" for each in options)])
    try:
        make = _object(name)
        try:
            made = make(*arguments, **options)
        except Exception as error:
            raise ValueError(f"({shown}) failed: {type(error).__name__}: {error}") from error
        if not isinstance(made, kind):
            raise ValueError(
                f"({shown}) is of type {type(made).__name__}, where a dyson {kind.__name__} is "
                "expected"
            )
    except ValueError as error:
        between = "" if str(error).startswith("(") else ": "
        raise ValueError(f"{option} {name}{between}{error}") from error
    return made


def _object(name: str) -> Callable[..., Any]:
    """Something of this name that can be called; `ValueError` where there is none."""
    module, _, path = name.partition(":")
    found: Any = _module(module)
    for part in path.split("."):
        if not hasattr(found, part):
            known = [each for each in dir(found) if not each.startswith("_")]
            raise ValueError(f"there is no {part} in {module}{nearest(part, known)}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(
            "expected a class or a function, which is called with the number of sites, got "
            f"{type(found).__name__}"
        )
    return found


def _module(name: str) -> Any:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {name} failed: {error}") from error
        raise ValueError(
            f"there is no module {error.name} in {here} nor where Python looks; write "
            "module:object, as chains:Ladder for the class Ladder in chains.py"
        ) from error
    except Exception as error:
        raise ValueError(f"importing {name} failed: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
