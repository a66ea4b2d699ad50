"""Docstrings of the reference as they stand in the source: formulas, tables and pictures in
characters keep their shape.  The first paragraph is text, the rest a block of it."""

import inspect
import re

import griffe

ROLE = re.compile(r":\w+:`~?([^`]+)`")


class AsWritten(griffe.Extension):
    """Rewrites every docstring when it is collected."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is None:
            return
        first, _, rest = inspect.cleandoc(obj.docstring.value).partition("\n\n")
        text = ROLE.sub(r"`\1`", first).replace("``", "`")
        if rest:
            rest = ROLE.sub(r"\1", rest).replace("``", "")
            text += f"\n\n~~~text\n{rest}\n~~~"
        obj.docstring.value = text
