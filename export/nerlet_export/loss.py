"""Binary cross-entropy over spans x labels, where the truth is known."""

from torch import Tensor
from torch.nn import functional as F

from nerlet_export.data import Batch


def span_loss(logits: Tensor, batch: Batch, *, positive_weight: float) -> Tensor:
    """Sum of binary cross-entropy over known cells, per text.

    Args:
        logits: (B, S, C), any float dtype; the loss is taken in float32.
        batch: With targets and weights, (B, S, C); cells of weight 0 do not count.
        positive_weight: Factor on the cells of entities.

    Returns:
        The loss, a scalar.

    Source: GLiNER (Zaratiana et al., 2023), section 2.3; the weights are ours.
    """
    weights = batch.weights * (1.0 + (positive_weight - 1.0) * batch.targets)
    total = F.binary_cross_entropy_with_logits(
        logits.float(), batch.targets, weights, reduction="sum"
    )
    return total / len(batch.lengths)
