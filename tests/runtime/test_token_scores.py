"""Spans of a token-level model against the definition, pair by pair."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nerlet.scores import sigmoid
from nerlet.token_scores import find_token_candidates

# Few values, so that scores tie with one another and with thresholds
LOGITS = st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 3.0])
TIED = float(sigmoid(np.ones(1, np.float32))[0])
THRESHOLDS = st.sampled_from([0.0, 0.2, 0.5, TIED, 0.9, 1.0])


@st.composite
def cases(draw):
    words, labels = draw(st.integers(0, 7)), draw(st.integers(1, 3))
    count = words * labels * 3
    values = draw(st.lists(LOGITS, min_size=count, max_size=count))
    limits = draw(st.lists(THRESHOLDS, min_size=labels, max_size=labels))
    return np.array(values, np.float32).reshape(words, labels, 3), limits


def find_pair_by_pair(logits, limits):
    scores = sigmoid(logits)
    found = {}
    for label, limit in enumerate(limits):
        for start in range(len(scores)):
            for end in range(start, len(scores)):
                inside = scores[start : end + 1, label, 2]
                if (
                    scores[start, label, 0] > np.float32(limit)
                    and scores[end, label, 1] > np.float32(limit)
                    and all(float(score) >= limit for score in inside)
                ):
                    least = min(*inside, scores[start, label, 0], scores[end, label, 1])
                    found[start, end + 1, label] = least
    return found


@given(cases())
def test_spans_are_those_of_the_definition(case):
    logits, limits = case
    found = find_token_candidates(logits, threshold=np.array(limits))
    columns = (found.start.tolist(), found.end.tolist(), found.label.tolist())
    assert dict(zip(zip(*columns, strict=True), found.score, strict=True)) == find_pair_by_pair(
        logits, limits
    )
    assert len(found) == len(set(zip(*columns, strict=True)))


def test_one_threshold_is_that_of_every_label():
    logits = np.random.default_rng(0).normal(size=(9, 4, 3)).astype(np.float32)
    one, many = (find_token_candidates(logits, threshold=own) for own in (0.4, np.full(4, 0.4)))
    assert len(one) > 3
    np.testing.assert_array_equal(one.start, many.start)
    np.testing.assert_array_equal(one.score, many.score)
