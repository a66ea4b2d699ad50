"""Tables of measurements in README and in these pages, from the records in docs/data.

    dyson bench all -d bench
    cp bench/records.jsonl docs/data/bench.jsonl
    python docs/tables.py

A table stands between two comments, the first of which names it: ``<!-- table: proposal -->`` and
``<!-- end -->``.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "docs" / "data" / "bench.jsonl"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", flags=re.S)

Record = dict[str, Any]


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is a heading."""
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, ruler, *rows))


def machine(records: Sequence[Record]) -> str:
    """Where they were measured."""
    first = records[0]
    cores = "one core" if first["cores"] == 1 else f"{first['cores']} cores"
    return f"{first['device']}, {cores}, dyson {first['dyson']}, jax {first['jax']}"


def shown(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def by_way(value: str, caption: str) -> Callable[[Sequence[Record]], str]:
    """A value, one column per way and one row per size."""

    def table(records: Sequence[Record]) -> str:
        ways = list(dict.fromkeys(r["way"] for r in records))
        found = {(r["n_sites"], r["way"]): shown(r[value]) for r in records}
        sizes = sorted({r["n_sites"] for r in records})
        rows = [[str(n), *(found.get((n, way), "") for way in ways)] for n in sizes]
        return f"{caption} ({machine(records)}):\n\n{markdown(['N', *ways], rows)}"

    return table


TABLES = {
    "local-energy": by_way("us", "Microseconds per connected element of the local energy"),
    "proposal": by_way("us", "Microseconds per proposed flip"),
    "training-time": by_way("training", "Seconds of a training, counted from a few steps"),
}


def rewritten(text: str) -> str:
    """A page with its tables made anew."""
    records = [json.loads(line) for line in RECORDS.read_text().splitlines()]

    def table(match: re.Match) -> str:
        start, name, end = match.groups()
        return f"{start}{TABLES[name]([r for r in records if r['bench'] == name])}{end}"

    return TABLE.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        text = page.read_text()
        if (new := rewritten(text)) != text:
            page.write_text(new)
            print(page.relative_to(ROOT))
