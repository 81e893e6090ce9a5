"""Float graph -> int8 graph: what is quantised, what stays float, and why.

* Matrix products with constant weights: int8 weights, one scale per output channel, and int8
  activations, one scale per row, found at run time: what a piece becomes depends on nothing else
  in the batch, and rows with outliers cost the others nothing.
* Tables looked up by Gather (word pieces, positions): int8, one scale per row, in plain operators:
  rows of one table differ too much for one scale.
* Everything else stays float: sums, norms, softmax, the LSTM, products of two activations, and the
  folded positions of a DeBERTa (19 MB of the small one's).

On CPUs without VNNI the products of u8 activations and s8 weights are summed in pairs in int16,
and saturate. So a channel's scale is the least at which no pair of its weights can do so: for most
channels half a bit better than 7-bit weights, which cannot either.

A product is onnxruntime's `MatMulIntegerToFloat`, which scales each column as it writes it; the
rest are operators of ONNX itself. benchmarks/quantization.py has what else was tried.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nerlet_export.graph import all_nodes
from nerlet_export.onnx_graph import Array, OnnxGraph, check_graph, copy_model, make_graph
from nerlet_export.operators import CONTRIB

Floats = NDArray[np.float32]

# Sum of two neighbours of one sign, 128 once rounded: 255 * 128 < 2 ** 15, so no pair saturates.
PAIR_LEVELS = 127
ACTIVATION_LEVELS = 127  # from -127 to 127, stored with 128 added
TABLE_LEVELS = 127  # rows are only looked up, never multiplied in int8
# Tables of fewer rows gain nothing.
_LEAST_ROWS = 64
# Constants of the row-wise quantisation, in the graph.
_CONSTANTS: dict[str, NDArray[np.generic]] = {
    "int8.step": np.array(1 / ACTIVATION_LEVELS, dtype=np.float32),
    "int8.zero": np.array(128, dtype=np.uint8),
}


def quantize_graph(exact: OnnxGraph) -> OnnxGraph:
    """Quantise a float graph; its signature stays.

    Args:
        exact: As `graph.build_graph` makes it; not changed.

    Returns:
        The int8 graph.
    """
    model, weights = copy_model(exact.model), dict(exact.weights)
    graph = model.graph
    tables = _find_tables(graph, weights)
    factors = _find_factors(graph, weights)
    nodes: list[onnx.NodeProto] = []
    scaled: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            nodes += _look_up_rows(node)
        elif node.op_type in ("MatMul", "Gemm") and node.input[1] in factors:
            nodes += _multiply_int8(node, scaled)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for name in tables:
        weights[f"{name}.rows"], weights[f"{name}.scales"] = quantize_rows(weights.pop(name))
    for name, is_transposed in factors.items():
        array = weights.pop(name)
        values, scales = quantize_columns(array.T if is_transposed else array)
        weights[f"{name}.int8"], weights[f"{name}.scales"] = values, scales
    if scaled:
        graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in _CONSTANTS.items()
        )
    known = {entry.domain for entry in model.opset_import}
    if scaled and CONTRIB not in known:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    quantised = make_graph(model, weights)
    check_graph(quantised)
    return quantised


def quantize_rows(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Quantise a table with one scale per row.

    Args:
        table: (R, D).

    Returns:
        int8 rows (R, D) and scales (R, 1); rows * scales is within half a scale of the table.
    """
    largest = np.maximum(table.max(axis=1, keepdims=True), -table.min(axis=1, keepdims=True))
    return _quantize(table, largest / TABLE_LEVELS)


