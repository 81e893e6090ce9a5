"""What the graph of a joint model says of relations, beside the logits of its entities.

Place in the flow: graph -> logits, pairs -> *relation_graph* -> Candidates and Related -> decode,
relations.

Axis letters: B batch (1 here), E entities that the graph chose, P pairs of them, R relations.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nerlet.batch import Tensor
from nerlet.errors import GraphError
from nerlet.graph import THRESHOLDS, Graph, TokenGraph
from nerlet.sessions import Sessions

_OUTPUTS = ("rel_idx", "rel_logits", "rel_mask", "entity_spans")
_TYPES = ("tensor(int64)", "tensor(float)", "tensor(bool)", "tensor(int64)")


@dataclass(frozen=True, slots=True)
class Related:
    """The pairs of entities of one text that may be related.

    Attributes:
        heads: First and last word of each pair's first entity, (P, 2), inclusive.
        tails: The same of its second one.
        logits: Of each relation, float32, (P, R).
    """

    heads: NDArray[np.int64]
    tails: NDArray[np.int64]
    logits: NDArray[np.float32]


class RelationGraph:
    """The open graph of a joint model; `run` may be called from several threads at once."""

    def __init__(self, graph: Graph | TokenGraph) -> None:
        """Check what is there beside a graph of entities.

        Raises:
            GraphError: It says nothing of relations, or with thresholds that cannot be given.
        """
        problem = explain_frozen(graph.sessions)
        if problem:
            raise GraphError(f"{graph.sessions.path}: {problem}")
        outputs = {own.name: own.type for own in graph.sessions.main.get_outputs()}
        found = tuple(map(outputs.get, _OUTPUTS))
        if found != _TYPES:
            raise GraphError(
                f"{graph.sessions.path}: expected the outputs {', '.join(_OUTPUTS)} as "
                f"{', '.join(_TYPES)}, found {found}; export the model again"
            )
        self._graph = graph

    def run(
        self,
        feeds: Mapping[str, Tensor],
        label_count: int,
        *,
        threshold: float,
        adjacency_threshold: float,
        one_thread: bool,
    ) -> tuple[NDArray[np.float32], Related]:
        """Run one text.

        Args:
            feeds: Tensors of `make_batch`.
            label_count: Labels of its prompt.
            threshold: Above which the graph takes spans for entities.
            adjacency_threshold: Above which it takes pairs of these for related.
            one_thread: As in `Sessions.run`.

        Returns:
            The text's logits, as `Graph.run` or `TokenGraph.run` has them without a batch, and its
            pairs, in order of the heads, then the tails.

        Raises:
            GraphError: As in `Graph.run`.
        """
        given = (threshold, adjacency_threshold)
        limits = (np.array(own, dtype=np.float32) for own in given)
        feeds = {**feeds, **dict(zip(THRESHOLDS, limits, strict=True))}
        logits, (pairs, scores, is_pair, spans) = self._graph.run_more(
            _OUTPUTS, feeds, label_count, one_thread=one_thread
        )
        pairs = pairs[0][is_pair[0]]  # (P, 2)
        heads, tails = spans[0][pairs[:, 0]], spans[0][pairs[:, 1]]
        return logits[0], Related(heads, tails, scores[0][is_pair[0]])


def is_of_tokens(sessions: Sessions) -> bool:
    """Whether a joint model scores words, as start, end and inside, and not spans."""
    return "span_idx" not in {own.name for own in sessions.main.get_inputs()}


@contextmanager
def explaining_frozen(sessions: Sessions) -> Iterator[None]:
    """Add to an error of a joint model's graph what `explain_frozen` says of it.

    Raises:
        GraphError: As what runs within.
    """
    try:
        yield
    except GraphError as error:
        frozen = explain_frozen(sessions)
        if not frozen:
            raise
        raise GraphError(f"{error}; {frozen}") from error


def explain_frozen(sessions: Sessions) -> str:
    """Why a graph of a joint model cannot be asked for relations; empty where it can.

    The reference's exporter traces one text: the graph keeps how many entities and pairs that had,
    and fails on texts that have more, or finds no relation in any where that one had none.
    """
    outputs = {own.name for own in sessions.main.get_outputs()}
    optional = {own.name for own in sessions.main.get_overridable_initializers()}
    if set(THRESHOLDS) <= optional and set(_OUTPUTS) <= outputs:
        return ""
    return (
        "expected a graph that takes its thresholds as inputs and tells the entities of its pairs, "
        f"found the outputs {', '.join(sorted(outputs))}: GLiNER's own exporter freezes thresholds "
        "of 0.5 and the number of entities and pairs of the text that it traced, so that on others "
        "the graph fails or relations are missing; convert the checkpoint: nerlet-export convert "
        "CHECKPOINT_DIR OUT_DIR"
    )
