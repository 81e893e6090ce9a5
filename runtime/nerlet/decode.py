"""Choose which of the scored spans of one text to keep.

Place in the flow: scores -> Candidates -> *decode* -> Span[] -> entities.

The paper pops candidates from a heap, best first. One sort on the heap's key (-score, start,
width, label) gives the same order, and `benchmarks/decode.py` measures the whole to be 1.2 to 2.2
times as fast as with `heapq` at 10^3 candidates and 1.4 to 6.2 times at 10^6, least where nearly
all are kept; so there is no heap here. Whether a candidate clashes with what is kept is answered
in O(1) (flat) or O(log width) (nested) instead of by a walk over all kept spans: O(n log n) in both
modes, for spans of any width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Words summarised by one flag: two searches of at most this many bytes and one over the flags
# answer "is any word taken" for spans of any width.
_BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Span:
    """One kept span of a text.

    Attributes:
        start: First word.
        end: One past the last word.
        label: Index of the label.
        score: Sigmoid of the logit, in (0, 1).
    """

    start: int
    end: int
    label: int
    score: float


@dataclass(frozen=True, slots=True)
class Candidates:
    """Scored spans of one text, in columns of equal length (N,), any order.

    Attributes:
        start: First word of each span.
        end: One past the last word; greater than `start`.
        label: Index of the label.
        score: Sigmoid of the logit, finite.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    label: NDArray[np.int64]
    score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def none(cls) -> "Candidates":
        """No candidates."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(nothing, nothing, nothing, np.zeros(0, dtype=np.float32))

    def take(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Candidates":
        """Those at the given places, in that order, or where a mask (N,) is true."""
        return Candidates(
            self.start[chosen], self.end[chosen], self.label[chosen], self.score[chosen]
        )


def select_spans(candidates: Candidates, *, nested: bool, multi_label: bool) -> list[Span]:
    """Keep the best-scoring spans that do not conflict.

    Two different spans conflict if they overlap (flat) or cross (nested: one inside the other is
    fine). A span conflicts with itself under another label unless `multi_label`. Labels play no
    other part. Equal scores go by start, then width, then label.

    Args:
        candidates: Scored spans of one text, any order; word indices, half-open.
        nested: Allow one kept span inside another.
        multi_label: Let a kept span repeat with its other labels, even when flat.

    Returns:
        Kept spans by start, then best first. O(n log n) for n candidates of any width.

    Source: GLiNER (Zaratiana et al., 2023), decoding; order and ties as in upstream
    `greedy_search`.
    """
    if not len(candidates):
        return []
    best_first, starts, ends, kept = _select(candidates, nested=nested, multi_label=multi_label)
    labels = candidates.label[best_first].tolist()
    scores = candidates.score[best_first].tolist()
    return [Span(starts[i], ends[i], labels[i], scores[i]) for i in kept]


def select_places(candidates: Candidates, *, nested: bool, multi_label: bool) -> NDArray[np.int64]:
    """Where in the candidates the spans stand that `select_spans` keeps, in its order."""
    if not len(candidates):
        return np.zeros(0, dtype=np.int64)
    best_first, _, _, kept = _select(candidates, nested=nested, multi_label=multi_label)
    return best_first[kept]


def _select(
    candidates: Candidates, *, nested: bool, multi_label: bool
) -> tuple[NDArray[np.int64], list[int], list[int], list[int]]:
    """The order best first, starts and ends in it, and where in it the kept spans stand."""
    best_first = _order_best_first(candidates)
    starts = candidates.start[best_first].tolist()
    ends = candidates.end[best_first].tolist()
    keep = _keep_nested if nested else _keep_flat
    kept = keep(starts, ends, multi_label=multi_label)
    kept.sort(key=starts.__getitem__)  # stable: best first within one start
    return best_first, starts, ends, kept


def _order_best_first(candidates: Candidates) -> NDArray[np.int64]:
    """Indices of the candidates in the order a heap on (-score, start, width, label) pops them."""
    # Among spans of one start, the narrower is the one that ends first.
    keys = (candidates.label, candidates.end, candidates.start, -candidates.score)
    return np.lexsort(keys).astype(np.int64, copy=False)


def _keep_flat(starts: list[int], ends: list[int], *, multi_label: bool) -> list[int]:
    """Places of the spans that overlap no span kept before them."""
    places: list[int] = []
    kept: set[tuple[int, int]] = set()
    taken = _TakenWords(max(ends))
    for i, span in enumerate(zip(starts, ends, strict=True)):
        if span in kept:
            if multi_label:
                places.append(i)
        elif not taken.any_in(*span):
            taken.add(*span)
            kept.add(span)
            places.append(i)
    return places


def _keep_nested(starts: list[int], ends: list[int], *, multi_label: bool) -> list[int]:
    """Places of the spans that cross no span kept before them."""
    places: list[int] = []
    kept: set[tuple[int, int]] = set()
    borders = max(ends) + 1
    # A kept span crosses [start, end) if it begins strictly inside and ends after it, or ends
    # strictly inside and begins before it. Starts are mirrored so that both ask for a maximum.
    last_end = _RangeMax(borders)  # by start: where the widest kept span from there ends
    first_start = _RangeMax(borders)  # by end: the widest kept span up to there, borders - start
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if (start, end) in kept:
            if multi_label:
                places.append(i)
        elif (
            last_end.between(start + 1, end) <= end
            and first_start.between(start + 1, end) <= borders - start
        ):
            last_end.lift(start, end)
            first_start.lift(end, borders - start)
            kept.add((start, end))
            places.append(i)
    return places


class _TakenWords:
    """Which words belong to a kept span; half-open ranges in, each word taken at most once."""

    def __init__(self, words: int) -> None:
        self._words = bytearray(words)
        self._blocks = bytearray(words // _BLOCK + 1)

    def add(self, start: int, end: int) -> None:
        """Take the words of a range of which none is taken."""
        self._words[start:end] = b"\1" * (end - start)
        first, last = start // _BLOCK, (end - 1) // _BLOCK + 1
        self._blocks[first:last] = b"\1" * (last - first)

    def any_in(self, start: int, end: int) -> bool:
        """Whether a word of the range is taken."""
        if end - start <= 2 * _BLOCK:
            return self._words.find(1, start, end) >= 0
        first, last = start // _BLOCK + 1, end // _BLOCK  # the blocks wholly inside
        return (
            self._words.find(1, start, first * _BLOCK) >= 0
            or self._blocks.find(1, first, last) >= 0
            or self._words.find(1, last * _BLOCK, end) >= 0
        )


class _RangeMax:
    """Non-negative values by index, zero at first, with the maximum over any range.

    A binary tree in one list: node i has children 2i and 2i + 1, the leaves start at `size`.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._tree = [0] * (2 * size)

    def lift(self, index: int, value: int) -> None:
        """Raise the value at an index to at least `value`."""
        tree = self._tree
        node = index + self._size
        while node and tree[node] < value:
            tree[node] = value
            node >>= 1

    def between(self, start: int, end: int) -> int:
        """The greatest value in [start, end), 0 for an empty range; O(log(end - start))."""
        tree = self._tree
        greatest = 0
        low, high = start + self._size, end + self._size
        while low < high:
            if low & 1:
                greatest = max(greatest, tree[low])
                low += 1
            if high & 1:
                high -= 1
                greatest = max(greatest, tree[high])
            low >>= 1
            high >>= 1
        return greatest
