"""Kept spans to entities: word indices become offsets into the original text, the last step."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from nerlet.decode import Candidates, Span
from nerlet.scores import class_scores
from nerlet.words import Word


class Entity(TypedDict):
    """One found mention; offsets in code points, `text == whole[start:end]`.

    `class_probs` (label -> score, best five first) is there only when asked for.
    """

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
    """Return the entities that spans stand for.

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
    for span in to_given_words(spans, kept_words):
        start, end = words[span.start].start, words[span.end - 1].end
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


def to_given_words(spans: Sequence[Span], kept_words: NDArray[np.int64]) -> list[Span]:
    """Return spans over the kept words as spans over all words."""
    given: list[int] = kept_words.tolist()
    return [
        Span(given[span.start], given[span.end - 1] + 1, span.label, span.score) for span in spans
    ]


def to_given_candidates(candidates: Candidates, kept_words: NDArray[np.int64]) -> Candidates:
    """Return candidates over the kept words as candidates over all words."""
    ends = kept_words[candidates.end - 1] + 1
    return replace(candidates, start=kept_words[candidates.start], end=ends)


def add_class_probs(
    entities: Sequence[Entity],
    spans: Sequence[Span],
    logits: NDArray[np.float32],
    labels: Sequence[str],
) -> None:
    """Add to each entity the scores of its span's best labels.

    Args:
        entities: Entities of one text.
        spans: Their spans over the kept words.
        logits: Logits of the text, (L, K, C).
        labels: Names of the labels, C of them.
    """
    for entity, span in zip(entities, spans, strict=True):
        own_logits = logits[span.start, span.end - span.start - 1]  # (C,)
        entity["class_probs"] = class_scores(own_logits, labels)


def confine_candidates(
    candidates: Candidates,
    words: Sequence[Word],
    kept_words: NDArray[np.int64],
    offsets: AbstractSet[tuple[int, int]],
) -> Candidates:
    """Return the candidates that cover exactly one of the given ranges of characters.

    Args:
        candidates: Scored spans over the kept words.
        words: Words of the text.
        kept_words: Index in `words` of each word that the graph saw.
        offsets: (start, end) in code points, end exclusive. As in the reference, a range that does
            not begin and end with a word matches nothing.
    """
    starts = [words[index].start for index in kept_words[candidates.start].tolist()]
    ends = [words[index].end for index in kept_words[candidates.end - 1].tolist()]
    chosen = np.array([pair in offsets for pair in zip(starts, ends, strict=True)], dtype=np.bool_)
    return candidates.take(chosen)
