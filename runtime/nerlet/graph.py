"""The whole model as one ONNX graph: its signature checked, run on batches.

Axis letters: B batch, T pieces, L words, K max width, C labels.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nerlet.batch import Tensor
from nerlet.decode import Candidates
from nerlet.errors import GraphError
from nerlet.scores import find_candidates
from nerlet.selection import Selector
from nerlet.sessions import Sessions
from nerlet.token_scores import find_token_candidates


@dataclass(frozen=True, slots=True)
class _Port:
    """Type and number of axes of a graph input or output."""

    dtype: str
    rank: int


_INPUTS = {
    "input_ids": _Port("tensor(int64)", 2),  # (B, T)
    "attention_mask": _Port("tensor(int64)", 2),  # (B, T)
    "words_mask": _Port("tensor(int64)", 2),  # (B, T)
    "text_lengths": _Port("tensor(int64)", 2),  # (B, 1)
    "span_idx": _Port("tensor(int64)", 3),  # (B, L*K, 2)
    "span_mask": _Port("tensor(bool)", 2),  # (B, L*K)
}
_TOKEN_INPUTS = {name: _INPUTS[name] for name in list(_INPUTS)[:4]}
# What a bi-encoder's graph takes beside a text: labels as pieces, or as embeddings.
LABELS = {
    "labels_input_ids": _Port("tensor(int64)", 2),  # (C, P)
    "labels_attention_mask": _Port("tensor(int64)", 2),  # (C, P)
    "labels_embeddings": _Port("tensor(float)", 2),  # (C, D)
    "labels_embeds": _Port("tensor(float)", 2),  # the same, in the reference's exports of 2025
}
_WORD_SHAPES = "word_shapes"
_WORD_SHAPES_PORT = _Port("tensor(int64)", 2)  # (B, T)
# Of a joint model: what it takes for entities and for pairs that may be related.
THRESHOLDS = ("threshold", "adjacency_threshold")
_THRESHOLD_PORT = _Port("tensor(float)", 0)
_OUTPUT = "logits"
_OUTPUT_PORT = _Port("tensor(float)", 4)  # (B, L, K, C)


class Graph:
    """The open graph; `run` may be called from several threads at once.

    Attributes:
        sessions: Where it runs.
        selector: Compares with thresholds where the logits are; None: they come to the host.
        max_width: K.
        has_word_shapes: The graph takes the optional input `word_shapes`.
        has_thresholds: The graph takes the optional inputs `THRESHOLDS`.
    """

    def __init__(
        self,
        sessions: Sessions,
        max_width: int,
        selector: Selector | None = None,
        labels: Collection[str] = (),
    ) -> None:
        """Check the signature.

        Args:
            sessions: Of the graph.
            max_width: K, as the bundle says.
            selector: On the same device.
            labels: What a bi-encoder's graph takes of labels, names out of `LABELS`.

        Raises:
            GraphError: Inputs or output are not those of a span model of this width.
        """
        self.sessions = sessions
        self.selector = selector
        self.max_width = max_width
        session, path = sessions.main, sessions.path
        own = {name: LABELS[name] for name in labels}
        _check_inputs(session, path, {**_INPUTS, **own}, "a span model")
        _check_width(_check_output(session, path), path, max_width)
        self.has_word_shapes = _has_word_shapes(session, path)
        self.has_thresholds = _has_thresholds(session, path)

    def run(
        self, feeds: Mapping[str, Tensor], label_count: int, *, one_thread: bool = False
    ) -> NDArray[np.float32]:
        """Return the logits of every span and label, float32, (B, L, K, C).

        Args:
            feeds: Tensors of `make_batch`.
            label_count: C, the most labels in one prompt of the batch.
            one_thread: As in `Sessions.run`.

        Raises:
            GraphError: As in `Sessions.run`, or the output has another shape.
        """
        return self.run_more((), feeds, label_count, one_thread=one_thread)[0]

    def run_more(
        self,
        more: Sequence[str],
        feeds: Mapping[str, Tensor],
        label_count: int,
        *,
        one_thread: bool = False,
    ) -> tuple[NDArray[np.float32], list[Any]]:
        """Return what `run` returns, and more outputs by name."""
        logits: NDArray[np.float32]
        logits, *others = self.sessions.run([_OUTPUT, *more], feeds, one_thread=one_thread)
        self._check_shape(logits.shape, feeds["text_lengths"], label_count)
        return logits, others

    @staticmethod
    def cut_padding(logits: NDArray[np.float32], words: int, labels: int) -> NDArray[np.float32]:
        """Return a text's own logits, (L, K, C), out of a batch's."""
        return logits[:words, :, :labels]

    @staticmethod
    def no_logits(labels: int) -> NDArray[np.float32]:
        """Of a text that has no word which the model reads."""
        return np.zeros((0, 1, labels), dtype=np.float32)

    @staticmethod
    def find_spans(
        logits: NDArray[np.float32], limits: NDArray[np.float64]
    ) -> tuple[Candidates, NDArray[np.float32]]:
        """Return a text's spans above its labels' limits, (C,), and the logits of all spans."""
        return find_candidates(logits, threshold=limits), logits

    def run_to_candidates(
        self,
        selector: Selector,
        feeds: Mapping[str, Tensor],
        thresholds: Sequence[NDArray[np.float32]],
    ) -> list[Candidates]:
        """Return the spans of each text above its thresholds; the logits stay on the device.

        Args:
            selector: On the same device.
            feeds: Tensors of `make_batch`.
            thresholds: Of each text's labels, (its labels,).

        Raises:
            GraphError: As in `run`.
        """
        (logits,) = self.sessions.run_bound([_OUTPUT], feeds, self.sessions.memory)
        lengths = feeds["text_lengths"]
        self._check_shape(tuple(logits.shape()), lengths, max(map(len, thresholds)))
        return selector.select(logits, thresholds, lengths[:, 0].tolist())

    def _check_shape(self, found: tuple[int, ...], lengths: Tensor, label_count: int) -> None:
        """Compare a shape of logits with that of its batch, (B, L, K, C)."""
        expected = (len(lengths), int(lengths.max()), self.max_width, label_count)
        if found != expected:
            raise GraphError(
                f"{self.sessions.path}: expected logits of shape {expected} (texts, words, "
                f"max_width, labels), found {found}; max_width or the marker ids of the "
                "graph differ from the model's config, export the model again"
            )


class TokenGraph:
    """The open graph of a token-level model; `run` may be called from several threads at once.

    Attributes:
        sessions: Where it runs.
        is_parts_first: Its logits are (3, B, L, C), as the reference exported them before 2025-11.
        has_word_shapes: The graph takes the optional input `word_shapes`.
        has_thresholds: The graph takes the optional inputs `THRESHOLDS`.
    """

    def __init__(
        self,
        sessions: Sessions,
        ent_id: int,
        sep_id: int,
        labels: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Check the signature, and find by a run which of two layouts its logits have.

        Args:
            sessions: Of the graph.
            ent_id: Id of the marker before each label.
            sep_id: Id of the marker between labels and words.
            labels: What a bi-encoder's graph takes for one label, some of `LABELS`; then there are
                no markers.

        Raises:
            GraphError: Inputs or output are not those of a token-level model.

        Source: the reference exports (B, L, C, 3) since 2025-11 and (3, B, L, C) before; names of
        axes in newer files still tell of the older layout.
        """
        self.sessions = sessions
        session, path = sessions.main, sessions.path
        own = {name: LABELS[name] for name in labels or ()}
        _check_inputs(session, path, {**_TOKEN_INPUTS, **own}, "a token-level model")
        _check_output(session, path)
        self.has_word_shapes = _has_word_shapes(session, path)
        self.has_thresholds = _has_thresholds(session, path)
        ids = np.array([[max(ent_id, 0), 0, max(sep_id, 0), 0, 0]], dtype=np.int64)
        probe: dict[str, Tensor] = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "words_mask": np.array([[0, 0, 0, 1, 2]], dtype=np.int64),
            "text_lengths": np.array([[2]], dtype=np.int64),
            **(labels or {}),
        }
        (logits,) = sessions.run([_OUTPUT], probe)
        if logits.shape not in ((1, 2, 1, 3), (3, 1, 2, 1)):
            raise GraphError(
                f"{path}: expected logits of shape (1, 2, 1, 3) or (3, 1, 2, 1) for a text of two "
                f"words and one label, found {logits.shape}; the graph is no token-level model's, "
                "or its marker ids differ from the model's config: export the model again"
            )
        self.is_parts_first = logits.shape[0] == 3

    def run(
        self, feeds: Mapping[str, Tensor], label_count: int, *, one_thread: bool = False
    ) -> NDArray[np.float32]:
        """Return the logits of every word and label as start, end and inside, (B, L, C, 3).

        Args:
            feeds: Tensors of `make_batch`, without those of spans.
            label_count: C, the most labels in one prompt of the batch.
            one_thread: As in `Sessions.run`.

        Raises:
            GraphError: As in `Sessions.run`, or the output has another shape.
        """
        return self.run_more((), feeds, label_count, one_thread=one_thread)[0]

    def run_more(
        self,
        more: Sequence[str],
        feeds: Mapping[str, Tensor],
        label_count: int,
        *,
        one_thread: bool = False,
    ) -> tuple[NDArray[np.float32], list[Any]]:
        """Return what `run` returns, and more outputs by name."""
        logits: NDArray[np.float32]
        logits, *others = self.sessions.run([_OUTPUT, *more], feeds, one_thread=one_thread)
        if self.is_parts_first:
            logits = np.moveaxis(logits, 0, -1)
        lengths = feeds["text_lengths"]
        expected = (len(lengths), int(lengths.max()), label_count, 3)
        if logits.shape != expected:
            raise GraphError(
                f"{self.sessions.path}: expected logits of shape {expected} (texts, words, labels, "
                f"start, end and inside), found {logits.shape}; the marker ids of the graph differ "
                "from the model's config, export the model again"
            )
        return logits, others

    @staticmethod
    def cut_padding(logits: NDArray[np.float32], words: int, labels: int) -> NDArray[np.float32]:
        """Return a text's own logits, (L, C, 3), out of a batch's."""
        return logits[:words, :labels]

    @staticmethod
    def no_logits(labels: int) -> NDArray[np.float32]:
        """Of a text that has no word which the model reads."""
        return np.zeros((0, labels, 3), dtype=np.float32)

    @staticmethod
    def find_spans(
        logits: NDArray[np.float32], limits: NDArray[np.float64]
    ) -> tuple[Candidates, None]:
        """Return a text's spans above its labels' limits, (C,); no span has logits of its own."""
        return find_token_candidates(logits, threshold=limits), None