def quantize_columns(weights: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Quantise a weight matrix with one scale per output channel.

    Args:
        weights: (inputs, outputs).

    Returns:
        int8 values (inputs, outputs), of which no pair of inputs 2i, 2i + 1 sums to more than 128
        in size, and scales (outputs,).
    """
    inputs, outputs = weights.shape
    even = np.zeros((inputs + inputs % 2, outputs), dtype=np.float32)
    even[:inputs] = weights
    pairs = even.reshape(-1, 2, outputs)
    sums = [np.maximum(own, 0).sum(axis=1).max(axis=0) for own in (pairs, -pairs)]
    values, scales = _quantize(weights, np.maximum(*sums)[None] / PAIR_LEVELS)
    return values, scales[0]


def _quantize(array: Floats, scales: Floats) -> tuple[NDArray[np.int8], Floats]:
    values = array / np.where(scales > 0, scales, 1.0)
    np.rint(values, out=values)  # not into another array: a table may be half a gigabyte
    return values.astype(np.int8), scales.astype(np.float32)


def _find_tables(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> frozenset[str]:
    """Float matrices of many rows whose every use is a lookup of rows."""
    tables = {
        name
        for name, array in weights.items()
        if _is_float_matrix(array) and len(array) >= _LEAST_ROWS
    }
    tables -= _inner_inputs(graph)
    for node in graph.node:
        for position, name in enumerate(node.input):
            is_lookup = node.op_type == "Gather" and position == 0 and _attribute(node, "axis") == 0
            if name in tables and not is_lookup:
                tables.discard(name)
    return frozenset(tables)


def _find_factors(graph: onnx.GraphProto, weights: Mapping[str, Array]) -> dict[str, bool]:
    """Float matrices whose every use is the right side of a product: name -> is transposed.

    One that is used both ways stays float, as do those of inner graphs, which are not rewritten.
    """
    factors: dict[str, bool] = {}
    other = _inner_inputs(graph)
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name not in weights or not _is_float_matrix(weights[name]):
                continue
            is_transposed = bool(_attribute(node, "transB"))
            if position == 1 and _is_product(node) and factors.get(name) != (not is_transposed):
                factors[name] = is_transposed
            else:
                other.add(name)
    return {name: flag for name, flag in factors.items() if name not in other}


def _inner_inputs(graph: onnx.GraphProto) -> set[str]:
    """What the nodes of inner graphs read."""
    inner = [
        attribute.g
        for node in graph.node
        for attribute in node.attribute
        if attribute.type == onnx.AttributeProto.GRAPH
    ]
    return {name for own in inner for node in all_nodes(own) for name in node.input}


def _is_product(node: onnx.NodeProto) -> bool:
    """Whether a node is x @ W, or x @ W + b without factors."""
    if node.op_type == "MatMul":
        return True
    is_plain = _attribute(node, "alpha", 1.0) == 1.0 == _attribute(node, "beta", 1.0)
    return node.op_type == "Gemm" and is_plain and not _attribute(node, "transA")


def _is_float_matrix(array: Array) -> bool:
    return array.dtype == np.float32 and array.ndim == 2


def _attribute(node: onnx.NodeProto, name: str, default: float = 0) -> float:
    for attribute in node.attribute:
        if attribute.name == name:
            return float(helper.get_attribute_value(attribute))
    return default


def _look_up_rows(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Gather of int8 rows times Gather of their scales."""
    table, ids = node.input
    base = node.name
    return [
        helper.make_node("Gather", [f"{table}.rows", ids], [f"{base}.int8"], f"{base}.rows"),
        helper.make_node(
            "Cast", [f"{base}.int8"], [f"{base}.float"], f"{base}.cast", to=TensorProto.FLOAT
        ),
        helper.make_node("Gather", [f"{table}.scales", ids], [f"{base}.scale"], f"{base}.scales"),
        helper.make_node("Mul", [f"{base}.float", f"{base}.scale"], list(node.output), base),
    ]


def _multiply_int8(node: onnx.NodeProto, scaled: set[str]) -> list[onnx.NodeProto]:
    """X @ W as int8 products; x is quantised once for all products that read it.

    Args:
        node: MatMul, or Gemm with its bias.
        scaled: Activations quantised so far; updated.
    """
    x, weights = node.input[0], node.input[1]
    base, nodes = node.name, []
    if x not in scaled:
        scaled.add(x)
        nodes += _quantize_activation(x)
    has_bias = len(node.input) > 2
    product = f"{base}.product" if has_bias else node.output[0]
    nodes += [
        helper.make_node(
            "MatMulIntegerToFloat",
            [f"{x}.u8", f"{weights}.int8", "int8.step", f"{weights}.scales", "int8.zero"],
            [f"{base}.columns"],
            f"{base}.int",
            domain=CONTRIB,
        ),
        helper.make_node("Mul", [f"{base}.columns", f"{x}.largest"], [product], f"{base}.row"),
    ]
    if has_bias:
        nodes.append(
            helper.make_node("Add", [product, node.input[2]], list(node.output), f"{base}.bias")
        )
    return nodes


def _quantize_activation(x: str) -> list[onnx.NodeProto]:
    """`X.u8`: rows of x over their largest magnitude, `X.largest`, in steps of 1/127, 128 added.

    QuantizeLinear gets one scale for all rows: with one per row, its kernel is several times
    slower. A row of zeros becomes some bytes, whose product the factor 0 then takes away.
    """
    return [
        helper.make_node("Abs", [x], [f"{x}.size"], f"{x}.abs"),
        helper.make_node(
            "ReduceMax", [f"{x}.size"], [f"{x}.largest"], f"{x}.max", axes=[-1], keepdims=1
        ),
        helper.make_node("Reciprocal", [f"{x}.largest"], [f"{x}.factor"], f"{x}.reciprocal"),
        helper.make_node("Mul", [x, f"{x}.factor"], [f"{x}.unit"], f"{x}.divide"),
        helper.make_node(
            "QuantizeLinear", [f"{x}.unit", "int8.step", "int8.zero"], [f"{x}.u8"], f"{x}.quantize"
        ),
    ]
