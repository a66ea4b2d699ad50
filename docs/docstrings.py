"""Docstrings of the reference as they stand in the source: formulas, tables and pictures in
characters keep their shape.  The first paragraph is text, the rest a block of it."""

import inspect
import re

import griffe

EMPHASIS = re.compile(r"\*{1,2}(\w[^*\n]*)\*{1,2}")
ROLE = re.compile(r":\w+:`~?([^`]+)`")


class AsWritten(griffe.Extension):
    """Rewrites every docstring when it is collected."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        as_written(obj)

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        as_written(pkg)


def as_written(obj: griffe.Object) -> None:
    """Rewrite the docstring, if it was not yet."""
    if obj.docstring is not None and "\n~~~" not in obj.docstring.value:
        first, _, rest = inspect.cleandoc(obj.docstring.value).partition("\n\n")
        text = ROLE.sub(r"`\1`", first).replace("``", "`")
        if rest:
            rest = EMPHASIS.sub(r"\1", ROLE.sub(r"\1", rest)).replace("``", "")
            text += f"\n\n~~~text\n{rest}\n~~~"
        obj.docstring.value = text
