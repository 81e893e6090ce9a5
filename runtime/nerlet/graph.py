"""The whole model as one ONNX graph: its signature checked, run on batches.

Axis letters: B batch, T pieces, L words, K max width, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nerlet.batch import Tensor
from nerlet.decode import Candidates
from nerlet.errors import GraphError
from nerlet.selection import Selector
from nerlet.sessions import Sessions


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
_WORD_SHAPES = "word_shapes"
_WORD_SHAPES_PORT = _Port("tensor(int64)", 2)  # (B, T)
_OUTPUT = "logits"
_OUTPUT_PORT = _Port("tensor(float)", 4)  # (B, L, K, C)


class Graph:
    """The open graph; `run` may be called from several threads at once.

    Attributes:
        sessions: Where it runs.
        selector: Compares with thresholds where the logits are; None: they come to the host.
        has_word_shapes: The graph takes the optional input `word_shapes`.
    """

    def __init__(
        self, sessions: Sessions, max_width: int, selector: Selector | None = None
    ) -> None:
        """Check the signature.

        Args:
            sessions: Of the graph.
            max_width: K, as the bundle says.
            selector: On the same device.

        Raises:
            GraphError: Inputs or output are not those of a span model of this width.
        """
        self.sessions = sessions
        self.selector = selector
        self._max_width = max_width
        session, path = sessions.main, sessions.path
        _check_inputs({arg.name: arg for arg in session.get_inputs()}, path)
        _check_output({arg.name: arg for arg in session.get_outputs()}, path, max_width)
        optional = {arg.name: arg for arg in session.get_overridable_initializers()}
        self.has_word_shapes = _WORD_SHAPES in optional
        if self.has_word_shapes:
            _check_port(optional[_WORD_SHAPES], _WORD_SHAPES_PORT, path)

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
        logits: NDArray[np.float32]
        (logits,) = self.sessions.run([_OUTPUT], feeds, one_thread=one_thread)
        self._check_shape(logits.shape, feeds["text_lengths"], label_count)
        return logits

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
        expected = (len(lengths), int(lengths.max()), self._max_width, label_count)
        if found != expected:
            raise GraphError(
                f"{self.sessions.path}: expected logits of shape {expected} (texts, words, "
                f"max_width, labels), found {found}; max_width or the marker ids of the "
                "graph differ from the model's config, export the model again"
            )


def _check_inputs(inputs: Mapping[str, ort.NodeArg], path: Path) -> None:
    found = set(inputs)
    if found == set(_INPUTS) - {"span_idx", "span_mask"}:
        raise GraphError(
            f"{path}: expected the inputs of a span model, found those of a token-level model "
            f"({', '.join(inputs)}); this version of nerlet reads span models only"
        )
    if found != set(_INPUTS):
        raise GraphError(
            f"{path}: expected the inputs {', '.join(_INPUTS)}, found {', '.join(inputs)}; "
            "export a span model with one encoder again, with `nerlet-export convert` or GLiNER"
        )
    for name, port in _INPUTS.items():
        _check_port(inputs[name], port, path)


def _check_output(outputs: Mapping[str, ort.NodeArg], path: Path, max_width: int) -> None:
    if _OUTPUT not in outputs:
        raise GraphError(
            f"{path}: expected an output {_OUTPUT}, found {', '.join(outputs)}; "
            "export the model again"
        )
    output = outputs[_OUTPUT]
    _check_port(output, _OUTPUT_PORT, path)
    width = output.shape[2] if output.shape else None
    if isinstance(width, int) and width != max_width:
        raise GraphError(
            f"{path}: expected {_OUTPUT} with max_width {max_width} on axis 2, as the model's "
            f"config says, found {width}; export the model again"
        )


def _check_port(arg: ort.NodeArg, port: _Port, path: Path) -> None:
    """Compare type and rank; a graph may leave its output's rank open."""
    if arg.type != port.dtype or (arg.shape and len(arg.shape) != port.rank):
        raise GraphError(
            f"{path}: expected {arg.name} as {port.dtype} of {port.rank} axes, found {arg.type} "
            f"of {len(arg.shape)} axes {arg.shape}; export the model again"
        )
