"""Training batches as tensors: examples -> packed pieces, attention groups, spans and targets.

Nothing is padded but where an operation needs a rectangle. All pieces of a batch lie one after the
other, (N,); attention groups, words, labels and spans point into them by slot. With isolated labels
each distinct label of a batch is encoded once, whichever texts ask for it.

Axes: B texts, L words, K widths, C labels of a text, U distinct labels, N pieces, S spans.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nerlet.words import WORD_SHAPE_COUNT

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """One text and its labels, as pieces.

    Attributes:
        words: Pieces of each word; no word is empty.
        shapes: Shape of each word, `nerlet.words.word_shape`.
        labels: The labels asked for, in prompt order.
        positives: (start, width - 1, label index) of every entity, unique.
        known_spans: Where not None, only these (start, width - 1) carry loss ("one-mention").
        unsure: (start, width - 1, label index) cells that carry no loss.
    """

    words: Sequence[Sequence[int]]
    shapes: Sequence[int]
    labels: Sequence[str]
    positives: Sequence[tuple[int, int, int]] = ()
    known_spans: Sequence[tuple[int, int]] | None = None
    unsure: Sequence[tuple[int, int, int]] = ()

    @property
    def size(self) -> int:
        """Pieces of the text."""
        return sum(map(len, self.words))


@dataclass(frozen=True, slots=True)
class Attention:
    """Pieces that attend to pieces: G rows of queries and keys, as slots into the batch.

    Attributes:
        queries: (G, Tq); padding points at slot 0.
        keys: (G, Tk); padding points at slot 0.
        is_key: (G, Tk), False for padding.
        answers: Flat index into (G, Tq) of each real query, in slot order.
    """

    queries: Tensor
    keys: Tensor
    is_key: Tensor
    answers: Tensor


@dataclass(frozen=True, slots=True)
class Pieces:
    """All pieces of a batch and who attends to whom; the groups' queries cover 0..N-1 in order."""

    ids: Tensor  # (N,)
    positions: Tensor  # (N,)
    segments: Tensor  # (N,)
    attention: list[Attention]


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's tensors.

    Attributes:
        pieces: The encoder's part.
        words: Slot of each word's first piece, (B, L).
        lengths: Words of each text, (B,).
        label_slots: Slots of the pieces that make a label's vector, (U, P).
        label_weights: Weight of each of them, (U, P); rows sum to 1.
        labels: Index into U of each text's labels, (B, C).
        is_label: (B, C).
        starts: Index into L of each span's first word, (B, S).
        ends: Index into L of each span's last word, (B, S).
        is_span: (B, S).
        targets: 1 for an entity, (B, S, C); all 0 where none are given.
        weights: Loss weight of each cell, (B, S, C); 0 where the truth is not known.
    """

    pieces: Pieces
    words: Tensor
    lengths: Tensor
    label_slots: Tensor
    label_weights: Tensor
    labels: Tensor
    is_label: Tensor
    starts: Tensor
    ends: Tensor
    is_span: Tensor
    targets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Self:
        """Move every tensor to a device."""
        moved: Self = _move(self, device)
        return moved


def _move(item, device):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202  (recursive)
    if isinstance(item, Tensor):
        return item.to(device, non_blocking=True)
    if isinstance(item, list):
        return [_move(part, device) for part in item]
    return type(item)(**{f.name: _move(getattr(item, f.name), device) for f in fields(item)})


@dataclass(frozen=True, slots=True)
class Layout:
    """How prompts are laid out: the special ids, the limits, and which attention the model has.

    Attributes:
        prefix: Ids before the prompt ([CLS]).
        suffix: Ids after the text ([SEP]).
        ent_id: Piece id of [ENT].
        sep_id: Piece id of `<<SEP>>`.
        max_width: K.
        max_positions: Most pieces of a prompt; None for no limit.
        is_isolated: Labels are blocks of their own, each encoded once a batch.
        is_mean: A label's vector is the mean over its block instead of the [ENT] position.
        has_shapes: Segments carry word shapes.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    ent_id: int
    sep_id: int
    max_width: int
    max_positions: int | None
    is_isolated: bool
    is_mean: bool
    has_shapes: bool


