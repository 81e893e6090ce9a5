"""Prompts to tensors, keyed by graph input name: the step between `prompt` and `graph`.

Axis letters: B batch, L words of the longest text, T pieces of the longest prompt or more, K max
width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nerlet.prompt import Prompt

_BUCKET = 32  # pieces
Tensor = NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.float32]


def make_batch(
    prompts: Sequence[Prompt], max_width: int | None, *, word_shapes: bool = False, length: int = 0
) -> dict[str, Tensor]:
    """Return the graph's inputs for some prompts, padded on the right with zeros.

    Args:
        prompts: At least one, each with at least one word.
        max_width: K, the widest span in words; None: leave out the inputs of spans.
        word_shapes: Add the optional input `word_shapes`.
        length: T is at least this.

    Returns:
        int64, but for the bool `span_mask`:

        - `input_ids`, `attention_mask` (1 on pieces), (B, T);
        - `words_mask`, (B, T): n, counted from 1, on the first piece of the n-th word, else 0;
        - `text_lengths`, (B, 1): words of each text;
        - `span_idx`, (B, L*K, 2): first and last word of each span, both inclusive; the spans of a
          start stand together, and those past the end of the text are kept;
        - `span_mask`, (B, L*K): whether the span ends inside the text;
        - `word_shapes`, (B, T): the shape of each piece's word, 0 outside words.

    Source: the tensors of GLiNER's span processor.
    """
    lengths = np.array([len(prompt.word_starts) for prompt in prompts], dtype=np.int64)
    size = (len(prompts), max(length, *(len(prompt.ids) for prompt in prompts)))
    input_ids, attention_mask, words_mask, shapes = np.zeros((4, *size), dtype=np.int64)  # (B, T)
    for row, prompt in enumerate(prompts):
        input_ids[row, : len(prompt.ids)] = prompt.ids
        attention_mask[row, : len(prompt.ids)] = 1
        words_mask[row, prompt.word_starts] = np.arange(1, lengths[row] + 1)
        shapes[row, : len(prompt.ids)] = prompt.shapes
    tensors: dict[str, Tensor] = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "words_mask": words_mask,
        "text_lengths": lengths[:, None],
    }
    if max_width is not None:
        tensors["span_idx"], tensors["span_mask"] = _list_spans(lengths, max_width)
    if word_shapes:
        tensors["word_shapes"] = shapes
    return tensors


def bucket_length(prompts: Sequence[Prompt], limit: int | None) -> int:
    """Return T for a device that prepares itself for each new one: few lengths, not every one.

    Words are not padded so: graphs of the reference's exporter count them by `text_lengths`.

    Args:
        prompts: Of one batch.
        limit: Most pieces that the model takes; None: no limit.

    Returns:
        The longest prompt's pieces, rounded up to a multiple of 32 within the limit.
    """
    longest = max(len(prompt.ids) for prompt in prompts)
    rounded = -(-longest // _BUCKET) * _BUCKET
    return rounded if limit is None or rounded <= limit else longest


def label_feeds(ent_id: int, pieces: Sequence[int]) -> dict[str, Tensor]:
    """Return the inputs of the graph that reads one isolated label.

    Args:
        ent_id: Id of [ENT].
        pieces: Of the label.

    Returns:
        `input_ids`, int64, (1, P).
    """
    return {"input_ids": np.array([[ent_id, *pieces]], dtype=np.int64)}


def text_feeds(prompt: Prompt, *, word_shapes: bool) -> dict[str, Tensor]:
    """Return the inputs of the graph that scores one text, but for those that labels give.

    Args:
        prompt: Of no label and at least one word.
        word_shapes: Add `word_shapes`.

    Returns:
        `input_ids`, (1, T), `word_starts`, the place of each word's first piece, (L,), and
        `word_shapes`, (1, T); int64.
    """
    feeds: dict[str, Tensor] = {"input_ids": prompt.ids[None], "word_starts": prompt.word_starts}
    return {**feeds, "word_shapes": prompt.shapes[None]} if word_shapes else feeds


def _list_spans(
    lengths: NDArray[np.int64], max_width: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return span_idx, (B, L*K, 2), and span_mask, (B, L*K)."""
    words = int(lengths.max())
    starts = np.repeat(np.arange(words, dtype=np.int64), max_width)  # (L*K,)
    lasts = starts + np.tile(np.arange(max_width, dtype=np.int64), words)  # (L*K,)
    inside = starts < lengths[:, None]  # (B, L*K): the spans of padding words are (0, 0)
    span_idx = np.where(inside[..., None], np.stack([starts, lasts], axis=-1), 0)  # (B, L*K, 2)
    return span_idx, inside & (lasts < lengths[:, None])
