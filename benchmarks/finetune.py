"""What fine-tuning on one's own rows gives: the README's path on a real set, before and after.

    python benchmarks/finetune.py [--source matscholar] [--rows 1500] [--threads 1]

Rows of one source of the data folder's train.jsonl.gz, which the default model was not trained on,
stand for a user's own: they are split into train, dev and test as `nerlet-export data` does it,
and `finetune`, `convert` and `evaluate` run with their defaults. F1 is that of int8 bundles at
their own thresholds on test rows, which nothing was chosen on: the default bundle's before, the
new one's after. Timed: `finetune` with its measurements of dev; `convert` beside it.
Written: `results/finetune.json`.
"""

import argparse
import gzip
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import nerlet
from harness import machine_card
from nerlet.evaluate import evaluate, read_dataset
from nerlet.examples import find_data
from nerlet_export.convert import convert
from nerlet_export.convert_data import Writing, convert_data
from nerlet_export.finetune import finetune
from nerlet_export.settings import Tuning

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Fine-tune, measure before and after, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default="matscholar", help="a source of train.jsonl.gz")
    parser.add_argument("--rows", type=int, default=1500, help="its first rows")
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--work", type=Path, default=Path("runs/finetune"), help="emptied first")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    work: Path = options.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "own.jsonl").write_text("".join(_take_rows(options.source, options.rows)))
    splits = {"dev": 0.1, "test": 0.2}
    convert_data([work / "own.jsonl"], work / "train.jsonl", writing=Writing(splits=splits))
    seconds: dict[str, float] = {}
    begin = time.perf_counter()
    best = finetune(
        str(work / "train.jsonl"),
        str(work / "dev.jsonl"),
        work / "run",
        tuning=Tuning(threads=options.threads),
    )
    seconds["finetune"] = round(time.perf_counter() - begin, 1)
    begin = time.perf_counter()
    convert(best, work / "model")
    seconds["convert"] = round(time.perf_counter() - begin, 1)
    result = {
        "source": options.source,
        "rows": {name: _count(work / f"{name}.jsonl") for name in ("train", "dev", "test")},
        "seconds": seconds,
        "before": _measure(None, work / "test.jsonl"),
        "after": _measure(work / "model", work / "test.jsonl"),
    }
    print(json.dumps(result, indent=1))
    document = {"benchmark": "finetune", "machine": machine_card(), "result": result}
    (_RESULTS / "finetune.json").write_text(json.dumps(document, indent=1) + "\n")


def _take_rows(source: str, count: int) -> list[str]:
    with gzip.open(find_data("train.jsonl.gz"), "rt", encoding="utf-8") as lines:
        own = [line for line in lines if json.loads(line)["source"] == source]
    return own[:count]


def _count(path: Path) -> int:
    return len(read_dataset(path).examples)


def _measure(bundle: Path | None, test: Path) -> dict[str, Any]:
    """Precision, recall and F1 of a bundle (None: the default one), in percent."""
    model = nerlet.load(bundle)
    total = evaluate(
        lambda words, labels: model.predict_words(words, list(labels)), read_dataset(test)
    ).total
    return {
        "threshold": model.threshold,
        "precision": round(100 * total.precision, 2),
        "recall": round(100 * total.recall, 2),
        "f1": round(100 * total.f1, 2),
    }


if __name__ == "__main__":
    main()
