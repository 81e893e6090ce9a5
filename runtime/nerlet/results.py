"""What the graph found in one text to what users get: the steps after `scoring`.

Scored -entities-> Candidates at given offsets -decode-> Span[] -entities-> Entity[]
"""

from collections.abc import Sequence

from nerlet.arguments import Task
from nerlet.decode import Span, select_spans
from nerlet.entities import Entity, add_class_probs, confine_candidates, to_entities
from nerlet.scoring import Scored


def find_entities(
    text: str, task: Task, scored: Scored | None, *, return_class_probs: bool
) -> list[Entity]:
    """Return the entities of one text; none where it has no word."""
    if scored is None:
        return []
    spans = choose_spans(scored, task)
    return name_spans(text, task, scored, spans, return_class_probs=return_class_probs)


def choose_spans(scored: Scored, task: Task) -> list[Span]:
    """Return the kept spans of one text, over its kept words."""
    candidates = scored.found
    if task.given is not None:
        candidates = confine_candidates(candidates, scored.words, scored.kept_words, task.given)
    return select_spans(candidates, nested=task.nested, multi_label=task.multi_label)


def name_spans(
    text: str, task: Task, scored: Scored, spans: Sequence[Span], *, return_class_probs: bool
) -> list[Entity]:
    """Return the entities that the kept spans of one text stand for, one each, in their order."""
    found = to_entities(text, scored.words, scored.kept_words, spans, task.labels.names)
    if return_class_probs and scored.logits is not None:
        add_class_probs(found, spans, scored.logits, task.labels.names)
    return found
