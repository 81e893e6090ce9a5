"""The optimiser of a training run and its learning rates, by step and by depth."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nerlet_export.model import SpanModel
from nerlet_export.settings import Optimization


def schedule(step: int, steps: int, warm_up: float) -> float:
    """Share of the peak rate at a step: linear warm-up, then half a cosine down to 0."""
    rising = max(1, round(steps * warm_up))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def make_optimizer(model: SpanModel, options: Optimization) -> torch.optim.Optimizer:
    """AdamW with one rate for the encoder and one for what is new; no decay on vectors.

    The encoder's rate falls by `layer_decay` with each layer away from its output.
    """
    depths = {name: _depth(name) for name, _ in model.named_parameters()}
    top = max(depths.values())
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_encoder = name.startswith("encoder.model.")
        below = options.layer_decay ** (top - depths[name])
        rate = options.encoder_lr * below if is_encoder else options.head_lr
        decay = options.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "peak_lr": rate, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def _depth(name: str) -> int:
    """The number of a parameter's layer, from 1; 0 for embeddings and all that has no layer."""
    found = re.search(r"\.layers?\.(\d+)\.", name)
    return int(found[1]) + 1 if found else 0


@contextmanager
def keep_rates(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Let what is loaded inside change nothing but moments: rates are those of the settings."""
    kept = [
        {key: group[key] for key in ("peak_lr", "weight_decay")} for group in optimizer.param_groups
    ]
    yield
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.update(values)
