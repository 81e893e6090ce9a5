"""How does decoding grow with the number of candidates, and is a heap or a sort the faster queue?

Timed: `select_spans` from candidate arrays to kept spans, in one process, variants alternating:
the shipped sort, the paper's heap (`heapq` on the same key, same clash tests), and the plain
walk over all kept spans (upstream's way; up to 10^4 candidates, it is quadratic).
Not timed: the graph, the sigmoid, the making of the candidates.
Checked: all variants keep the same spans.

Candidates:
- narrow: every start of a text, widths 1-12, 5 labels: a span model that likes everything;
- any width: widths log-uniform up to the whole text: a token-level model that likes everything;
- onion: spans around one middle word, each inside the next, the innermost best: flat keeps one
  and must reject the rest however wide, nested keeps all;
- apart: one-word spans side by side, all kept: the walk is quadratic even when flat.

Run: python benchmarks/decode.py [--most 1000000]
"""

import argparse
import heapq
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from harness import print_result, print_table, time_alternating, timing_fields
from nerlet.decode import Candidates, Span, _keep_flat, _keep_nested, select_spans

_WALK_MOST = 10_000  # candidates; the walk over kept spans takes minutes beyond


def main() -> None:
    """Time every kind, size and mode; print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000, help="candidates in the last size")
    most = parser.parse_args().most
    results = [
        result
        for kind, make in _KINDS.items()
        for count in (10**power for power in range(3, 10) if 10**power <= most)
        for nested in (False, True)
        for result in measure(kind, make(count), nested=nested)
    ]
    columns = (
        "kind",
        "candidates",
        "mode",
        "kept",
        "variant",
        "median_ms",
        "p95_ms",
        "ns_per_nlogn",
    )
    print_table(columns, [[result[name] for name in columns] for result in results])
    print_result("decode", results)


def measure(kind: str, candidates: Candidates, *, nested: bool) -> list[dict[str, object]]:
    """Time the variants on one set of candidates; one result for each."""
    count = len(candidates)
    variants: dict[str, Callable[[], list[Span]]] = {
        "sort": partial(select_spans, candidates, nested=nested, multi_label=False),
        "heap": partial(select_from_heap, candidates, nested=nested),
    }
    if count <= _WALK_MOST:
        variants["walk"] = partial(select_by_walking, candidates, nested=nested)
    answers = [select() for select in variants.values()]
    if any(answer != answers[0] for answer in answers):
        raise SystemExit(f"{kind}, {count} candidates, nested {nested}: the variants disagree")
    rounds = min(20, max(3, 30_000 // count))
    timings = time_alternating(variants, rounds=rounds, warmup=0)
    return [
        {
            "kind": kind,
            "candidates": count,
            "mode": "nested" if nested else "flat",
            "kept": len(answers[0]),
            "variant": variant,
            **timing_fields(timing),
            "ns_per_nlogn": round(timing.median_ms * 1e6 / (count * math.log2(count)), 2),
        }
        for variant, timing in timings.items()
    ]


def select_from_heap(candidates: Candidates, *, nested: bool) -> list[Span]:
    """The same as `select_spans` with its queue from `heapq`."""
    columns = (-candidates.score, candidates.start, candidates.end, candidates.label)
    heap = list(zip(*(column.tolist() for column in columns), strict=True))
    heapq.heapify(heap)
    queue = [heapq.heappop(heap) for _ in range(len(heap))]
    _, starts, ends, _ = (list(column) for column in zip(*queue, strict=True))
    places = (_keep_nested if nested else _keep_flat)(starts, ends, multi_label=False)
    kept = [
        Span(start, end, label, -key) for key, start, end, label in map(queue.__getitem__, places)
    ]
    return sorted(kept, key=lambda span: span.start)


def select_by_walking(candidates: Candidates, *, nested: bool) -> list[Span]:
    """The same by comparing each candidate with every span kept before it."""
    order = np.lexsort((candidates.label, candidates.end, candidates.start, -candidates.score))
    columns = (candidates.start, candidates.end, candidates.label, candidates.score)
    kept: list[Span] = []
    for start, end, label, score in zip(*(c[order].tolist() for c in columns), strict=True):
        for other in kept:
            if start >= other.end or other.start >= end:
                continue
            inside = start <= other.start and other.end <= end
            around = other.start <= start and end <= other.end
            same = inside and around
            if same or not (nested and (inside or around)):
                break
        else:
            kept.append(Span(start, end, label, score))
    return sorted(kept, key=lambda span: span.start)


def make_narrow(count: int) -> Candidates:
    """Every width 1-12 and label 0-4 at every start, random scores."""
    place = np.arange(count)
    start, width, label = place // 60, place // 5 % 12 + 1, place % 5
    return Candidates(start, start + width, label, _random_scores(count))


def make_any_width(count: int) -> Candidates:
    """Random starts, widths log-uniform from one word to the rest of the text."""
    rng = np.random.default_rng(1)
    words = max(count // 60, 16)
    start = rng.integers(0, words, count)
    width = np.exp(rng.uniform(0, np.log(words), count)).astype(np.int64)
    label = rng.integers(0, 5, count)
    return Candidates(start, np.minimum(start + width, words), label, _random_scores(count))


def make_onion(count: int) -> Candidates:
    """Spans around the middle of a long text, each one word wider on both sides, scores falling."""
    step = np.arange(count)
    score = np.linspace(0.99, 0.5, count, dtype=np.float32)
    return Candidates(count - step, count + step + 1, np.zeros_like(step), score)


def make_apart(count: int) -> Candidates:
    """One span for each word of a text, random scores."""
    place = np.arange(count)
    return Candidates(place, place + 1, np.zeros_like(place), _random_scores(count))


def _random_scores(count: int) -> np.typing.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(0.5, 1.0, count).astype(np.float32)


_KINDS = {
    "narrow": make_narrow,
    "any width": make_any_width,
    "onion": make_onion,
    "apart": make_apart,
}

if __name__ == "__main__":
    main()
