"""Operators of onnxruntime that tracing would spell out, as functions of torch.

They have no gradient: training attends in its own way (`Encoder.encode_packed`).

Axes: B texts, T pieces, S pieces attended to, H heads, D width, d = D / H.
"""

from typing import Any

import torch
from torch import Tensor

CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
_Graph = Any  # torch's graph builder


class Attention(torch.autograd.Function):
    """Multi-head attention, perhaps with a bias on its scores; traced as one of onnxruntime's."""

    @staticmethod
    def forward(
        q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, heads: int, scale: float
    ) -> Tensor:
        """Attend: (B, T, D), twice (B, S, D), and a bias (B, 1 or H, T, S) -> (B, T, D)."""
        q, k, v = split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)
        scores = q @ k.transpose(-1, -2) * scale  # (B, H, T, S)
        if bias is not None:
            scores = scores + bias
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        """Keep nothing: this form is never trained."""

    @staticmethod
    def symbolic(g: _Graph, q: Any, k: Any, v: Any, bias: Any, heads: int, scale: float) -> Any:  # noqa: ANN401
        """The operator; its inputs without a value are bias of the projections and key mask."""
        inputs = [q, k, v]
        if bias is not None:
            none = g.op("prim::Constant")
            none.setType(torch._C.OptionalType.ofTensor())
            inputs += [none, none, bias]
        node = g.op(f"{CONTRIB}::MultiHeadAttention", *inputs, num_heads_i=heads, scale_f=scale)
        return node.setType(q.type())


class TakeLast(torch.autograd.Function):
    """`gather` on the last axis; traced with int32 indices, which torch does not take."""

    @staticmethod
    def forward(x: Tensor, index: Tensor) -> Tensor:
        """Take x[..., index]: (B, H, T, R) by (B, H, T, T) -> (B, H, T, T)."""
        return x.gather(-1, index.to(torch.int64))

    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        """Keep nothing: this form is never trained."""

    @staticmethod
    def symbolic(g: _Graph, x: Any, index: Any) -> Any:  # noqa: ANN401
        """The operator."""
        return g.op("GatherElements", x, index, axis_i=-1).setType(x.type())


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
