"""Binary cross-entropy over spans x labels, where the truth is known."""

import torch
from torch import Tensor
from torch.nn import functional as F

from nerlet_export.data import Batch


def span_loss(
    logits: Tensor,
    batch: Batch,
    *,
    positive_weight: float = 1.0,
    focal: float = 0.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Sum of binary cross-entropy over known cells, per text.

    Args:
        logits: (B, S, C), any float dtype; the loss is taken in float32.
        batch: With targets and weights, (B, S, C); cells of weight 0 do not count.
        positive_weight: Factor on the cells of entities.
        focal: Exponent of the focal loss; 0 for none.
        smoothing: Share by which targets are drawn towards one half.

    Returns:
        The loss, a scalar.

    Source: GLiNER (Zaratiana et al., 2023), section 2.3; focal loss: Lin et al., 2017, without
    its alpha; the weights are ours.
    """
    logits = logits.float()
    weights = batch.weights * (1.0 + (positive_weight - 1.0) * batch.targets)
    targets = batch.targets + smoothing * (0.5 - batch.targets)
    losses = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="none")
    if focal > 0:
        wrong = torch.sigmoid(torch.where(batch.targets > 0, -logits, logits))  # 1 - p of the truth
        losses = losses * wrong**focal
    return losses.sum() / len(batch.lengths)