def count_room(layout: Layout, label_pieces: Iterable[Sequence[int]]) -> int | None:
    """Pieces that a prompt has left for words; isolated labels take none. None for no limit."""
    if layout.max_positions is None:
        return None
    label_pieces = () if layout.is_isolated else label_pieces
    used = len(layout.prefix) + sum(1 + len(own) for own in label_pieces) + 1 + len(layout.suffix)
    return max(0, layout.max_positions - used)


def make_batch(
    examples: Sequence[Example], label_pieces: Mapping[str, Sequence[int]], layout: Layout
) -> Batch:
    """Lay out examples as one batch.

    Args:
        examples: At least one, each with at least one word and one label.
        label_pieces: Pieces of every label that the examples name.
        layout: Of the model.

    Returns:
        The batch, on the CPU; its targets follow `Example.positives`.
    """
    place = _place_isolated if layout.is_isolated else _place_joint
    pieces, words, blocks, labels = place(examples, label_pieces, layout)
    label_slots, is_slot = _pad([b if layout.is_mean else b[:1] for b in blocks])
    padded_labels, is_label = _pad(labels)
    lengths = np.array([len(e.words) for e in examples])
    starts, ends, is_span = _enumerate_spans(lengths, layout.max_width)
    targets, weights = _targets(examples, lengths.max(), is_label.shape[1], layout.max_width)
    weights *= (is_span[:, :, None] & is_label[:, None, :]).astype(np.float32)
    return Batch(
        pieces=pieces,
        words=torch.from_numpy(_pad(words)[0]),
        lengths=torch.from_numpy(lengths),
        label_slots=torch.from_numpy(label_slots),
        label_weights=torch.from_numpy(
            (is_slot / is_slot.sum(1, keepdims=True)).astype(np.float32)
        ),
        labels=torch.from_numpy(padded_labels),
        is_label=torch.from_numpy(is_label),
        starts=torch.from_numpy(starts),
        ends=torch.from_numpy(ends),
        is_span=torch.from_numpy(is_span),
        targets=torch.from_numpy(targets),
        weights=torch.from_numpy(weights),
    )


Placed = tuple[Pieces, list[Ints], list[Ints], list[Ints]]


def _place_isolated(
    examples: Sequence[Example], label_pieces: Mapping[str, Sequence[int]], layout: Layout
) -> Placed:
    """Distinct labels first, each a block; then the texts, which also attend to their labels."""
    index: dict[str, int] = {}
    for example in examples:
        for label in example.labels:
            index.setdefault(label, len(index))
    ids: list[int] = []
    segments: list[int] = []
    positions: list[Ints] = []
    blocks = []
    for label in index:
        block = [layout.ent_id, *label_pieces[label]]
        blocks.append(np.arange(len(ids), len(ids) + len(block)))
        positions.append(np.arange(len(block)))
        ids += block
        segments += [WORD_SHAPE_COUNT] * len(block)
    texts: list[Ints] = []
    keys, words, labels = [], [], []
    for example in examples:
        begin = len(ids)
        words.append(_append_text(ids, segments, example, (*layout.prefix, layout.sep_id), layout))
        own = np.arange(begin, len(ids))
        positions.append(np.arange(len(own)))
        asked = np.array([index[label] for label in example.labels])
        texts.append(own)
        keys.append(np.concatenate([own, *(blocks[i] for i in asked)]))
        labels.append(asked)
    pieces = _pieces(ids, positions, segments, [(blocks, blocks), (texts, keys)])
    return pieces, words, blocks, labels


