"""PyTorch model -> float ONNX graphs: the whole, with the reference's signature, and its two parts.

`SpanModel.forward` is already the export-friendly form (span head folded, gathers by index), and
`fuse` gives its encoder one, so tracing is nearly the whole export. Isolated labels are put into an
order of their own first; what follows completes the signature: inputs that folding left unused
stay declared, optional ones get their defaults, axes get names.

A model with isolated labels is also traced in two parts (`cached`), one that reads a label and one
that reads a text; the three graphs are written with one file of weights.

Axes: B texts, C labels, T pieces.
"""

import io
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nerlet.cached import name_layer
from nerlet.graph import THRESHOLDS
from nerlet.manifest import LABEL_GRAPH_NAME, TEXT_GRAPH_NAME
from nerlet_export.bi import LABELS_INPUT, PIECES_INPUTS, LabelEmbedder
from nerlet_export.by_name import insert_weights, name_weights
from nerlet_export.cached import LabelReader, TextScorer
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.config import ModelConfig
from nerlet_export.encoder import label_blocks
from nerlet_export.fused import fuse
from nerlet_export.model import SpanModel
from nerlet_export.onnx_graph import OnnxGraph, check_graph
from nerlet_export.operators import CONTRIB, STAND_IN
from nerlet_export.samples import draw_sample, sample_feeds, sample_parts
from nerlet_export.token_heads import PARTS

OPSET = 17  # LayerNormalization as one operator
IR_VERSION = 8

# Inputs in the reference's order: element type and names of the axes (None: the axis is 2).
# A token-level model has the first four.
Port = tuple[int, tuple[str | int, ...]]
INPUTS: dict[str, Port] = {
    "input_ids": (TensorProto.INT64, ("batch", "pieces")),
    "attention_mask": (TensorProto.INT64, ("batch", "pieces")),
    "words_mask": (TensorProto.INT64, ("batch", "pieces")),
    "text_lengths": (TensorProto.INT64, ("batch", 1)),
    "span_idx": (TensorProto.INT64, ("batch", "spans", 2)),
    "span_mask": (TensorProto.BOOL, ("batch", "spans")),
}
_TOKEN_INPUTS = 4
SHAPES_INPUT = "word_shapes"
_SHAPES_AXES = ("shapes_batch", "shapes_pieces")
_DEFAULT_THRESHOLD = 0.5
OUTPUT = "logits"
# What a joint model has beside: the reference's, and the borders of the entities that pairs name.
_RELATION_OUTPUTS: dict[str, Port] = {
    "rel_idx": (TensorProto.INT64, ("batch", "pairs", 2)),
    "rel_logits": (TensorProto.FLOAT, ("batch", "pairs", "relations")),
    "rel_mask": (TensorProto.BOOL, ("batch", "pairs")),
    "entity_spans": (TensorProto.INT64, ("batch", "entities", 2)),
}
_LABEL_OUTPUTS = ("keys", "values", "direction", "offset")
Axes = Mapping[str, tuple[str | int | None, ...]]


def build_graph(checkpoint: Checkpoint) -> OnnxGraph:
    """Trace a model into a float graph.

    Args:
        checkpoint: In evaluation mode, on the CPU.

    Returns:
        The graph: the reference's inputs, those of `optional_inputs`, and `output_ports`.
    """
    model = fuse(checkpoint.model)
    is_isolated = model.config.label_attention == "isolated"
    optional = optional_inputs(model.config)
    defaults = {name: default for name, (_, default) in optional.items()}
    feeds = {**defaults, **sample_feeds(checkpoint, seed=0)}
    inputs = {**input_ports(model.config), **{name: port for name, (port, _) in optional.items()}}
    graph = _trace(
        SortedLabels(fuse(checkpoint.span_model)) if is_isolated else model,
        {name: torch.from_numpy(feeds[name]) for name in inputs},
        list(output_ports(model.config)),
        {name: axes for name, (_, axes) in inputs.items()},
    )
    _complete_signature(graph.model, model.config)
    return _finish(graph)


def input_ports(config: ModelConfig) -> dict[str, Port]:
    """The inputs of a model's graph in the reference's order: element type and axes."""
    count = _TOKEN_INPUTS if config.is_token_level else len(INPUTS)
    ports = dict(list(INPUTS.items())[:count])
    if config.is_bi:
        ports[LABELS_INPUT] = _embeddings_port(config)
    return ports


def _embeddings_port(config: ModelConfig) -> Port:
    return TensorProto.FLOAT, ("labels", config.hidden_size)


def optional_inputs(config: ModelConfig) -> dict[str, tuple[Port, NDArray[np.generic]]]:
    """The inputs that may be left out, in the order of `Model.forward`, with their defaults."""
    optional: dict[str, tuple[Port, NDArray[np.generic]]] = {}
    if config.word_shapes:  # [[0]] broadcasts to "no shapes"
        optional[SHAPES_INPUT] = (TensorProto.INT64, _SHAPES_AXES), np.zeros((1, 1), dtype=np.int64)
    if config.has_relations:
        default = np.array(_DEFAULT_THRESHOLD, dtype=np.float32)
        optional |= dict.fromkeys(THRESHOLDS, ((TensorProto.FLOAT, ()), default))
    return optional


