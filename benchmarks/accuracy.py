"""How good is a model on the GLiNER paper's benchmarks, beside the paper's own figures?

    python benchmarks/accuracy.py table1 [FOLDER] [--model DIR] [--checkpoint DIR]
    python benchmarks/accuracy.py all

table1 (out of domain), table2 (the 20 sets) and table3 (languages) measure whatever files of
`{"labels": [...]}` and rows a folder holds; without FOLDER, the data folder's own. `lowercase`
measures CoNLL-2003 as it is and in lower case. table5, figure4, figure5 and figure6 measure
nothing: they show what the sweeps in `sweeps/` have written to `results/`.

Measured: exact match of span and type, counts added up within a file, F1 in percent, at the
model's own threshold unless --threshold is given; means are plain means over files. The model is
a bundle, by default the one shipped; with --checkpoint a PyTorch model in float is measured
beside it, at the same threshold. Written: `accuracy-NAME.json`, `.md` and, with the `benchmarks`
extra, `.svg`. The number of threads changes nothing.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import nerlet
from ablations import read_runs, summarize, tabulate
from nerlet.bundle import default_bundle_path
from nerlet.decode import Span
from nerlet.errors import InputError, NerletError
from nerlet.evaluate import Predict, Scores, check_prompts, evaluate
from nerlet.examples import Dataset, list_datasets, read_dataset
from nerlet.manifest import WEIGHTS_NAME, is_threshold
from paper import ABLATIONS, TABLE1, TABLE2, TABLE3, Benchmark
from tables import Table, to_cell, write

BENCHMARKS = {"table1": TABLE1, "table2": TABLE2, "table3": TABLE3}
CONLL = "eval/b20/conll_en.jsonl.gz"
# Lower-cased text may lose less than this share of the F1 of cased text.
MAX_LOSS = 1 / 3

_RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class System:
    """A model to measure, and what a result says of it."""

    name: str
    predict: Predict
    card: Mapping[str, object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks asked for; 2 where the input is bad or nothing can be written."""
    options = _read_options(arguments)
    try:
        # Told before anything is measured, not after
        options.results.mkdir(parents=True, exist_ok=True)
        if options.benchmark == "all":
            _run_all(options)
        else:
            run(options.benchmark, options)
    except (NerletError, OSError) as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 2
    return 0


def run(name: str, options: argparse.Namespace) -> None:
    """Run one benchmark and write what it gives."""
    if name in ABLATIONS:
        table = show_ablation(name, options.results)
    elif name == "lowercase":
        table = compare_case(load_systems(options), options.folder or CONLL)
    else:
        benchmark = BENCHMARKS[name]
        folder = options.folder or benchmark.folder
        table = measure_sets(benchmark, load_systems(options), folder)
    write(name, table, options.results)


def _run_all(options: argparse.Namespace) -> None:
    """Run every benchmark; sweeps that have not been run are named and left out."""
    if options.folder:
        raise InputError("`all` reads the data folder's own folders; leave FOLDER out")
    for name in (*BENCHMARKS, "lowercase"):
        run(name, options)
    for name in ABLATIONS:
        try:
            run(name, options)
        except InputError as error:
            print(f"accuracy: {name} is left out: {error}", file=sys.stderr)


def load_systems(options: argparse.Namespace) -> list[System]:
    """The bundle, and the PyTorch model where one is given.

    Raises:
        NerletError: One cannot be loaded, the threshold is not in [0, 1], or single labels of the
            bundle have thresholds of their own, which PyTorch is not given.
    """
    model = nerlet.load(options.model)
    own, labels = options.threshold, model.bundle.label_thresholds
    if own is not None and not is_threshold(own):
        raise InputError(f"--threshold: expected a number from 0 to 1, found {own}")
    if options.checkpoint and labels and own is None:
        raise InputError(
            "the bundle has thresholds of its own for single labels, which PyTorch is not given; "
            "add --threshold for both"
        )

    def predict(sentences: Sequence[Sequence[str]], asked: Sequence[str]) -> list[list[Span]]:
        return model.predict_words(sentences, list(asked), threshold=own)

    threshold = model.threshold if own is None else own
    precision = model.manifest.precision if model.manifest else "unknown"
    weights = model.bundle.path / WEIGHTS_NAME
    if model.bundle.graph_path is not None and not weights.exists():
        weights = model.bundle.graph_path
    card = {
        "name": model.bundle.path.resolve().name,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "precision": precision,
        "threshold": threshold,
        "label_thresholds": len(labels) if own is None else 0,
    }
    systems = [System(f"{card['name']} ({precision})", predict, card)]
    if options.checkpoint:
        systems.append(_load_torch(options.checkpoint, threshold))
    return systems