def _place_joint(
    examples: Sequence[Example], label_pieces: Mapping[str, Sequence[int]], layout: Layout
) -> Placed:
    """Each example is one sequence: prefix, its labels, `<<SEP>>`, words, suffix."""
    ids: list[int] = []
    segments: list[int] = []
    rows: list[Ints] = []
    blocks: list[Ints] = []
    words, labels = [], []
    for example in examples:
        begin = len(ids)
        ids += layout.prefix
        asked = np.arange(len(blocks), len(blocks) + len(example.labels))
        for label in example.labels:
            block = [layout.ent_id, *label_pieces[label]]
            blocks.append(np.arange(len(ids), len(ids) + len(block)))
            ids += block
        ids.append(layout.sep_id)
        segments += [0] * (len(ids) - begin)
        words.append(_append_text(ids, segments, example, (), layout))
        rows.append(np.arange(begin, len(ids)))
        labels.append(asked)
    positions = [np.arange(len(row)) for row in rows]
    return _pieces(ids, positions, segments, [(rows, rows)]), words, blocks, labels


def _append_text(
    ids: list[int], segments: list[int], example: Example, before: Sequence[int], layout: Layout
) -> Ints:
    """Append a text's pieces; the slot of each word's first piece."""
    ids += before
    segments += [0] * len(before)
    slots = []
    for word, shape in zip(example.words, example.shapes, strict=True):
        slots.append(len(ids))
        ids += word
        segments += [shape if layout.has_shapes else 0] * len(word)
    ids += layout.suffix
    segments += [0] * len(layout.suffix)
    return np.array(slots)


def _pieces(
    ids: list[int],
    positions: list[Ints],
    segments: list[int],
    groups: list[tuple[list[Ints], list[Ints]]],
) -> Pieces:
    attention = []
    for queries, keys in groups:
        padded_queries, is_query = _pad(queries)
        padded_keys, is_key = _pad(keys)
        attention.append(
            Attention(
                queries=torch.from_numpy(padded_queries),
                keys=torch.from_numpy(padded_keys),
                is_key=torch.from_numpy(is_key),
                answers=torch.from_numpy(np.flatnonzero(is_query)),
            )
        )
    return Pieces(
        ids=torch.tensor(ids),
        positions=torch.from_numpy(np.concatenate(positions)),
        segments=torch.tensor(segments),
        attention=attention,
    )


def _pad(rows: Sequence[Ints]) -> tuple[Ints, NDArray[np.bool_]]:
    """Pad rows of slots with 0 to one rectangle, and say which cells are real."""
    sizes = np.array([len(row) for row in rows])
    is_real = np.arange(sizes.max())[None, :] < sizes[:, None]
    padded = np.zeros(is_real.shape, dtype=np.int64)
    padded[is_real] = np.concatenate(rows)
    return padded, is_real


def _enumerate_spans(lengths: Ints, max_width: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """All spans by start, then width: starts, last words, and which lie in the text."""
    L = int(lengths.max())
    starts = np.repeat(np.arange(L), max_width)
    ends = starts + np.tile(np.arange(max_width), L)
    is_span = ends[None, :] < lengths[:, None]  # (B, S)
    shape = is_span.shape
    return (
        np.broadcast_to(starts, shape).copy(),
        np.broadcast_to(np.minimum(ends, L - 1), shape).copy(),
        is_span,
    )


def _targets(
    examples: Sequence[Example], L: int, C: int, max_width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Targets and known cells, (B, L * K, C) each."""
    targets = np.zeros((len(examples), L * max_width, C), dtype=np.float32)
    weights = np.ones_like(targets)
    for row, example in enumerate(examples):
        if example.known_spans is not None:
            weights[row] = 0.0
            for start, width in example.known_spans:
                weights[row, start * max_width + width] = 1.0
        for start, width, label in example.unsure:
            weights[row, start * max_width + width, label] = 0.0
        for start, width, label in example.positives:
            targets[row, start * max_width + width, label] = 1.0
            weights[row, start * max_width + width, label] = 1.0
    return targets, weights