def output_ports(config: ModelConfig) -> dict[str, Port]:
    """The outputs of a model's graph: element type and axes."""
    axes: tuple[str | int, ...] = ("batch", "words", config.max_width, "labels")
    if config.is_token_level:
        axes = ("batch", "words", "labels", PARTS)
    return {
        OUTPUT: (TensorProto.FLOAT, axes),
        **(_RELATION_OUTPUTS if config.has_relations else {}),
    }


def labels_ports(config: ModelConfig) -> dict[str, Port]:
    """The inputs and, last, the output of the graph that reads a bi-encoder's labels."""
    pieces: Port = (TensorProto.INT64, ("labels", "pieces"))
    return {**dict.fromkeys(PIECES_INPUTS, pieces), LABELS_INPUT: _embeddings_port(config)}


def build_labels_encoder(checkpoint: Checkpoint) -> OnnxGraph:
    """Trace what reads a bi-encoder's labels, with the signature of `labels_ports`."""
    reader = LabelEmbedder(fuse(checkpoint.bi_model))
    feeds = draw_sample(checkpoint, seed=0).feeds
    axes = {name: own for name, (_, own) in labels_ports(reader.model.config).items()}
    pieces = {name: torch.from_numpy(feeds[name]) for name in PIECES_INPUTS}
    graph = _trace(reader, pieces, [LABELS_INPUT], axes)
    (output,) = graph.model.graph.output
    value = helper.make_tensor_value_info(LABELS_INPUT, TensorProto.FLOAT, axes[LABELS_INPUT])
    output.CopyFrom(value)
    return _finish(graph)


def build_parts(checkpoint: Checkpoint) -> dict[str, OnnxGraph]:
    """Trace a model with isolated labels into its two parts.

    Args:
        checkpoint: As for `build_graph`.

    Returns:
        By name of the file, with inputs and outputs as `cached.LabelReader` and
        `cached.TextScorer` name them.
    """
    model = fuse(checkpoint.span_model)
    label, text = sample_parts(checkpoint)
    reader, scorer = LabelReader(model), TextScorer(model)
    with torch.no_grad():
        ids = torch.from_numpy(label["input_ids"])
        read = [reader(ids), reader(ids)]
    keys, values, directions, offsets = (
        torch.cat(own, dim=dim)
        for own, dim in zip(zip(*read, strict=True), (1, 1, 0, 0), strict=True)
    )
    inputs = {name: torch.from_numpy(array) for name, array in text.items()}
    shapes = {SHAPES_INPUT: inputs.pop(SHAPES_INPUT)} if model.config.word_shapes else {}
    layers = {
        **{name_layer("keys", layer): own[None] for layer, own in enumerate(keys)},
        **{name_layer("values", layer): own[None] for layer, own in enumerate(values)},
    }
    kept: Axes = dict.fromkeys(("keys", "values"), (None, "label_pieces"))
    label_graph = _trace(
        reader, {"input_ids": ids}, [*_LABEL_OUTPUTS], {"input_ids": (1, "pieces"), **kept}
    )
    text_graph = _trace(
        scorer,
        {**inputs, "directions": directions, "offsets": offsets, **layers, **shapes},
        [OUTPUT],
        {
            "input_ids": (1, "pieces"),
            "word_starts": ("words",),
            "directions": ("labels",),
            "offsets": ("labels",),
            **dict.fromkeys(layers, (1, "label_pieces")),
            **dict.fromkeys(shapes, (1, "pieces")),
            OUTPUT: (1, "words", model.config.max_width, "labels"),
        },
    )
    return {LABEL_GRAPH_NAME: _finish(label_graph), TEXT_GRAPH_NAME: _finish(text_graph)}


def _trace(
    model: nn.Module, inputs: Mapping[str, Tensor], outputs: list[str], axes: "Axes"
) -> OnnxGraph:
    """Trace a module, which is changed, over named inputs; `axes` names those that may differ."""
    name_weights(model)
    written = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns of what the graph would freeze; verification compares on other shapes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            tuple(inputs.values()),
            written,  # type: ignore[arg-type]  # the tracer writes to buffers too
            dynamo=False,
            opset_version=OPSET,
            custom_opsets={CONTRIB: 1, STAND_IN: 1},
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes={name: _dynamic_axes(own) for name, own in axes.items()},
        )
    traced = onnx.load_from_string(written.getvalue())
    _share_weights(traced.graph)
    return insert_weights(traced, model)


def _finish(graph: OnnxGraph) -> OnnxGraph:
    graph.model.ir_version = IR_VERSION
    graph.model.producer_name = "nerlet"
    check_graph(graph)
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


def _dynamic_axes(axes: tuple[str | int | None, ...]) -> dict[int, str]:
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


def _complete_signature(model: onnx.ModelProto, config: ModelConfig) -> None:
    """Declare every input and output as the signature has them."""
    graph = model.graph
    del graph.input[:]
    for name, (dtype, axes) in input_ports(config).items():
        graph.input.append(helper.make_tensor_value_info(name, dtype, axes))
    for name, ((dtype, axes), default) in optional_inputs(config).items():
        # An input that is also an initialiser may be left out
        graph.input.append(helper.make_tensor_value_info(name, dtype, axes))
        graph.initializer.append(numpy_helper.from_array(default, name))
    del graph.output[:]
    for name, (dtype, axes) in output_ports(config).items():
        graph.output.append(helper.make_tensor_value_info(name, dtype, axes))
    del graph.value_info[:]
