import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerlet.decode
from nerlet.decode import Candidates, Span, select_places, select_spans
from tests.strategies import candidates


def conflict(one: Span, other: Span, *, nested: bool, multi_label: bool) -> bool:
    """The rule as the paper states it, on two spans."""
    if (one.start, one.end) == (other.start, other.end):
        return not multi_label
    if one.end <= other.start or other.end <= one.start:
        return False
    inside = other.start <= one.start and one.end <= other.end
    around = one.start <= other.start and other.end <= one.end
    return not (nested and (inside or around))


def select_by_force(candidates: Candidates, *, nested: bool, multi_label: bool) -> list[Span]:
    """Compare each candidate with every kept one, O(n^2)."""
    spans = to_spans(candidates)
    spans.sort(key=lambda s: (-s.score, s.start, s.end - s.start, s.label))
    kept: list[Span] = []
    for span in spans:
        if not any(conflict(span, k, nested=nested, multi_label=multi_label) for k in kept):
            kept.append(span)
    return sorted(kept, key=lambda s: s.start)


def to_spans(candidates: Candidates) -> list[Span]:
    columns = (candidates.start, candidates.end, candidates.label, candidates.score)
    return [Span(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def to_candidates(*rows: tuple[int, int, int, float]) -> Candidates:
    start, end, label, score = zip(*rows, strict=True)
    return Candidates(np.array(start), np.array(end), np.array(label), np.array(score, np.float32))


def random_candidates(rng: np.random.Generator, words: int, count: int) -> Candidates:
    """Any widths up to the whole text; scores of three values, so most are tied."""
    start = rng.integers(0, words, count)
    end = rng.integers(start + 1, words + 1)
    rows = np.unique(np.stack([start, end, rng.integers(0, 3, count)]), axis=1)
    rows = rng.permutation(rows, axis=1)
    score = rng.choice(np.array([0.25, 0.5, 0.75], np.float32), rows.shape[1])
    return Candidates(rows[0], rows[1], rows[2], score)


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("block", [1, 3, 1024])
def test_equals_brute_force_on_random_ties(monkeypatch, block, nested, multi_label):
    monkeypatch.setattr(nerlet.decode, "_BLOCK", block)
    rng = np.random.default_rng(block)
    for _ in range(400):
        drawn = random_candidates(rng, int(rng.integers(1, 30)), int(rng.integers(1, 50)))
        expected = select_by_force(drawn, nested=nested, multi_label=multi_label)
        assert select_spans(drawn, nested=nested, multi_label=multi_label) == expected


@given(candidates(), st.booleans(), st.booleans())
def test_equals_brute_force(drawn, nested, multi_label):
    expected = select_by_force(drawn, nested=nested, multi_label=multi_label)
    assert select_spans(drawn, nested=nested, multi_label=multi_label) == expected


@given(candidates(), st.booleans(), st.booleans())
def test_kept_spans_never_conflict(drawn, nested, multi_label):
    kept = select_spans(drawn, nested=nested, multi_label=multi_label)
    pairs = [(a, b) for i, a in enumerate(kept) for b in kept[:i]]
    assert not any(conflict(a, b, nested=nested, multi_label=multi_label) for a, b in pairs)


@given(candidates(), st.booleans(), st.booleans(), st.floats(0, 1, width=32))
def test_higher_threshold_only_filters(drawn, nested, multi_label, threshold):
    passed = drawn.score > threshold
    columns = (drawn.start, drawn.end, drawn.label, drawn.score)
    higher = Candidates(*(column[passed] for column in columns))
    at_zero = select_spans(drawn, nested=nested, multi_label=multi_label)
    at_threshold = select_spans(higher, nested=nested, multi_label=multi_label)
    assert at_threshold == [span for span in at_zero if span.score > threshold]


@given(candidates(), st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_order_of_candidates_does_not_matter(drawn, random, nested, multi_label):
    order = list(range(len(drawn)))
    random.shuffle(order)
    columns = (drawn.start, drawn.end, drawn.label, drawn.score)
    shuffled = Candidates(*(column[order] for column in columns))
    expected = select_spans(drawn, nested=nested, multi_label=multi_label)
    assert select_spans(shuffled, nested=nested, multi_label=multi_label) == expected


def test_nothing_from_nothing():
    index = np.array([], dtype=np.int64)
    empty = Candidates(index, index, index, np.array([], dtype=np.float32))
    assert select_spans(empty, nested=False, multi_label=False) == []


def test_flat_compares_with_all_kept_spans_not_neighbours():
    # gline-rs keeps one of these: it compares neighbours by offset.
    drawn = to_candidates((0, 2, 0, 0.6), (2, 4, 0, 0.7), (1, 3, 0, 0.8), (4, 6, 0, 0.5))
    kept = select_spans(drawn, nested=False, multi_label=False)
    assert [(s.start, s.end) for s in kept] == [(1, 3), (4, 6)]


def test_ties_go_by_start_then_width_then_label():
    drawn = to_candidates((1, 3, 0, 0.5), (0, 2, 1, 0.5), (0, 2, 0, 0.5), (0, 3, 0, 0.5))
    assert select_spans(drawn, nested=False, multi_label=False) == [Span(0, 2, 0, 0.5)]


def test_multi_label_repeats_a_span_when_flat_best_first():
    drawn = to_candidates((0, 2, 0, 0.6), (0, 2, 1, 0.9), (1, 3, 2, 0.8))
    kept = select_spans(drawn, nested=False, multi_label=True)
    assert [(s.start, s.end, s.label) for s in kept] == [(0, 2, 1), (0, 2, 0)]


def test_nested_keeps_inner_and_outer_but_no_crossing():
    drawn = to_candidates((0, 5, 0, 0.9), (1, 3, 1, 0.8), (2, 4, 2, 0.7), (4, 6, 2, 0.6))
    kept = select_spans(drawn, nested=True, multi_label=False)
    assert [(s.start, s.end) for s in kept] == [(0, 5), (1, 3)]


def test_score_is_a_python_float_with_the_float32_value():
    (span,) = select_spans(to_candidates((0, 1, 0, 0.7)), nested=False, multi_label=False)
    assert type(span.score) is float
    assert span.score == float(np.float32(0.7))


@pytest.mark.parametrize("nested", [False, True])
def test_wide_spans_around_a_kept_middle(nested):
    # Wider than two blocks of words on either side, so all parts of the search are used.
    middle = 5000
    rows = [(middle, middle + 1, 0, 0.9), (0, middle + 1, 0, 0.8), (middle, 10_000, 0, 0.7)]
    rows += [(0, 10_000, 0, 0.6), (0, middle, 0, 0.5), (middle + 1, 10_000, 0, 0.4)]
    kept = select_spans(to_candidates(*rows), nested=nested, multi_label=False)
    expected = select_by_force(to_candidates(*rows), nested=nested, multi_label=False)
    assert kept == expected
    assert len(kept) == (5 if nested else 3)


@given(candidates(), st.booleans(), st.booleans())
def test_places_are_those_of_the_spans(drawn, nested, multi_label):
    places = select_places(drawn, nested=nested, multi_label=multi_label)
    assert to_spans(drawn.take(places)) == select_spans(
        drawn, nested=nested, multi_label=multi_label
    )


def test_no_candidates_keep_none():
    assert len(Candidates.none()) == 0
    assert select_spans(Candidates.none(), nested=False, multi_label=False) == []
