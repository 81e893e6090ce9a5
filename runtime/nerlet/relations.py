"""Pairs of a text's entities to its relations, the last step of a joint model.

Place in the flow: relation_graph -> Related, and decode -> Span[] -> *relations* -> Relation[].

Axis letters: P pairs, R relations.
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from nerlet.decode import Span
from nerlet.entities import Entity
from nerlet.relation_graph import Related
from nerlet.scores import sigmoid


class RelatedEntity(TypedDict):
    """One end of a relation; `entity_idx` is its place among the entities of the text."""

    start: int
    end: int
    text: str
    type: str
    entity_idx: int


class Relation(TypedDict):
    """One found relation, from head to tail."""

    head: RelatedEntity
    tail: RelatedEntity
    relation: str
    score: float


def to_relations(
    related: Related,
    spans: Sequence[Span],
    entities: Sequence[Entity],
    names: Sequence[str],
    *,
    threshold: float,
) -> list[Relation]:
    """Return the relations between the entities that were kept.

    Args:
        related: The pairs that the graph chose.
        spans: Kept spans over the words that the graph saw.
        entities: Theirs.
        names: Of the relations, R of them.
        threshold: Keep scores above it.

    Returns:
        In order of the pairs, then the relations. A span with several labels stands in them as the
        first of its entities.

    Source: upstream `SpanRelexDecoder`, which compares scores in float64.
    """
    first: dict[tuple[int, int], int] = {}
    for place, span in enumerate(spans):
        first.setdefault((span.start, span.end - 1), place)
    scores = sigmoid(related.logits[:, : len(names)])
    found: list[Relation] = []
    heads, tails = related.heads.tolist(), related.tails.tolist()
    for pair, own in np.argwhere(scores.astype(np.float64) > threshold).tolist():
        head, tail = first.get((*heads[pair],)), first.get((*tails[pair],))
        if head is not None and tail is not None:
            found.append(
                {
                    "head": _to_end(entities, head),
                    "tail": _to_end(entities, tail),
                    "relation": names[own],
                    "score": float(scores[pair, own]),
                }
            )
    return found


def _to_end(entities: Sequence[Entity], place: int) -> RelatedEntity:
    entity = entities[place]
    return {
        "start": entity["start"],
        "end": entity["end"],
        "text": entity["text"],
        "type": entity["label"],
        "entity_idx": place,
    }
