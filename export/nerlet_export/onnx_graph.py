"""ONNX graphs in memory: the nodes are a message of protobuf, the weights arrays beside it.

A message holds 2 GB at most, and whoever writes, reads or checks one copies all that is in it. So a
large model's weights never get into one: graphs and sessions of onnxruntime read the same arrays,
and a large graph is written to two files, array by array.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nerlet.manifest import WEIGHTS_NAME

Array = NDArray[Any]  # of numbers of any type
# What has axes and one of these types is a weight; whole numbers shape the graph and stay in it.
_WEIGHT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8})
# Up to this size one file holds a graph and its weights.
_MOST_BYTES = 10**9
# In the file of weights: those of so many bytes, each at a multiple of the other.
_LEAST_BYTES = 1024
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class OnnxGraph:
    """A graph.

    Attributes:
        model: Its weights are initialisers with type and shape, without data.
        weights: Their data by name, each contiguous. They may be the PyTorch model's own.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Array]


def make_graph(model: onnx.ModelProto, weights: Mapping[str, Array]) -> OnnxGraph:
    """Join nodes and weights.

    Args:
        model: Kept, and changed: what it has or says of weights is replaced.
        weights: All that its nodes read, by name.
    """
    laid = {name: np.ascontiguousarray(array) for name, array in weights.items()}
    others = [own for own in model.graph.initializer if not _is_weight(own)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    model.graph.initializer.extend(_declare(name, array) for name, array in laid.items())
    return OnnxGraph(model, laid)


def split_weights(model: onnx.ModelProto) -> OnnxGraph:
    """Copy a whole model, its weights beside it."""
    inside = [tensor for tensor in model.graph.initializer if _is_weight(tensor)]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in inside}
    return make_graph(copy_model(model), weights)


def join_weights(graph: OnnxGraph) -> onnx.ModelProto:
    """Make a whole model of a graph, its weights copied into it."""
    whole = copy_model(graph.model)
    for tensor in whole.graph.initializer:
        if _is_weight(tensor):
            tensor.CopyFrom(numpy_helper.from_array(graph.weights[tensor.name], tensor.name))
    return whole


def copy_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def check_graph(graph: OnnxGraph) -> None:
    """Check that nodes and types are valid ONNX.

    Raises:
        onnx.checker.ValidationError: They are not.
    """
    model = copy_model(graph.model)  # the checker wants files of weights: here they are inputs
    weights = [own for own in model.graph.initializer if _is_weight(own)]
    others = [own for own in model.graph.initializer if not _is_weight(own)]
    del model.graph.initializer[:]
    model.graph.initializer.extend(others)
    model.graph.input.extend(
        helper.make_tensor_value_info(own.name, own.data_type, own.dims) for own in weights
    )
    onnx.checker.check_model(model)


def open_graph(graph: OnnxGraph, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a graph on the CPU; its weights are not copied."""
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    source = graph.model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    session.weights = values  # which it reads, and does not keep
    return session


def write_graphs(graphs: Mapping[str, OnnxGraph], folder: Path) -> None:
    """Write graphs by name: a small one with its weights in it, others beside one file for all.

    Args:
        graphs: By name of the file.
        folder: Where `WEIGHTS_NAME` goes, too; there each weight is stored once. One that is there
            is added to.
    """
    size = sum(array.nbytes for graph in graphs.values() for array in graph.weights.values())
    if len(graphs) == 1 and size <= _MOST_BYTES:
        ((name, graph),) = graphs.items()
        onnx.save_model(join_weights(graph), str(folder / name))
        return
    places: dict[bytes, int] = {}
    with (folder / WEIGHTS_NAME).open("ab") as file:
        for name, graph in graphs.items():
            placed = _place_weights(graph, file, places)
            (folder / name).write_bytes(placed.SerializeToString())


def _place_weights(graph: OnnxGraph, file: BinaryIO, places: dict[bytes, int]) -> onnx.ModelProto:
    """Write weights to a file, unless it has them; the model says where each one lies."""
    placed = copy_model(graph.model)
    for tensor in placed.graph.initializer:
        if not _is_weight(tensor):
            continue
        array = graph.weights[tensor.name]
        if array.nbytes < _LEAST_BYTES:
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            continue
        key = hashlib.sha256(array.data).digest()
        if key not in places:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            places[key] = file.tell()
            file.write(array.data)
        tensor.external_data.add(key="offset", value=str(places[key]))
        tensor.external_data.add(key="length", value=str(array.nbytes))
    return placed


def _is_weight(tensor: TensorProto) -> bool:
    return bool(tensor.dims) and tensor.data_type in _WEIGHT_TYPES


def _declare(name: str, array: Array) -> TensorProto:
    """A tensor without data."""
    tensor = TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value=WEIGHTS_NAME)
    return tensor
