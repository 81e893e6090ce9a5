"""int8 and weight-only schemes for one float graph: what `quantization.py` compares.

The embedding tables are int8 by row in all. Where nothing else is said, activations are int8 and
weights are int8 by output channel, limited in pairs (`nerlet_export.quantize`), so that no product
saturates without VNNI. "By row": one activation scale for each row, found at run time; "by tensor":
one for all rows; "static": one that was found on calibration texts. "Smoothed" graphs have their
activations' large channels moved into the weights beforehand.

Source of smoothing: SmoothQuant (Xiao, Lin, Seznec, Wu, Demouth, Han, 2023), alpha 0.5.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nerlet.batch import Tensor, make_batch
from nerlet.examples import Dataset
from nerlet.prompt import Prompt
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.graph import all_nodes
from nerlet_export.onnx_graph import copy_model, join_weights, split_weights
from nerlet_export.operators import CONTRIB
from nerlet_export.quantize import quantize_columns, quantize_graph
from nerlet_export.samples import make_prompt

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]
Activations = dict[str, Floats]  # name -> (pieces, channels)
Ranges = dict[str, tuple[float, float]]
Multiply = Callable[[onnx.NodeProto, Floats, Arrays], list[onnx.NodeProto]]

SHIPPED = "by row"
_ENCODER = "/model/encoder/"  # how the names of its nodes begin
_LAYER_PRODUCTS = 4  # of one encoder layer: queries to values, their output, two of the inner layer
_FLOAT_PRODUCTS = 1  # accuracy_level of MatMulNBits: activations stay float
_INT8_PRODUCTS = 4


def make_schemes(
    exact: onnx.ModelProto, checkpoint: Checkpoint, calibration: Sequence[Dataset]
) -> dict[str, onnx.ModelProto]:
    """The float graph and each scheme's graph, by name.

    Args:
        exact: The float graph; not changed.
        checkpoint: Whose graph it is.
        calibration: Texts that static scales and smoothing are found on.
    """
    activations = read_activations(exact, checkpoint, calibration)
    smoothed, smooth_activations = smooth(exact, activations)
    ends = _find_ends(exact)
    widest = _static(_find_ranges(activations, _widest))
    smooth_widest = _static(_find_ranges(smooth_activations, _widest))
    return {
        "fp32": exact,
        SHIPPED: quantize(exact),
        "by row, smoothed": quantize(smoothed),
        "by row, 7-bit weights": _with_weights(quantize(exact), exact, 64),
        "by row, 8-bit weights": _with_weights(quantize(exact), exact, 127),
        "by tensor": _rewrite(exact, multiply_by_tensor),
        "static, min and max": _rewrite(exact, widest),
        "static, 99.99%": _rewrite(exact, _static(_find_ranges(activations, _percentile))),
        "static, least squares": _rewrite(
            exact, _static(_find_ranges(activations, _least_squares))
        ),
        "static, smoothed": _rewrite(smoothed, smooth_widest),
        "static, ends in float": _rewrite(exact, widest, in_float=ends),
        "static, smoothed, ends in float": _rewrite(smoothed, smooth_widest, in_float=ends),
        "blocks of 128, 8 bits": _rewrite(exact, _by_block(8, 128, _INT8_PRODUCTS)),
        "blocks of 32, 8 bits": _rewrite(exact, _by_block(8, 32, _INT8_PRODUCTS)),
        "blocks of 32, 4 bits": _rewrite(exact, _by_block(4, 32, _INT8_PRODUCTS)),
        "weights only, 8 bits": _rewrite(exact, _by_block(8, 32, _FLOAT_PRODUCTS)),
        "weights only, 4 bits": _rewrite(exact, _by_block(4, 32, _FLOAT_PRODUCTS)),
    }


def quantize(exact: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise a float graph as it is shipped."""
    return join_weights(quantize_graph(split_weights(exact)))


