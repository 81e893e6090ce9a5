"""Head of a token-level model: words and labels -> start, end and inside, in the form that folds.

The reference projects a word to [t; t'] and a label to [l; l'], and scores
`W2 relu(W1 [t; l; t' * l'] + b1) + b2`. The first layer splits into a part of the word, A t, a part
of the label, B l + b1, and their product, C (t' * l'): so the first two are computed once for each
word and each label, not once for each pair. Parameter names are the reference's (gliner 0.2.29).

Axes: B texts, L words, C labels, D width.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from nerlet_export.config import ModelConfig
from nerlet_export.heads import WordReader

PARTS = 3  # start, end, inside


class TokenScorer(nn.Module):
    """The reference's scorer of words against labels."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.proj_token = nn.Linear(D, 2 * D)
        self.proj_label = nn.Linear(D, 2 * D)
        self.out_mlp = nn.Sequential(
            nn.Linear(3 * D, 4 * D), nn.Dropout(config.dropout), nn.ReLU(), nn.Linear(4 * D, PARTS)
        )

    def forward(self, words: Tensor, labels: Tensor) -> Tensor:
        """Score words (B, L, D) against labels (B, C, D): logits (B, L, C, 3)."""
        first, last = cast(nn.Linear, self.out_mlp[0]), cast(nn.Linear, self.out_mlp[3])
        of_word, of_label, of_product = first.weight.chunk(3, dim=1)  # (4 D, D) each
        word, word_factor = self.proj_token(words).chunk(2, dim=-1)  # (B, L, D) each
        label, label_factor = self.proj_label(labels).chunk(2, dim=-1)  # (B, C, D) each
        product = word_factor[:, :, None] * label_factor[:, None]  # (B, L, C, D)
        alone = F.linear(word, of_word)[:, :, None] + F.linear(label, of_label, first.bias)[:, None]
        logits: Tensor = last(F.relu(F.linear(product, of_product) + alone))
        return logits


class TokenHeads(WordReader):
    """Everything above the encoder of a token-level model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.scorer = TokenScorer(config)

    def score(self, words: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        """Score encoded words (B, L, D), of texts of `lengths` (B,), against labels (B, C, D)."""
        logits: Tensor = self.scorer(self.read_words(words, lengths), labels)
        return logits
