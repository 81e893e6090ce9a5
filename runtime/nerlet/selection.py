"""Thresholds on the device: of logits that a GPU holds, only those above them are copied.

Place in the flow: graph -> logits -> *selection* -> Candidates, instead of `scores` on the CPU. The
comparison is a graph of its own, `select.onnx`, so that it serves any model's logits; it lets
through what `scores.safe_logits` lets through, and the same exact check follows here.

`nerlet_export.selection` makes `select.onnx`. Not measured on a GPU.

Axis letters: B batch, L words of the longest text, K max width, C labels, N cells above.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from nerlet.decode import Candidates
from nerlet.scores import check_cells, safe_logits
from nerlet.sessions import HOST, Sessions, open_sessions

SELECTION_PATH = Path(__file__).with_name("select.onnx")
_OUTPUTS = ("cells", "above")


class Selector:
    """The open graph; `select` may be called from several threads at once."""

    def __init__(self, sessions: Sessions) -> None:
        """Take a session of `select.onnx` on the device that holds the logits."""
        self._sessions = sessions

    def select(
        self,
        logits: ort.OrtValue,
        thresholds: Sequence[NDArray[np.float32]],
        lengths: Sequence[int],
    ) -> list[Candidates]:
        """Collect the spans of each text that score above its thresholds.

        Args:
            logits: Span logits of a batch, float32, (B, L, K, C), in the memory of the session.
            thresholds: Of each text's labels, (its labels,), of which no text has more than C. In
                [0, 1].
            lengths: Words of each text.

        Returns:
            For each text what `scores.find_candidates` finds in its logits without padding.

        Raises:
            GraphError: The graph fails.
        """
        limits = np.full((len(thresholds), 1, 1, logits.shape()[3]), np.inf, dtype=np.float32)
        for row, own in enumerate(thresholds):
            limits[row, 0, 0, : len(own)] = safe_logits(own)  # no logit exceeds those of padding
        found = self._sessions.run_bound(_OUTPUTS, {"logits": logits, "limits": limits}, HOST)
        cells, above = (own.numpy() for own in found)  # (N, 4) by text, (N,)
        borders = np.searchsorted(cells[:, 0], np.arange(len(thresholds) + 1))
        return [
            check_cells(cells[begin:end, 1:].T, above[begin:end], own, length)
            for begin, end, own, length in zip(
                borders, borders[1:], thresholds, lengths, strict=False
            )
        ]


def open_selector(sessions: Sessions) -> Selector | None:
    """Open the graph on a model's device; None where its logits come to the host anyway.

    Raises:
        GraphError: The device cannot be had.
    """
    if sessions.memory == HOST:
        return None
    return Selector(open_sessions(SELECTION_PATH, providers=sessions.providers, threads=1))
