"""The graph files of an ONNX export that is not ours: which there are, and which one runs where.

Names are relative to the model, with `/`, so that folders and repositories are read alike.

The CPU takes the float graph where there is one: it answers as the reference does. The reference's
quantised graphs take 0.8 to 1.1 of its time, and agree with it in 96% of entities only
(benchmarks/results/latency.json), so they run where they are alone or named; 4-bit weights, which
agree less and are no faster, come last. What computes in half precision, and bnb4, never runs on a
CPU unless named. CUDA takes half precision, then float; int8 has no kernels there.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote

from nerlet.errors import BundleError, InputError
from nerlet.manifest import FP16_GRAPH_NAME, GRAPH_NAME

# What the names of files say of their weights.
PRECISIONS = {
    GRAPH_NAME: "fp32",
    "model_quantized.onnx": "int8",
    "model_int8.onnx": "int8",
    "model_uint8.onnx": "uint8",
    "model_q4.onnx": "4-bit",
    FP16_GRAPH_NAME: "fp16",
    "model_q4f16.onnx": "4-bit, fp16",
    "model_bnb4.onnx": "4-bit (bnb)",
}
CPU_ORDER = (
    GRAPH_NAME,
    "model_quantized.onnx",
    "model_int8.onnx",
    "model_uint8.onnx",
    "model_q4.onnx",
)
CUDA_ORDER = (FP16_GRAPH_NAME, GRAPH_NAME)
_FOLDERS = ("", "onnx/")
_DATA = re.compile(r"[._]data(_\d+)?")  # what follows the graph's name in those of its data
CHECKPOINT_NAMES = ("model.safetensors", "pytorch_model.bin")
# Of a tensor outside the graph, as protobuf writes it: key "location", then a name of that length.
_LOCATION = re.compile(rb"\n\x08location\x12(.)", re.DOTALL)
_LFS = b"version https://git-lfs"


def list_names(directory: Path) -> list[str]:
    """Return the names of the files of a model directory and of its folder `onnx`."""
    return sorted(
        folder + path.name
        for folder in _FOLDERS
        if (directory / folder).is_dir()
        for path in (directory / folder).iterdir()
        if path.is_file()
    )


def list_graphs(names: Iterable[str]) -> list[str]:
    """Return the names of ONNX files."""
    return [name for name in names if name.endswith(".onnx")]


def choose_graph(names: Iterable[str], order: Sequence[str]) -> str | None:
    """Return the graph that runs, None where none does.

    Args:
        names: Of all files.
        order: `CPU_ORDER` or `CUDA_ORDER`.
    """
    places = [folder + name for name in order for folder in _FOLDERS]
    found = set(names)
    return next((place for place in places if place in found), None)


def find_graph(names: Iterable[str], graph: str, model: str | Path) -> str:
    """Return the name of the graph that a caller asks for.

    Args:
        names: Of all files.
        graph: Its name, with or without the folder `onnx/`.
        model: Where they are.

    Raises:
        InputError: There is no such graph.
    """
    known = list_graphs(names)
    for folder in _FOLDERS:
        if folder + graph in known:
            return folder + graph
    raise InputError(
        f"graph: expected one of {', '.join(known) or 'no file'}, which is what {model} has, "
        f"found {graph!r}"
    )


def list_data(names: Iterable[str], graph: str) -> list[str]:
    """Return the names of the files that hold a graph's external data."""
    return [
        name
        for name in names
        if name.startswith(graph) and _DATA.fullmatch(name.removeprefix(graph))
    ]


def check_graphs(names: Sequence[str], model: str | Path, checkpoint: str | None = None) -> None:
    """Check that there is a graph to choose.

    Args:
        names: Of all files.
        model: Where they are.
        checkpoint: A command that fetches the PyTorch checkpoint, where that is not here.

    Raises:
        BundleError: There is none, or one under a name that does not say what it is.
    """
    known = list_graphs(names)
    if any(name.rpartition("/")[2] in PRECISIONS for name in known):
        return
    expected = f"{model}: expected {GRAPH_NAME} or onnx/{GRAPH_NAME}"
    if known:
        raise BundleError(
            f"{expected}, found only {', '.join(known)}: name the one to run, with "
            f"graph={known[0]!r} in Python or --graph {quote(known[0])}"
        )
    weights = next((name for name in CHECKPOINT_NAMES if name in names), None)
    if weights is None:
        raise BundleError(
            f"{expected}, found no ONNX file and no PyTorch checkpoint; export the model to ONNX, "
            "or make a bundle: nerlet-export convert CHECKPOINT_DIR OUT_DIR"
        )
    folder = str(model).rpartition("/")[2] if checkpoint else str(model)
    fetch = f"{checkpoint} && " if checkpoint else ""
    raise BundleError(
        f"{expected}, found a PyTorch checkpoint ({weights}); make a bundle of it (it needs "
        f"nerlet's extra `export`): {fetch}nerlet-export convert {quote(folder)} "
        f"{quote(folder + '-nerlet')}"
    )


def explain_unreadable(path: Path) -> str | None:
    """Return what is missing where onnxruntime cannot open a graph; None where all is there."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"{path}: expected an ONNX graph, but it cannot be read ({error})"
    if content.startswith(_LFS):
        return f"{path}: expected an ONNX graph, found a Git LFS pointer; run `git lfs pull` there"
    locations = {
        content[match.end() : match.end() + match[1][0]].decode("utf-8", "replace")
        for match in _LOCATION.finditer(content)
    }
    missing = sorted(name for name in locations if not (path.parent / name).is_file())
    if not missing:
        return None
    return (
        f"{path}: expected its weights in {', '.join(missing)} beside it, found no such file; "
        "download it, too, and keep its name"
    )
