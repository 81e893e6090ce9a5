"""Float graph -> half-precision graph for CUDA: what becomes float16, what stays float32, and why.

onnxruntime's own converter does it; the signature stays the reference's, logits in float32. Here
stands what it is told:

* Norms, softmax and the LSTM stay float32: they sum many squares, exponentials, or steps. T5's
  norm is no operator of its own: there it is the mean of squares up to its root.
* So does what becomes a whole number, such as MPNet's buckets of positions: a logarithm that is
  rounded falls into the next one. And so do the angles of ModernBERT's positions: past 1024 radians
  float16 knows none.
* No constant is larger than 10,000. Masks are added to scores as the least float32; in float16
  that is -65504, to which a score adds up to -inf, and a row of nothing else is NaN.

Not measured on a GPU. `round_graph` makes the CPU round as float16 does, for verification.
"""

from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import (
    DEFAULT_OP_BLOCK_LIST,
    convert_float_to_float16,
    convert_np_to_float16,
)

from nerlet.errors import GraphError
from nerlet_export import verify
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.graph import all_nodes
from nerlet_export.onnx_graph import Array, OnnxGraph, check_graph, copy_model, make_graph
from nerlet_export.samples import draw_sample, prepare_sample
from nerlet_export.verify import Floats

# The limits, of the drift of a score: toy models of all families drift 0.001 and 0.02.
HALF_MEAN_DRIFT = 0.005
HALF_MAX_DRIFT = 0.1
_LARGEST = 10_000.0  # of a constant
_DELICATE = frozenset({"LayerNormalization", "SkipLayerNormalization", "Softmax", "LSTM"})
_KEPT = frozenset(DEFAULT_OP_BLOCK_LIST) | _DELICATE
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})


def halve_graph(exact: OnnxGraph) -> OnnxGraph:
    """Convert a float graph to half precision; its signature stays.

    Args:
        exact: As `graph.build_graph` makes it; not changed.

    Returns:
        The graph with float16 weights.
    """
    typed = _infer_types(exact.model)
    graph = typed.graph
    single = {*_find_whole_numbers_and_angles(graph), *_find_mean_squares(graph)}
    kept = {node.name for node in graph.node if node.op_type in _KEPT} | single
    _empty_weights(graph, exact.weights)
    _bound_infinities(graph)
    _hide_types_between(graph, kept)
    halved: onnx.ModelProto = convert_float_to_float16(
        typed,
        keep_io_types=True,
        disable_shape_infer=True,
        max_finite_val=_LARGEST,
        op_block_list=sorted(_KEPT),
        node_block_list=sorted(single),
    )
    del halved.graph.value_info[:]
    _sort_nodes(halved.graph)
    types = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    weights = {name: _round(array, types[name]) for name, array in exact.weights.items()}
    half = make_graph(halved, weights)
    check_graph(half)
    return half


def round_graph(graph: OnnxGraph) -> OnnxGraph:
    """Make a graph whose values are float16 where it says so, even on a CPU.

    A CPU computes float16 nodes in float32, and onnxruntime drops the two casts between one node
    and the next; not so with a node between that does nothing. Without optimisation it stays.

    Args:
        graph: As `halve_graph` makes it; not changed.

    Returns:
        The graph; open it with all optimisation off.
    """
    rounded = copy_model(graph.model)
    nodes: list[onnx.NodeProto] = []
    for node in rounded.graph.node:
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name:
                node.output[place] = f"{name}.unrounded"
                nodes.append(helper.make_node("Identity", [node.output[place]], [name]))
    del rounded.graph.node[:]
    rounded.graph.node.extend(nodes)
    return OnnxGraph(rounded, graph.weights)


