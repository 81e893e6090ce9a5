"""What users call of a joint entity and relation model: as any other model, and relations, too.

text -relation_scoring-> Candidates, Related -decode-> Span[] -entities-> Entity[]
-relations-> Relation[]
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from nerlet.arguments import (
    Flag,
    GivenSpans,
    Labels,
    OneThreshold,
    Threshold,
    iterate_texts,
    read_count,
    read_tasks,
    read_text,
    refuse_unknown,
)
from nerlet.entities import Entity
from nerlet.model import GLiNER
from nerlet.relation_arguments import (
    Relations,
    RelationThreshold,
    no_relations,
    read_relation_tasks,
)
from nerlet.relation_graph import explaining_frozen
from nerlet.relation_scoring import RelatedText, RelationScorer
from nerlet.relations import Relation, to_relations
from nerlet.results import choose_spans, name_spans

Both = tuple[list[list[Entity]], list[list[Relation]]]
Pair = tuple[list[Entity], list[Relation]]


class RelationGLiNER(GLiNER):
    """A loaded joint model; `nerlet.load` makes one where the model has relations."""

    @cached_property
    def _relation_scorer(self) -> RelationScorer:
        """What runs the graph for relations, where it can be asked for them."""
        if self.bundle.rel is None:
            raise no_relations(self.bundle)
        return RelationScorer(self._scorer, self.bundle.rel.id)

    def predict_entities(
        self,
        text: str,
        labels: Labels,
        flat_ner: bool = True,  # noqa: FBT001, FBT002  # the reference's order of arguments
        threshold: OneThreshold = None,
        multi_label: bool = False,  # noqa: FBT001, FBT002  # as above
        return_class_probs: bool = False,  # noqa: FBT001, FBT002  # as above
        **others: Any,  # noqa: ANN401  # passed on to inference
    ) -> list[Entity]:
        """Find the entities of one text; arguments and errors as in `inference`."""
        others |= {
            "flat_ner": flat_ner,
            "threshold": threshold,
            "multi_label": multi_label,
            "return_class_probs": return_class_probs,
        }
        if others.get("relations") is None:
            return super().predict_entities(text, labels, **others)
        return self.predict_relations(text, labels, **others)[0]

    def predict_relations(  # type: ignore[override]  # the base class takes whatever it refuses
        self,
        text: str,
        labels: Labels,
        relations: Relations,
        flat_ner: bool = True,  # noqa: FBT001, FBT002  # the reference's order of arguments
        threshold: OneThreshold = None,
        adjacency_threshold: float | None = None,
        relation_threshold: float | None = None,
        multi_label: bool = False,  # noqa: FBT001, FBT002  # as above
        **others: Any,  # noqa: ANN401  # passed on to inference
    ) -> tuple[list[Entity], list[Relation]]:
        """Find the entities of one text and the relations between them.

        Args:
            text: The text.
            labels: The types of entities to find.
            relations: The relations to find: a string, or a list.
            flat_ner: As in `inference`, and so are all the others.
            threshold: Of entities.
            adjacency_threshold: Of pairs of entities.
            relation_threshold: Of relations.
            multi_label: One span may have several labels.
            **others: Further arguments of `inference`.

        Returns:
            The entities by start, and the relations by head and tail. Each end of a relation names
            its entity by place (`entity_idx`).

        Raises:
            InputError: As in `inference`.
            GraphError: As in `inference`.
        """
        entities, found = self._relate(
            [text],
            labels,
            relations,
            flat_ner=flat_ner,
            threshold=threshold,
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            multi_label=multi_label,
            **others,
        )
        return entities[0], found[0]

    def inference(  # type: ignore[override]  # a pair where relations are asked for
        self,
        texts: str | Iterable[str],
        labels: Labels,
        flat_ner: Flag = True,  # noqa: FBT002  # the reference's order of arguments
        threshold: Threshold = None,
        multi_label: Flag = False,  # noqa: FBT002  # as above
        batch_size: int | None = None,
        packing_config: None = None,
        input_spans: GivenSpans | None = None,
        return_class_probs: bool = False,  # noqa: FBT001, FBT002  # as above
        *,
        relations: Relations | None = None,
        adjacency_threshold: RelationThreshold = None,
        relation_threshold: RelationThreshold = None,
        return_relations: bool = True,
        **unknown: object,
    ) -> list[list[Entity]] | Both:
        """Find the entities of many texts and, where asked for, the relations between them.

        Args:
            texts: As in `GLiNER.inference`, and so are all down to `return_class_probs`.
            labels: The types of entities to find.
            flat_ner: Entities never overlap.
            threshold: Of entities; also what the graph takes for an entity, by the least of the
                text's labels.
            multi_label: One span may have several labels; relations name the first of them.
            batch_size: Texts in one run on a GPU; with relations every text runs alone.
            packing_config: Only None.
            input_spans: The only spans that may be found.
            return_class_probs: Add `class_probs`.
            relations: The relations to find: a string, a list, or a list with one list per text;
                None: entities alone. The model reads them beside the labels, so that they move
                the scores of entities, too.
            adjacency_threshold: Score relations of pairs of entities above it; None: `threshold`.
                Or one per text.
            relation_threshold: Keep relations with scores above it; None: `threshold`. Or one per
                text.
            return_relations: Whether to return relations that were asked for.
            **unknown: Refused.

        Returns:
            For each text its entities by start; where relations are asked for and to be returned,
            a pair of these and, for each text, its relations.

        Raises:
            InputError: An argument is unknown, out of bounds or of the wrong length.
            GraphError: Relations are asked of a graph that GLiNER's own exporter has frozen.

        Warns:
            UserWarning: Words past the end of what the model takes were cut.
        """
        given: dict[str, Any] = {
            "flat_ner": flat_ner,
            "threshold": threshold,
            "multi_label": multi_label,
            "batch_size": batch_size,
            "packing_config": packing_config,
            "input_spans": input_spans,
            "return_class_probs": return_class_probs,
            **unknown,
        }
        if relations is None:
            with explaining_frozen(self._scorer.graph.sessions):
                return super().inference(texts, labels, **given)
        both = self._relate(
            texts,
            labels,
            relations,
            adjacency_threshold=adjacency_threshold,
            relation_threshold=relation_threshold,
            **given,
        )
        return both if return_relations else both[0]

    # The reference's older name
    batch_predict_entities = inference  # type: ignore[assignment]

    def stream(  # type: ignore[override]  # pairs where relations are asked for
        self,
        texts: Iterable[str],
        labels: Labels,
        *,
        flat_ner: bool = True,
        threshold: OneThreshold = None,
        multi_label: bool = False,
        batch_size: int | None = None,
        return_class_probs: bool = False,
        relations: Relations | None = None,
        adjacency_threshold: float | None = None,
        relation_threshold: float | None = None,
    ) -> Iterator[list[Entity]] | Iterator[Pair]:
        """Find the entities and, where asked for, the relations of texts one after the other.

        Args:
            texts: As in `GLiNER.stream`, and so are all down to `return_class_probs`.
            labels: The types of entities to find.
            flat_ner: Entities never overlap.
            threshold: Of entities.
            multi_label: One span may have several labels.
            batch_size: Texts in one run on a GPU; with relations every text runs alone.
            return_class_probs: Add `class_probs`.
            relations: As in `inference`, the same for all texts, and so are the last two.
            adjacency_threshold: Of pairs of entities.
            relation_threshold: Of relations.

        Returns:
            The entities of each text, in the order of the texts; where relations are asked for,
            pairs of these and of the text's relations.

        Raises:
            InputError: An argument is out of bounds; at the call, before any text is read.
            GraphError: As in `inference`.

        Warns:
            UserWarning: Words past the end of what the model takes were cut; for each such text.
        """
        if relations is None:
            return super().stream(
                texts,
                labels,
                flat_ner=flat_ner,
                threshold=threshold,
                multi_label=multi_label,
                batch_size=batch_size,
                return_class_probs=return_class_probs,
            )
        read_count("batch_size", batch_size, default=1)
        own = (self.own_thresholds, multi_label)
        tasks = read_tasks(1, labels, threshold, *own, flat_ner=flat_ner)
        asked = read_relation_tasks(tasks, relations, adjacency_threshold, relation_threshold)
        self._scorer.encode_labels(tasks[0].labels)  # which says at once what is wrong with them
        items = (RelatedText(read_text(text), tasks[0], asked[0]) for text in iterate_texts(texts))
        found = self._relation_scorer.stream(items, self._split)
        return (_find(item, return_class_probs=return_class_probs) for item in found)

    def _relate(
        self,
        texts: str | Iterable[str],
        labels: Labels,
        relations: Relations,
        *,
        flat_ner: Flag,
        threshold: Threshold,
        multi_label: Flag,
        adjacency_threshold: RelationThreshold = None,
        relation_threshold: RelationThreshold = None,
        batch_size: int | None = None,
        input_spans: GivenSpans | None = None,
        return_class_probs: bool = False,
        **unknown: object,
    ) -> Both:
        """Find the entities and the relations of many texts; arguments as in `inference`."""
        refuse_unknown(unknown)
        read_count("batch_size", batch_size, default=1)
        checked, tasks = self._read(texts, labels, flat_ner, threshold, multi_label, input_spans)
        asked = read_relation_tasks(tasks, relations, adjacency_threshold, relation_threshold)
        items = list(map(RelatedText, checked, tasks, asked))
        found = [
            _find(item, return_class_probs=return_class_probs)
            for item in self._relation_scorer.score_all(items, self._split)
        ]
        return [entities for entities, _ in found], [related for _, related in found]


def _find(item: RelatedText, *, return_class_probs: bool) -> Pair:
    """Return the entities of one text and its relations."""
    if item.scored is None or item.related is None:
        return [], []
    spans = choose_spans(item.scored, item.task)
    entities = name_spans(
        item.text, item.task, item.scored, spans, return_class_probs=return_class_probs
    )
    asked = item.relation_task
    relations = to_relations(item.related, spans, entities, asked.names, threshold=asked.threshold)
    return entities, relations
