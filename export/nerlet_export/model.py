"""The models: prompts -> logits for every span and label, or for every word and label.

The span model has two forms of one network, equal up to rounding (tests/export/test_model.py):

* `forward`, the reference's signature over padded prompts: what is exported and verified;
* `score_batch`, over packed training batches: no padding, each distinct label encoded once.

The token-level model has the first alone: it is read and converted, not trained.

Axes: B texts, L words, K widths, T pieces, C labels, D width, H hidden width of the span head.
"""

import torch
from torch import Tensor, nn

from nerlet_export.config import ModelConfig
from nerlet_export.data import Batch
from nerlet_export.encoder import Encoder, label_blocks
from nerlet_export.heads import Heads
from nerlet_export.span_heads import PairHead
from nerlet_export.token_heads import TokenHeads


class Model(nn.Module):
    """An encoder, and how words and labels are taken from it; heads are the kinds' own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)

    def prepare(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn a batch's tensors into what `forward` takes: here they are."""
        return tensors

    def pool_labels(self, hidden: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Make each label's vector from its block of pieces: the mean, or the [ENT] position."""
        is_ent = (input_ids == self.config.class_token_index) & (attention_mask > 0)
        block = label_blocks(input_ids, self.config.class_token_index)  # (B, T)
        if self.config.label_pooling == "first":
            block = torch.where(is_ent, is_ent.to(torch.int64).cumsum(1), 0)
        numbers = count_from_one(is_ent.sum(1).max(), hidden.device)
        is_part = (block[:, None, :] == numbers[:, None]).to(hidden.dtype)  # (B, C, T)
        return is_part @ hidden / is_part.sum(-1, keepdim=True).clamp(min=1.0)


class SpanModel(Model):
    """Scores every span of up to `max_width` words.

    Source: GLiNER (Zaratiana et al., 2023), section 2; gliner 0.2.29 for markerV0 and the LSTM.
    """

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
        word_shapes: Tensor | None = None,
    ) -> Tensor:
        """Score every span of padded prompts; the reference's inputs and output.

        Args:
            input_ids: Piece ids, int64, (B, T).
            attention_mask: 1 for a piece, 0 for padding, int64, (B, T).
            words_mask: n at the first piece of the n-th word (from 1), else 0, int64, (B, T).
            text_lengths: Words of each text, int64, (B, 1).
            span_idx: First and last word of each span, int64, (B, L * K, 2); only its size is read:
                spans are those of each word in turn, by width, as the reference makes them.
            span_mask: Whether a span lies inside its text, bool, (B, L * K); not read.
            word_shapes: Shape of each piece's word, int64, (B, T) or (1, 1); None for a model
                without word shapes.

        Returns:
            Logits, float32, (B, L, K, C), C the most labels of a prompt; cells of spans outside
            the text or of labels that a prompt does not have mean nothing.
        """
        hidden = self.encoder(input_ids, attention_mask, word_shapes)  # (B, T, D)
        labels = self.pool_labels(hidden, input_ids, attention_mask)  # (B, C, D)
        directions, offsets = self.heads.fold_labels(labels)  # (B, C, H), (B, C)
        L = span_idx.shape[1] // self.config.max_width
        words = gather_words(hidden, words_mask, L)  # (B, L, D)
        return self.score_words(words, text_lengths[:, 0], directions, offsets)

    def score_words(
        self, words: Tensor, lengths: Tensor, directions: Tensor, offsets: Tensor
    ) -> Tensor:
        """Score all spans of encoded words against folded labels.

        Memory grows with the text alone, not with its spans (`span_heads`). Spans past the last
        word get some logit, as those past the text do in the reference.

        Args:
            words: (B, L, D).
            lengths: Words of each text, int64, (B,).
            directions: As `Heads.fold_labels` gives them, (B, C, H).
            offsets: (B, C).

        Returns:
            Logits, (B, L, K, C).
        """
        return self.heads.score(words, lengths, directions, offsets)

    def score_batch(self, batch: Batch) -> Tensor:
        """Score the spans of a training batch against each text's labels: logits (B, S, C)."""
        hidden = self.encoder.encode_packed(batch.pieces)  # (N, D)
        blocks = hidden[batch.label_slots]  # (U, P, D)
        labels = (blocks * batch.label_weights[:, :, None]).sum(1)  # (U, D)
        directions, offsets = self.heads.fold_labels(labels)  # (U, H), (U,)
        directions, offsets = directions[batch.labels], offsets[batch.labels]  # (B, C, H), (B, C)
        words, span = hidden[batch.words], self.heads.span  # (B, L, D)
        if not isinstance(span, PairHead):
            return self.score_words(words, batch.lengths, directions, offsets).flatten(1, 2)
        words = self.heads.read_words(words, batch.lengths)
        starts, ends = span.endpoints(words, batch.lengths)
        logits = span.project(
            gather_rows(starts, batch.starts),  # (B, S, H)
            gather_rows(ends, batch.ends),
            directions,
        )
        return logits + offsets[:, None]


class TokenModel(Model):
    """Scores every word as start, end and inside of each label's spans.

    Source: gliner 0.2.29, token-level models.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.heads = TokenHeads(config)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        word_shapes: Tensor | None = None,
    ) -> Tensor:
        """Score every word of padded prompts; the reference's inputs and output.

        Args:
            input_ids: As in `SpanModel.forward`, and so are the others.
            attention_mask: 1 for a piece.
            words_mask: n at the first piece of the n-th word.
            text_lengths: Words of each text.
            word_shapes: Shape of each piece's word.

        Returns:
            Logits of start, end and inside, float32, (B, L, C, 3); cells past a text or of labels
            that a prompt does not have mean nothing.
        """
        hidden = self.encoder(input_ids, attention_mask, word_shapes)  # (B, T, D)
        labels = self.pool_labels(hidden, input_ids, attention_mask)  # (B, C, D)
        words = gather_words(hidden, words_mask, text_lengths.max())  # (B, L, D)
        return self.heads.score(words, text_lengths[:, 0], labels)


def gather_words(hidden: Tensor, words_mask: Tensor, L: int | Tensor) -> Tensor:
    """Take the vector of each word's first piece: (B, T, D) -> (B, L, D)."""
    numbers = count_from_one(L, hidden.device)
    is_first = words_mask[:, None, :] == numbers[:, None]  # (B, L, T)
    return gather_rows(hidden, is_first.to(torch.int32).argmax(-1))


def count_from_one(last: int | Tensor, device: torch.device) -> Tensor:
    """1, 2, ..., last; traced as an operation, so that `last` may differ from run to run."""
    return torch.arange(1, last + 1, device=device)  # type: ignore[arg-type]  # takes tensors too


def gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Take rows (B, R, X) by index (B, S) -> (B, S, X), as one gather over all texts' rows."""
    B, R = rows.shape[0], rows.shape[1]
    flat = index + torch.arange(B, device=rows.device)[:, None] * R
    return rows.flatten(0, 1)[flat]
