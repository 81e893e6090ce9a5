"""PyTorch model -> float ONNX graph with the reference's inputs and output.

`SpanModel.forward` is already the export-friendly form (span head folded, gathers by index), and
`fuse` gives its encoder one, so tracing is nearly the whole export. Isolated labels are put into an
order of their own first; what follows completes the signature: inputs that folding left unused
stay declared, `word_shapes` gets a default so that it is optional, axes get names.

Axes: B texts, C labels, T pieces.
"""

import io
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nerlet_export.checkpoint import Checkpoint
from nerlet_export.encoder import label_blocks
from nerlet_export.fused import fuse
from nerlet_export.model import SpanModel
from nerlet_export.operators import CONTRIB
from nerlet_export.samples import sample_feeds

OPSET = 17  # LayerNormalization as one operator
IR_VERSION = 8

# Inputs in the reference's order: element type and names of the axes (None: the axis is 2).
INPUTS: dict[str, tuple[int, tuple[str | int, ...]]] = {
    "input_ids": (TensorProto.INT64, ("batch", "pieces")),
    "attention_mask": (TensorProto.INT64, ("batch", "pieces")),
    "words_mask": (TensorProto.INT64, ("batch", "pieces")),
    "text_lengths": (TensorProto.INT64, ("batch", 1)),
    "span_idx": (TensorProto.INT64, ("batch", "spans", 2)),
    "span_mask": (TensorProto.BOOL, ("batch", "spans")),
}
SHAPES_INPUT = "word_shapes"
OUTPUT = "logits"


