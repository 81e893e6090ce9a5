"""Texts, labels and relations to candidates and pairs, each text in a run of its own.

text -words-> Word[] -prompt-> Prompt -batch-> tensors -relation_graph-> Candidates, Related

What a joint model takes for entities depends on all labels of its batch and, by words, on padding,
so that texts run alone on every device.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nerlet.arguments import Task
from nerlet.decode import Candidates
from nerlet.errors import GraphError
from nerlet.graph import Graph, TokenGraph
from nerlet.relation_arguments import RelationTask
from nerlet.relation_graph import Related, RelationGraph
from nerlet.relation_prompt import make_tail
from nerlet.schedule import run_in_order
from nerlet.scoring import Scored, Scorer, Split


@dataclass(frozen=True, slots=True)
class RelatedText:
    """One text, what is to be found in it, and what the graph found.

    Attributes:
        text: The text.
        task: Its labels, and how its entities are chosen.
        relation_task: Its relations.
        scored: Its words and candidates; None before it has run, and for one without a word.
        related: Its pairs; None as above, and where the model reads none of its words.
    """

    text: str
    task: Task
    relation_task: RelationTask
    scored: Scored | None = None
    related: Related | None = None


class RelationScorer:
    """A joint model and its open graph; may be used from several threads at once."""

    def __init__(self, scorer: Scorer, rel_id: int) -> None:
        """Check that the graph can be asked for relations.

        Args:
            scorer: Of the model's entities.
            rel_id: Id of the marker before a relation.

        Raises:
            GraphError: It cannot.
        """
        graph = scorer.graph
        if not isinstance(graph, Graph | TokenGraph):
            raise GraphError(f"{graph.sessions.path}: expected a joint model's graph, found parts")
        self._scorer = scorer
        self._graph = graph
        self._relations = RelationGraph(graph)
        self._rel_id = rel_id

    def score_all(self, items: Sequence[RelatedText], split: Split[str]) -> Iterator[RelatedText]:
        """Score texts that are all there, in order, and warn of cuts last.

        Args:
            items: Texts before the graph.
            split: Finds the words.

        Raises:
            InputError: A label or a relation cannot be used.
        """
        lost_words = []
        for item in self._score_each(items, split, self._scorer.count_threads(len(items))):
            lost_words.append(item.scored.lost_words if item.scored else 0)
            yield item
        self._scorer.warn_of_lost_words(lost_words)

    def stream(self, items: Iterable[RelatedText], split: Split[str]) -> Iterator[RelatedText]:
        """Score texts of an iterable that may be endless, and warn of each that is cut.

        Arguments and errors are those of `score_all`.
        """
        for item in self._score_each(items, split, self._graph.sessions.threads):
            if item.scored is not None:
                self._scorer.warn_of_lost_words([item.scored.lost_words])
            yield item

    def _score_each(
        self, items: Iterable[RelatedText], split: Split[str], threads: int
    ) -> Iterator[RelatedText]:
        """Score texts in order: on a CPU so many at once, each on one thread, elsewhere one."""
        if self._scorer.device != "cpu":
            threads = 1
        return run_in_order(lambda own: self._score(own, split, threads > 1), items, threads)

    def _score(self, item: RelatedText, split: Split[str], one_thread: bool) -> RelatedText:  # noqa: FBT001
        """Run one text."""
        words = split(item.text)
        if not words:
            return item
        asked, limits = item.relation_task, np.array(item.task.thresholds)
        labels = self._scorer.encode_labels(item.task.labels)
        tail = make_tail(self._scorer.encoder, asked.names, self._rel_id)
        prompt = self._scorer.build_prompt(words, labels, tail)
        kept, lost = prompt.kept_words, prompt.lost_words
        if not len(kept):
            return replace(item, scored=Scored(words, kept, lost, Candidates.none(), None))
        logits, related = self._relations.run(
            self._scorer.make_batch(self._graph, [prompt]),
            prompt.label_count,
            threshold=asked.entities,
            adjacency_threshold=asked.adjacency,
            one_thread=one_thread,
        )
        scored = Scored(words, kept, lost, *self._graph.find_spans(logits, limits))
        return replace(item, scored=scored, related=related)