def _load_torch(directory: Path, threshold: float) -> System:
    # The export extra is for this alone
    from nerlet_export.checkpoint import load_checkpoint
    from nerlet_export.predict import TorchPredictor

    predict = TorchPredictor(load_checkpoint(directory), threshold=threshold)
    name = directory.resolve().name
    card = {"name": name, "precision": "fp32, PyTorch", "threshold": threshold}
    return System(f"{name} (PyTorch)", predict, card)


def measure_sets(benchmark: Benchmark, systems: Sequence[System], folder: str | Path) -> Table:
    """Measure models on every file of a folder, beside the paper's systems.

    Raises:
        InputError: A file cannot be read, or a model refuses its labels.
    """
    files = list_datasets(folder)
    datasets = [read_dataset(path) for path in files]
    for system in systems:
        for path, dataset in zip(files, datasets, strict=True):
            check_prompts(system.predict, dataset, path)
    results = [_measure(system, datasets, benchmark) for system in systems]
    ours = {
        system.name: {name: scores["f1"] for name, scores in result["sets"].items()}
        for system, result in zip(systems, results, strict=True)
    }
    return _compare(benchmark, [dataset.name for dataset in datasets], ours, results)


def _measure(system: System, datasets: Sequence[Dataset], benchmark: Benchmark) -> dict[str, Any]:
    """One model's result: figures in percent, two digits."""
    scores = [evaluate(system.predict, dataset) for dataset in datasets]
    f1 = {item.name: item.total.f1 for item in scores}
    known = [f1[name] for name in f1 if name.lower() in benchmark.sets]
    is_whole = len(known) == len(benchmark.sets)
    return {
        "model": dict(system.card),
        "sets": {item.name: to_figures(item) for item in scores},
        "mean_f1": _percent(mean(f1.values())),
        "mean_of": len(f1),
        "mean_f1_of_all": _percent(mean(known)) if is_whole else None,
    }


def to_figures(scores: Scores) -> dict[str, float]:
    """Precision, recall and F1 of a file in percent, two digits, and its sentences."""
    total = scores.total
    return {
        "precision": _percent(total.precision),
        "recall": _percent(total.recall),
        "f1": _percent(total.f1),
        "sentences": scores.sentences,
    }


def _compare(
    benchmark: Benchmark,
    present: Sequence[str],
    ours: Mapping[str, Mapping[str, float]],
    results: Sequence[Mapping[str, Any]],
) -> Table:
    """The table of our models and the paper's, on the same sets."""
    by_key = {name.lower(): name for name in present}
    paper = {
        system: {by_key.get(name, name): f1 for name, f1 in row.items()}
        for system, row in benchmark.rows.items()
    }
    shown = {by_key.get(key, key): title for key, title in benchmark.sets.items()}
    has_figure = {name for row in (*ours.values(), *paper.values()) for name in row}
    columns = {name: title for name, title in shown.items() if name in has_figure}
    columns |= {name: name for name in present if name not in columns}
    rows = {**ours, **paper}
    cells = [
        [
            system,
            *(to_cell(row.get(name)) for name in columns),
            to_cell(_mean(row, present)),
            to_cell(_mean(row, list(shown))),
        ]
        for system, row in rows.items()
    ]
    return Table(
        title=benchmark.title,
        header=["system", *columns.values(), f"mean of {len(present)}", f"mean of {len(shown)}"],
        rows=cells,
        note=f"Mean of {len(present)}: over the files measured. {benchmark.note}",
        groups=list(columns.values()),
        series={system: [row.get(name) for name in columns] for system, row in rows.items() if row},
        results=results,
    )


