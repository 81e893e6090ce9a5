"""Span heads of two ends: words and folded labels -> logits of all spans.

A head gives each span a hidden vector z, and a logit is z . d + o, with a direction d and an offset
o that a label is folded into. Wherever a head ends in a linear layer, that layer is part of the
folding: (W z + b) . q = z . (W^T q) + b . q. What comes before it is shared as far as it goes:

* paper, markerV0, markerV1, markerV2: z = relu(a_i + b_j), a vector per first and per last word;
* marker: z = relu([s_i; e_j]), so that a logit is one of the first word plus one of the last.

The reference's other heads are in `width_heads`.

Parameter names are the reference's (gliner 0.2.29), so that checkpoints go both ways.

Axes: B texts, L words, K widths, C labels, D width, H width of z.
"""

from collections.abc import Iterator
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nerlet_export.config import ModelConfig

# The logit that every span starts from in training: most spans are no entity. With 0 the first
# thousand steps only learn that; -3 is a score of 0.05.
INITIAL_LOGIT = -3.0


class TwoLayers(nn.Sequential):
    """The reference's projection: linear, ReLU, dropout, linear (its parameter names: 0 and 3)."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out)
        )

    @property
    def first(self) -> nn.Linear:
        """The layer into the hidden width."""
        return cast(nn.Linear, self[0])

    @property
    def last(self) -> nn.Linear:
        """The layer out of it."""
        return cast(nn.Linear, self[3])


class SpanHead(nn.Module):
    """What all heads have in common."""

    # Whether scores depend on how far the batch pads a text; the reference's do, and so do ours
    sees_padding: ClassVar[bool] = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.max_width = config.max_width

    @property
    def last(self) -> nn.Linear | None:
        """The layer that the head ends in, which folds into the labels; None where it has none."""
        return None

    def fold(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Fold labels (..., D) into the head: directions (..., H), offsets (...)."""
        last = self.last
        if last is None:
            return q, torch.zeros_like(q[..., 0])
        return q @ last.weight, q @ last.bias

    def score(self, words: Tensor, lengths: Tensor, directions: Tensor) -> list[Tensor]:
        """Score all spans; the labels' offsets are still to be added.

        Args:
            words: (B, L, D); what lies past a text may be anything.
            lengths: Words of each text, int64, (B,).
            directions: Folded labels, (B, C, H).

        Returns:
            For each of K widths the spans that start at each word, (B, L, C).
        """
        raise NotImplementedError


