"""Encoders in the form that onnxruntime runs fast: same weights, same answer up to rounding.

Exporting traces a copy of the model whose attention is replaced, family by family; what is not
known here is traced as transformers has it.

* Scores, mask, softmax and mixture are one operator, `com.microsoft.MultiHeadAttention`, which
  takes whatever is added to the scores as a bias: the mask, and the relative positions of MPNet
  and T5.
* Queries, keys and values of a layer are one product.
* DeBERTa-v2 and -v3: the keys and queries of relative positions are constants, of which a run takes
  only the buckets that a text of its length can meet; where each distance's bucket lies is found
  once a run, not once a layer.

Axes: B texts, T pieces, H heads, D width, d = D / H, S buckets on one side, R buckets of a run.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from nerlet_export.encoder import Encoder, has_absolute_positions
from nerlet_export.model import Model
from nerlet_export.operators import Attention, Cut, Take, split_heads

AnyModel = TypeVar("AnyModel", bound=Model)


def fuse(model: AnyModel) -> AnyModel:
    """Copy a model with the attention of its encoders replaced where a faster form is known.

    Weights that stay are shared, not copied.
    """
    shared = {id(own): own for own in (*model.parameters(), *model.buffers())}
    fused = deepcopy(model, shared).eval()
    for own in [module for module in fused.modules() if isinstance(module, Encoder)]:
        if own.model.config.model_type in _FUSIONS:
            _FUSIONS[own.model.config.model_type](own.model)
    return fused


def _is_known_deberta(config: Any) -> bool:  # noqa: ANN401  (a config class per encoder)
    """Whether both position terms are there, as in every DeBERTa-v2 and -v3 that is published."""
    return bool(config.relative_attention) and set(config.pos_att_type) == {"c2p", "p2c"}


def _fuse_deberta(hf: Any) -> None:  # noqa: ANN401  (transformers' module)
    if not _is_known_deberta(hf.config):
        return
    positions = hf.encoder.get_rel_embedding().detach()
    first = hf.encoder.layer[0].attention.self
    # Past nn.Module: among its modules, the class's own method would hide it
    hf.encoder.__dict__["get_rel_pos"] = Buckets(first)
    for layer in hf.encoder.layer:
        layer.attention.self = DebertaAttention(layer.attention.self, positions)


def _fuse_bert(hf: Any) -> None:  # noqa: ANN401
    for layer in hf.encoder.layer:
        own = layer.attention.self
        own.joined = _join_linear(own.query, own.key, own.value)


def _fuse_bert_shaped(hf: Any) -> None:  # noqa: ANN401
    """Fuse what has BERT's attention, while transformers runs the rest."""
    if has_absolute_positions(hf.config):
        for layer in hf.encoder.layer:
            layer.attention.self = BertAttention(layer.attention.self)


def _fuse_mpnet(hf: Any) -> None:  # noqa: ANN401
    for layer in hf.encoder.layer:
        layer.attention.attn = MPNetAttention(layer.attention.attn)


def _fuse_modernbert(hf: Any) -> None:  # noqa: ANN401
    for layer in hf.layers:
        layer.attn = ModernBertAttention(layer.attn)


def _fuse_t5(hf: Any) -> None:  # noqa: ANN401
    for block in hf.encoder.block:
        block.layer[0].SelfAttention = T5Attention(block.layer[0].SelfAttention)


# By model_type; ALBERT's attention is within more and stays as it is.
_FUSIONS: dict[str, Callable[[Any], None]] = {
    "bert": _fuse_bert,
    "deberta-v2": _fuse_deberta,
    "mpnet": _fuse_mpnet,
    "modernbert": _fuse_modernbert,
    "t5": _fuse_t5,
    "mt5": _fuse_t5,
    **dict.fromkeys(("roberta", "xlm-roberta", "camembert", "electra"), _fuse_bert_shaped),
}


