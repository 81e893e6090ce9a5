"""Which scheme: size, speed, agreement with PyTorch, and does a text's company matter?

    NERLET_DATA=DIR python benchmarks/quantization.py [--levels avx2 avx512_vnni native]

The schemes of `schemes.py`, as files that are made once; each level (`instruction_sets.py`) is a
process of its own that reads them: this processor with instructions hidden, not an older
processor. Timed: one run of the graph, one thread, schemes alternating, each after a run of its own
that is not timed, on texts of several lengths with five labels. Not timed: tokenizing and decoding.
Quality, at each level: the first sentences of each file of `dev/zero`, F1 and agreement of entities
with PyTorch's at the model's threshold.
Drift: the root mean square difference of logits from the float graph's, over their deviation.
Company: the largest difference of a score when the labels are asked in another order, and when the
sentence is padded among others. The float graph reads isolated labels in one order
(`nerlet_export.graph.SortedLabels`), so the first is a test of that. Static scales and smoothing
are calibrated on `dev/seen`. Written: `results/quantization.json`, `.md`, and with the extra
`benchmarks` `.svg`.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

import nerlet
from charts import HINT, can_draw, draw_points
from harness import machine_card, print_table, time_alternating
from instruction_sets import LEVELS, current_level, explain_absence, run_at
from nerlet.decode import Span
from nerlet.evaluate import Dataset, Predict, average_f1, count_matches, evaluate
from nerlet.examples import list_datasets, read_dataset
from nerlet.manifest import (
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    TEXT_GRAPH_NAME,
    WEIGHTS_NAME,
    record_file,
    write_manifest,
)
from nerlet.prompt import Prompt
from nerlet.scores import sigmoid
from nerlet_export.checkpoint import Checkpoint, load_checkpoint
from nerlet_export.convert import convert
from nerlet_export.predict import TorchPredictor
from nerlet_export.samples import make_prompt
from schemes import SHIPPED, Floats, make_feeds, make_prompts, make_schemes, open_session
from tables import to_markdown

Entity = tuple[str, int, int, int, int]  # dataset, sentence, start, end, label
Row = dict[str, Any]

LABELS = ("person", "organization", "location", "date", "product")
TEXT = "Bill Gates and Paul Allen founded Microsoft in Albuquerque , on April 4 , 1975 . "
LENGTHS = {16: 40, 64: 30, 384: 10}  # words: timed runs of each scheme
SHOWN = 64  # words, whose times the table and the picture show
BATCH = 4  # texts in a padded batch
_PARTS = (LABEL_GRAPH_NAME, TEXT_GRAPH_NAME, WEIGHTS_NAME)  # of a bundle; not measured
_TRUTH = "pytorch.json"
_TITLE = "Agreement with PyTorch against time, by scheme and instruction set"
_NOTE = (
    f"Time: one run with {SHOWN} words and five labels on one thread, as a multiple of the float "
    "graph's at the same level. Agreement: F1 of the entities, PyTorch's taken as truth, in "
    "percent. Bold: no other scheme is both faster and closer at that level. Each scheme is one "
    f'file at all levels; "{SHIPPED}" is the shipped one. Levels are one processor with '
    "instructions hidden."
)
_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Make the schemes, measure them at each level, and write table and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("models/small-checkpoint"))
    parser.add_argument("--sentences", type=int, default=40, help="of each labelled file")
    parser.add_argument("--levels", nargs="+", choices=LEVELS, help="default: all that can be had")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint)
    datasets = [read_dataset(p).first(options.sentences) for p in list_datasets("dev/zero")]
    if options.child:
        print(json.dumps(measure(options.child, checkpoint, datasets)))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        prepare(options.checkpoint, checkpoint, datasets, Path(folder))
        for level in options.levels or _possible_levels():
            rows += run_at(level, [*sys.argv, "--child", folder])
            own = [row for row in rows if row["level"] == level]
            print_table(list(own[0]), [list(row.values()) for row in own])
    write(rows, options.results)


def prepare(
    source: Path, checkpoint: Checkpoint, datasets: Sequence[Dataset], folder: Path
) -> None:
    """Write a bundle for each scheme, `NUMBER SCHEME`, and what PyTorch finds."""
    exact = folder / "exact"
    threshold = convert(source, exact, precision="fp32").threshold or 0.5
    graph = onnx.load(exact / GRAPH_NAME)
    calibration = [read_dataset(path).first(12) for path in list_datasets("dev/seen")]
    for number, (name, scheme) in enumerate(make_schemes(graph, checkpoint, calibration).items()):
        bundle = folder / f"{number:02} {name}"
        shutil.copytree(exact, bundle, ignore=shutil.ignore_patterns(*_PARTS))
        _put_graph(bundle, scheme)
    f1, entities = find_all(TorchPredictor(checkpoint, threshold=threshold), datasets)
    truth = {"threshold": threshold, "f1": f1, "entities": sorted(entities)}
    (folder / _TRUTH).write_text(json.dumps(truth), encoding="utf-8")


def measure(folder: Path, checkpoint: Checkpoint, datasets: Sequence[Dataset]) -> list[Row]:
    """Measure the bundles that `prepare` has written, at this process's level."""
    truth = json.loads((folder / _TRUTH).read_text(encoding="utf-8"))
    expected = frozenset(map(tuple, truth["entities"]))
    bundles = {path.name.partition(" ")[2]: path for path in sorted(folder.glob("[0-9]* *"))}
    sessions = {name: open_session(str(path / GRAPH_NAME)) for name, path in bundles.items()}
    times = _time_all(sessions, checkpoint)
    exact = _find_logits(sessions["fp32"], checkpoint, datasets)
    rows: list[Row] = []
    for name, path in bundles.items():
        model = nerlet.load(path, threads=1)
        f1, entities = find_all(partial(_predict, model, truth["threshold"]), datasets)
        drift = _find_logits(sessions[name], checkpoint, datasets) - exact
        by_order, by_batch = _measure_company(sessions[name], checkpoint, datasets)
        rows.append(
            {
                "level": current_level(),
                "scheme": name,
                "megabytes": round(sum(f.stat().st_size for f in path.iterdir()) / 1e6, 2),
                **{f"ms_{n}": round(times[n][name], 2) for n in LENGTHS},
                **{f"to_fp32_{n}": round(times[n][name] / times[n]["fp32"], 2) for n in LENGTHS},
                "f1": round(f1, 2),
                "f1_to_torch": round(f1 - truth["f1"], 2),
                "agreement": round(100 * count_matches(expected, entities).f1, 1),
                "drift": round(float(np.sqrt(np.mean(drift**2)) / exact.std()), 4),
                "order_difference": float(f"{by_order:.2g}"),
                "batch_difference": float(f"{by_batch:.2g}"),
            }
        )
    return rows


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write `quantization.json`, `.md` and, where it can be drawn, `.svg`."""
    levels = list(dict.fromkeys(row["level"] for row in rows))
    absent = [*(level for level in LEVELS if level not in levels), "Arm"]
    document = {
        "benchmark": "quantization",
        "machine": machine_card(),
        "not_measured": absent,
        "results": rows,
    }
    text = json.dumps(document, indent=1) + "\n"
    (folder / "quantization.json").write_text(text, encoding="utf-8")
    lines = [f"# {_TITLE}", "", *_make_table(rows, levels), "", _NOTE]
    lines += [f"{machine_card()['cpu']}. Not measured: {', '.join(absent)}."]
    if can_draw():
        panels = {
            level: {row["scheme"]: _place(row) for row in rows if row["level"] == level}
            for level in levels
        }
        across = f"time of {SHOWN} words, as a multiple of fp32's"
        draw_points(folder / "quantization.svg", _TITLE, across, "agreement, %", panels)
        lines += ["", f"![{_TITLE}](quantization.svg)"]
    else:
        print(f"quantization: {HINT}", file=sys.stderr)
    print("\n".join(lines))
    (folder / "quantization.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make_table(rows: Sequence[Row], levels: Sequence[str]) -> list[str]:
    """A line for each scheme; time and agreement at each level."""
    header = ["scheme", "MB", *(f"{level}: time, agreement" for level in levels)]
    cells: dict[str, list[str]] = {}
    for row in rows:
        line = cells.setdefault(row["scheme"], [row["scheme"], f"{row['megabytes']:.1f}"])
        time, agreement = _place(row)
        cell = f"{time:.2f}, {agreement:.1f}"
        others = [_place(other) for other in rows if other["level"] == row["level"]]
        is_beaten = any(
            (t <= time and a >= agreement) and (t, a) != (time, agreement) for t, a in others
        )
        line.append(cell if is_beaten else f"**{cell}**")
    return to_markdown(header, list(cells.values()))


def _place(row: Mapping[str, Any]) -> tuple[float, float]:
    """Where a scheme stands: its time and its agreement."""
    return row[f"to_fp32_{SHOWN}"], row["agreement"]


def _possible_levels() -> list[str]:
    return [level for level in LEVELS if not explain_absence(level)]


def find_all(predict: Predict, datasets: Sequence[Dataset]) -> tuple[float, frozenset[Entity]]:
    """Average F1 in percent, and every entity."""
    entities = set()
    scores = []
    for dataset in datasets:
        spans: list[list[Span]] = []

        def record(
            sentences: Sequence[Sequence[str]],
            labels: Sequence[str],
            spans: list[list[Span]] = spans,
        ) -> Sequence[Sequence[Span]]:
            found = [list(own) for own in predict(sentences, labels)]
            spans.extend(found)
            return found

        scores.append(evaluate(record, dataset))
        entities |= {
            (dataset.name, sentence, s.start, s.end, s.label)
            for sentence, own in enumerate(spans)
            for s in own
        }
    return 100 * average_f1(scores), frozenset(entities)


def _predict(
    model: nerlet.GLiNER,
    threshold: float,
    sentences: Sequence[Sequence[str]],
    labels: Sequence[str],
) -> Sequence[Sequence[Span]]:
    return model.predict_words(sentences, list(labels), threshold=threshold)


def _put_graph(bundle: Path, graph: onnx.ModelProto) -> None:
    """Replace the graph of a bundle, its record in the manifest too; it has no other graph then."""
    onnx.save_model(graph, str(bundle / GRAPH_NAME))
    manifest = nerlet.bundle.read_manifest(bundle)
    files = {name: record for name, record in manifest.files.items() if name not in _PARTS}
    files[GRAPH_NAME] = record_file(bundle / GRAPH_NAME)
    write_manifest(bundle, replace(manifest, files=files))


def _find_logits(
    session: ort.InferenceSession, checkpoint: Checkpoint, datasets: Sequence[Dataset]
) -> Floats:
    """Logits of the spans that lie in the first texts of each file, in one row."""
    found = []
    for dataset in datasets:
        for prompt in make_prompts(checkpoint, dataset.first(2 * BATCH)):
            logits: Floats = session.run(["logits"], make_feeds(checkpoint, [prompt]))[0][0]
            found.append(logits[_in_text(logits)].ravel())
    return np.concatenate(found)


def _measure_company(
    session: ort.InferenceSession, checkpoint: Checkpoint, datasets: Sequence[Dataset]
) -> tuple[float, float]:
    """Largest difference of a score: labels in another order; text in a batch."""
    by_order = by_batch = 0.0
    for dataset in datasets:
        short = dataset.first(BATCH)
        prompts = make_prompts(checkpoint, short)
        alone = [_scores(session, checkpoint, [own])[0] for own in prompts]
        for example, own in zip(short.examples, alone, strict=True):
            text = " ".join(example.words)
            turned = make_prompt(checkpoint, text, example.labels[::-1])
            other = _scores(session, checkpoint, [turned])[0]
            by_order = max(by_order, _difference(own, other[..., ::-1]))
        for begin in range(0, len(prompts), BATCH):
            batch = _scores(session, checkpoint, prompts[begin : begin + BATCH])
            for own, row in zip(alone[begin : begin + BATCH], batch, strict=True):
                by_batch = max(by_batch, _difference(own, row[: len(own), :, : own.shape[2]]))
    return by_order, by_batch


def _difference(a: Floats, b: Floats) -> float:
    """Largest difference over the spans that lie in the text; (L, K, C) each."""
    return float(np.abs(a - b)[_in_text(a)].max())


def _in_text(scores: Floats) -> NDArray[np.bool_]:
    """Which spans (L, K) of a text alone end in it."""
    length, width = scores.shape[:2]
    inside: NDArray[np.bool_] = np.arange(length)[:, None] + np.arange(width) < length
    return inside


def _scores(
    session: ort.InferenceSession, checkpoint: Checkpoint, prompts: Sequence[Prompt]
) -> Floats:
    logits: Floats = session.run(["logits"], make_feeds(checkpoint, prompts))[0]
    scores: Floats = sigmoid(logits)
    return scores


def _time_all(
    sessions: Mapping[str, ort.InferenceSession], checkpoint: Checkpoint
) -> dict[int, dict[str, float]]:
    """Median milliseconds of a run, by length of the text and scheme."""
    times = {}
    for length, rounds in LENGTHS.items():
        words = (TEXT * length).split()[:length]
        feeds = make_feeds(checkpoint, [make_prompt(checkpoint, " ".join(words), LABELS)])
        calls = {
            name: partial(session.run, ["logits"], feeds) for name, session in sessions.items()
        }
        timings = time_alternating(calls, rounds=rounds, lead=1)
        times[length] = {name: timing.median_ms for name, timing in timings.items()}
    return times


if __name__ == "__main__":
    main()