def smooth(exact: onnx.ModelProto, activations: Activations) -> tuple[onnx.ModelProto, Activations]:
    """Move the large channels of what a LayerNorm gives a product into the product's weights.

    The norm's own factors do the division; whoever else reads it gets it multiplied back.

    Args:
        exact: A float graph; not changed.
        activations: The left sides of its products.

    Returns:
        A graph of the same logits, and the left sides of its products.
    """
    model = copy_model(exact)
    graph = model.graph
    norms = {n.output[0]: n for n in graph.node if n.op_type == "LayerNormalization"}
    largest: dict[str, Floats] = {}  # of the weights, by channel of the norm that they read
    readers = [(node, weights) for node, weights in _products(graph) if node.input[0] in norms]
    for node, weights in readers:
        x, own = node.input[0], np.abs(weights).max(axis=1)
        largest[x] = np.maximum(largest.get(x, own), own)
    factors = {
        x: np.sqrt(np.maximum(np.abs(activations[x]).max(axis=0), 1e-5) / np.maximum(own, 1e-5))
        for x, own in largest.items()
    }
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    arrays: Arrays = {f"{x}.factors": own for x, own in factors.items()}
    for x, own in factors.items():  # equal norms may share their weights: each gets its own
        for position, name in enumerate(norms[x].input[1:3], 1):
            arrays[f"{x}.norm{position}"] = numpy_helper.to_array(tensors[name]) / own
            norms[x].input[position] = f"{x}.norm{position}"
    for node, weights in readers:
        arrays[f"{node.name}.weights"] = weights * factors[node.input[0]][:, None]
        node.input[1] = f"{node.name}.weights"
    smoothed = {node.name for node, _ in readers}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in smoothed:
            node.input[:] = [f"{x}.back" if x in factors else x for x in node.input]
        nodes.append(node)
        nodes += [
            helper.make_node("Mul", [x, f"{x}.factors"], [f"{x}.back"])
            for x in factors.keys() & set(node.output)
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in all_nodes(graph) for name in node.input}
    kept = [tensor for name, tensor in tensors.items() if name in used]
    kept += [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    divided = {x: activations[x] / own for x, own in factors.items()}
    return model, {**activations, **divided}


def multiply_by_tensor(
    node: onnx.NodeProto, weights: Floats, arrays: Arrays
) -> list[onnx.NodeProto]:
    """One dynamic scale for the whole activation."""
    scaled = [f"{node.name}.u8", f"{node.name}.scale", f"{node.name}.zero"]
    quantize = helper.make_node("DynamicQuantizeLinear", [node.input[0]], scaled)
    return [quantize, _int8_product(node, weights, arrays, scaled)]


def _static(ranges: Ranges) -> Multiply:
    """One constant scale for each activation."""

    def multiply(node: onnx.NodeProto, weights: Floats, arrays: Arrays) -> list[onnx.NodeProto]:
        low, high = min(ranges[node.input[0]][0], 0), max(ranges[node.input[0]][1], 0)
        scale = (high - low) / 255
        scaled = [f"{node.name}.u8", f"{node.name}.scale", f"{node.name}.zero"]
        arrays[scaled[1]] = np.array(scale, dtype=np.float32)
        arrays[scaled[2]] = np.array(round(-low / scale), dtype=np.uint8)
        quantize = helper.make_node("QuantizeLinear", [node.input[0], *scaled[1:]], scaled[:1])
        return [quantize, _int8_product(node, weights, arrays, scaled)]

    return multiply


def _int8_product(
    node: onnx.NodeProto, weights: Floats, arrays: Arrays, scaled: Sequence[str]
) -> onnx.NodeProto:
    """The product of a quantised activation: its values, scale and zero."""
    u8, scale, zero = scaled
    names = [f"{node.name}.int8", f"{node.name}.scales"]
    arrays[names[0]], arrays[names[1]] = quantize_columns(weights)
    read = [u8, names[0], scale, names[1], zero]
    return helper.make_node("MatMulIntegerToFloat", read, list(node.output), domain=CONTRIB)


def _by_block(bits: int, block: int, accuracy_level: int) -> Multiply:
    """The operator of onnxruntime's with a scale for each block of a column of weights.

    With int8 products it quantises activations by row and block itself.
    """

    def multiply(node: onnx.NodeProto, weights: Floats, arrays: Arrays) -> list[onnx.NodeProto]:
        inputs, outputs = weights.shape
        blocks = weights.T.reshape(outputs, inputs // block, block)
        middle = 2 ** (bits - 1)
        scales = np.abs(blocks).max(-1, keepdims=True) / (middle - 1)
        values = (np.rint(blocks / scales) + middle).astype(np.uint8)
        if bits == 4:
            values = values[..., 0::2] | (values[..., 1::2] << 4)
        arrays[f"{node.name}.values"], arrays[f"{node.name}.scales"] = values, scales[..., 0]
        read = [node.input[0], f"{node.name}.values", f"{node.name}.scales"]
        attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": block}
        return [
            helper.make_node(
                "MatMulNBits",
                read,
                list(node.output),
                domain=CONTRIB,
                accuracy_level=accuracy_level,
                **attributes,
            )
        ]

    return multiply


def _round(weights: Floats, levels: int) -> tuple[NDArray[np.int8], Floats]:
    scales = (np.abs(weights).max(axis=0) / levels).astype(np.float32)
    return np.rint(weights / scales).astype(np.int8), scales


def _products(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, Floats]]:
    """Every product with a constant matrix, and the matrix."""
    matrices = {t.name: t for t in graph.initializer if len(t.dims) == 2}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            yield node, numpy_helper.to_array(matrices[node.input[1]])


def _find_ends(exact: onnx.ModelProto) -> frozenset[str]:
    """The products of the encoder's first layer, and those after the encoder."""
    names = [node.name for node, _ in _products(exact.graph)]
    encoder = [name for name in names if name.startswith(_ENCODER)]
    return frozenset(names) - frozenset(encoder[_LAYER_PRODUCTS:])


def _rewrite(
    exact: onnx.ModelProto, multiply: Multiply, in_float: Collection[str] = ()
) -> onnx.ModelProto:
    """The graph with each product with a constant matrix rewritten, tables int8 by row."""
    model = copy_model(exact)
    products = {node.name: weights for node, weights in _products(exact.graph)}
    rewritten = products.keys() - set(in_float)
    used = {node.input[1] for node in exact.graph.node if node.name in rewritten}
    arrays: Arrays = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name in rewritten:
            nodes += multiply(node, products[node.name], arrays)
            continue
        if node.name in products:  # the same operator by a name that `quantize_graph` leaves alone
            node.op_type, node.domain = "FusedMatMul", CONTRIB
        nodes.append(node)
    kept = [tensor for tensor in exact.graph.initializer if tensor.name not in used]
    kept += [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    if CONTRIB not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return quantize(model)


def _with_weights(model: onnx.ModelProto, exact: onnx.ModelProto, levels: int) -> onnx.ModelProto:
    """Our scheme with other weights, which saturate without VNNI where `levels` is above 64."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, weights in _products(exact.graph):
        for part, array in zip(("int8", "scales"), _round(weights, levels), strict=True):
            name = f"{node.input[1]}.{part}"
            tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return model


def read_activations(
    exact: onnx.ModelProto, checkpoint: Checkpoint, datasets: Sequence[Dataset]
) -> Activations:
    """What the left sides of all products with constant matrices are on some texts."""
    model = copy_model(exact)
    names = list(dict.fromkeys(node.input[0] for node, _ in _products(exact.graph)))
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(model.SerializeToString())
    prompts = [own for dataset in datasets for own in make_prompts(checkpoint, dataset)]
    runs = [session.run(names, make_feeds(checkpoint, [own])) for own in prompts]
    return {
        name: np.concatenate([values.reshape(-1, values.shape[-1]) for values in column])
        for name, column in zip(names, zip(*runs, strict=True), strict=True)
    }


def _find_ranges(activations: Activations, find: Callable[[Floats], tuple[float, float]]) -> Ranges:
    return {name: find(values) for name, values in activations.items()}


def _widest(values: Floats) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _percentile(values: Floats) -> tuple[float, float]:
    """The range without one value in ten thousand on each side."""
    low, high = np.percentile(values, [0.01, 99.99])
    return float(low), float(high)


def _least_squares(values: Floats) -> tuple[float, float]:
    """The range, a fraction of the whole one, whose rounding and clipping cost least."""
    some = np.random.default_rng(0).choice(values.ravel(), 100_000)
    best = (np.inf, 1.0)
    for part in np.linspace(0.2, 1.0, 17):
        low, high = min(values.min() * part, 0.0), max(values.max() * part, 0.0)
        scale = (high - low) / 255
        rounded = np.rint(np.clip(some, low, high) / scale) * scale
        best = min(best, (float(np.mean((rounded - some) ** 2)), float(part)))
    return float(values.min() * best[1]), float(values.max() * best[1])


def make_prompts(checkpoint: Checkpoint, dataset: Dataset) -> list[Prompt]:
    """Each text of a file with its own labels."""
    return [make_prompt(checkpoint, " ".join(e.words), e.labels) for e in dataset.examples]


def make_feeds(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    """The tensors of one run of a graph."""
    config = checkpoint.model.config
    return make_batch(prompts, config.max_width, word_shapes=config.word_shapes)


def open_session(source: bytes | str) -> ort.InferenceSession:
    """Open a graph, its bytes or its path, on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
