"""Tables from the results of sweeps: each variant's means and deviations over seeds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from nerlet.errors import InputError

# Column -> where a run of a sweep holds it; what a sweep did not report has no column.
COLUMNS = {
    "dev F1": ("f1",),
    "precision": ("report", "precision"),
    "recall": ("report", "recall"),
    "F1": ("report", "f1"),
    "examples": ("examples",),
    "seconds": ("seconds",),
}
_COSTS = ("examples", "seconds")  # whole numbers; their spread says nothing of a variant


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Read the runs of a sweep.

    Raises:
        InputError: The sweep has not been run, or the file is not what it writes.
    """
    if not path.exists():
        sweep = path.stem.removeprefix("sweep-")
        raise InputError(
            f"{path.name}: no such results; run: python benchmarks/sweep.py "
            f"benchmarks/sweeps/{sweep}.toml"
        )
    try:
        runs: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["runs"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path.name}: expected the runs of a sweep as JSON ({error!r}); restore the file, or "
            "remove it and run the sweep again"
        ) from error
    if not runs:
        raise InputError(f"{path.name}: expected runs, found none; run the sweep")
    return runs


def summarize(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each variant's mean and standard deviation over seeds (of one, None), in the runs' order."""
    summary = []
    for name in dict.fromkeys(run["variant"] for run in runs):
        mine = [run for run in runs if run["variant"] == name]
        figures = {}
        for column, keys in COLUMNS.items():
            values = [value for run in mine if (value := _find(run, keys)) is not None]
            if values:
                spread = len(values) > 1 and column not in _COSTS
                figures[column] = {
                    "mean": round(mean(values), 2),
                    "deviation": round(stdev(values), 2) if spread else None,
                }
        summary.append({"variant": name, "seeds": len(mine), "figures": figures})
    return summary


def tabulate(summary: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table; only columns that some variant has."""
    columns = [name for name in COLUMNS if any(name in item["figures"] for item in summary)]
    rows = [
        [item["variant"], str(item["seeds"]), *(_to_cell(item["figures"], c) for c in columns)]
        for item in summary
    ]
    return ["variant", "seeds", *columns], rows


def _find(run: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    value: Any = run
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _to_cell(figures: Mapping[str, Mapping[str, float | None]], column: str) -> str:
    if column not in figures:
        return ""
    value, spread = figures[column]["mean"], figures[column]["deviation"]
    if column in _COSTS:
        return f"{value:,.0f}"
    return f"{value:.1f}" + ("" if spread is None else f" ± {spread:.1f}")
