"""docs/models.md from the report of a run of the tests: what of which models was verified, and how.

pytest -m "slow or not slow" tests/export/test_every_kind.py --junitxml=cells.xml
python -m tests.export.models_page cells.xml
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from xml.etree import ElementTree as ET

from tests.export.matrix import ENCODERS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
ANY = "any"
Cell = dict[str, Any]

_TOP = """\
# Models

Which models are converted and run, over which encoders, in which precision, and how that was
verified. This page is written by `tests/export/models_page.py` from the report of
`tests/export/test_every_kind.py`, which makes each model with `gliner` 0.2.29
from seeded weights, tiny but whole, and converts it with `nerlet-export convert`.

| mark | what it says |
| --- | --- |
| ✓, or a number | verified, as the line above the table says |
| ✗ | failed in that run |
| refused | an error that says why, and what to take instead |
| not tried | there was no such device |
"""
_OF_ENTITIES = (
    "F1 of its entities with the reference's, the number of each cell, is {agreement:.2f} on "
    "average"
)
_HOW = {
    ("fp32", "cpu"): (
        "every entity, its offsets, label and place as the reference's, scores within 1e-4: "
        "{texts:,} texts, {entities:,} entities, {relations:,} relations; flat, nested, several "
        "labels a span, thresholds and label sets by text"
    ),
    ("int8", "cpu"): (
        f"{_OF_ENTITIES} (toys of width 16; a trained model is nearer, see "
        "[the default one's card](../models/README.md)); scores drift from the float graph's by "
        "{drift:.3f} in the worst cell"
    ),
    ("fp16", "cpu"): (
        "rounded on the CPU as a GPU rounds, in ragged batches: scores drift from the float "
        "graph's by {drift:.4f} in the worst cell. On a CPU it runs only if named"
    ),
    ("fp32", "cuda"): _OF_ENTITIES,
    ("fp16", "cuda"): _OF_ENTITIES,
}
_TITLES = {"cpu": "a CPU", "cuda": "CUDA"}


def read_report(path: Path) -> list[Cell]:
    """Read the cells that tests put into a JUnit report, each with the `outcome` of its test."""
    cells: list[Cell] = []
    for case in ET.parse(path).iter("testcase"):
        outcome = "passed"
        for tag in ("failure", "error", "skipped"):
            if case.find(tag) is not None:
                outcome = tag
        cells += [
            {**json.loads(item.get("value", "")), "outcome": outcome}
            for item in case.iter("property")
            if item.get("name") == "cell"
        ]
    return cells


def make_page(cells: Sequence[Cell]) -> str:
    """Write the page."""
    refused = [cell for cell in cells if "reason" in cell]
    tried = [cell for cell in cells if "reason" not in cell]
    kinds = sorted({cell["kind"] for cell in tried})
    parts = [_TOP]
    for (precision, device), how in _HOW.items():
        own = [cell for cell in tried if (cell["precision"], cell["device"]) == (precision, device)]
        title = f"## {precision} on {_TITLES[device]}"
        if all(cell["outcome"] == "skipped" for cell in own):
            count = f"{len(own)} models, {len(kinds)} kinds"
            parts.append(f"{title}\n\nNot tried ({count}): no GPU was at hand.\n")
            continue
        others = [cell for cell in refused if cell["precision"] in (precision, ANY)]
        parts.append(f"{title}\n\n{_sum_up(how, own)}.\n\n{_make_table(kinds, own + others)}\n")
    parts.append(_list_refused(refused))
    return "\n".join(parts)


def _sum_up(how: str, cells: Sequence[Cell]) -> str:
    """Fill in what a group of cells found; its first letter large."""

    def gather(key: str, fold: Callable[[Iterable[float]], float]) -> float:
        values = [cell[key] for cell in cells if key in cell]
        return fold(values) if values else 0.0

    filled = how.format(
        texts=int(gather("texts", sum)),
        entities=int(gather("entities", sum)),
        relations=int(gather("relations", sum)),
        drift=gather("drift", max),
        agreement=gather("agreement", fmean),
    )
    return filled[0].upper() + filled[1:]


def _make_table(kinds: Sequence[str], cells: Sequence[Cell]) -> str:
    marks = {(cell["kind"], cell["encoder"]): _mark(cell) for cell in cells}
    lines = [_row(["kind", *ENCODERS]), _row(["---", *(":-:" for _ in ENCODERS)])]
    lines += [
        _row([kind, *(marks.get((kind, own), "not tried") for own in ENCODERS)]) for kind in kinds
    ]
    return "\n".join(lines)


def _mark(cell: Cell) -> str:
    if cell["outcome"] == "passed":
        verified = f"{cell['agreement']:.2f}" if "agreement" in cell else "✓"
        return "refused" if "reason" in cell else verified
    return "not tried" if cell["outcome"] == "skipped" else "✗"


def _list_refused(cells: Sequence[Cell]) -> str:
    reasons = dict.fromkeys((_name_refused(cell), cell["reason"]) for cell in cells)
    lines = ["## Refused\n", _row(["what", "what the error says"]), _row(["---", "---"])]
    lines += [_row([name, reason.replace("|", "\\|")]) for name, reason in reasons]
    return "\n".join(lines) + "\n"


def _name_refused(cell: Cell) -> str:
    """The kind in one precision, the encoder in any kind, or the kind over any."""
    if cell["precision"] != ANY:
        return f"{cell['kind']}, in {cell['precision']}"
    return str(cell["kind"]) if cell["encoder"] == ANY else f"encoder {cell['encoder']}"


def _row(fields: Sequence[str]) -> str:
    return f"| {' | '.join(fields)} |"


def main() -> None:
    """Read the report and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+", help="of pytest --junitxml")
    cells = [cell for path in parser.parse_args().reports for cell in read_report(path)]
    PAGE.write_text(make_page(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
