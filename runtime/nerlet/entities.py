"""Kept spans to entities: word indices become offsets into the original text, the last step."""

from collections.abc import Sequence
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from nerlet.decode import Span
from nerlet.words import Word


class Entity(TypedDict):
    """One found mention; offsets in code points, `text == whole[start:end]`."""

    start: int
    end: int
    text: str
    label: str
    score: float
    class_probs: NotRequired[dict[str, float]]


def to_entities(
    text: str,
    words: Sequence[Word],
    kept_words: NDArray[np.int64],
    spans: Sequence[Span],
    labels: Sequence[str],
) -> list[Entity]:
    """Return the entities that spans of kept words stand for.

    Args:
        text: The original text.
        words: Its words.
        kept_words: Index in `words` of each word that the graph saw.
        spans: Spans over the kept words, half-open, with label indices.
        labels: Names of the labels.

    Returns:
        One entity per span, in the same order, keys in the reference's order.
    """
    entities: list[Entity] = []
    for span in spans:
        start = words[kept_words[span.start]].start
        end = words[kept_words[span.end - 1]].end
        entities.append(
            {
                "start": start,
                "end": end,
                "text": text[start:end],
                "label": labels[span.label],
                "score": span.score,
            }
        )
    return entities
