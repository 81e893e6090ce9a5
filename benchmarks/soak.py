"""Does memory stay flat over many texts of mixed lengths?

    python benchmarks/soak.py [--texts 100000] [--model DIR]

The default bundle reads texts of 3 to 120 words, now and then one of 384, through `stream`, on all
threads and five labels; after every hundredth text one more is read with five others out of sixty,
so that kept labels are used in turn. Recorded: the process's resident memory at its start, after
loading, after 2,000 texts and at every tenth of the run. Checked: one result a text; some are what
they are alone. Written: `results/soak.json`.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import nerlet
from harness import machine_card, print_table
from nerlet.bundle import default_bundle_path
from texts import make_labels, make_text

_RESULTS = Path(__file__).parent / "results"
_SETTLED = 2000  # texts after which memory should not grow


def main() -> None:
    """Run and write what memory did."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--model", type=Path, default=default_bundle_path())
    options = parser.parse_args()
    labels, others = make_labels(5), make_labels(60)
    rng = np.random.default_rng(1)
    results: list[dict[str, object]] = [{"texts": 0, "resident_mb": read_resident_mb()}]
    model = nerlet.load(options.model)
    results.append({"texts": 0, "resident_mb": read_resident_mb()})
    marks = {_SETTLED, *(options.texts * tenth // 10 for tenth in range(1, 11))}
    begin = time.perf_counter()
    entities = 0
    samples = {}
    for number, found in enumerate(model.stream(make_texts(options.texts), labels), start=1):
        entities += len(found)
        if number % 100 == 0:
            model.predict_entities("Ada Lovelace wrote it.", rng.permutation(others)[:5].tolist())
        if number % (options.texts // 20) == 0:
            samples[number] = found
        if number in marks:
            results.append({"texts": number, "resident_mb": read_resident_mb()})
    seconds = time.perf_counter() - begin
    if number != options.texts:
        raise SystemExit(f"expected {options.texts} results, found {number}")
    for place, text in enumerate(make_texts(options.texts), start=1):
        if place in samples and model.predict_entities(text, labels) != samples[place]:
            raise SystemExit(f"text {place} has other entities alone than in the stream")
    settled = next(row["resident_mb"] for row in results if row["texts"] == _SETTLED)
    last = results[-1]["resident_mb"]
    growth = round(100 * (float(last) / float(settled) - 1), 2)  # type: ignore[arg-type]
    print_table(["texts", "resident MB"], [list(row.values()) for row in results])
    print(f"{growth}% more than after {_SETTLED} texts; {entities} entities, {seconds:.0f} s")
    document = {
        "benchmark": "soak",
        "machine": machine_card(),
        "growth_percent": growth,
        "settled_after": _SETTLED,
        "texts_per_s": round(options.texts / seconds, 1),
        "results": results,
    }
    (_RESULTS / "soak.json").write_text(json.dumps(document, indent=1) + "\n")


def make_texts(count: int) -> Iterator[str]:
    """Make texts, the same every time."""
    rng = np.random.default_rng(0)
    for seed in range(count):
        words = 384 if rng.random() < 0.002 else int(rng.integers(3, 121) ** 2 / 120) + 3
        yield make_text(words, seed)


def read_resident_mb() -> float:
    """Resident memory of this process, in 10^6 bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmRSS")]
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


if __name__ == "__main__":
    main()
