"""Make the table and the picture of speed from what the other benchmarks have written.

    python benchmarks/latency.py && python benchmarks/throughput.py && python benchmarks/speed.py

Reads `results/latency.json` and, if there, `results/throughput.json`; writes `results/speed.md`,
the table of speed in the README and, with the extra `benchmarks`, `results/speed.svg`: how many
times as long as nerlet int8 each runtime takes.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charts import HINT, can_draw, draw_bars
from tables import to_markdown

_RESULTS = Path(__file__).parent / "results"
_README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- made by benchmarks/speed.py -->\n", "<!-- end -->\n"
_README_WORDS = (16, 64, 384)
_OURS = "nerlet int8"
_TITLE = "Time of one text, 5 labels, as a multiple of nerlet int8"


def main() -> None:
    """Print the table and write it."""
    document = json.loads((_RESULTS / "latency.json").read_text())
    latency = document["results"]
    path = _RESULTS / "throughput.json"
    throughput = json.loads(path.read_text()) if path.exists() else None
    names = list(dict.fromkeys(row["runtime"] for row in latency))
    cells = {(r["threads"], r["words"], r["labels"], r["runtime"]): r for r in latency}
    cases = list(dict.fromkeys((r["threads"], r["words"], r["labels"]) for r in latency))
    header = ["", *(name + (", ms" if name == _OURS else ", times") for name in names)]
    rows = [[_name(case), *(_cell(cells.get((*case, name))) for name in names)] for case in cases]
    if throughput:
        rows.append(_throughput_row(throughput, names))
    lines = [f"# {_TITLE}", "", *to_markdown(header, rows), "", _note(document)]
    print("\n".join(lines))
    if can_draw():
        series = {
            name: [cells.get((*case, name), {}).get("times_ours") for case in cases]
            for name in names
        }
        groups = [_name(case) for case in cases]
        draw_bars(_RESULTS / "speed.svg", _TITLE, groups, series, upward="times nerlet int8")
        lines += ["", f"![{_TITLE}](speed.svg)"]
    else:
        print(f"speed: {HINT}", file=sys.stderr)
    (_RESULTS / "speed.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    put_into_readme(_README, make_readme_table(document, throughput))


def make_readme_table(
    document: Mapping[str, Any], throughput: Mapping[str, Any] | None
) -> list[str]:
    """The README's lines: its cases with five labels, one with 100, and many texts."""
    latency = document["results"]
    names = [n for n in dict.fromkeys(row["runtime"] for row in latency) if n != "nerlet fp32"]
    cells = {(r["threads"], r["words"], r["labels"], r["runtime"]): r for r in latency}
    cases = [
        case
        for case in dict.fromkeys((r["threads"], r["words"], r["labels"]) for r in latency)
        if (case[2] == 5 and case[1] in _README_WORDS) or case[2] == 100
    ]
    header = ["", *(name + (", ms" if name == _OURS else "") for name in names)]
    rows = [[_name(case), *(_cell(cells.get((*case, name))) for name in names)] for case in cases]
    if throughput:
        rows.append(_throughput_row(throughput, names))
    agreement = {row["runtime"]: row["agreement"] for row in latency}
    rows.append(["agreement with `gliner` torch", *(_percent(agreement[name]) for name in names)])
    return [*to_markdown(header, rows), "", _note(document)]


def put_into_readme(path: Path, lines: Sequence[str]) -> None:
    """Replace what stands between the two marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    path.write_text(before + _BEGIN + "\n".join(lines) + "\n" + _END + after, encoding="utf-8")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _name(case: Sequence[int]) -> str:
    threads, words, labels = case
    more = "" if labels == 5 else f", {labels} labels"
    return f"{words} words, {threads} thread{'s' * (threads > 1)}{more}"


def _cell(row: Mapping[str, Any] | None) -> str:
    """Milliseconds of our own runtime, else how many times as long."""
    if row is None:
        return ""
    if row["runtime"] == _OURS:
        return f"{row['median_ms']:.3g}"
    return f"{row['times_ours']:.2f}"


def _throughput_row(throughput: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    found = {row["runtime"]: row for row in throughput["results"]}
    cells = []
    for name in names:
        row = found.get(name)
        if row is None:
            cells.append("")
        elif name == _OURS:
            cells.append(f"{row['texts_per_s']:.1f} texts/s")
        else:
            cells.append(f"{row['times_ours']:.2f}")
    return [f"{throughput['texts']} texts, {throughput['threads']} threads", *cells]


def _note(latency: Mapping[str, Any]) -> str:
    card = latency["machine"]
    return (
        f"GLiNER-small's shape with seeded weights; medians; {card['cores']} cores of an "
        f"{card['cpu']} ({', '.join(card['instruction_sets'])}), onnxruntime "
        f"{card['onnxruntime']}. Under 1, that runtime is faster."
    )


if __name__ == "__main__":
    main()
