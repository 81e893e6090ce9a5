"""Attention between words and labels above a bi-encoder's two encoders (`post_fusion_schema`).

Each step is one block: "l2l" and "t2t" are self-attention of labels and of words, "l2t" lets labels
attend to words, "t2l" words to labels. Labels' embeddings stay free of texts: the steps are part of
the graph that reads a text. Parameter names are the reference's (gliner 0.2.29).

Axes: B texts, L words, C labels, D width.
"""

import math
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from nerlet.errors import BundleError
from nerlet_export.config import ModelConfig
from nerlet_export.operators import Attention


class HeadsAttention(nn.Module):
    """Multi-head attention with a projection before each of its three inputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_layer = nn.Linear(width, width)
        self.key_layer = nn.Linear(width, width)
        self.value_layer = nn.Linear(width, width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, is_key: Tensor | None) -> Tensor:
        """Attend; `is_key`, int32, (B, keys), is 1 where a key is seen, None for all."""
        q, k, v = self.query_layer(query), self.key_layer(key), self.value_layer(value)
        return Attention.apply(
            q, k, v, is_key, None, self.heads, 1 / math.sqrt(q.shape[-1] / self.heads)
        )


class SelfBlock(nn.Module):
    """Words attend to words, or labels to labels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = HeadsAttention(width, heads)
        self.pre_norm, self.post_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, _: Tensor, is_key: Tensor | None) -> Tensor:
        """Read x (B, N, D), which attends to itself."""
        x = self.pre_norm(x)
        mixed = self.self_attn(self.q_proj(x), self.k_proj(x), self.v_proj(x), is_key)
        return cast(Tensor, self.post_norm(x + mixed))


class CrossBlock(nn.Module):
    """Words attend to labels, or labels to words."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross_attn = HeadsAttention(width, heads)
        self.pre_norm, self.post_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.v_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, other: Tensor, is_key: Tensor | None) -> Tensor:
        """Read x (B, N, D), which attends to `other`, (B, M, D)."""
        x = self.pre_norm(x)
        mixed = self.cross_attn(x, other, self.v_proj(other), is_key)
        return cast(Tensor, self.post_norm(x + mixed))


class Fuser(nn.Module):
    """The steps, `num_post_fusion_layers` times over."""

    def __init__(self, config: ModelConfig, heads: int) -> None:
        super().__init__()
        if config.hidden_size % heads:
            raise BundleError(
                f"hidden_size is {config.hidden_size}, expected a multiple of the {heads} heads of "
                "the encoder, which post_fusion_schema shares it among"
            )
        self.steps = config.fusion_steps
        self.layers = nn.ModuleList(
            nn.ModuleList(_make_block(step, config.hidden_size, heads) for step in self.steps)
            for _ in range(config.num_post_fusion_layers)
        )

    def forward(self, words: Tensor, labels: Tensor, is_word: Tensor) -> tuple[Tensor, Tensor]:
        """Let words (B, L, D) and labels (B, C, D) attend as the steps say.

        Args:
            words: What lies past a text is attended to by none.
            labels: All of them are there.
            is_word: 1 inside a text, int32, (B, L).
        """
        for layer in self.layers:
            for step, block in zip(self.steps, cast(Sequence[nn.Module], layer), strict=True):
                is_key = is_word if step.endswith("t") else None
                if step.startswith("l"):
                    labels = block(labels, words, is_key)
                else:
                    words = block(words, labels, is_key)
        return words, labels


def _make_block(step: str, width: int, heads: int) -> nn.Module:
    return (SelfBlock if step in ("l2l", "t2t") else CrossBlock)(width, heads)
