"""Which entities of a text belong together: their vectors -> a score for every ordered pair.

Parameter names are the reference's (gliner 0.2.29, `RelationsRepLayer`), which scores in one of six
ways; a joint model without such a layer ("none") takes every pair.

Axes: B texts, E entities, D width, H heads.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_HEADS = 8
_LEAST_DEGREE = 1e-6


class Adjacency(nn.Module):
    """What all six have in common."""

    def forward(self, entities: Tensor, is_entity: Tensor) -> Tensor:
        """Score all pairs.

        Args:
            entities: (B, E, D).
            is_entity: Which of them are, not padding, bool, (B, E).

        Returns:
            Scores of first and second entity, (B, E, E), in [0, 1]; 0 with padding.
        """
        is_pair = (is_entity[:, :, None] & is_entity[:, None]).to(entities.dtype)
        return self.score(entities, is_entity) * is_pair

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:
        """Score all pairs, whatever of those with padding."""
        raise NotImplementedError


class DotAdjacency(Adjacency):
    """The product of the two vectors."""

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:  # noqa: ARG002
        """Score all pairs, whatever of those with padding."""
        return _multiply(entities)


class MlpAdjacency(Adjacency):
    """Two layers over [x_i; x_j]: the first splits into a part of each, made once an entity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, 1))

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:  # noqa: ARG002
        """Score all pairs, whatever of those with padding."""
        layer = cast(nn.Linear, self.mlp[0])
        of_first, of_second = layer.weight.chunk(2, dim=1)
        first = F.linear(entities, of_first)[:, :, None]  # (B, E, 1, D)
        second = F.linear(entities, of_second, layer.bias)[:, None]  # (B, 1, E, D)
        logits: Tensor = self.mlp[2](F.relu(first + second))  # (B, E, E, 1)
        return logits.squeeze(-1).sigmoid()


class AttentionAdjacency(Adjacency):
    """How much the first attends to the second, over all heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, _HEADS, batch_first=True)

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:
        """Score all pairs, whatever of those with padding."""
        weights, _ = attend(self.attn, entities, is_entity)
        return weights.mean(1)


class BilinearAdjacency(Adjacency):
    """The product of the two vectors, projected."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, width)

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:  # noqa: ARG002
        """Score all pairs, whatever of those with padding."""
        return _multiply(self.proj(entities))


class _GraphConvolution(nn.Module):
    """The layer of `GcnAdjacency` (its parameter name in the reference: `gcn.linear`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, entities: Tensor, edges: Tensor) -> Tensor:
        """Mix entities (B, E, D) along edges (B, E, E), normed by the degrees of both ends."""
        factor = edges.sum(-1).clamp(min=_LEAST_DEGREE).pow(-0.5)  # (B, E)
        normed = factor[:, :, None] * edges * factor[:, None]
        return F.relu(self.linear(normed @ entities))


class GcnAdjacency(Adjacency):
    """The product after one graph convolution along the scores of `DotAdjacency`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gcn = _GraphConvolution(width)
        self.proj = nn.Linear(width, width)

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:
        """Score all pairs, whatever of those with padding."""
        known = is_entity.to(entities.dtype)
        edges = _multiply(entities) * known[:, :, None] * known[:, None]
        itself = torch.eye(edges.shape[1], dtype=edges.dtype, device=edges.device)
        return _multiply(self.proj(self.gcn(entities, edges + itself * known[:, None])))


class GatAdjacency(Adjacency):
    """The product after attention over the entities."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, _HEADS, batch_first=True)
        self.linear = nn.Linear(width, width)

    def score(self, entities: Tensor, is_entity: Tensor) -> Tensor:
        """Score all pairs, whatever of those with padding."""
        weights, values = attend(self.attn, entities, is_entity)
        mixed = (weights @ values).transpose(1, 2).flatten(2)  # (B, E, D)
        return _multiply(self.linear(self.attn.out_proj(mixed)))


LAYERS: dict[str, Callable[[int], Adjacency]] = {
    "dot": lambda _: DotAdjacency(),
    "mlp": MlpAdjacency,
    "attention": AttentionAdjacency,
    "attn": AttentionAdjacency,
    "bilinear": BilinearAdjacency,
    "gcn": GcnAdjacency,
    "gat": GatAdjacency,
}


def attend(own: nn.MultiheadAttention, x: Tensor, is_key: Tensor) -> tuple[Tensor, Tensor]:
    """Attend over (B, E, D), to what `is_key`, (B, E), says.

    torch's own layer is only read for its weights: it chooses between ways that trace differently.

    Returns:
        Weights, (B, H, E, E), and values, (B, H, E, D / H).
    """
    joined = F.linear(x, cast(Tensor, own.in_proj_weight), own.in_proj_bias)
    split = (part.unflatten(-1, (own.num_heads, -1)) for part in joined.chunk(3, dim=-1))
    q, k, v = (part.transpose(1, 2) for part in split)  # (B, H, E, D / H) each
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    unseen = (~is_key[:, None, None]).to(x.dtype) * torch.finfo(x.dtype).min
    return (logits + unseen).softmax(-1), v


def _multiply(x: Tensor) -> Tensor:
    return (x @ x.transpose(1, 2)).sigmoid()
