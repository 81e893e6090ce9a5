"""Train variants of one run over several seeds, and say what each choice gives on dev.

    python benchmarks/sweep.py benchmarks/sweeps/negatives.toml

A sweep's file names a base run, what all variants change in it, and what each one does:

    base = "export/runs/small.toml"
    seeds = [1, 2, 3]

    [common.optimization]
    steps = 300

    [variants."no negatives".sampling]
    negative_ratio = 0.0

A variant whose [run] has `start` goes on from that checkpoint and its model, not from the base's
encoder. With `report = "FOLDER"` each model is measured on that folder's files, too, which choose
nothing: the threshold is the best on dev.

What is timed: the run, without reading rows. Results go, run by run, to
`benchmarks/results/sweep-NAME.json`; runs that are in there are not repeated.
"""

import argparse
import fcntl
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from ablations import summarize, tabulate
from harness import machine_card
from nerlet.evaluate import average_f1, judge, mean_f1_by_threshold
from nerlet.examples import list_datasets, read_dataset
from nerlet_export.checkpoint import load_checkpoint
from nerlet_export.predict import TorchPredictor
from nerlet_export.settings import Settings, make_settings, read_toml
from nerlet_export.train import train
from tables import to_markdown

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run what is missing of a sweep and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="TOML file of the sweep")
    parser.add_argument("--work", type=Path, default=Path("runs/sweeps"), help="folder for runs")
    parser.add_argument("--report", help="folder to report on, too (default: the sweep's own)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="run the variants whose name holds this")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    path = _RESULTS / f"sweep-{arguments.sweep.stem}.json"
    results = json.loads(path.read_text()) if path.exists() else {"runs": []}
    done = {(run["variant"], run["seed"]) for run in results["runs"]}
    sweep = read_toml(arguments.sweep)
    report = sweep.get("report", "") if arguments.report is None else arguments.report
    for seed in sweep["seeds"]:
        for name, changes in sweep["variants"].items():
            if (name, seed) in done or (arguments.only and arguments.only not in name):
                continue
            directory = arguments.work / f"{arguments.sweep.stem}-{name.replace(' ', '-')}-{seed}"
            settings = variant_settings(sweep, changes, seed)
            settings = replace(settings, directory=directory, threads=arguments.threads)
            run = {"variant": name, "seed": seed, **run_variant(settings, report)}
            results = add_run(path, run, arguments.sweep)
            shutil.rmtree(directory)
    header, rows = tabulate(summarize(results["runs"]))
    print("\n".join(to_markdown(header, rows)))


def add_run(path: Path, run: Mapping[str, Any], lock: Path) -> dict[str, Any]:
    """Add a run to the results, and return them all; sweeps may run side by side.

    Args:
        path: Of the results; replaced as a whole, so that no reader sees half of them.
        run: What to add.
        lock: A file that only one of the sweeps holds at a time.
    """
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"runs": []}
        results = {"machine": machine_card(), **results, "runs": [*results["runs"], run]}
        fresh = path.with_suffix(".json.part")
        fresh.write_text(json.dumps(results, indent=1) + "\n")
        fresh.replace(path)
    return results


def variant_settings(sweep: Mapping[str, Any], changes: Mapping[str, Any], seed: int) -> Settings:
    """The settings of one run: the base's, changed by all variants and by this one.

    Raises:
        InputError: They are not those of a run.
    """
    base = Path(sweep["base"])
    raw = merge(merge(read_toml(base), sweep.get("common", {})), changes)
    if raw["run"].get("start"):
        raw = {**raw, "run": {**raw["run"], "encoder": ""}, "model": {}}
    return replace(make_settings(raw, base), seed=seed)


def merge(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Change a table of tables; `mixture`s are replaced as a whole."""
    merged = dict(table)
    for key, value in changes.items():
        is_table = isinstance(value, Mapping) and key != "mixture"
        merged[key] = merge(merged.get(key, {}), value) if is_table else value
    return merged


def run_variant(settings: Settings, report: str) -> dict[str, Any]:
    """Train one variant; its F1 on dev in percent, and on the files of `report`."""
    dev = train(settings, resume=True)
    if dev is None:
        raise SystemExit(f"{settings.directory}: the run was done before; remove it")
    card = json.loads((settings.directory / "last" / "training.json").read_text())
    result: dict[str, Any] = {
        "f1": _percent(dev.f1),
        "threshold": dev.threshold,
        "f1_at_half": _percent(dev.f1_at_half),
        "by_file": dev.percentages(),
        **{key: card[key] for key in ("steps", "examples", "words", "seconds")},
    }
    if report:
        result["report"] = {"data": Path(report).name, **_report(settings, dev.threshold, report)}
    return result


def _report(settings: Settings, threshold: float, folder: str) -> dict[str, Any]:
    """Means over the files of a folder, in percent, and each file's F1."""
    predict = TorchPredictor(load_checkpoint(settings.directory / "last"), threshold=0.05)
    judged = [judge(predict, read_dataset(path)) for path in list_datasets(folder)]
    scores = [judgement.scores(threshold) for judgement in judged]
    return {
        "f1": _percent(average_f1(scores)),
        "precision": _percent(mean(item.total.precision for item in scores)),
        "recall": _percent(mean(item.total.recall for item in scores)),
        "f1_at_half": _percent(mean_f1_by_threshold(judged, [0.5])[0]),
        "by_file": {item.name: _percent(item.total.f1) for item in scores},
    }


def _percent(share: float) -> float:
    return round(100 * share, 2)


if __name__ == "__main__":
    main()