class Buckets(nn.Module):
    """Where the bucket of each pair of pieces lies; stands in for the encoder's `get_rel_pos`."""

    buckets: Tensor

    def __init__(self, own: Any) -> None:  # noqa: ANN401  (transformers' attention)
        super().__init__()
        self.heads: int = own.num_attention_heads
        self.span: int = own.pos_ebd_size  # S
        # From there on all are in the last bucket, number S
        self.furthest: int = own.max_relative_positions
        buckets = torch.arange(self.furthest + 1)
        if own.position_buckets > 0:
            buckets = make_log_bucket_position(
                buckets, own.position_buckets, own.max_relative_positions
            )
        self.register_buffer("buckets", buckets.to(torch.int64).clamp(max=self.span))

    def forward(self, hidden: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
        """Find them for vectors (B, T, D).

        Returns:
            Place of each pair's bucket among the R of the run, int32, (B, H, T, T), and the first
            row and the end of those rows in the tables of `DebertaAttention`.
        """
        B, T = hidden.shape[0], hidden.shape[1]
        place = torch.arange(T, device=hidden.device)
        apart = place[:, None] - place[None, :]  # (T, T)
        last = self.buckets[place[-1:].clamp(max=self.furthest)]  # (1,)
        bucket = self.buckets[apart.abs().clamp(max=self.furthest)] * apart.sign()
        index = (bucket + last).to(torch.int32)
        index = index.expand(B, self.heads, T, T)
        return index, self.span - last, self.span + last + 1


class DebertaAttention(nn.Module):
    """Disentangled attention (He et al., 2021, equation 4) with its positions folded.

    Stands in for transformers' `DisentangledSelfAttention`.
    """

    keys: Tensor
    queries: Tensor

    def __init__(self, own: Any, positions: Tensor) -> None:  # noqa: ANN401  (transformers' module)
        """Fold.

        Args:
            own: Module to stand in for.
            positions: Embeddings of relative positions, normed, (2 S, D).
        """
        super().__init__()
        self.heads: int = own.num_attention_heads
        self.scale = 1 / math.sqrt(3 * own.attention_head_size)  # three terms
        self.project = _join_linear(own.query_proj, own.key_proj, own.value_proj)
        rows = torch.arange(2 * own.pos_ebd_size + 1).clamp(max=len(positions) - 1)
        key = own.key_proj if own.share_att_key else own.pos_key_proj
        query = own.query_proj if own.share_att_key else own.pos_query_proj
        keys = self._fold(key, positions[rows]).transpose(-1, -2).contiguous()
        self.register_buffer("keys", keys)  # (1, H, d, 2 S + 1)
        self.register_buffer("queries", self._fold(query, positions[rows]))  # (1, H, 2 S + 1, d)

    def _fold(self, part: nn.Linear, positions: Tensor) -> Tensor:
        """Project positions (2 S + 1, D) to (1, H, 2 S + 1, d)."""
        with torch.no_grad():
            return split_heads(part(positions)[None] * self.scale, self.heads).contiguous()

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,  # noqa: FBT001, FBT002, ARG002  # transformers' signature
        query_states: Tensor | None = None,  # noqa: ARG002
        relative_pos: Any = None,  # noqa: ANN401  # what Buckets gives
        rel_embeddings: Tensor | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, None]:
        """Attend, (B, T, D) -> (B, T, D); the mask is (B, 1, T, T), 1 where a piece is seen."""
        index, low, high = relative_pos
        q, k, v = self.project(hidden_states).split(hidden_states.shape[-1], dim=-1)
        by_query = split_heads(q, self.heads) @ Cut.apply(self.keys, low, high, 3)  # (B, H, T, R)
        keys = split_heads(k, self.heads).transpose(-1, -2)  # (B, H, d, T)
        by_key = Cut.apply(self.queries, low, high, 2) @ keys  # (B, H, R, T)
        bias = Take.apply(by_query, index, 3) + Take.apply(by_key, index, 2)  # (B, H, T, T)
        is_key = attention_mask[:, 0, 0].to(torch.int32)  # (B, T)
        return Attention.apply(q, k, v, is_key, bias, self.heads, self.scale), None


class BertAttention(nn.Module):
    """BERT's attention; stands in for transformers' self-attention of encoders of its shape."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401  (transformers' module)
        super().__init__()
        self.heads: int = own.num_attention_heads
        self.scale = 1 / math.sqrt(own.attention_head_size)
        self.project = _join_linear(own.query, own.key, own.value)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *_: object, **__: object
    ) -> tuple[Tensor, None]:
        """Attend over (B, T, D); the mask is transformers', over keys or pairs."""
        q, k, v = self.project(hidden_states).split(hidden_states.shape[-1], dim=-1)
        bias = None if attention_mask is None else _spread(attention_mask, q, self.heads)
        return Attention.apply(q, k, v, None, bias, self.heads, self.scale), None


