"""A model with isolated labels in two graphs: a label is read once and kept, a text beside it.

What such a label becomes in the encoder depends on nothing but the label. So its keys and values in
every layer, which texts attend to, and its vector are computed when it is first asked for, and a
text costs its own pieces. Labels are read alone, and joined in one order whichever they are
asked for in: so a score is the same to the bit whatever was asked before.

Axis letters: T pieces of a text, N of all its labels, L words, K max width, C labels, H width of
the span head, E width of the encoder.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nerlet.batch import Tensor, label_feeds, text_feeds
from nerlet.decode import Candidates
from nerlet.errors import GraphError
from nerlet.prompt import Prompt
from nerlet.schedule import run_in_order
from nerlet.scores import find_candidates
from nerlet.sessions import Sessions

LabelPieces = tuple[tuple[int, ...], ...]
Floats = NDArray[np.float32]
# Of labels that are kept; the least recently used go first. Some 500 of three words in the default
# model.
KEPT_BYTES = 32 * 2**20
_LABEL_OUTPUTS = ("keys", "values", "direction", "offset")
_LABEL_INPUTS = frozenset({"input_ids"})
_TEXT_INPUTS = frozenset({"input_ids", "word_starts", "directions", "offsets"})
_WORD_SHAPES = "word_shapes"
_OUTPUT = "logits"


@dataclass(frozen=True, slots=True)
class _Labels:
    """The labels of a text as its graph takes them.

    Attributes:
        pieces: Of each label, in the order in which they were asked for.
        feeds: Keys and values of each layer (`name_layer`), (1, N, E), `directions`, (C, H),
            `offsets`, (C,); labels in the order of their pieces.
        columns: The place of each label asked for in that order, (C,).
    """

    pieces: LabelPieces
    feeds: dict[str, Tensor]
    columns: NDArray[np.int64]


class CachedGraph:
    """The two open graphs; `run` may be called from several threads at once.

    Attributes:
        sessions: Where texts run.
        has_word_shapes: The text's graph takes `word_shapes`.
    """

    def __init__(
        self, text: Sessions, label: Sessions, ent_id: int, *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Check the signatures.

        Args:
            text: Sessions of the graph that scores a text.
            label: Sessions of the graph that reads a label.
            ent_id: Id of the marker before each label.
            kept_bytes: Of labels, at most; what one text asks for is always held.

        Raises:
            GraphError: A graph has other inputs or outputs.
        """
        self.sessions = text
        _check(label, _LABEL_INPUTS, _LABEL_OUTPUTS)
        (shape,) = (arg.shape for arg in label.main.get_outputs() if arg.name == "keys")
        if len(shape) != 3:
            raise GraphError(
                f"{label.path}: expected keys of 3 axes (layers, pieces, width), found "
                f"{shape}; the model was exported by another version of nerlet, export it again"
            )
        layers = shape[0]
        kept = {name_layer(name, layer) for name in ("keys", "values") for layer in range(layers)}
        self.has_word_shapes = _check(text, _TEXT_INPUTS | kept, (_OUTPUT,))
        self._label = label
        self._ent_id = ent_id
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[tuple[int, ...], tuple[Floats, ...]] = OrderedDict()
        self._size = 0
        self._joined: _Labels | None = None
        self._reading = Lock()

    def run(
        self, prompt: Prompt, labels: LabelPieces, *, one_thread: bool = False
    ) -> NDArray[np.float32]:
        """Return the logits of every span of one text and every label, (L, K, C).

        Args:
            prompt: Of no label and at least one word.
            labels: Pieces of each label.
            one_thread: As in `Sessions.run`.

        Raises:
            GraphError: As in `Sessions.run`.
        """
        read = self._read(labels)
        feeds = {**text_feeds(prompt, word_shapes=self.has_word_shapes), **read.feeds}
        logits: NDArray[np.float32]
        (logits,) = self.sessions.run([_OUTPUT], feeds, one_thread=one_thread)
        return np.take(logits[0], read.columns, axis=2)

    @staticmethod
    def no_logits(labels: int) -> NDArray[np.float32]:
        """Of a text that has no word which the model reads."""
        return np.zeros((0, 1, labels), dtype=np.float32)

    @staticmethod
    def find_spans(logits: Floats, limits: NDArray[np.float64]) -> tuple[Candidates, Floats]:
        """Return a text's spans above its labels' limits, (C,), and the logits of all spans."""
        return find_candidates(logits, threshold=limits), logits

    def _read(self, labels: LabelPieces) -> _Labels:
        """Read the labels that are not kept, and join all; the last ones joined are kept, too."""
        with self._reading:
            joined = self._joined
            if joined is None or joined.pieces != labels:
                joined = self._joined = self._join(labels)
            return joined

    def _join(self, labels: LabelPieces) -> _Labels:
        order = sorted(range(len(labels)), key=lambda place: labels[place])
        found = self._find([labels[place] for place in order])
        keys, values, directions, offsets = zip(*found, strict=True)
        feeds: dict[str, Tensor] = {
            "directions": np.concatenate(directions),
            "offsets": np.concatenate(offsets),
        }
        for name, parts in (("keys", keys), ("values", values)):
            layers = np.concatenate(parts, axis=1)  # (layers, N, E)
            feeds |= {name_layer(name, layer): own[None] for layer, own in enumerate(layers)}
        return _Labels(labels, feeds, np.argsort(order))

    def _find(self, labels: Sequence[tuple[int, ...]]) -> list[tuple[Floats, ...]]:
        """Find labels, those that are not kept on all threads; then let the oldest go."""
        new = [pieces for pieces in dict.fromkeys(labels) if pieces not in self._kept]
        threads = min(self.sessions.threads, max(len(new), 1))
        for pieces, read in zip(new, run_in_order(self._read_label, new, threads), strict=True):
            self._kept[pieces] = read
            self._size += _count_bytes(read)
        found = [self._kept[pieces] for pieces in labels]
        for pieces in labels:
            self._kept.move_to_end(pieces)
        while self._size > self._kept_bytes and len(self._kept) > 1:
            self._size -= _count_bytes(self._kept.popitem(last=False)[1])
        return found

    def _read_label(self, pieces: tuple[int, ...]) -> tuple[Floats, ...]:
        return tuple(self._label.run(_LABEL_OUTPUTS, label_feeds(self._ent_id, pieces)))


def name_layer(name: str, layer: int) -> str:
    """The input of a text's graph that takes the keys or the values of one layer."""
    return f"{name}_{layer}"


def _count_bytes(arrays: Sequence[Floats]) -> int:
    return sum(array.nbytes for array in arrays)


def _check(sessions: Sessions, inputs: frozenset[str], outputs: Sequence[str]) -> bool:
    """Check names of inputs and outputs; whether the graph takes word shapes, too."""
    found = {arg.name for arg in sessions.main.get_inputs()}
    given = {arg.name for arg in sessions.main.get_outputs()}
    if found - {_WORD_SHAPES} != inputs or given != set(outputs):
        raise GraphError(
            f"{sessions.path}: expected the inputs {', '.join(sorted(inputs))} and the outputs "
            f"{', '.join(outputs)}, found {', '.join(sorted(found))} and "
            f"{', '.join(sorted(given))}; export the model again"
        )
    return _WORD_SHAPES in found
