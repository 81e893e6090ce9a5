import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerlet.scores import class_scores, find_candidates, sigmoid
from tests.strategies import span_logits


def find_by_loops(logits: np.ndarray, threshold: float) -> list[tuple[int, int, int]]:
    """Every (start, end, label) inside the text above the threshold, row-major."""
    L, K, C = logits.shape
    scores = sigmoid(logits)
    return [
        (start, start + width, label)
        for start in range(L)
        for width in range(1, K + 1)
        for label in range(C)
        if start + width <= L and scores[start, width - 1, label] > np.float32(threshold)
    ]


def to_rows(candidates) -> list[tuple[int, int, int]]:
    columns = (candidates.start, candidates.end, candidates.label)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(span_logits(), st.one_of(st.sampled_from([0, 0.5, 1]), st.floats(0, 1)))
def test_candidates_are_the_spans_above_the_threshold(logits, threshold):
    found = find_candidates(logits, threshold=threshold)
    assert to_rows(found) == find_by_loops(logits, threshold)
    widths = found.end - found.start - 1
    assert np.array_equal(found.score, sigmoid(logits[found.start, widths, found.label]))
    assert found.score.dtype == np.float32


@given(span_logits(), st.integers(0, 10**6))
def test_a_span_at_its_own_score_is_not_a_candidate(logits, place):
    scores = sigmoid(logits)
    if not scores.size:
        return
    threshold = scores.flat[place % scores.size]
    assert (find_candidates(logits, threshold=threshold).score > threshold).all()
    assert to_rows(find_candidates(logits, threshold=threshold)) == find_by_loops(logits, threshold)


def test_each_label_can_have_its_threshold():
    logits = np.zeros((2, 1, 3), np.float32)  # every score is 0.5
    found = find_candidates(logits, threshold=np.array([0.4, 0.5, 0.49]))
    assert to_rows(found) == [(0, 1, 0), (0, 1, 2), (1, 2, 0), (1, 2, 2)]


def test_spans_past_the_end_of_the_text_are_no_candidates():
    logits = np.full((2, 3, 1), 5, np.float32)
    assert to_rows(find_candidates(logits, threshold=0.5)) == [(0, 1, 0), (0, 2, 0), (1, 2, 0)]


def test_sigmoid_of_extremes_needs_no_warning():
    extremes = np.array([-np.inf, -1000, -100, 0, 100, 1000, np.inf], np.float32)
    assert sigmoid(extremes) == pytest.approx([0, 0, 0, 0.5, 1, 1, 1], abs=1e-30)
    assert sigmoid(extremes).dtype == np.float32


def test_sigmoid_is_close_to_exact_and_never_falls():
    logits = np.linspace(-30, 30, 200_001, dtype=np.float32)
    scores = sigmoid(logits)
    exact = 1 / (1 + np.exp(-logits.astype(np.float64)))
    assert np.abs(scores - exact).max() < 2e-7
    assert (np.diff(scores) >= 0).all()


def test_class_scores_give_the_best_labels_first():
    labels = ["a", "b", "c", "d", "e", "f"]
    logits = np.array([0, 1, -3, 1, 2, -1], np.float32)
    scores = class_scores(logits, labels)
    assert list(scores) == ["e", "b", "d", "a", "f"]
    assert scores["a"] == 0.5
    assert type(scores["a"]) is float


def test_class_scores_of_fewer_labels_than_asked_for():
    assert list(class_scores(np.array([0, 1], np.float32), ["a", "b"])) == ["b", "a"]
