"""Bi-encoders: labels have an encoder of their own, and texts are scored beside their embeddings.

A label's embedding is the mean of its pieces, projected where the widths differ. Texts have no
prompt. What follows is as in the other models, but that no LSTM reads the words: the reference's
checkpoints hold one, and it never runs.

Axes: B texts, L words, K widths, T pieces, C labels, P pieces of a label, D width.

Source: gliner 0.2.29, `BiEncoderSpanModel` and `BiEncoderTokenModel`.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nerlet_export.config import ModelConfig
from nerlet_export.encoder import Encoder
from nerlet_export.fusion import Fuser
from nerlet_export.heads import Heads
from nerlet_export.model import Model, gather_words
from nerlet_export.token_heads import TokenHeads

PIECES_INPUTS = ("labels_input_ids", "labels_attention_mask")
LABELS_INPUT = "labels_embeddings"


class BiModel(Model):
    """Two encoders, and what may mix words and labels above them; heads are the kinds' own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        own: dict[str, Any] = config.labels_encoder_config
        self.labels = Encoder(replace(config, model_name=config.labels_encoder, encoder=own))
        self.fuser: Fuser | None = None
        if config.fusion_steps:
            self.fuser = Fuser(config, self.encoder.model.config.num_attention_heads)

    def embed_labels(self, labels_input_ids: Tensor, labels_attention_mask: Tensor) -> Tensor:
        """Average the vectors of each label's pieces.

        Args:
            labels_input_ids: Piece ids, int64, (C, P).
            labels_attention_mask: 1 for a piece, 0 for padding, int64, (C, P).

        Returns:
            (C, D).
        """
        hidden = self.labels(labels_input_ids, labels_attention_mask, None)  # (C, P, D)
        is_piece = labels_attention_mask[..., None].to(hidden.dtype)  # (C, P, 1)
        mean: Tensor = (hidden * is_piece).sum(1) / is_piece.sum(1).clamp(min=1e-9)
        return mean

    def prepare(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put embeddings of labels in the place of their pieces."""
        others = {name: own for name, own in tensors.items() if name not in PIECES_INPUTS}
        embeddings = self.embed_labels(*(tensors[name] for name in PIECES_INPUTS))
        return {**others, LABELS_INPUT: embeddings}

    def read(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        labels: Tensor,
        L: int | Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Encode texts, and fuse their words with labels where the model does.

        Args:
            input_ids: As in `SpanModel.forward`, and so are the next three.
            attention_mask: 1 for a piece.
            words_mask: n at the first piece of the n-th word.
            text_lengths: Words of each text.
            labels: Embeddings, (C, D).
            L: Words of the longest text.

        Returns:
            Words, (B, L, D), and labels, (1 or B, C, D).
        """
        hidden = self.encoder(input_ids, attention_mask, None)  # (B, T, D)
        words, labels = gather_words(hidden, words_mask, L), labels[None]
        if self.fuser is None:
            return words, labels
        places = torch.arange(words.shape[1], device=words.device)
        is_word = (places < text_lengths).to(torch.int32)  # (B, L)
        return self.fuser(words, labels.expand(words.shape[0], -1, -1), is_word)


class LabelEmbedder(nn.Module):
    """The part of a bi-encoder that reads labels."""

    def __init__(self, model: BiModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, labels_input_ids: Tensor, labels_attention_mask: Tensor) -> Tensor:
        """Embed labels, (C, P) -> (C, D)."""
        return self.model.embed_labels(labels_input_ids, labels_attention_mask)


class BiSpanModel(BiModel):
    """Scores every span of up to `max_width` words."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.heads = Heads(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        span_idx: Tensor,
        span_mask: Tensor,  # noqa: ARG002  # the reference's signature
        labels_embeddings: Tensor,
    ) -> Tensor:
        """Score every span of padded texts.

        Args:
            input_ids: As in `SpanModel.forward`, and so are the others, but for the labels.
            attention_mask: 1 for a piece.
            words_mask: n at the first piece of the n-th word.
            text_lengths: Words of each text.
            span_idx: Spans, of which only the number is read.
            span_mask: Not read.
            labels_embeddings: The same labels for all texts, (C, D).

        Returns:
            Logits, float32, (B, L, K, C).
        """
        L = span_idx.shape[1] // self.config.max_width
        given = (input_ids, attention_mask, words_mask, text_lengths, labels_embeddings)
        words, labels = self.read(*given, L)
        directions, offsets = self.heads.fold_labels(labels)  # (1 or B, C, H), (1 or B, C)
        return self.heads.score(words, text_lengths[:, 0], directions, offsets)


class BiTokenModel(BiModel):
    """Scores every word as start, end and inside of each label's spans."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.heads = TokenHeads(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        labels_embeddings: Tensor,
    ) -> Tensor:
        """Score every word of padded texts.

        Args:
            input_ids: As in `BiSpanModel.forward`, and so are the others.
            attention_mask: 1 for a piece.
            words_mask: n at the first piece of the n-th word.
            text_lengths: Words of each text.
            labels_embeddings: (C, D).

        Returns:
            Logits of start, end and inside, float32, (B, L, C, 3).
        """
        given = (input_ids, attention_mask, words_mask, text_lengths, labels_embeddings)
        words, labels = self.read(*given, text_lengths.max())
        return self.heads.score(words, text_lengths[:, 0], labels)