def _check_inputs(
    session: ort.InferenceSession, path: Path, expected: Mapping[str, _Port], kind: str
) -> None:
    inputs = {arg.name: arg for arg in session.get_inputs()}
    if set(inputs) != set(expected):
        raise GraphError(
            f"{path}: expected the inputs of {kind}, {', '.join(expected)}, found "
            f"{', '.join(inputs)}; the graph is of another kind than the model's config says: "
            "export it again, with `nerlet-export convert` or GLiNER"
        )
    for name, port in expected.items():
        _check_port(inputs[name], port, path)


def _check_output(session: ort.InferenceSession, path: Path) -> ort.NodeArg:
    outputs = {arg.name: arg for arg in session.get_outputs()}
    if _OUTPUT not in outputs:
        raise GraphError(
            f"{path}: expected an output {_OUTPUT}, found {', '.join(outputs)}; "
            "export the model again"
        )
    _check_port(outputs[_OUTPUT], _OUTPUT_PORT, path)
    return outputs[_OUTPUT]


def _check_width(output: ort.NodeArg, path: Path, max_width: int) -> None:
    width = output.shape[2] if output.shape else None
    if isinstance(width, int) and width != max_width:
        raise GraphError(
            f"{path}: expected {_OUTPUT} with max_width {max_width} on axis 2, as the model's "
            f"config says, found {width}; export the model again"
        )


def _has_word_shapes(session: ort.InferenceSession, path: Path) -> bool:
    optional = {arg.name: arg for arg in session.get_overridable_initializers()}
    if _WORD_SHAPES in optional:
        _check_port(optional[_WORD_SHAPES], _WORD_SHAPES_PORT, path)
    return _WORD_SHAPES in optional


def _has_thresholds(session: ort.InferenceSession, path: Path) -> bool:
    optional = {arg.name: arg for arg in session.get_overridable_initializers()}
    for name in THRESHOLDS:
        if name in optional:
            _check_port(optional[name], _THRESHOLD_PORT, path)
    return set(THRESHOLDS) <= optional.keys()


def _check_port(arg: ort.NodeArg, port: _Port, path: Path) -> None:
    """Compare type and rank; a graph may leave its output's rank open."""
    if arg.type != port.dtype or (arg.shape and len(arg.shape) != port.rank):
        raise GraphError(
            f"{path}: expected {arg.name} as {port.dtype} of {port.rank} axes, found {arg.type} "
            f"of {len(arg.shape)} axes {arg.shape}; export the model again"
        )
