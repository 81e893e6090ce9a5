"""Everything above the encoder: words and labels -> logits, in the form that folds.

What a span is scored by is the span head's (`span_heads`, `width_heads`); here stand the LSTM over
the words and the entity head, whose labels are folded into the span head: C columns per span
instead of D.
"""

import torch
from torch import Tensor, nn

from nerlet_export.config import ModelConfig
from nerlet_export.span_heads import (
    MarkerSpanHead,
    MarkerV0SpanHead,
    MarkerV1SpanHead,
    MarkerV2SpanHead,
    PaperSpanHead,
    SpanHead,
    TwoLayers,
)
from nerlet_export.width_heads import (
    CatSpanHead,
    ConvShareSpanHead,
    ConvSpanHead,
    MlpSpanHead,
    PoolSpanHead,
    QuerySpanHead,
)

HEADS: dict[str, type[SpanHead]] = {
    "paper": PaperSpanHead,
    "markerV0": MarkerV0SpanHead,
    "markerV1": MarkerV1SpanHead,
    "markerV2": MarkerV2SpanHead,
    "marker": MarkerSpanHead,
    "query": QuerySpanHead,
    "mlp": MlpSpanHead,
    "cat": CatSpanHead,
    "conv_conv": ConvSpanHead,
    "conv_max": PoolSpanHead,
    "conv_mean": PoolSpanHead,
    "conv_sum": PoolSpanHead,
    "conv_share": ConvShareSpanHead,
}


class WordReader(nn.Module):
    """What reads the words between the encoder and the head: an LSTM, or nothing.

    The reference's bi-encoders store an LSTM, and never run it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self._runs = not config.is_bi
        self.rnn: nn.LSTM | None = None
        if config.num_rnn_layers > 0:
            self.rnn = nn.LSTM(
                D, D // 2, config.num_rnn_layers, batch_first=True, bidirectional=True
            )

    def read_words(self, words: Tensor, lengths: Tensor) -> Tensor:
        """Run the LSTM, where the model runs one, over words (B, L, D) of `lengths` (B,)."""
        if self.rnn is None or not self._runs:
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
        self.span = HEADS[config.span_mode](config)
        self.label = TwoLayers(D, D if config.span_mode == "paper" else 4 * D, D, config.dropout)

    def fold_labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Fold labels (..., D) into the span head: directions (..., H), offsets (...)."""
        return self.span.fold(self.label(labels))

    def score(self, words: Tensor, lengths: Tensor, directions: Tensor, offsets: Tensor) -> Tensor:
        """Score all spans of encoded words against folded labels.

        Args:
            words: (B, L, D).
            lengths: Words of each text, int64, (B,).
            directions: As `fold_labels` gives them, (B, C, H), or (1, C, H) for all texts.
            offsets: (B, C), or (1, C).

        Returns:
            Logits, (B, L, K, C).
        """
        words = self.read_words(words, lengths)
        scored = self.span.score(words, lengths, directions)
        # Joined first and offset then: constant slices and few nodes, which short texts feel
        return torch.cat(scored, dim=2).unflatten(2, (len(scored), -1)) + offsets[:, None, None]
