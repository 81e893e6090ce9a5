"""The span model of isolated labels in two parts: a label alone, and a text beside its labels.

What a label gives depends on nothing but the label, so it is computed once and kept; a text then
costs its own pieces. The two parts equal `SpanModel.forward` up to rounding.

Axes: T pieces of a text, P of a label, N of all its labels, L words, K widths, C labels, H hidden
width of the span head, E width of the encoder.
"""

import torch
from torch import Tensor, nn

from nerlet_export.model import SpanModel


class LabelReader(nn.Module):
    """One label -> what texts attend to and are scored against."""

    def __init__(self, model: SpanModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Read one label.

        Args:
            input_ids: [ENT] and the label's pieces, int64, (1, P).

        Returns:
            Keys and values, (layers, P, E) each, the label folded into the span head, (1, H), and
            its constant, (1,).
        """
        hidden, keys, values = self.model.encoder.encode_label(input_ids)
        is_first = self.model.config.label_pooling == "first"
        label = hidden[:, 0] if is_first else hidden.mean(1)  # (1, D)
        return keys, values, *self.model.heads.fold_labels(label)


class TextScorer(nn.Module):
    """One text and what `LabelReader` gave for each of its labels -> logits."""

    def __init__(self, model: SpanModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        word_starts: Tensor,
        directions: Tensor,
        offsets: Tensor,
        *more: Tensor,
    ) -> Tensor:
        """Score every span.

        Args:
            input_ids: Prefix, `<<SEP>>`, words and suffix, int64, (1, T).
            word_starts: Place of each word's first piece, int64, (L,).
            directions: (C, H).
            offsets: (C,).
            more: The keys of all labels, one after the other, for each layer (1, N, E); the
                values likewise; for a model with word shapes that of each piece's word, int64,
                (1, T).

        Returns:
            Logits, float32, (1, L, K, C).
        """
        layers: int = self.model.encoder.model.config.num_hidden_layers
        keys, values = more[:layers], more[layers : 2 * layers]
        shapes = more[2 * layers] if len(more) > 2 * layers else None
        hidden = self.model.encoder.encode_text(input_ids, shapes, keys, values)
        words = hidden[:, word_starts]  # (1, L, D)
        lengths = torch.ones_like(word_starts).sum()[None]
        return self.model.score_words(words, lengths, directions[None], offsets[None])
