"""Lines of metrics: one JSON object per step, with a checksum, and read back as strictly.

Line k belongs to step k. Values are numbers, or null for what was not finite.
"""

import json
from typing import Any

from dyson.files import parse_json, with_check, without_check

Record = dict[str, Any]
"""One line of metrics: names and plain numbers, with None for values that are not finite."""


def line(record: Record) -> bytes:
    """The record as it stands in the file."""
    return (json.dumps(with_check(record), allow_nan=False) + "\n").encode()


def complete_lines(data: bytes) -> list[bytes]:
    """The lines of a file. A last one cut short by a crash is left out.

    Raises `ValueError` where they are no text.
    """
    *lines, _ = data.split(b"\n")
    b"".join(lines).decode()
    return [each + b"\n" for each in lines]


def parse(lines: list[bytes]) -> list[Record]:
    """The records of complete lines; raises `ValueError` that says which line is wrong and why."""
    records = []
    for number, each in enumerate(lines, start=1):
        try:
            records.append(_record(each, number))
        except ValueError as error:
            raise ValueError(f"a line {error} (line {number})") from error
    return records


def _record(text: bytes, step: int) -> Record:
    try:
        table = parse_json(text)
    except ValueError as error:
        raise ValueError("is not JSON") from error
    if not isinstance(table, dict) or "step" not in table:
        raise ValueError("does not name its step")
    try:
        record = without_check(table)
    except ValueError as error:
        raise ValueError(f"is not valid: {error}") from error
    if type(record["step"]) is not int or record["step"] != step:
        raise ValueError(f"is not that of step {step}")
    for name, value in record.items():
        if value is not None and type(value) not in (int, float):
            raise ValueError(f"holds no number as {name[:40]!r}")
        if type(value) is int and abs(value) >= 2**63:
            raise ValueError(f"holds a number beyond those of a run as {name[:40]!r}")
    return record
