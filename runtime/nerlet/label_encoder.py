"""A bi-encoder's labels: text -> pieces -> embeddings, each label once, and kept.

A label is read alone, on one thread, and always on the CPU: so its embedding is the same to the bit
whatever it is asked for with, in whichever order, and on whichever device texts run.

Axis letters: C labels, P pieces of the longest, D width.
"""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nerlet.batch import Tensor
from nerlet.errors import GraphError, InputError
from nerlet.schedule import run_in_order
from nerlet.sessions import Sessions

LabelPieces = tuple[tuple[int, ...], ...]
Floats = NDArray[np.float32]
# Of embeddings that are kept; the least recently used go first. 10,922 labels of 768 numbers.
KEPT_BYTES = 32 * 2**20
_INPUTS = frozenset({"labels_input_ids", "labels_attention_mask"})
_OUTPUT = "labels_embeddings"


class LabelTokenizer:
    """Turns labels into piece ids, those that stand around each included."""

    def __init__(self, tokenizer: Tokenizer, max_positions: int | None) -> None:
        """Take a tokenizer.

        Args:
            tokenizer: Of the labels' encoder.
            max_positions: Most pieces of a label; None: no limit.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max_positions = max_positions

    def encode(self, labels: Sequence[str]) -> LabelPieces:
        """Return the piece ids of each label.

        Raises:
            InputError: The tokenizer reads nothing of a label, or it is longer than its encoder
                takes.

        Source: as GLiNER calls the labels' tokenizer, but that it cuts what is too long.
        """
        return tuple(map(self._encode, labels))

    def _encode(self, label: str) -> tuple[int, ...]:
        # Half of a UTF-16 pair becomes U+FFFD: no tokenizer takes it
        whole = label.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        encoding = self._tokenizer.encode(whole)
        if all(encoding.special_tokens_mask):
            raise InputError(
                f"labels: expected labels with visible characters, found {label!r}, of which "
                "the model's tokenizer reads nothing; reword it"
            )
        if self._max_positions is not None and len(encoding.ids) > self._max_positions:
            raise InputError(
                f"labels: expected labels of at most {self._max_positions} pieces, which is what "
                f"their encoder takes, found one of {len(encoding.ids)}, {label[:40]!r}...; "
                "shorten it"
            )
        return tuple(encoding.ids)


class LabelEncoder:
    """The open graph that reads labels; its methods may be called from several threads at once."""

    def __init__(
        self, sessions: Sessions, width: int, *, threads: int, kept_bytes: int = KEPT_BYTES
    ) -> None:
        """Check the signature.

        Args:
            sessions: Of the graph, of one thread.
            width: D, as the model's config has it.
            threads: Labels read at once.
            kept_bytes: Of embeddings, at most; those of the last call are always held, and those
                that `keep` was given.

        Raises:
            GraphError: It has other inputs or outputs.
        """
        inputs = {arg.name for arg in sessions.main.get_inputs()}
        outputs = {arg.name: arg.shape for arg in sessions.main.get_outputs()}
        if inputs != _INPUTS or list(outputs) != [_OUTPUT]:
            raise GraphError(
                f"{sessions.path}: expected the inputs {', '.join(sorted(_INPUTS))} and the output "
                f"{_OUTPUT}, found {', '.join(sorted(inputs))} and {', '.join(outputs)}; "
                "export the model again"
            )
        if outputs[_OUTPUT][1:] not in ([width], ["D"]):
            raise GraphError(
                f"{sessions.path}: expected embeddings of width {width}, as the model's config "
                f"says, found {outputs[_OUTPUT]}; export the model again"
            )
        self.sessions = sessions
        self._width = width
        self._threads = threads
        self._most = max(kept_bytes // (4 * width), 1)
        self._kept: OrderedDict[tuple[int, ...], Floats] = OrderedDict()
        self._given: dict[tuple[int, ...], Floats] = {}
        self._joined: tuple[LabelPieces, Floats] | None = None
        self._reading = Lock()

    def embed(self, labels: LabelPieces) -> Floats:
        """Return the embeddings of labels, float32, (C, D), not to be written to.

        Args:
            labels: Pieces of each.

        Raises:
            GraphError: As in `Sessions.run`.
        """
        with self._reading:
            if self._joined is None or self._joined[0] != labels:
                joined = np.stack(self._find(labels)) if labels else self._nothing()
                joined.flags.writeable = False
                self._joined = labels, joined
            return self._joined[1]

    def keep(self, labels: LabelPieces, embeddings: Floats) -> None:
        """Take embeddings (C, D) as those of labels; they count for no limit and never go."""
        with self._reading:
            self._given.update(zip(labels, embeddings, strict=True))
            self._joined = None

    def _nothing(self) -> Floats:
        return np.zeros((0, self._width), dtype=np.float32)

    def _find(self, labels: LabelPieces) -> list[Floats]:
        """Find labels, those that are not kept on all threads; then let the oldest go."""
        kept, given = self._kept, self._given
        new = [own for own in dict.fromkeys(labels) if own not in kept and own not in given]
        threads = min(self._threads, max(len(new), 1))
        kept.update(zip(new, run_in_order(self._read, new, threads), strict=True))
        found = [given[own] if own in given else kept[own] for own in labels]
        for own in labels:
            if own in kept:
                kept.move_to_end(own)
        while len(kept) > self._most:
            kept.popitem(last=False)
        return found

    def _read(self, pieces: tuple[int, ...]) -> Floats:
        embeddings: Floats = self.sessions.run([_OUTPUT], pad_pieces([pieces]))[0]
        return np.array(embeddings[0])


def pad_pieces(labels: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return labels as a graph takes them, padded on the right with zeros.

    Args:
        labels: Pieces of each.

    Returns:
        `labels_input_ids` and `labels_attention_mask` (1 on pieces), int64, (C, P).
    """
    size = (len(labels), max(map(len, labels)))
    ids, mask = np.zeros((2, *size), dtype=np.int64)
    for row, pieces in enumerate(labels):
        ids[row, : len(pieces)] = pieces
        mask[row, : len(pieces)] = 1
    return {"labels_input_ids": ids, "labels_attention_mask": mask}
