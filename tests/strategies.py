"""Hypothesis strategies shared by the tests, named after what they draw."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nerlet.decode import Candidates

# Few values, so that ties are common; 0 is a score of exactly 0.5.
TIED_LOGITS = (-20.0, -2.0, -0.5, 0.0, 0.5, 2.0, 4.0, 20.0, 100.0)


@st.composite
def candidates(draw, *, most: int = 24, words: int = 16) -> Candidates:
    """Candidates of one text in any order: each (start, end, label) once, scores often tied."""
    spans = st.tuples(st.integers(0, words - 1), st.integers(1, words), st.integers(0, 2)).map(
        lambda span: (span[0], min(span[0] + span[1], words), span[2])
    )
    drawn = draw(st.lists(spans, max_size=most, unique=True))
    scores = st.one_of(st.sampled_from([0.25, 0.5, 0.75]), st.floats(0.0625, 0.9375, width=32))
    score = draw(st.lists(scores, min_size=len(drawn), max_size=len(drawn)))
    columns = np.array(drawn, dtype=np.int64).reshape(-1, 3).T
    return Candidates(columns[0], columns[1], columns[2], np.array(score, dtype=np.float32))


@st.composite
def span_logits(draw) -> NDArray[np.float32]:
    """Span logits of one text, ties common; (L, K, C), L from 0."""
    shape = draw(st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 3)))
    values = st.one_of(st.sampled_from(TIED_LOGITS), st.floats(-8, 8, width=32))
    drawn: NDArray[np.float32] = draw(hnp.arrays(np.float32, shape, elements=values))
    return drawn
