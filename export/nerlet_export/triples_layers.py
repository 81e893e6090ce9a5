"""How well two entities and a relation go together: their vectors -> a logit for every triple.

The reference's layers (gliner 0.2.29, `TriplesScoreLayer`) and its projection of pairs, under its
parameter names. It makes them 768 wide whatever the model's width, so those with parameters are in
models of that width alone. What is linear in the relation is one product of all pairs with all
relations; the rest is made relation by relation, (B, P, R, D).

Axes: B texts, P pairs, R relations, D width.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nerlet_export.config import ModelConfig
from nerlet_export.span_heads import TwoLayers

_MOST_DISTANCE = 10.0
_HIDDEN = 2048
_FILTERS = 32


class Triples(nn.Module):
    """What all layers have in common."""

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations.

        Args:
            heads: First entity of each pair, (B, P, D).
            tails: Second one, (B, P, D).
            relations: (B, R, D).

        Returns:
            Logits, (B, P, R).
        """
        raise NotImplementedError


class PairProjection(Triples):
    """Without a triples layer: [h; t] projected, times the relation, which the last folds into."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.layers = TwoLayers(2 * D, 4 * D, D, config.dropout)

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        first, last = self.layers.first, self.layers.last
        hidden = F.relu(first(torch.cat([heads, tails], dim=-1)))  # (B, P, 4 D)
        directions, offsets = relations @ last.weight, relations @ last.bias
        return hidden @ directions.transpose(1, 2) + offsets[:, None]


class LinearTriples(Triples):
    """Layers whose logit is the product of the relation and a vector of the pair."""

    def __init__(self, make_pairs: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Take what makes the vectors (B, P, D) of heads and tails."""
        super().__init__()
        self.make_pairs = make_pairs

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        return self.make_pairs(heads, tails) @ relations.transpose(1, 2)


def _distmult(h: Tensor, t: Tensor) -> Tensor:
    return h * t


def _simple(h: Tensor, t: Tensor) -> Tensor:
    h1, h2, t1, t2 = *h.chunk(2, -1), *t.chunk(2, -1)
    return 0.5 * torch.cat([h1 * t2, t1 * h2], dim=-1)


def _complex(h: Tensor, t: Tensor) -> Tensor:
    h1, h2, t1, t2 = *h.chunk(2, -1), *t.chunk(2, -1)
    return torch.cat([h1 * t1 + h2 * t2, h1 * t2 - h2 * t1], dim=-1)


def _quaternion(h: Tensor, t: Tensor) -> Tensor:
    h0, h1, h2, h3 = h.chunk(4, -1)
    t0, t1, t2, t3 = t.chunk(4, -1)
    parts = [
        h0 * t0 + h1 * t1 + h2 * t2 + h3 * t3,
        h0 * t1 - h1 * t0 + h3 * t2 - h2 * t3,
        h0 * t2 - h2 * t0 + h1 * t3 - h3 * t1,
        h0 * t3 - h3 * t0 + h2 * t1 - h1 * t2,
    ]
    return torch.cat(parts, dim=-1)


class DistMA(Triples):
    """The sum of the three products."""

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        both = (heads * tails).sum(-1, keepdim=True)  # (B, P, 1)
        return (heads + tails) @ relations.transpose(1, 2) + both


class HolE(Triples):
    """Circular correlation: sum over i and j of h_i t_j r_(j - i)."""

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        D = heads.shape[-1]
        place = torch.arange(D, device=heads.device)
        turned = relations[..., (place - place[:, None]) % D]  # (B, R, D, D)
        mixed = heads[:, None] @ turned  # (B, R, P, D)
        return (mixed * tails[:, None]).sum(-1).transpose(1, 2)


class Distance(Triples):
    """Layers whose logit is how near the triple is, at least -10."""

    power = 2  # of the norm

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        apart = self.subtract(heads[:, :, None], tails[:, :, None], relations)  # (B, P, R, D)
        norm = apart.abs().sum(-1) if self.power == 1 else apart.square().sum(-1).sqrt()
        return -norm.clamp(max=_MOST_DISTANCE)

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails, (B, P, 1, D) each: (B, P, R, D)."""
        raise NotImplementedError


class Um(Distance):
    """h - t, the same for every relation."""

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        return (h - t).expand(-1, -1, relations.shape[1], -1)


class Se(Distance):
    """r * h - r * t."""

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        return relations[:, None] * (h - t)


class TransE(Distance):
    """h + r - t."""

    power = 1

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        return h + relations[:, None] - t


class TransH(Distance):
    """h + r' - t on a plane of the relation's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.r_to_rtr = nn.Linear(width, width)
        self.r_to_w = nn.Linear(width, width)

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        normal = F.normalize(self.r_to_w(relations), dim=-1)  # (B, R, D)
        along = (h - t).squeeze(2) @ normal.transpose(1, 2)  # (B, P, R)
        return h - t - along[..., None] * normal[:, None] + self.r_to_rtr(relations)[:, None]


