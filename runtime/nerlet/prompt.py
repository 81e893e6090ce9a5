"""Words and labels to the ids of one model input, the step after `words`; shared by training.

Layout: prefix [ENT] label [ENT] label ... [SEP] words suffix, where prefix and suffix are what the
tokenizer itself puts around a sequence ([CLS] ... [SEP] in BERT).

Axis letters: L words, T pieces.
"""

import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from nerlet.errors import BundleError, InputError

# Half of a UTF-16 pair, which Python's strings may hold alone but no tokenizer takes.
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
# Units whose pieces are kept, some 4 MB, and the longest of them in characters.
_KEPT_UNITS = 20_000
_KEPT_LENGTH = 40


@dataclass(frozen=True, slots=True)
class Prompt:
    """One model input as ids, and where its words are.

    Attributes:
        ids: Piece ids, (T,).
        word_starts: Position in `ids` of each kept word's first piece, (L,).
        kept_words: Index of each kept word among the given words, (L,), rising.
        shapes: Shape of each piece's word, (T,); 0 outside words and where none were given.
        label_count: Labels in the prompt.
        lost_words: Words cut from the end because the text was too long.
    """

    ids: NDArray[np.int64]
    word_starts: NDArray[np.int64]
    kept_words: NDArray[np.int64]
    shapes: NDArray[np.int64]
    label_count: int
    lost_words: int


