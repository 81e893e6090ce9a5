"""Float graph -> int8 graph: what is quantised, what stays float, and why.

* Matrix products with constant weights: int8 weights, one scale per output channel, and 8-bit
  activations, one scale per row, found at run time: what a piece becomes depends on nothing else
  in the batch, and rows with outliers cost the others nothing. What a ReLU or a GELU made is never
  far below 0, so that its bytes begin about there, and its steps are half as wide.
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
from dataclasses import dataclass

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
TABLE_LEVELS = 127  # rows are only looked up, never multiplied in int8
# Tables of fewer rows gain nothing.
_LEAST_ROWS = 64
_AFTER_ERF = ("Add", "Mul", "Mul")  # (erf(x / sqrt 2) + 1) * x * 0.5


@dataclass(frozen=True, slots=True)
class _Bytes:
    """How a row of activations becomes bytes: `x / largest * levels + zero`.

    Attributes:
        name: Of its constants in the graph.
        zero: The byte of 0.
        levels: From there to the byte of the largest.
        least: What the largest is taken for where it is smaller; 0: it is taken as it is.
    """

    name: str
    zero: int
    levels: int
    least: float = 0.0

    @property
    def is_signed(self) -> bool:
        """Whether the largest is that in magnitude."""
        return self.zero == 128

    def constants(self) -> dict[str, NDArray[np.generic]]:
        """Those of the graph, by name."""
        arrays: dict[str, NDArray[np.generic]] = {
            f"{self.name}.step": np.array(1 / self.levels, dtype=np.float32),
            f"{self.name}.zero": np.array(self.zero, dtype=np.uint8),
        }
        if self.least:
            arrays[f"{self.name}.least"] = np.array(self.least, dtype=np.float32)
        return arrays


_SIGNED = _Bytes("int8", zero=128, levels=127)
_RELU = _Bytes("relu8", zero=0, levels=255)
# GELU's least is -0.16997, which these hold: 0.51 / 191 * 64 = 0.1709. A smaller zero, of finer
# steps, gains nothing more: drift 0.037 to 0.038 with 20, 32, 43, 64, and 0.045 as signed bytes.
_GELU = _Bytes("gelu8", zero=64, levels=191, least=0.51)


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
    rectified = _find_rectified(graph)
    nodes: list[onnx.NodeProto] = []
    scaled: dict[str, _Bytes] = {}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            nodes += _look_up_rows(node)
        elif node.op_type in ("MatMul", "Gemm") and node.input[1] in factors:
            nodes += _multiply_int8(node, scaled, rectified)
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
    for form in dict.fromkeys(scaled.values()):
        graph.initializer.extend(
            numpy_helper.from_array(array, name) for name, array in form.constants().items()
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


def _find_rectified(graph: onnx.GraphProto) -> dict[str, _Bytes]:
    """What a ReLU made, or a GELU in the operators that PyTorch writes it in: its bytes."""
    found = {node.output[0]: _RELU for node in graph.node if node.op_type == "Relu"}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    for erf in (node for node in graph.node if node.op_type == "Erf"):
        name = erf.output[0]
        steps: list[str] = []
        while len(users.get(name, ())) == 1 and len(steps) < len(_AFTER_ERF):
            (user,) = users[name]
            steps.append(user.op_type)
            name = user.output[0]
        if tuple(steps) == _AFTER_ERF:
            found[name] = _GELU
    return found


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


def _multiply_int8(
    node: onnx.NodeProto, scaled: dict[str, _Bytes], rectified: dict[str, _Bytes]
) -> list[onnx.NodeProto]:
    """X @ W as int8 products; x is quantised once for all products that read it.

    Args:
        node: MatMul, or Gemm with its bias.
        scaled: Activations quantised so far; updated.
        rectified: Activations that are signed no more than so.
    """
    x, weights = node.input[0], node.input[1]
    base, nodes = node.name, []
    form = rectified.get(x, _SIGNED)
    if x not in scaled:
        scaled[x] = form
        nodes += _quantize_activation(x, form)
    has_bias = len(node.input) > 2
    product = f"{base}.product" if has_bias else node.output[0]
    step, zero = f"{form.name}.step", f"{form.name}.zero"
    nodes += [
        helper.make_node(
            "MatMulIntegerToFloat",
            [f"{x}.u8", f"{weights}.int8", step, f"{weights}.scales", zero],
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


def _quantize_activation(x: str, form: _Bytes) -> list[onnx.NodeProto]:
    """`X.u8`, the bytes of rows of x over their largest, and `X.largest`.

    QuantizeLinear gets one scale for all rows: with one per row, its kernel is several times
    slower. A row of zeros becomes some bytes, whose product the factor 0 then takes away.
    """
    size = f"{x}.size" if form.is_signed else x
    top = f"{x}.top" if form.least else f"{x}.largest"
    nodes = [
        helper.make_node("ReduceMax", [size], [top], f"{x}.max", axes=[-1], keepdims=1),
        helper.make_node("Reciprocal", [f"{x}.largest"], [f"{x}.factor"], f"{x}.reciprocal"),
        helper.make_node("Mul", [x, f"{x}.factor"], [f"{x}.unit"], f"{x}.divide"),
        helper.make_node(
            "QuantizeLinear",
            [f"{x}.unit", f"{form.name}.step", f"{form.name}.zero"],
            [f"{x}.u8"],
            f"{x}.quantize",
        ),
    ]
    if form.is_signed:
        nodes.insert(0, helper.make_node("Abs", [x], [size], f"{x}.abs"))
    if form.least:
        least = [top, f"{form.name}.least"]
        nodes.insert(1, helper.make_node("Max", least, [f"{x}.largest"], f"{x}.floor"))
    return nodes
