"""Turn the logits of one text into scored spans.

Place in the flow: graph -> logits -> *scores* -> Candidates -> decode.
Axes: L words, K span widths, C labels.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nerlet.decode import Candidates

# The sigmoid of float32 stays well within this of the exact one; so a logit whose exact score
# lies further below a threshold need not be looked at.
_SCORE_TOLERANCE = 1e-6


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scores of logits, in float32 as upstream computes them (at most 2e-7 apart).

    Args:
        logits: Any shape.

    Returns:
        Scores in [0, 1], same shape; never falling where the logits rise.
    """
    with np.errstate(over="ignore"):  # exp of a large number is inf, and the score 0
        scores = 1.0 / (1.0 + np.exp(-logits))
    return scores.astype(np.float32, copy=False)


def find_candidates(
    logits: NDArray[np.float32], *, threshold: float | NDArray[np.floating]
) -> Candidates:
    """Collect the spans that score above the threshold.

    Args:
        logits: Span logits of one text without padding, float32, (L, K, C).
        threshold: A span is a candidate if its score is strictly greater: one number, or one
            for each label, (C,). In [0, 1].

    Returns:
        Candidates inside the text (start + width <= L), by start, then width, then label.
    """
    words, _, labels = logits.shape
    # Compared in float32, as upstream compares.
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float32), (labels,))
    cells = np.nonzero(logits > safe_logits(limits))
    return check_cells(cells, logits[cells], limits, words)


def check_cells(
    cells: Iterable[NDArray[np.int64]],
    logits: NDArray[np.float32],
    limits: NDArray[np.float32],
    words: int,
) -> Candidates:
    """Collect the spans that score above the limits out of those that may.

    Args:
        cells: Start, width less 1 and label, (N,) each, of one text's cells: at least of those
            whose logits exceed `safe_logits`.
        logits: Of the cells, (N,).
        limits: Threshold of each label, float32, (C,).
        words: L.

    Returns:
        As `find_candidates`, in the order of the cells.
    """
    start, width, label = cells  # width counts from 0 here
    score, end = sigmoid(logits), start + width + 1
    chosen = (score > limits[label]) & (end <= words)
    return Candidates(start[chosen], end[chosen], label[chosen], score[chosen])


def class_scores(
    logits: NDArray[np.float32], labels: Sequence[str], *, top: int = 5
) -> dict[str, float]:
    """The best labels of one span with their scores: `class_probs` of an upstream entity.

    Args:
        logits: Logits of one span, one for each label, (C,).
        labels: Names of the labels, C of them.
        top: The most labels to return.

    Returns:
        Name -> score, best first; equal scores in the order of the labels.

    Source: upstream `return_class_probs`, which adds the key "class_probs" after "score".
    """
    scores = sigmoid(logits)
    best = np.argsort(-scores, kind="stable")[:top]
    return {labels[i]: score for i, score in zip(best.tolist(), scores[best].tolist(), strict=True)}


def safe_logits(limits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits at and below which no score can exceed the limits; (C,), -inf where none."""
    below = np.clip(limits.astype(np.float64) - _SCORE_TOLERANCE, 0.0, None)
    with np.errstate(divide="ignore"):  # log(0) is -inf: every logit has to be looked at
        return (np.log(below) - np.log1p(-below)).astype(np.float32)
