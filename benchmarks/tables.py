"""Write a benchmark's table as JSON, markdown and a picture."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from charts import HINT, can_draw, draw_bars
from harness import machine_card
from paper import SOURCE


@dataclass(frozen=True, slots=True)
class Table:
    """What a benchmark writes: a table, the bars of its picture, and results for JSON.

    Attributes:
        title: Above all of them.
        header: Of the table; the first column is text, the others are numbers.
        rows: Cells, empty where there is no figure.
        note: Below the table.
        groups: Names under the groups of bars.
        series: Name -> F1 of each group, in percent.
        results: As JSON has them.
        errors: Name -> deviation of each group.
        source: Of the benchmark; "" where it is our own.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str
    groups: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    results: Sequence[Mapping[str, object]]
    errors: Mapping[str, Sequence[float]] | None = None
    source: str = SOURCE


def write(name: str, table: Table, folder: Path) -> None:
    """Print the table, and write it as JSON, markdown and, where it can be drawn, a picture.

    Raises:
        OSError: A file cannot be written; the table is printed by then.
    """
    lines = [f"# {table.title}", "", *to_markdown(table.header, table.rows), "", table.note]
    if table.source:
        lines += ["", f"Source: {table.source}."]
    print("\n".join(lines), end="\n\n", flush=True)
    path = folder / f"accuracy-{name}.json"
    document = {
        "benchmark": name,
        "source": table.source,
        "machine": machine_card(),
        "results": table.results,
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if can_draw():
        picture = path.with_suffix(".svg")
        draw_bars(picture, table.title, table.groups, table.series, table.errors)
        lines += ["", f"![{table.title}]({picture.name})"]
    else:
        print(f"accuracy: {HINT}", file=sys.stderr)
    path.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def to_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; all columns but the first are flush right."""
    rules = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (header, rules, *rows)]


def to_cell(f1: float | None) -> str:
    """F1 with one digit; nothing where there is none."""
    return "" if f1 is None else f"{f1:.1f}"
