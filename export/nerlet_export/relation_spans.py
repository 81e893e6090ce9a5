"""Span heads for a joint model: the logits of all spans, and the vectors of those that are kept.

Folding the labels into a head leaves out the vectors that they are multiplied with; entities need
theirs, but few spans are entities. So what a head makes before its last layer is kept, and only for
entities that layer is applied.

Axes: B texts, L words, K widths, C labels, E entities, D width, H width of z.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nerlet_export.model import gather_rows
from nerlet_export.span_heads import MarkerSpanHead, PairHead, SpanHead, shift
from nerlet_export.width_heads import WidthHead

# First and last words of spans, int64, (B, E) each, to their z, (B, E, H)
Read = Callable[[Tensor, Tensor], Tensor]


def read_spans(
    head: SpanHead, words: Tensor, lengths: Tensor, directions: Tensor
) -> tuple[list[Tensor], Read]:
    """Score all spans as `SpanHead.score` does, and keep what their vectors are made of.

    Args:
        head: Of a span mode.
        words: (B, L, D).
        lengths: Words of each text, int64, (B,).
        directions: Folded labels, (B, C, H).

    Returns:
        For each of K widths the spans that start at each word, (B, L, C), without the labels'
        offsets; and what gives z of chosen spans.
    """
    if isinstance(head, PairHead):
        starts, ends = head.endpoints(words, lengths)
        scored = [head.project(starts, own, directions) for own in shift(ends, head.max_width)]
        return scored, lambda first, last: F.relu(
            gather_rows(starts, first) + gather_rows(ends, last)
        )
    if isinstance(head, MarkerSpanHead):
        firsts, lasts = F.relu(head.project_start(words)), F.relu(head.project_end(words))
        return head.score(words, lengths, directions), lambda first, last: torch.cat(
            [gather_rows(firsts, first), gather_rows(lasts, last)], dim=-1
        )
    by_width = list(cast(WidthHead, head).by_width(words))  # K times (B, L, H)
    K, spans = len(by_width), torch.stack(by_width, dim=2).flatten(1, 2)  # (B, L * K, H)
    scored = [own @ directions.transpose(1, 2) for own in by_width]
    return scored, lambda first, last: gather_rows(spans, first * K + last - first)


def finish(head: SpanHead, hidden: Tensor) -> Tensor:
    """Apply a head's last layer to z of entities: (B, E, H) -> (B, E, D)."""
    return hidden if head.last is None else head.last(hidden)