class MPNetAttention(nn.Module):
    """MPNet's attention, whose relative positions are a bias; stands in for transformers' own."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401  (transformers' module)
        super().__init__()
        self.heads: int = own.num_attention_heads
        self.scale = 1 / math.sqrt(own.attention_head_size)
        self.project = _join_linear(own.q, own.k, own.v)
        self.output = own.o

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None, *more: Tensor, **_: object
    ) -> tuple[Tensor]:
        """Attend over (B, T, D); the last of `more` is the bias of positions, (B, H, T, T)."""
        q, k, v = self.project(hidden_states).split(hidden_states.shape[-1], dim=-1)
        bias = more[-1]
        if attention_mask is not None:
            bias = bias + _spread(attention_mask, q, self.heads)
        return (self.output(Attention.apply(q, k, v, None, bias, self.heads, self.scale)),)


class ModernBertAttention(nn.Module):
    """ModernBERT's attention, over all pieces or those near by; stands in for transformers' own."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401  (transformers' module)
        super().__init__()
        self.heads: int = own.config.num_attention_heads
        self.scale = 1 / math.sqrt(own.head_dim)
        self.project, self.output = own.Wqkv, own.Wo
        # Of transformers 4; 5 gives each layer its mask and its turns
        self.is_local = getattr(own, "local_attention", (-1, -1)) != (-1, -1)
        self.rotary: Any = getattr(own, "rotary_emb", None)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        sliding_window_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: object,
    ) -> tuple[Tensor, None]:
        """Attend over (B, T, D).

        Args:
            hidden_states: (B, T, D).
            attention_mask: transformers', (B, 1, T, T).
            sliding_window_mask: The mask of layers that see what is near by; transformers 4.
            position_ids: (1, T); transformers 4.
            position_embeddings: Cosines and sines, (1, T, d) each; transformers 5.

        Returns:
            (B, T, D), and nothing where transformers has its scores.
        """
        q, k, v = self.project(hidden_states).split(hidden_states.shape[-1], dim=-1)
        turns = position_embeddings or self.rotary(hidden_states, position_ids)
        mask = sliding_window_mask if self.is_local else attention_mask
        bias = None if mask is None else _spread(mask, q, self.heads)
        q, k = (self._turn(x, *turns) for x in (q, k))
        return self.output(Attention.apply(q, k, v, None, bias, self.heads, self.scale)), None

    def _turn(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Turn (B, T, D) by position: halves of a head are the two coordinates."""
        x = x.unflatten(-1, (self.heads, -1))  # (B, T, H, d)
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
        return (x * cosines[:, :, None] + turned * sines[:, :, None]).flatten(2)


class T5Attention(nn.Module):
    """T5's attention, whose relative positions are a bias; stands in for transformers' own."""

    def __init__(self, own: Any) -> None:  # noqa: ANN401  (transformers' module)
        super().__init__()
        self.heads: int = own.n_heads
        self.project = _join_linear(own.q, own.k, own.v)
        self.output = own.o
        self.positions = own  # of the first layer, which finds the bias for all

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        position_bias: Tensor | None = None,
        **_: object,
    ) -> tuple[Tensor, Tensor, None]:
        """Attend over (B, T, D); the mask is transformers', over keys or pairs.

        Returns:
            Its answer, the bias of positions with the mask, (B, H, T, T), and nothing where
            transformers has its scores.
        """
        if position_bias is None:
            T = hidden_states.shape[1]
            position_bias = self.positions.compute_bias(T, T)  # (1, H, T, T)
            if mask is not None:
                position_bias = position_bias + _additive(mask, hidden_states)
        q, k, v = self.project(hidden_states).chunk(3, dim=-1)
        mixed = Attention.apply(q, k, v, None, position_bias, self.heads, 1.0)
        return self.output(mixed), position_bias, None


def _spread(mask: Tensor, x: Tensor, heads: int) -> Tensor:
    """Make a mask (B, 1, 1 or T, T), added or boolean, one to add for every head, (B, H, T, T)."""
    return _additive(mask, x).expand(-1, heads, x.shape[1], -1)


def _additive(mask: Tensor, x: Tensor) -> Tensor:
    """Make a boolean mask one to add to the scores of x; leave an added one."""
    if mask.dtype == torch.bool:
        mask = (~mask).to(x.dtype) * torch.finfo(x.dtype).min
    return mask


def _join_linear(*parts: nn.Linear) -> nn.Linear:
    """One layer whose output is that of all, one after the other."""
    has_bias = parts[0].bias is not None
    size = sum(part.out_features for part in parts)
    joined = nn.Linear(parts[0].in_features, size, bias=has_bias)
    with torch.no_grad():
        joined.weight.copy_(torch.cat([part.weight for part in parts]))
        if has_bias:
            joined.bias.copy_(torch.cat([part.bias for part in parts]))
    return joined
