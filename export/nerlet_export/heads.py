"""Span head and entity head: words and labels -> logits, in the form that folds.

Both span heads end in `W2 relu(a_i + b_j) + b2` with a vector a per start word, b per end word:

* paper, equation 1: FFN([h_i; h_j]), so a = Wa h_i + b1 and b = Wb h_j;
* markerV0, the reference's: FFN(relu([s_i; e_j])), so a = Wa relu(s_i) + b1 and b = Wb relu(e_j).

The dot product with a label q then folds: (W2 z + b2) . q = z . (W2^T q) + b2 . q, which needs C
columns per span instead of D. Parameter names are the reference's (gliner 0.2.29), so that
checkpoints go both ways.
"""

from typing import cast

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


class PaperSpanHead(nn.Module):
    """Equation 1 of the paper: S_ij = FFN([h_i; h_j])."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.out_project = TwoLayers(2 * D, config.head_width, D, config.dropout)
        self.logit_bias = nn.Parameter(torch.tensor(INITIAL_LOGIT))

    def endpoints(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Project words (..., D) to their part as a span's start and as its end, (..., H) each."""
        return _split_linear(self.out_project.first, words, words)


class MarkerV0SpanHead(nn.Module):
    """The reference's default head: two-layer networks for start, end, and their concatenation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.project_start = TwoLayers(D, 4 * D, D, config.dropout)
        self.project_end = TwoLayers(D, 4 * D, D, config.dropout)
        self.out_project = TwoLayers(2 * D, 4 * D, D, config.dropout)

    def endpoints(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Project words (..., D) to their part as a span's start and as its end, (..., H) each."""
        start, end = self.project_start(words), self.project_end(words)
        return _split_linear(self.out_project.first, F.relu(start), F.relu(end))


SpanHead = PaperSpanHead | MarkerV0SpanHead


def _split_linear(linear: nn.Linear, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Apply a linear layer of [start; end] to each half alone; their sum is the layer's output."""
    left, right = linear.weight.chunk(2, dim=1)
    return F.linear(start, left, linear.bias), F.linear(end, right)


class WordReader(nn.Module):
    """What reads the words between the encoder and the head: an LSTM, or nothing."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.rnn: nn.LSTM | None = None
        if config.num_rnn_layers > 0:
            self.rnn = nn.LSTM(
                D, D // 2, config.num_rnn_layers, batch_first=True, bidirectional=True
            )

    def read_words(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Run the LSTM, where the model has one, over words (B, L, D) of `lengths` (B,)."""
        if self.rnn is None:
            return words
        packed = nn.utils.rnn.pack_padded_sequence(
            words, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        read, _ = self.rnn(packed)
        padded, _ = nn.utils.rnn.pad_packed_sequence(
            read, batch_first=True, total_length=words.shape[1]
        )
        return padded  # (B, L, D)


class Heads(WordReader):
    """Everything above the encoder: words and labels of one width D to logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.hidden_size
        is_paper = config.span_mode == "paper"
        self.span = PaperSpanHead(config) if is_paper else MarkerV0SpanHead(config)
        self.label = TwoLayers(D, D if is_paper else 4 * D, D, config.dropout)

    def fold_labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Fold labels (..., D) into the span head: directions (..., H), offsets (...)."""
        q = self.label(labels)  # (..., D)
        last = self.span.out_project.last
        offsets = q @ last.bias
        if isinstance(self.span, PaperSpanHead):
            offsets = offsets + self.span.logit_bias
        return q @ last.weight, offsets

    def project(self, starts: Tensor, ends: Tensor, directions: Tensor) -> Tensor:
        """Project spans on labels; the labels' offsets are still to be added.

        Args:
            starts: Start parts of S spans, (B, S, H).
            ends: End parts of the same spans, (B, S, H).
            directions: Folded labels, (B, C, H).

        Returns:
            (B, S, C).
        """
        hidden = self.span.out_project[2](F.relu(starts + ends))  # (B, S, H), dropout in training
        return hidden @ directions.transpose(1, 2)