def compare_case(systems: Sequence[System], path: str | Path) -> Table:
    """Measure models on a file as it is and in lower case.

    Raises:
        InputError: As in `measure_sets`, or the path holds several files.
    """
    (file, *others) = list_datasets(path)
    if others:
        raise InputError(f"{path}: expected one file, found {len(others) + 1}; name one")
    cased = read_dataset(file)
    lower = lower_words(cased)
    results: list[dict[str, Any]] = []
    for system in systems:
        check_prompts(system.predict, cased, file)
        before, after = (evaluate(system.predict, dataset) for dataset in (cased, lower))
        lost = 1 - after.total.f1 / before.total.f1 if before.total.f1 else 0.0
        results.append(
            {
                "model": dict(system.card),
                "file": cased.name,
                "cased": to_figures(before),
                "lower_cased": to_figures(after),
                "lost_percent": _percent(lost),
                "is_within_limit": lost < MAX_LOSS,
            }
        )
    rows = [
        [
            system.name,
            to_cell(result["cased"]["f1"]),
            to_cell(result["lower_cased"]["f1"]),
            f"{result['lost_percent']:.1f} %",
        ]
        for system, result in zip(systems, results, strict=True)
    ]
    return Table(
        title=f"{cased.name}, as it is and in lower case",
        header=["system", "cased F1", "lower-cased F1", "lost"],
        rows=rows,
        note="The aim: less than a third of the F1 is lost.",
        source="",
        groups=["cased", "lower-cased"],
        series={
            system.name: [result["cased"]["f1"], result["lower_cased"]["f1"]]
            for system, result in zip(systems, results, strict=True)
        },
        results=results,
    )


def lower_words(dataset: Dataset) -> Dataset:
    """The same texts with every word in lower case."""
    examples = (
        replace(example, words=tuple(word.lower() for word in example.words))
        for example in dataset.examples
    )
    return replace(dataset, examples=tuple(examples))


def show_ablation(name: str, folder: Path) -> Table:
    """The table of a sweep that has been run.

    Raises:
        InputError: It has not.
    """
    ablation = ABLATIONS[name]
    summary = summarize(read_runs(folder / f"sweep-{ablation.sweep}.json"))
    header, rows = tabulate(summary)
    columns = [column for column in ("dev F1", "F1") if column in header]
    figures = [item["figures"] for item in summary]
    return Table(
        title=ablation.title,
        header=header,
        rows=rows,
        note="Mean and standard deviation over seeds of short runs; precision, recall and F1 are "
        f"means over the sweep's report folder, at the threshold that is best on dev. "
        f"{ablation.note}",
        groups=[item["variant"] for item in summary],
        series={c: [own[c]["mean"] if c in own else None for own in figures] for c in columns},
        results=summary,
        errors={
            c: [(own[c]["deviation"] or 0.0) if c in own else 0.0 for own in figures]
            for c in columns
        },
    )


def _mean(row: Mapping[str, float], names: Sequence[str]) -> float | None:
    """The mean over sets; None where one is missing."""
    return mean(row[name] for name in names) if all(name in row for name in names) else None


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("benchmark", choices=(*BENCHMARKS, "lowercase", *ABLATIONS, "all"))
    parser.add_argument("folder", nargs="?", help="labelled files (default: the data folder's)")
    parser.add_argument("--model", type=Path, default=default_bundle_path(), help="a bundle")
    parser.add_argument("--checkpoint", type=Path, help="a PyTorch model to measure beside it")
    parser.add_argument("--threshold", type=float, help="of both (default: the bundle's own)")
    parser.add_argument("--results", type=Path, default=_RESULTS, help="folder of results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
