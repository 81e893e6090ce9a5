"""Which number format a run multiplies in."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision as asked for.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 on CUDA, plain fp32 on the CPU.
        device: Where the run is.
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" else "fp32"
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