class PieceEncoder:
    """Turns words and labels into piece ids; owns the tokenizer.

    Attributes:
        ent_id: Id of the marker before each label; -1: none, as in a bi-encoder's texts.
        sep_id: Id of the marker between labels and words; -1 as above.
        prefix_ids: Ids that the tokenizer puts before a sequence.
        suffix_ids: Ids that the tokenizer puts after a sequence.
    """

    def __init__(self, tokenizer: Tokenizer, ent_id: int, sep_id: int, *others: int) -> None:
        """Take a tokenizer, its two markers, and others that no unit may hold either."""
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._known: dict[str, tuple[int, ...]] = {}
        self.ent_id = ent_id
        self.sep_id = sep_id
        self._markers = frozenset((ent_id, sep_id, *others))
        self.prefix_ids, self.suffix_ids = _find_frame(tokenizer)

    def encode_units(self, units: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the piece ids of each unit, () for one that yields none (such as U+200B).

        What has been encoded before is kept, since the words of texts repeat: the tokenizer then
        takes a fraction of its time. A unit's pieces depend on nothing beside it.

        Args:
            units: Words or whole labels, each encoded by itself: a label with spaces is one unit.

        Returns:
            Ids of each unit. The marker ids are in none of them, whatever the text.

        Source: as GLiNER calls its tokenizer, `is_split_into_words=True`.
        """
        known = self._known
        new = [unit for unit in dict.fromkeys(units) if unit not in known]
        if not new:
            return [known[unit] for unit in units]
        encoded = dict(zip(new, self._encode_new(new), strict=True))
        pieces = [encoded[unit] if unit in encoded else known[unit] for unit in units]
        if len(known) + len(new) > _KEPT_UNITS:  # another dict: this one may be in use elsewhere
            known = self._known = {}
        known.update((unit, own) for unit, own in encoded.items() if len(unit) <= _KEPT_LENGTH)
        return pieces

    def _encode_new(self, units: Sequence[str]) -> list[tuple[int, ...]]:
        """Encode units that are not kept."""
        units = [_SURROGATE.sub(_REPLACEMENT, unit) for unit in units]
        encoding = self._tokenizer.encode(units, is_pretokenized=True, add_special_tokens=False)
        pieces: list[list[int]] = [[] for _ in units]
        for piece_id, unit in zip(encoding.ids, encoding.word_ids, strict=True):
            pieces[unit].append(piece_id)
        if not self._markers.isdisjoint(encoding.ids):
            for unit, ids in enumerate(pieces):
                if not self._markers.isdisjoint(ids):
                    pieces[unit] = self._encode_without_markers(units[unit])
        return list(map(tuple, pieces))

    def encode_first_words(
        self, words: Sequence[str], max_len: int, max_positions: int | None
    ) -> list[tuple[int, ...]]:
        """Return the piece ids of the first words, at least of all that a prompt can hold.

        A long text is not encoded to its end: this stops when there are surely words that
        `build_prompt` cuts.

        Args:
            words: All words of a text.
            max_len: As in `build_prompt`.
            max_positions: As in `build_prompt`.

        Returns:
            `encode_units` of the words, or of the first of them.
        """
        pieces: list[tuple[int, ...]] = []
        readable = total = 0
        step = max_len + 1  # one more than fits, so that most texts take one call
        while len(pieces) < len(words) and readable <= max_len:
            if max_positions is not None and total > max_positions:
                break
            chunk = self.encode_units(words[len(pieces) : len(pieces) + step])
            pieces += chunk
            readable += sum(1 for ids in chunk if ids)
            total += sum(map(len, chunk))
        return pieces

    def encode_labels(
        self,
        labels: Sequence[str],
        max_positions: int | None = None,
        *,
        is_isolated: bool = False,
    ) -> list[tuple[int, ...]]:
        """Return the piece ids of each label.

        Args:
            labels: The labels of one prompt.
            max_positions: As in `build_prompt`, and so is the other.
            is_isolated: As in `build_prompt`.

        Raises:
            InputError: A label yields no pieces, so that the model cannot read it, or is longer
                than the model takes, or all together leave no room for a word.
        """
        pieces = self.encode_units(labels)
        for label, ids in zip(labels, pieces, strict=True):
            if not ids:
                raise InputError(
                    f"labels: expected labels with visible characters, found {label!r}, of which "
                    "the model's tokenizer reads nothing; reword it"
                )
        for own in [[ids] for ids in pieces] if is_isolated else [pieces]:
            used = len(self.make_head(own)) + len(self.suffix_ids)
            _count_room(used, len(own), max_positions)
        return pieces

    def make_head(self, label_pieces: Sequence[Sequence[int]]) -> list[int]:
        """Return the ids of a prompt before its first word."""
        head = [*self.prefix_ids]
        for pieces in label_pieces:
            head += [self.ent_id, *pieces]
        return [*head, self.sep_id] if self.sep_id >= 0 else head

    def _encode_without_markers(self, unit: str) -> list[int]:
        """Encode a unit in halves of each marker found in it, so that none is recognised."""
        encoding = self._tokenizer.encode([unit], is_pretokenized=True, add_special_tokens=False)
        for piece_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if piece_id in self._markers:
                middle = (start + end) // 2
                if not 0 < middle < len(unit):  # a marker of one character: nothing to halve
                    return [id_ for id_ in encoding.ids if id_ not in self._markers]
                first, second = unit[:middle], unit[middle:]
                return self._encode_without_markers(first) + self._encode_without_markers(second)
        return list(encoding.ids)


def build_prompt(
    encoder: PieceEncoder,
    label_pieces: Sequence[Sequence[int]],
    word_pieces: Sequence[Sequence[int]],
    *,
    max_len: int,
    max_positions: int | None,
    word_shapes: Sequence[int] | None = None,
    word_count: int | None = None,
    is_isolated: bool = False,
    tail: Sequence[int] = (),
) -> Prompt:
    """Lay out one model input.

    Args:
        encoder: The encoder that made the pieces.
        label_pieces: `encode_units` of the labels.
        word_pieces: `encode_units` of the words, or their `encode_first_words`. A word without
            pieces is dropped: the ids are those of the text without it.
        max_len: Most words kept.
        max_positions: Most positions of the model, None for no limit.
        word_shapes: Shape of each word of `word_pieces`, None to leave `Prompt.shapes` zero.
        word_count: Words of the text, where `word_pieces` has only the first; the others are
            lost, be they readable or not.
        is_isolated: Labels have positions of their own, so that the limit is the text's alone.
        tail: Ids between `[SEP]` and the words, of a joint model's relations.

    Returns:
        The prompt; words past either limit are cut and counted in `lost_words`.

    Raises:
        InputError: The labels leave no room for a word.

    Source: GLiNER (Zaratiana et al., 2023), section 2.1; dropped words are ours.
    """
    head = [*encoder.make_head(label_pieces), *tail]
    unread = 0 if word_count is None else word_count - len(word_pieces)
    candidates = [index for index, pieces in enumerate(word_pieces) if pieces]
    limited = () if is_isolated else label_pieces
    used = len(encoder.make_head(limited)) + len(tail) + len(encoder.suffix_ids)
    room = _count_room(used, len(limited), max_positions)
    sizes = [len(word_pieces[index]) for index in candidates[:max_len]]
    kept_count = count_fitting(sizes, room)
    kept, sizes = candidates[:kept_count], sizes[:kept_count]
    body = [piece for index in kept for piece in word_pieces[index]]
    ids = np.array([*head, *body, *encoder.suffix_ids], dtype=np.int64)
    shapes = np.zeros(len(ids), dtype=np.int64)
    if word_shapes is not None:
        kept_shapes = np.array([word_shapes[index] for index in kept], dtype=np.int64)
        shapes[len(head) : len(head) + len(body)] = np.repeat(kept_shapes, sizes)
    ends = len(head) + np.cumsum(sizes, dtype=np.int64)
    return Prompt(
        ids=ids,
        word_starts=ends - np.array(sizes, dtype=np.int64),
        kept_words=np.array(kept, dtype=np.int64),
        shapes=shapes,
        label_count=len(label_pieces),
        lost_words=len(candidates) - kept_count + unread,
    )


def warn_of_lost_words(
    counts: Sequence[int], max_len: int, max_positions: int | None, *, is_isolated: bool = False
) -> None:
    """Warn once of all words that were cut, at the line that called nerlet.

    Args:
        counts: `Prompt.lost_words` of each text; nothing happens where all are 0.
        max_len: As in `build_prompt`.
        max_positions: As in `build_prompt`, and so is the other.
        is_isolated: As in `build_prompt`.
    """
    texts = sum(1 for count in counts if count)
    if not texts:
        return
    frame: FrameType | None = sys._getframe()
    level = 1
    while frame and str(frame.f_globals.get("__name__")).startswith("nerlet."):
        frame, level = frame.f_back, level + 1
    pieces = f" and {max_positions} pieces" if max_positions else ""
    pieces += " with the labels" if pieces and not is_isolated else ""
    warnings.warn(
        f"{sum(counts)} words at the end of {texts} texts were cut: the model takes {max_len} "
        f"words{pieces} at once; split longer texts",
        stacklevel=level,
    )


def _count_room(used: int, label_count: int, max_positions: int | None) -> int | None:
    """Return how many word pieces fit beside the labels."""
    if max_positions is None:
        return None
    if used >= max_positions:
        raise InputError(
            f"labels: the prompt of {label_count} labels takes {used} of the model's "
            f"{max_positions} positions and leaves no room for a word; "
            "give fewer or shorter labels, or split them over several calls"
        )
    return max_positions - used


def count_fitting(sizes: Sequence[int], room: int | None) -> int:
    """Return how many of the first words fit into `room` pieces."""
    if room is None:
        return len(sizes)
    return int(np.searchsorted(np.cumsum(sizes), room, side="right"))


def _find_frame(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer puts before and after a sequence."""
    for probe in ("a", "0", "."):
        encoding = tokenizer.encode([probe], is_pretokenized=True, add_special_tokens=True)
        inside = [position for position, word in enumerate(encoding.word_ids) if word is not None]
        if inside:
            return tuple(encoding.ids[: inside[0]]), tuple(encoding.ids[inside[-1] + 1 :])
    raise BundleError(
        "tokenizer.json: expected pieces for the words 'a', '0' and '.', found none; "
        "the tokenizer is empty or damaged, export the model again"
    )