class TransF(Distance):
    """a * h + r' - b * t."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.r_to_rvec = nn.Linear(width, width)
        self.r_to_alpha = nn.Linear(width, width)
        self.r_to_beta = nn.Linear(width, width)

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        layers = (self.r_to_rvec, self.r_to_alpha, self.r_to_beta)
        own, alpha, beta = (layer(relations)[:, None] for layer in layers)
        return alpha * h + own - beta * t


class PairRe(Distance):
    """a * h - b * t."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.r_to_alpha = nn.Linear(width, width)
        self.r_to_beta = nn.Linear(width, width)

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        alpha, beta = self.r_to_alpha(relations)[:, None], self.r_to_beta(relations)[:, None]
        return alpha * h - beta * t


class TripleRe(Distance):
    """a * h + d - b * t, whose distance has a factor of the relation's own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.r_to_alpha = nn.Linear(width, width)
        self.r_to_beta = nn.Linear(width, width)
        self.r_to_delta = nn.Linear(width, width)
        self.r_to_gamma = nn.Linear(width, 1)

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        nearness = super().forward(heads, tails, relations)
        return nearness * self.r_to_gamma(relations).transpose(1, 2)

    def subtract(self, h: Tensor, t: Tensor, relations: Tensor) -> Tensor:
        """What lies between heads and tails."""
        layers = (self.r_to_alpha, self.r_to_beta, self.r_to_delta)
        alpha, beta, delta = (layer(relations)[:, None] for layer in layers)
        return alpha * h + delta - beta * t


class ErMlp(Triples):
    """Two layers over [h; r; t]: the first splits into parts of the pair and of the relation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(3 * width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1))

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        layer = cast(nn.Linear, self.mlp[0])
        of_head, of_relation, of_tail = layer.weight.chunk(3, dim=1)
        pair = F.linear(heads, of_head) + F.linear(tails, of_tail, layer.bias)
        relation = F.linear(relations, of_relation)
        logits: Tensor = self.mlp[2](F.relu(pair[:, :, None] + relation[:, None]))
        return logits.squeeze(-1)


class ConvKb(Triples):
    """Filters over the three numbers of each of D places, one after the other for memory's sake."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, _FILTERS, kernel_size=1)
        self.fc = nn.Linear(_FILTERS * width, 1)

    def forward(self, heads: Tensor, tails: Tensor, relations: Tensor) -> Tensor:
        """Score all pairs of entities for all relations."""
        h, t, r = heads[:, :, None], tails[:, :, None], relations[:, None]
        weights, biases = self.conv.weight[..., 0], cast(Tensor, self.conv.bias)
        lasts = self.fc.weight.view(_FILTERS, -1)  # (filters, D)
        logits: Tensor = self.fc.bias
        for (of_h, of_r, of_t), bias, last in zip(weights, biases, lasts, strict=True):
            logits = logits + F.relu(of_h * h + of_r * r + of_t * t + bias) @ last  # (B, P, R)
        return logits


LAYERS: dict[str, Callable[[int], Triples]] = {
    "UM": lambda _: Um(),
    "SE": lambda _: Se(),
    "TransE": lambda _: TransE(),
    "TransH": TransH,
    "TransF": TransF,
    "PairRE": PairRe,
    "TripleRE": TripleRe,
    "DistMult": lambda _: LinearTriples(_distmult),
    "SimplE": lambda _: LinearTriples(_simple),
    "ComplEx": lambda _: LinearTriples(_complex),
    "QuatE": lambda _: LinearTriples(_quaternion),
    "DistMA": lambda _: DistMA(),
    "HolE": lambda _: HolE(),
    "ERMLP": ErMlp,
    "ConvKB": ConvKb,
}
