"""Which file of a model runs where: its graph, or its two parts, opened on a device.

The CPU takes the two parts where a model has them, and never the half-precision graph. CUDA takes
that graph where there is one, else `model.onnx` where that is float. Of exports that are not ours,
`exports` says the same by the names of their files. Not measured on a GPU.
"""

from collections.abc import Sequence
from pathlib import Path

from nerlet.bi_graph import BiGraph, open_bi_graph
from nerlet.bundle import Bundle
from nerlet.cached import CachedGraph
from nerlet.errors import GraphError
from nerlet.exports import CPU_ORDER, CUDA_ORDER, list_graphs, list_names
from nerlet.graph import Graph, TokenGraph
from nerlet.manifest import FP16_GRAPH_NAME
from nerlet.relation_graph import explaining_frozen, is_of_tokens
from nerlet.selection import open_selector
from nerlet.sessions import CPU, CUDA, choose_providers, open_sessions


def open_graph(
    bundle: Bundle, device: str, providers: Sequence[str] | None, threads: int | None
) -> Graph | TokenGraph | CachedGraph | BiGraph:
    """Open the files of a model that its device runs.

    Args:
        bundle: The model directory.
        device: "cpu" or "cuda"; only read where `providers` is None.
        providers: Names of onnxruntime's execution providers.
        threads: CPU threads of one run; None: what the process may use.

    Raises:
        GraphError: The device cannot be had or runs none of the graphs, or the signature is
            another.
        InputError: `threads` is not a whole number of at least 1.
    """
    wanted = choose_providers(device, providers)
    if wanted == [CPU] and bundle.label_graph_path and bundle.text_graph_path:
        text = open_sessions(bundle.text_graph_path, threads=threads)
        label = open_sessions(bundle.label_graph_path, threads=1)
        return CachedGraph(text, label, bundle.ent.id)
    path = bundle.cuda_graph_path if CUDA in wanted else bundle.graph_path
    if path is None:
        raise GraphError(_explain_missing(bundle, is_cuda=CUDA in wanted))
    return open_whole(bundle, path, wanted, threads)


def open_whole(
    bundle: Bundle, path: Path, providers: Sequence[str], threads: int | None
) -> Graph | TokenGraph | BiGraph:
    """Open a file that holds the whole model; arguments and errors as in `open_graph`."""
    sessions = open_sessions(path, providers=providers, threads=threads)
    if bundle.labels is not None:
        return open_bi_graph(bundle, bundle.labels, sessions)
    if bundle.rel is not None and is_of_tokens(sessions):
        with explaining_frozen(sessions):  # its probe may already fail
            return TokenGraph(sessions, bundle.ent.id, bundle.sep.id)
    if bundle.architecture == "token":
        return TokenGraph(sessions, bundle.ent.id, bundle.sep.id)
    return Graph(sessions, bundle.max_width, open_selector(sessions))


def _explain_missing(bundle: Bundle, *, is_cuda: bool) -> str:
    """Return what to do where a model has no graph for a device."""
    if bundle.manifest is not None:
        return (
            f"{bundle.path}: expected a float graph for {CUDA}, found int8 alone, whose products "
            "(MatMulIntegerToFloat) CUDA does not have and would leave to the CPU; add "
            f"{FP16_GRAPH_NAME} with `nerlet-export convert CHECKPOINT_DIR {bundle.path} --fp16`"
        )
    device, order = (CUDA, CUDA_ORDER) if is_cuda else (CPU, CPU_ORDER)
    found = list_graphs(list_names(bundle.path))
    return (
        f"{bundle.path}: expected a graph for {device} ({' or '.join(order)}), found "
        f"{', '.join(found)}; get one of those, take the other device, or run one all the same by "
        f"its name: graph={found[0]!r}"
    )
