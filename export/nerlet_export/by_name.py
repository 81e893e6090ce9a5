"""Large weights go past the tracer: it writes their names, and they are put in afterwards.

The tracer holds what it writes several times over. Here the layers that have nearly all weights,
linear ones and tables, are traced as stand-ins without them. A linear layer then becomes a product
and a sum, a table a lookup, and an array of the model's own its weight.
"""

import onnx
from onnx import helper
from torch import Tensor, nn

from nerlet_export.onnx_graph import Array, OnnxGraph, make_graph, split_weights
from nerlet_export.operators import STAND_IN, Linear, Lookup


def name_weights(model: nn.Module) -> None:
    """Have linear layers and tables traced as stand-ins; what they compute stays.

    Args:
        model: What is traced; changed.
    """
    for name, module in model.named_modules():
        named = _NAMED.get(type(module))
        if named is not None:
            module.__class__ = named
            module.name = name


class _NamedLinear(nn.Linear):
    name: str

    def forward(self, x: Tensor) -> Tensor:
        return Linear.apply(x, self.weight, self.bias, self.name)


class _NamedTable(nn.Embedding):
    name: str

    def forward(self, ids: Tensor) -> Tensor:
        return Lookup.apply(ids, self.weight, self.name)


_NAMED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _NamedLinear,
    nn.Embedding: _NamedTable,
}


def insert_weights(traced: onnx.ModelProto, model: nn.Module) -> OnnxGraph:
    """Put operators and weights in where stand-ins are.

    Args:
        traced: What the tracer made of the model; changed.
        model: As `name_weights` has left it. Graph and model share what is put in, so that a large
            model is in memory once.
    """
    named: dict[str, Array] = {}
    nodes: list[onnx.NodeProto] = []
    for node in traced.graph.node:
        if node.domain != STAND_IN:
            nodes.append(node)
            continue
        (name,) = (helper.get_attribute_value(own).decode() for own in node.attribute)
        weight = model.get_parameter(f"{name}.weight")
        if node.op_type == "Lookup":
            named[f"{name}.weight"] = weight.detach().numpy()
            nodes.append(_make_lookup(node, f"{name}.weight"))
            continue
        columns = weight.detach().T.contiguous()
        weight.data = columns.T  # the model's own is the same from now on
        named[f"{name}.columns"] = columns.numpy()
        nodes += _make_product(node, f"{name}.columns")
    del traced.graph.node[:]
    traced.graph.node.extend(nodes)
    opsets = [own for own in traced.opset_import if own.domain != STAND_IN]
    del traced.opset_import[:]
    traced.opset_import.extend(opsets)
    graph = split_weights(traced)
    return make_graph(graph.model, {**graph.weights, **named})


def _make_lookup(node: onnx.NodeProto, table: str) -> onnx.NodeProto:
    return helper.make_node("Gather", [table, *node.input], list(node.output), node.name)


def _make_product(node: onnx.NodeProto, columns: str) -> list[onnx.NodeProto]:
    """X @ W, or x @ W + b."""
    x, *biases = node.input
    product = f"{node.output[0]}.product" if biases else node.output[0]
    nodes = [helper.make_node("MatMul", [x, columns], [product], f"{node.name}/MatMul")]
    if biases:
        total = [product, *biases]
        nodes.append(helper.make_node("Add", total, list(node.output), f"{node.name}/Add"))
    return nodes