def build_graph(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Trace a model into a float graph.

    Args:
        checkpoint: In evaluation mode, on the CPU.

    Returns:
        The graph: the reference's six inputs, for a model with word shapes also the optional
        `word_shapes`, and `logits`, float32, (batch, words, max_width, labels).
    """
    model = fuse(checkpoint.model)
    has_shapes = model.config.word_shapes
    is_isolated = model.config.label_attention == "isolated"
    feeds = sample_feeds(checkpoint, seed=0)
    names = [*INPUTS, SHAPES_INPUT] if has_shapes else [*INPUTS]
    dynamic = {name: _dynamic_axes(INPUTS[name][1]) for name in INPUTS}
    dynamic[SHAPES_INPUT] = {0: "shapes_batch", 1: "shapes_pieces"}
    written = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of what the graph would freeze; verification compares on other shapes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            SortedLabels(model).eval() if is_isolated else model,
            tuple(torch.from_numpy(feeds[name]) for name in names),
            written,  # type: ignore[arg-type]  # the tracer writes to buffers too
            dynamo=False,
            opset_version=OPSET,
            custom_opsets={CONTRIB: 1},
            input_names=names,
            output_names=[OUTPUT],
            dynamic_axes={name: dynamic[name] for name in names},
        )
    graph = onnx.load_from_string(written.getvalue())
    _share_weights(graph.graph)
    _complete_signature(graph, model.config.max_width, has_shapes=has_shapes)
    graph.ir_version = IR_VERSION
    graph.producer_name = "nerlet"
    onnx.checker.check_model(graph)
    return graph


class SortedLabels(nn.Module):
    """A model with isolated labels that reads them in one order, whichever they are given in.

    For such a model the order only changes in which order sums are taken, so the last bit of some
    activations. Where that moves one over the border of two int8 steps, a score changes in its
    second digit; in one order for all there is nothing to move it.
    """

    def __init__(self, model: SpanModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        words_mask: Tensor,
        text_lengths: Tensor,
        span_idx: Tensor,
        span_mask: Tensor,
        word_shapes: Tensor | None = None,
    ) -> Tensor:
        """Score every span; inputs and output are those of `SpanModel.forward`."""
        rank, order = _sort_labels(input_ids, self.model.config.class_token_index)
        logits = self.model(
            input_ids.gather(1, order),
            attention_mask.gather(1, order),
            words_mask.gather(1, order),
            text_lengths,
            span_idx,
            span_mask,
            None if word_shapes is None else word_shapes.expand_as(input_ids).gather(1, order),
        )  # (B, L, K, C), labels by rank
        return logits.gather(3, rank[:, None, None, :].expand_as(logits))


def _sort_labels(input_ids: Tensor, ent_id: int) -> tuple[Tensor, Tensor]:
    """Rank labels by a number made from their pieces, and order all pieces accordingly.

    Args:
        input_ids: Piece ids, int64, (B, T).
        ent_id: Piece id of [ENT].

    Returns:
        The rank of each label, int64, (B, C), and for each new place the piece that comes there,
        int64, (B, T): prefix, labels by rank, text.
    """
    is_ent = (input_ids == ent_id).to(torch.int64)
    block = label_blocks(input_ids, ent_id)  # (B, T)
    C, T = is_ent.sum(1).max(), input_ids.shape[1]
    labels = torch.arange(1, C + 1, device=block.device)  # type: ignore[call-overload]  # takes tensors
    pieces = torch.arange(T, device=block.device)
    is_part = block[:, None, :] == labels[:, None]  # (B, C, T)
    offsets = pieces - is_part.to(torch.int32).argmax(-1, keepdim=True)  # (B, C, T)
    # Squares, so that the same pieces in another order make another number: below 2 ** 62 for
    # 280 pieces a label out of a vocabulary of 250,000.
    codes = input_ids[:, None, :] * 512 + offsets
    number = torch.where(is_part, codes * codes, 0).sum(-1)  # (B, C)
    number = torch.where(number > 0, number, 2**62)  # labels that only other texts have
    mine, other = number[:, :, None], number[:, None, :]
    is_before = (other < mine) | ((other == mine) & (labels < labels[:, None]))  # (B, C, C)
    rank = is_before.to(torch.int64).sum(-1)  # (B, C)
    of_label = rank.gather(1, (block - 1).clamp(min=0)) + 1  # (B, T)
    of_text = (is_ent.cumsum(1) > 0).to(torch.int64) * (C + 1)  # 0 in the prefix
    place = torch.where(block > 0, of_label, of_text)
    return rank, (place * T + pieces).argsort(1)


def _dynamic_axes(axes: tuple[str | int, ...]) -> dict[int, str]:
    return {index: axis for index, axis in enumerate(axes) if isinstance(axis, str)}


def _share_weights(graph: onnx.GraphProto) -> None:
    """Let all nodes read a shared weight itself (ALBERT's layers, DeBERTa's query and key).

    The tracer gives every use but the first an Identity of the weight, which hides it from
    quantisation.
    """
    weights = {tensor.name for tensor in graph.initializer}
    sources: dict[str, str] = {}
    for node in graph.node:
        source = sources.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "Identity" and source in weights:
            sources[node.output[0]] = source
    kept = [node for node in graph.node if node.output[0] not in sources]
    del graph.node[:]
    graph.node.extend(kept)
    for node in all_nodes(graph):
        node.input[:] = [sources.get(name, name) for name in node.input]


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, those of inner graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


def _complete_signature(model: onnx.ModelProto, max_width: int, *, has_shapes: bool) -> None:
    """Declare every input and the output as the signature has them."""
    graph = model.graph
    del graph.input[:]
    for name, (dtype, axes) in INPUTS.items():
        graph.input.append(helper.make_tensor_value_info(name, dtype, axes))
    if has_shapes:
        # An input that is also an initialiser may be left out; [[0]] broadcasts to "no shapes".
        axes = ("shapes_batch", "shapes_pieces")
        graph.input.append(helper.make_tensor_value_info(SHAPES_INPUT, TensorProto.INT64, axes))
        default = np.zeros((1, 1), dtype=np.int64)
        graph.initializer.append(numpy_helper.from_array(default, SHAPES_INPUT))
    del graph.output[:]
    axes_out = ("batch", "words", max_width, "labels")
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, axes_out))
    del graph.value_info[:]


def write_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph as one file."""
    onnx.save_model(model, str(path))
