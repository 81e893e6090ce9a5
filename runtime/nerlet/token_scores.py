"""Turn the logits of a token-level model for one text into scored spans, of any width.

Place in the flow: graph -> logits -> *token_scores* -> Candidates -> decode, in the place of
`scores`.

Axes: L words, C labels, and start, end and inside, 3.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from nerlet.decode import Candidates
from nerlet.scores import sigmoid


def find_token_candidates(
    logits: NDArray[np.float32], *, threshold: float | NDArray[np.floating]
) -> Candidates:
    """Collect the spans whose every part scores as a span of a label should.

    A span is a candidate if its first word scores above the threshold as a start, its last one as
    an end, and none of its words below it as inside. Its score is the least of all these.

    Args:
        logits: Of one text without padding, float32, (L, C, 3).
        threshold: One number, or one for each label, (C,). In [0, 1].

    Returns:
        Candidates, by label, then start, then end.

    Source: upstream `TokenDecoder`, whose comparisons are strict for start and end alone, and in
    float32 for these.
    """
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (logits.shape[1],))
    scores = sigmoid(logits)
    is_border = scores[..., :2] > limits[:, None].astype(np.float32)  # (L, C, 2)
    parts = [
        part
        for label in np.nonzero(is_border.any(0).all(-1))[0].tolist()
        for part in _spans_of(scores[:, label], is_border[:, label], limits[label], label)
    ]
    if not parts:
        return Candidates.none()
    start, end, label, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Candidates(start, end, label, score)


def _spans_of(
    scores: NDArray[np.float32], is_border: NDArray[np.bool_], limit: float, label: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """The columns of a label's spans, those of each start together; scores are (L, 3)."""
    starts, ends = (np.nonzero(own)[0] for own in is_border.T)  # an end is a span's last word here
    gaps = np.append(np.nonzero(scores[:, 2].astype(np.float64) < limit)[0], len(scores))
    for start in starts.tolist():
        stop = int(gaps[np.searchsorted(gaps, start)])  # the first word that is not inside
        own = ends[np.searchsorted(ends, start) : np.searchsorted(ends, stop)]
        if not len(own):
            continue
        inside = np.minimum.accumulate(scores[start:stop, 2])[own - start]
        score = np.minimum(np.minimum(inside, scores[own, 1]), scores[start, 0])
        yield np.full(len(own), start), own + 1, np.full(len(own), label), score