class PairHead(SpanHead):
    """Heads that end in `W2 relu(a_i + b_j) + b2`, a of the first word and b of the last."""

    out_project: TwoLayers

    @property
    def last(self) -> nn.Linear:
        """The layer that the head ends in."""
        return self.out_project.last

    def endpoints(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Project words (B, L, D), of texts of `lengths` (B,), to a and b, (B, L, H) each."""
        raise NotImplementedError

    def project(self, starts: Tensor, ends: Tensor, directions: Tensor) -> Tensor:
        """Project spans on labels; the labels' offsets are still to be added.

        Args:
            starts: Start parts of S spans, (B, S, H).
            ends: End parts of the same spans, (B, S, H).
            directions: Folded labels, (B, C, H).

        Returns:
            (B, S, C).
        """
        hidden = self.out_project[2](F.relu(starts + ends))  # (B, S, H), dropout in training
        return hidden @ directions.transpose(1, 2)

    def score(self, words: Tensor, lengths: Tensor, directions: Tensor) -> list[Tensor]:
        """Score all spans, those of each width together.

        What lies between the layers is (B, L, H) and not (B, L * K, H), so it stays in the cache.
        """
        starts, ends = self.endpoints(words, lengths)
        return [self.project(starts, own, directions) for own in shift(ends, self.max_width)]


class PaperSpanHead(PairHead):
    """Equation 1 of the paper: S_ij = FFN([h_i; h_j])."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.out_project = TwoLayers(2 * D, config.head_width, D, config.dropout)
        self.logit_bias = nn.Parameter(torch.tensor(INITIAL_LOGIT))

    def fold(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Fold labels (..., D) into the head: directions (..., H), offsets (...)."""
        directions, offsets = super().fold(q)
        return directions, offsets + self.logit_bias

    def endpoints(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Project words to their part as a span's first and as its last."""
        start, end = _split_linear(self.out_project.first, words, words)
        return start, end


class MarkerV0SpanHead(PairHead):
    """The reference's default head: two-layer networks for start, end, and their concatenation."""

    parts: ClassVar[int] = 2

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.project_start = TwoLayers(D, 4 * D, D, config.dropout)
        self.project_end = TwoLayers(D, 4 * D, D, config.dropout)
        self.out_project = TwoLayers(self.parts * D, 4 * D, D, config.dropout)

    def endpoints(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Project words to their part as a span's first and as its last."""
        start, end = self.project_start(words), self.project_end(words)
        start, end = _split_linear(self.out_project.first, F.relu(start), F.relu(end))
        return start, end


class ContextMarkerHead(MarkerV0SpanHead):
    """MarkerV0 with a third part, the same for all spans of a text: FFN(relu([s_i; e_j; c]))."""

    parts: ClassVar[int] = 3
    sees_padding: ClassVar[bool] = True

    def context(self, words: Tensor) -> Tensor:
        """Make c of words (B, L, D), which are zeros past each text: (B, D)."""
        raise NotImplementedError

    def endpoints(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Project words to their part as a span's first, with the text's, and as its last."""
        places = torch.arange(words.shape[1], device=words.device)
        is_word = (places < lengths[:, None])[..., None]  # (B, L, 1)
        context = self.context(words * is_word.to(words.dtype))
        start, end = self.project_start(words), self.project_end(words)
        start, end, context = _split_linear(
            self.out_project.first, F.relu(start), F.relu(end), F.relu(context)
        )
        return start + context[:, None], end


class MarkerV1SpanHead(ContextMarkerHead):
    """Whose third part is the mean over the words, padding included as in the reference."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.project_first = TwoLayers(D, 4 * D, D, config.dropout)  # stored, and never used

    def context(self, words: Tensor) -> Tensor:
        """Average words (B, L, D) -> (B, D)."""
        return words.mean(1)


class MarkerV2SpanHead(ContextMarkerHead):
    """Whose third part is made of the last word, padding or not as in the reference."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.project_context = TwoLayers(D, 4 * D, D, config.dropout)

    def context(self, words: Tensor) -> Tensor:
        """Project the last of words (B, L, D) -> (B, D)."""
        return cast(Tensor, self.project_context(words[:, -1]))


class MarkerSpanHead(SpanHead):
    """The first marker head: one layer over relu([s_i; e_j]), which no span needs a vector for."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        self.project_start = TwoLayers(D, 2 * D, D, config.dropout)
        self.project_end = TwoLayers(D, 2 * D, D, config.dropout)
        self.out_project = nn.Linear(2 * D, D)

    @property
    def last(self) -> nn.Linear:
        """The layer that the head ends in."""
        return self.out_project

    def score(self, words: Tensor, lengths: Tensor, directions: Tensor) -> list[Tensor]:  # noqa: ARG002
        """Score each word as a first and as a last one, and add the two for every span."""
        of_start, of_end = directions.transpose(1, 2).chunk(2, dim=1)  # (B, D, C) each
        starts = F.relu(self.project_start(words)) @ of_start  # (B, L, C)
        ends = F.relu(self.project_end(words)) @ of_end
        return [starts + own for own in shift(ends, self.max_width)]


def _split_linear(linear: nn.Linear, *parts: Tensor) -> list[Tensor]:
    """Apply a linear layer of [part; part; ...] to each alone; their sum is the layer's output."""
    weights = linear.weight.chunk(len(parts), dim=1)
    biases = [linear.bias, *[None] * (len(parts) - 1)]
    return list(map(F.linear, parts, weights, biases))


def shift(x: Tensor, count: int) -> Iterator[Tensor]:
    """Vectors (B, L, X) from each place on, from the next, and so on, zeros at the end."""
    padded = F.pad(x, (0, 0, 0, count - 1))
    return (padded[:, step : step - count + 1 or None] for step in range(count))
