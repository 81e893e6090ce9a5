"""`select.onnx` of the runtime: which logits exceed their limits, computed where the logits are.

The runtime ships the file, as it has no `onnx` to make it with. After a change here:
`python -c "from nerlet_export.selection import write_selection; write_selection()"`.
"""

from pathlib import Path

import onnx

from nerlet.selection import SELECTION_PATH

# Opset 17 and IR 8, as the models have them. NonZero goes through the cells in their order.
_SELECTION = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "nerlet">
select (
    float[batch, words, max_width, labels] logits, float[batch, 1, 1, labels] limits
) => (int64[found, 4] cells, float[found] above)
{
    is_above = Greater (logits, limits)
    places = NonZero (is_above)
    cells = Transpose (places)
    above = GatherND (logits, cells)
}
"""


def build_selection() -> onnx.ModelProto:
    """Make the graph.

    Returns:
        Inputs `logits`, float32, (batch, words, max_width, labels), and `limits`, float32, (batch,
        1, 1, labels); outputs `cells`, int64, (found, 4), the places of the logits strictly above
        their limits in the order of the logits, and `above`, float32, (found,), those logits.
    """
    model = onnx.parser.parse_model(_SELECTION)
    onnx.checker.check_model(model)
    return model


def write_selection(path: Path = SELECTION_PATH) -> None:
    """Write the file that the runtime ships."""
    path.write_bytes(build_selection().SerializeToString(deterministic=True))
