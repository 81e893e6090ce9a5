"""How long does one text take, from string to entities, beside other runtimes?

    python benchmarks/latency.py [--shape small] [--threads 1 2] [--words 8 16 64 384]
        [--labels 1 25 100] [--level native]

Each number of words with 5 labels, then 64 words with each number of labels.

A model of a published shape with seeded weights (`shapes.py`), one for all runtimes (`peers.py`).
Timed: one call with one text, at a threshold of 0.5: words, pieces, graph, decoding. Not timed:
loading, and the first calls. Each number of threads has a process of its own, in which runtimes
alternate, each timed call after a pause and one of its own that is not timed. Checked: the
entities of nerlet's fp32 bundle are the reference's; the share that int8 has of them, and they of
int8's, is reported as F1, for each runtime alike. Written: `results/latency.json`, and at another
level (`instruction_sets.py`) `results/latency-LEVEL.json`.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from harness import machine_card, print_table, time_alternating, timing_fields
from instruction_sets import LEVELS, NATIVE, run_at
from nerlet.evaluate import Counts, count_matches
from peers import NERLET, PEERS, Entities, Predict, can_limit, load, prepare
from shapes import make_shape
from texts import make_labels, make_text

_RESULTS = Path(__file__).parent / "results"
_LABELS, _WORDS = 5, 64  # where the other of the two varies
_ROUNDS = {384: 10}  # else 20
_PAUSE_S = 0.1  # between runtimes
_CHECKED = 40  # texts whose entities are compared


def main() -> None:
    """Run a process for each number of threads, and write what they measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="small")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--words", type=int, nargs="+", default=[8, 16, 64, 384])
    parser.add_argument("--labels", type=int, nargs="*", default=[1, 25, 100])
    parser.add_argument("--runtimes", nargs="+", default=[*NERLET, *PEERS])
    parser.add_argument("--work", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--level", choices=LEVELS, default=NATIVE)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    checkpoint = make_shape(options.shape, options.work / options.shape)
    if options.child:
        print(json.dumps(measure(options, checkpoint)))
        return
    prepare(checkpoint, options.runtimes)
    is_native = options.level == NATIVE
    results = []
    for threads in options.threads:
        results += run_at(options.level, [*sys.argv, "--child", str(threads)])
    header = ["threads", "words", "labels", "runtime", "median ms", "p95 ms", "times ours"]
    print_table(header, [[*list(row.values())[:6], row["times_ours"]] for row in results])
    document: dict[str, object] = {
        "benchmark": "latency",
        "shape": options.shape,
        "level": options.level,
    }
    document["machine"] = machine_card()
    path = _RESULTS / ("latency.json" if is_native else f"latency-{options.level}.json")
    path.write_text(json.dumps({**document, "results": results}, indent=1) + "\n")


def measure(options: argparse.Namespace, checkpoint: Path) -> list[dict[str, object]]:
    """Measure the runtimes that can run on so many threads."""
    threads: int = options.child
    names = [name for name in options.runtimes if can_limit(name, threads)]
    runtimes = {name: load(name, checkpoint, threads) for name in names}
    agreement = compare(runtimes)
    results: list[dict[str, object]] = []
    cases = [(words, _LABELS) for words in options.words]
    cases += [(_WORDS, labels) for labels in options.labels]
    for words, count in cases:
        text, labels = [make_text(words)], make_labels(count)
        calls = {name: partial(run, text, labels) for name, run in runtimes.items()}
        timings = time_alternating(calls, rounds=_ROUNDS.get(words, 20), lead=1, pause_s=_PAUSE_S)
        ours = timings[options.runtimes[0]].median_ms
        results += [
            {
                "threads": threads,
                "words": words,
                "labels": count,
                "runtime": name,
                **timing_fields(timing),
                "times_ours": round(timing.median_ms / ours, 3),
                "agreement": agreement.get(name),
            }
            for name, timing in timings.items()
        ]
    return results


def compare(runtimes: dict[str, Predict]) -> dict[str, float]:
    """F1 of each runtime's entities, those of the reference in PyTorch taken as truth.

    Raises:
        SystemExit: nerlet's fp32 bundle does not find what the reference finds.
    """
    truth = runtimes.get("gliner torch")
    if truth is None:
        return {}
    labels = make_labels(_LABELS)
    texts = [make_text(5 + 3 * seed, seed) for seed in range(_CHECKED)]
    expected = [spans(truth([text], labels)[0]) for text in texts]
    agreement = {}
    for name, run in runtimes.items():
        found = [spans(run([text], labels)[0]) for text in texts]
        counts = [count_matches(*pair) for pair in zip(expected, found, strict=True)]
        agreement[name] = round(sum(counts, Counts()).f1, 4)
    if agreement.get("nerlet fp32", 1.0) < 1.0:
        raise SystemExit(f"nerlet fp32 finds other entities than gliner: {agreement}")
    return agreement


def spans(entities: Entities) -> set[tuple[int, int, str]]:
    """What is compared of entities."""
    return {(own["start"], own["end"], own["label"]) for own in entities}


if __name__ == "__main__":
    main()