def check_half(
    checkpoint: Checkpoint,
    float_graph: OnnxGraph,
    half_graph: OnnxGraph,
    *,
    threshold: float,
) -> verify.DriftReport:
    """Compare a half-precision graph with the float one, in ragged batches as a GPU runs them.

    The CPU rounds between nodes as float16 does; within a node it computes in float32. No GPU is
    needed, and none is measured.

    Raises:
        GraphError: A logit is not finite, or scores drift by more than `HALF_MEAN_DRIFT` or
            `HALF_MAX_DRIFT`.
    """
    samples = [
        prepare_sample(checkpoint, draw_sample(checkpoint, seed=2000 + seed, size=1 + seed % 5))
        for seed in range(2 * verify.BATCHES)
    ]
    rounded = verify.run_samples(round_graph(half_graph), samples, is_optimized=False)
    if not all(np.isfinite(logits).all() for logits in rounded):
        raise GraphError(
            "the graph in half precision gives logits that are not finite: a value exceeds "
            "65504; nothing is written, convert without --fp16"
        )
    exact = verify.run_samples(float_graph, samples)
    drift = verify.compare_logits(samples, exact, rounded, threshold)
    if not (drift.mean_score_drift <= HALF_MEAN_DRIFT and drift.max_score_drift <= HALF_MAX_DRIFT):
        raise GraphError(
            f"the graph in half precision differs from the float one: score drift "
            f"{drift.mean_score_drift:.4f} mean, {drift.max_score_drift:.3f} max, allowed "
            f"{HALF_MEAN_DRIFT:g} and {HALF_MAX_DRIFT:g}; nothing is written, convert without "
            "--fp16"
        )
    return drift


def _bound_infinities(graph: onnx.GraphProto) -> None:
    """Make constants that are infinite, as some masks are, as large as they may be.

    The converter bounds finite ones alone.
    """
    tensors = [*graph.initializer]
    tensors += [
        attribute.t
        for node in all_nodes(graph)
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.TENSOR
    ]
    for tensor in tensors:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        bounded = _bound(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(bounded, tensor.name))


def _bound(array: Floats) -> Floats:
    """An array whose infinities are as large as constants may be."""
    is_infinite = np.isinf(array)
    if not is_infinite.any():
        return array
    return np.where(is_infinite, np.sign(array) * np.float32(_LARGEST), array)


def _round(array: Floats, data_type: int) -> Array:
    """A weight of the type that the converter has chosen, as it makes constants."""
    bounded = _bound(array)
    if data_type != TensorProto.FLOAT16:
        return bounded
    half: Array = convert_np_to_float16(bounded, max_finite_val=_LARGEST)
    return half


def _empty_weights(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Give the converter empty weights: it chooses their types, and would want to read data."""
    for tensor in graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, [0], []))


def _infer_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a graph with the type of every value and a name for every node.

    onnx knows the types of its own operators only; onnxruntime's give floats here.
    """
    typed = copy_model(model)
    for place, node in enumerate(typed.graph.node):
        node.name = node.name or f"unnamed.{place}"
        if node.domain:
            typed.graph.value_info.extend(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
                for name in node.output
                if name
            )
    return onnx.shape_inference.infer_shapes(typed)


def _find_whole_numbers_and_angles(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the nodes whose floats become whole numbers or waves, back to their first floats."""
    floats = {
        value.name
        for value in graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    makers = {name: node for node in graph.node for name in node.output}
    pending: list[str] = []
    for node in graph.node:
        is_cast = node.op_type == "Cast" and node.input[0] in floats
        is_rounded = is_cast and helper.get_node_attr_value(node, "to") not in _FLOATS
        if is_rounded or node.op_type in ("Sin", "Cos"):
            yield node.name
            pending.append(node.input[0])
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in floats and name not in seen:
            seen.add(name)
            yield makers[name].name
            pending += makers[name].input


def _find_mean_squares(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the nodes between squares and the root of their mean."""
    makers = {name: node for node in graph.node for name in node.output}
    pending = [node for node in graph.node if node.op_type == "Sqrt"]
    while pending:
        node = pending.pop()
        yield node.name
        before = [makers[name] for name in node.input if name in makers]
        pending += [own for own in before if own.op_type in ("Add", "ReduceMean", "Pow")]


def _hide_types_between(graph: onnx.GraphProto, kept: set[str]) -> None:
    """Forget the types of values that pass between kept nodes only: the converter rounds others."""
    passing = {name for node in graph.node if node.name in kept for name in node.output}
    passing -= {name for node in graph.node if node.name not in kept for name in node.input}
    passing -= {value.name for value in graph.output}
    values = [value for value in graph.value_info if value.name not in passing]
    del graph.value_info[:]
    graph.value_info.extend(values)


def _sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node behind those that it reads: the converter adds its casts at the end."""
    nodes = list(graph.node)
    makers = {name: place for place, node in enumerate(nodes) for name in node.output}
    needed = {
        place: [makers[name] for name in node.input if name in makers]
        for place, node in enumerate(nodes)
    }
    del graph.node[:]
    graph.node.extend(nodes[place] for place in TopologicalSorter(needed).static_order())
