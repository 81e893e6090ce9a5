"""Operators of onnxruntime that tracing would spell out, as functions of torch.

`Linear` and `Lookup` are no operators: they stand in for those until `by_name` puts the weights in.

None has a gradient: training attends in its own way (`Encoder.encode_packed`).

Axes: B texts, T pieces, S pieces attended to, H heads, D width, d = D / H.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CONTRIB = "com.microsoft"  # the domain of onnxruntime's own operators
STAND_IN = "nerlet"  # the domain of what stands in for weights
_Graph = Any  # torch's graph builder
_UNSEEN = -10_000.0  # added to a score: exp of it is 0


class _Untrained(torch.autograd.Function):
    @staticmethod
    def setup_context(ctx: object, inputs: object, output: object) -> None:
        """Keep nothing: this form is never trained."""


class Attention(_Untrained):
    """Multi-head attention as one operator of onnxruntime."""

    @staticmethod
    def forward(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        is_key: Tensor | None,
        bias: Tensor | None,
        heads: int,
        scale: float,
    ) -> Tensor:
        """Attend.

        Args:
            q: (B, T, D).
            k: (B, S, D).
            v: As `k`.
            is_key: 1 for pieces to attend to, 0 for padding, int32, (B, S); None: all.
            bias: Added to the scores, (B, H, T, S): not every onnxruntime spreads one over all
                heads, text by text.
            heads: H.
            scale: Factor of the scores.

        Returns:
            (B, T, D).
        """
        q, k, v = (split_heads(x, heads) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) * scale  # (B, H, T, S)
        if bias is not None:
            scores = scores + bias
        if is_key is not None:
            scores = scores + (1.0 - is_key[:, None, None, :].to(q.dtype)) * _UNSEEN
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(
        g: _Graph,
        q: Any,  # noqa: ANN401
        k: Any,  # noqa: ANN401
        v: Any,  # noqa: ANN401
        is_key: Any,  # noqa: ANN401
        bias: Any,  # noqa: ANN401
        heads: int,
        scale: float,
    ) -> Any:  # noqa: ANN401
        """The operator; an input that is left out is the bias of the projections."""
        none = g.op("prim::Constant")
        none.setType(torch._C.OptionalType.ofTensor())
        inputs = [q, k, v, none, none if is_key is None else is_key, none if bias is None else bias]
        while inputs[-1] is none:
            inputs.pop()
        node = g.op(
            f"{CONTRIB}::MultiHeadAttention",
            *inputs,
            num_heads_i=heads,
            scale_f=scale,
            mask_filter_value_f=_UNSEEN,
        )
        return node.setType(q.type())


class Take(_Untrained):
    """`gather` on one axis; traced with int32 indices, which torch does not take."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, axis: int) -> Tensor:
        """Take elements of x (B, H, ., .) along an axis, those of index (B, H, T, T)."""
        return x.gather(axis, index.to(torch.int64))

    @staticmethod
    def symbolic(g: _Graph, x: Any, index: Any, axis: int) -> Any:  # noqa: ANN401
        """The operator."""
        return g.op("GatherElements", x, index, axis_i=axis).setType(x.type())


class Cut(_Untrained):
    """A slice whose ends are tensors, as one node: tracing would make five."""

    @staticmethod
    def forward(x: Tensor, low: Tensor, high: Tensor, axis: int) -> Tensor:
        """Cut x (1, H, ., .) along an axis, from `low` up to `high`, (1,) each."""
        return x.narrow(axis, int(low), int(high) - int(low))

    @staticmethod
    def symbolic(g: _Graph, x: Any, low: Any, high: Any, axis: int) -> Any:  # noqa: ANN401
        """The operator."""
        axes = g.op("Constant", value_t=torch.tensor([axis]))
        return g.op("Slice", x, low, high, axes).setType(x.type().with_sizes([None] * 4))


class Linear(_Untrained):
    """A linear layer; traced without its weight, which has a name."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, name: str) -> Tensor:  # noqa: ARG004
        """Multiply x (..., X) by the weight (Y, X): (..., Y)."""
        return F.linear(x, weight, bias)

    @staticmethod
    def symbolic(g: _Graph, x: Any, weight: Any, bias: Any, name: str) -> Any:  # noqa: ANN401
        """The stand-in."""
        inputs = [x] if bias is None else [x, bias]
        node = g.op(f"{STAND_IN}::Linear", *inputs, weight_s=name)
        axes = [None] * (x.type().dim() - 1)
        return node.setType(x.type().with_sizes([*axes, weight.type().sizes()[0]]))


class Lookup(_Untrained):
    """Rows of a table; traced without the table, which has a name."""

    @staticmethod
    def forward(ids: Tensor, table: Tensor, name: str) -> Tensor:  # noqa: ARG004
        """Take the rows of ids (...) from a table (R, D): (..., D)."""
        return F.embedding(ids, table)

    @staticmethod
    def symbolic(g: _Graph, ids: Any, table: Any, name: str) -> Any:  # noqa: ANN401
        """The stand-in."""
        node = g.op(f"{STAND_IN}::Lookup", ids, table_s=name)
        axes = [None] * ids.type().dim()
        return node.setType(table.type().with_sizes([*axes, table.type().sizes()[1]]))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) -> (B, H, T, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
