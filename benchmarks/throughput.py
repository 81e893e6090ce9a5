"""How many texts a second, given many of mixed lengths, beside other runtimes?

    python benchmarks/throughput.py [--shape small] [--texts 256] [--threads 2] [--rounds 3]

A model of a published shape with seeded weights (`shapes.py`), one for all runtimes (`peers.py`).
Texts have 5 to 300 words, evenly spread and shuffled with a seed; 5 labels. Timed: one call with
all texts, as each runtime takes many (nerlet runs one text a thread, the others batch as they
do by default, gliner-cpp gets one text after the other). Not timed: loading, and a first call with
a few texts. Runtimes alternate in one process. Checked: one result a text. Written:
`results/throughput.json`.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np

from harness import machine_card, print_table, time_alternating
from peers import can_limit, load, prepare
from shapes import make_shape
from texts import make_labels, make_text

_RESULTS = Path(__file__).parent / "results"
_RUNTIMES = (
    "nerlet int8",
    "gliner torch",
    "gliner onnx fp32",
    "gliner onnx int8",
    "fast_gliner int8",
    "gliner-cpp int8",
)


def main() -> None:
    """Measure all runtimes and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", default="small")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runtimes", nargs="+", default=_RUNTIMES)
    parser.add_argument("--work", type=Path, default=Path("runs/shapes"))
    options = parser.parse_args()
    checkpoint = make_shape(options.shape, options.work / options.shape)
    prepare(checkpoint, options.runtimes)
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.linspace(5, 300, options.texts).astype(int)).tolist()
    texts = [make_text(words, seed) for seed, words in enumerate(lengths)]
    labels = make_labels(5)
    names = [name for name in options.runtimes if can_limit(name, options.threads)]
    runtimes = {name: load(name, checkpoint, options.threads) for name in names}
    for name, run in runtimes.items():
        if len(run(texts[:5], labels)) != 5:
            raise SystemExit(f"{name}: expected one result a text")
    calls = {name: partial(run, texts, labels) for name, run in runtimes.items()}
    timings = time_alternating(calls, rounds=options.rounds, warmup=0)
    ours = timings[options.runtimes[0]].median_ms
    results = [
        {
            "runtime": name,
            "texts_per_s": round(1000 * len(texts) / timing.median_ms, 2),
            "words_per_s": round(1000 * sum(lengths) / timing.median_ms, 1),
            "times_ours": round(timing.median_ms / ours, 3),
            "rounds": timing.rounds,
        }
        for name, timing in timings.items()
    ]
    print_table(list(results[0]), [list(row.values()) for row in results])
    document = {
        "benchmark": "throughput",
        "shape": options.shape,
        "texts": len(texts),
        "threads": options.threads,
        "machine": machine_card(),
        "results": results,
    }
    (_RESULTS / "throughput.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
