"""The bidirectional encoder: pieces -> one vector of width D each (B, T, D).

Any Hugging Face encoder that takes `inputs_embeds` serves. nerlet looks the word pieces up itself,
so that the shape of each piece's word can be added (uncased encoders) and the table can be
quantised by row at export.

With isolated labels the same ids mean another attention: each label, `[ENT]` and its pieces, is a
block of its own whose positions start at 0; prefix, `<<SEP>>`, words and suffix are the text block,
positions from 0 again. A label attends to its own block, the text to everything. Mask and positions
follow from the ids alone.

Axes: B texts, T pieces, D width, H heads, d = width of a head.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig

from nerlet.errors import BundleError
from nerlet.words import WORD_SHAPE_COUNT
from nerlet_export.config import ModelConfig
from nerlet_export.data import Attention as Group
from nerlet_export.data import Pieces
from nerlet_export.operators import Attention, split_heads
from nerlet_export.pretrained import build_encoder

# Segments 0 .. WORD_SHAPE_COUNT - 1 are word shapes (0: none), the last is "part of a label".

LABEL_SEGMENT = WORD_SHAPE_COUNT
SEGMENT_COUNT = WORD_SHAPE_COUNT + 1
# Encoders that are not built, why, and what to take.
_REFUSED = {
    "xlnet": "GLiNER's paper reports that no usable model came of it, so none is converted or "
    "trained; take one over 'deberta-v2', whose positions are relative, too",
}
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values -> their mixture


class Encoder(nn.Module):
    """A Hugging Face encoder, with segments and a projection to D where the model has them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        hf = _hf_config(config.encoder)
        if hf.model_type in _REFUSED:
            raise BundleError(f"the encoder is {hf.model_type!r}: {_REFUSED[hf.model_type]}")
        self.model = build_encoder(hf)
        if config.label_attention == "isolated" and not _is_plain_bert(hf):
            raise BundleError(
                f"label_attention is 'isolated' but the encoder is {hf.model_type!r}: isolated "
                "labels need absolute positions and are built for 'bert' encoders; use 'joint'"
            )
        self.segments: nn.Embedding | None = None
        if config.has_segments:
            self.segments = nn.Embedding(SEGMENT_COUNT, self.words.embedding_dim)
            nn.init.zeros_(self.segments.weight)
        self.projection: nn.Linear | None = None
        if hf.hidden_size != config.hidden_size:
            self.projection = nn.Linear(hf.hidden_size, config.hidden_size)

    @property
    def words(self) -> nn.Embedding:
        """The table of word pieces."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, word_shapes: Tensor | None
    ) -> Tensor:
        """Encode padded prompts.

        Args:
            input_ids: Piece ids, int64, (B, T).
            attention_mask: 1 for a piece, 0 for padding, int64, (B, T).
            word_shapes: Shape of each piece's word, int64, (B, T) or broadcast from (1, 1); None
                for a model without word shapes.

        Returns:
            One vector per piece, (B, T, D).
        """
        if not _is_plain_bert(self.model.config):
            embeds = self._embed(input_ids, word_shapes)
            hidden = self.model(inputs_embeds=embeds, attention_mask=attention_mask)[0]
            return hidden if self.projection is None else self.projection(hidden)
        is_key = attention_mask[:, None, :] > 0  # (B, 1, T)
        if self.config.label_attention == "joint":
            segments = word_shapes
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
            sees = is_key & is_key.transpose(1, 2)  # (B, T, T)
        else:
            block = label_blocks(input_ids, self.config.class_token_index)
            segments = torch.where(
                block > 0, LABEL_SEGMENT, 0 if word_shapes is None else word_shapes
            )
            is_same = block[:, :, None] == block[:, None, :]  # (B, T, T)
            # Padding counts as the text's, but never past it: a table may end there.
            positions = (is_same & _lower_triangle(block) & is_key).sum(-1) - 1  # (B, T)
            sees = (is_same | (block == 0)[:, :, None]) & is_key
        bias = _bias(sees, self.model.config.num_attention_heads)
        embeds = self._embed(input_ids, segments)
        hidden = self._run_bert(embeds, positions, partial(self._attend, bias=bias))
        return hidden if self.projection is None else self.projection(hidden)

    def encode_label(self, input_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode one isolated label, which depends on nothing else.

        Args:
            input_ids: `[ENT]` and the label's pieces, int64, (1, T).

        Returns:
            One vector per piece, (1, T, D), and what texts attend to: the keys and the values of
            every layer, (layers, T, D) each.
        """
        kept: list[tuple[Tensor, Tensor]] = []

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            kept.append((k[0], v[0]))
            return self._attend(q, k, v, bias=None)

        embeds = self._embed(input_ids, torch.full_like(input_ids, LABEL_SEGMENT))
        hidden = self._run_bert(embeds, _count(input_ids), attend)
        keys, values = (torch.stack(own) for own in zip(*kept, strict=True))
        return (hidden if self.projection is None else self.projection(hidden)), keys, values

    def encode_text(
        self,
        input_ids: Tensor,
        word_shapes: Tensor | None,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
    ) -> Tensor:
        """Encode one text that also attends to isolated labels.

        Args:
            input_ids: Prefix, `<<SEP>>`, words and suffix, int64, (1, T).
            word_shapes: As in `forward`.
            keys: Of all N pieces of its labels, for each layer (1, N, D).
            values: The same.

        Returns:
            One vector per piece, (1, T, D).
        """
        layers = iter(zip(keys, values, strict=True))

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            label_keys, label_values = next(layers)
            # Not by heads: then onnxruntime would hold the scores of all pairs at once
            k, v = torch.cat([label_keys, k], 1), torch.cat([label_values, v], 1)
            return self._attend(q, k, v, bias=None)

        segments = torch.zeros_like(input_ids) if word_shapes is None else word_shapes
        hidden = self._run_bert(self._embed(input_ids, segments), _count(input_ids), attend)
        return hidden if self.projection is None else self.projection(hidden)

    def _embed(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        """Look up pieces and, where the model has them, add their segments."""
        embeds = self.words(ids)
        if self.segments is not None and segments is not None:
            embeds = embeds + self.segments(segments)
        return embeds

    def encode_packed(self, pieces: Pieces) -> Tensor:
        """Encode the pieces of a training batch, (N,) -> (N, D), without padding where possible."""
        if _is_plain_bert(self.model.config):
            attend = partial(self._attend_packed, groups=pieces.attention)
            embeds = self._embed(pieces.ids, pieces.segments)
            hidden = self._run_bert(embeds, pieces.positions, attend)
        else:
            (attention,) = pieces.attention
            embeds = self._embed(
                pieces.ids[attention.queries], pieces.segments[attention.queries]
            )  # (B, T, D)
            mask = attention.is_key.to(torch.int64)
            hidden = self.model(inputs_embeds=embeds, attention_mask=mask)[0]
            hidden = hidden.flatten(0, 1)[attention.answers]
        return hidden if self.projection is None else self.projection(hidden)

    def _run_bert(self, embeds: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Run BERT's own layers with another attention; (..., D) -> (..., D)."""
        hf = self.model
        p = hf.config.hidden_dropout_prob
        x = embeds + hf.embeddings.position_embeddings(positions)
        x = x + hf.embeddings.token_type_embeddings.weight[0]
        x = F.dropout(hf.embeddings.LayerNorm(x), p, self.training)
        for layer in hf.encoder.layer:
            mixed = attend(*_project(layer.attention.self, x))
            mixed = F.dropout(layer.attention.output.dense(mixed), p, self.training)
            x = layer.attention.output.LayerNorm(x + mixed)
            wide = layer.intermediate.intermediate_act_fn(layer.intermediate.dense(x))
            wide = F.dropout(layer.output.dense(wide), p, self.training)
            x = layer.output.LayerNorm(x + wide)
        return x

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None) -> Tensor:
        """Attend over rows, padded ones with an additive mask; (B, T, D) -> (B, T, D)."""
        heads: int = self.model.config.num_attention_heads
        return Attention.apply(q, k, v, None, bias, heads, 1 / math.sqrt(q.shape[-1] / heads))

    def _attend_packed(self, q: Tensor, k: Tensor, v: Tensor, *, groups: list[Group]) -> Tensor:
        """Attend within each group of pieces; (N, D) -> (N, D), in the order of the groups."""
        heads = self.model.config.num_attention_heads
        dropout = self.model.config.attention_probs_dropout_prob if self.training else 0.0
        is_cpu = q.device.type == "cpu"
        if is_cpu:  # PyTorch's bf16 attention is several times slower than its fp32 one there
            q, k, v = q.float(), k.float(), v.float()
        answers = []
        for group in groups:
            with torch.autocast(q.device.type, enabled=not is_cpu):
                context = F.scaled_dot_product_attention(
                    split_heads(q[group.queries], heads),  # (G, heads, Tq, D / heads)
                    split_heads(k[group.keys], heads),
                    split_heads(v[group.keys], heads),
                    attn_mask=group.is_key[:, None, None, :],
                    dropout_p=dropout,
                )
            flat = context.transpose(1, 2).flatten(2).flatten(0, 1)  # (G * Tq, D)
            answers.append(flat.index_select(0, group.answers))
        return torch.cat(answers)


def _is_plain_bert(config: Any) -> bool:  # noqa: ANN401  (a config class per encoder)
    """Whether `_run_bert` is what transformers runs: absolute positions, as all published have."""
    return config.model_type == "bert" and has_absolute_positions(config)


def has_absolute_positions(config: Any) -> bool:  # noqa: ANN401  (a config class per encoder)
    """Whether an encoder of BERT's shape knows positions from its embeddings alone."""
    return bool(getattr(config, "position_embedding_type", "absolute") == "absolute")


def label_blocks(input_ids: Tensor, ent_id: int) -> Tensor:
    """Number the label each piece belongs to, from 1; 0 for the text block.

    `<<SEP>>` is the piece id after `[ENT]`'s (the reference adds the two together), and the text
    begins with it.

    Args:
        input_ids: Piece ids, int64, (B, T).
        ent_id: Piece id of [ENT].

    Returns:
        Block numbers, int64, (B, T).
    """
    is_text = (input_ids == ent_id + 1).to(torch.int64).cumsum(1)
    return (input_ids == ent_id).to(torch.int64).cumsum(1) * (1 - is_text)


def _count(ids: Tensor) -> Tensor:
    """Positions of a block's pieces: (1, T) -> (1, T)."""
    return torch.arange(ids.shape[1], device=ids.device)[None]


def _lower_triangle(block: Tensor) -> Tensor:
    order = torch.arange(block.shape[1], device=block.device)
    return order[:, None] >= order[None, :]  # (T, T)


def _bias(sees: Tensor, heads: int) -> Tensor:
    """Turn a boolean mask (B, T, T) into an additive one, (B, H, T, T).

    For every head: not every onnxruntime spreads one over all of them, text by text.
    """
    bias = (1.0 - sees[:, None].to(torch.float32)) * torch.finfo(torch.float32).min
    return bias.expand(-1, heads, -1, -1)


def _project(own: Any, x: Tensor) -> Sequence[Tensor]:  # noqa: ANN401  (transformers' module)
    """Queries, keys and values of a layer, in one product where `fused` has joined them."""
    joined: nn.Linear | None = getattr(own, "joined", None)
    if joined is not None:
        return joined(x).split(x.shape[-1], dim=-1)
    return own.query(x), own.key(x), own.value(x)


def _hf_config(values: dict[str, Any]) -> Any:  # noqa: ANN401  (a config class per encoder)
    """Build the Hugging Face config of an encoder from its dict."""
    values = dict(values)
    # The reference reads a config without model_type as DeBERTa-v2's.
    model_type = values.pop("model_type", "deberta-v2")
    return AutoConfig.for_model(model_type, **values)
