"""What do labels cost, once they have been asked for before?

    python benchmarks/labels.py [--words 64] [--labels 1 5 25 100 500] [--threads 1 2]

The default bundle, whose labels are isolated: as it runs on a CPU, labels read once and kept, and
its whole graph, which reads them with every text. Timed: `predict_entities` on one text, from
string to entities. Not timed: loading, and the first call with a set of labels, whose time stands
beside. Runtimes alternate in one process, and each timed call follows one of its own that is not
timed. Checked: both find the same, but for scores within 0.05 of the threshold. Over 100 labels the
whole graph is left out. Written: `results/labels.json`.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import nerlet
from harness import machine_card, print_table, time_alternating, timing_fields
from nerlet.bundle import GRAPH_NAME, default_bundle_path
from nerlet.entities import Entity
from texts import make_labels, make_text

_RESULTS = Path(__file__).parent / "results"
_MOST_WHOLE = 100
_NEAR = 0.05


def main() -> None:
    """Measure and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=default_bundle_path())
    parser.add_argument("--words", type=int, default=64)
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 5, 25, 100, 500])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    results = [row for threads in options.threads for row in measure(options, threads)]
    print_table(list(results[0]), [list(row.values()) for row in results])
    document = {
        "benchmark": "labels",
        "words": options.words,
        "machine": machine_card(),
        "results": results,
    }
    (_RESULTS / "labels.json").write_text(json.dumps(document, indent=1) + "\n")


def measure(options: argparse.Namespace, threads: int) -> list[dict[str, object]]:
    """Measure with a number of threads."""
    cached = nerlet.load(options.model, threads=threads)
    whole = open_whole(options.model, threads)
    text = make_text(options.words)
    results: list[dict[str, object]] = []
    least = 0.0
    for count in options.labels:
        labels = make_labels(count)
        begin = time.perf_counter()
        found = cached.predict_entities(text, labels)
        first_ms = 1000 * (time.perf_counter() - begin)
        calls = {"kept labels": partial(cached.predict_entities, text, labels)}
        if count <= _MOST_WHOLE:
            check_same(found, whole.predict_entities(text, labels), cached.threshold)
            calls["whole graph"] = partial(whole.predict_entities, text, labels)
        timings = time_alternating(calls, rounds=options.rounds, lead=1)
        least = least or timings["kept labels"].median_ms
        for name, timing in timings.items():
            results.append(
                {
                    "threads": threads,
                    "labels": count,
                    "runtime": name,
                    **timing_fields(timing),
                    "times_one_label": round(timing.median_ms / least, 3),
                    "first_call_ms": round(first_ms, 1) if name == "kept labels" else None,
                }
            )
    return results


def open_whole(path: Path, threads: int) -> nerlet.GLiNER:
    """Open a bundle's whole graph alone."""
    return nerlet.load(path, graph=GRAPH_NAME, threads=threads)


def check_same(found: list[Entity], expected: list[Entity], threshold: float) -> None:
    """Compare entities that are surely above the threshold.

    Raises:
        SystemExit: They differ.
    """
    every = [{_key(own) for own in all_} for all_ in (found, expected)]
    sure = [
        {_key(own) for own in all_ if own["score"] > threshold + _NEAR}
        for all_ in (found, expected)
    ]
    if not (sure[0] <= every[1] and sure[1] <= every[0]):
        raise SystemExit(f"the two graphs find other entities: {found} and {expected}")


def _key(entity: Entity) -> tuple[int, int, str]:
    return entity["start"], entity["end"], entity["label"]


if __name__ == "__main__":
    main()
