"""What `nerlet info` tells of an ONNX export that is not ours: its files, markers and graph."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nerlet.bi_graph import BiGraph
from nerlet.bundle import Bundle
from nerlet.columns import to_size
from nerlet.errors import NerletError
from nerlet.exports import PRECISIONS, list_data, list_graphs, list_names
from nerlet.graph import Graph, TokenGraph
from nerlet.manifest import (
    CONFIG_NAME,
    LABELS_TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
    read_json,
)
from nerlet.placement import open_whole
from nerlet.relation_graph import explain_frozen
from nerlet.sessions import CPU

Section = list[tuple[str, str]]
"""Names and values that belong together."""

# What each axis counts, by place; None: always of the same size.
_Axes = Mapping[str, tuple[str | None, ...]]
_INPUTS: _Axes = {
    "input_ids": ("texts", "pieces"),
    "attention_mask": ("texts", "pieces"),
    "words_mask": ("texts", "pieces"),
    "text_lengths": ("texts", None),
    "span_idx": ("texts", "spans", None),
    "span_mask": ("texts", "spans"),
    "labels_input_ids": ("labels", "pieces of labels"),
    "labels_attention_mask": ("labels", "pieces of labels"),
    "labels_embeddings": ("labels", None),
    "labels_embeds": ("labels", None),
}


def describe_export(bundle: Bundle) -> Section:
    """What there is, where the tokenizer is from, and whether the graph is as its config says.

    Args:
        bundle: Without a manifest.
    """
    names = list_names(bundle.path)
    graph = bundle.graph_path or bundle.cuda_graph_path
    return [
        (
            "graphs",
            ", ".join(_describe_file(bundle.path, name, names) for name in list_graphs(names)),
        ),
        ("tokenizer", _describe_tokenizer(bundle, names)),
        *_describe_labels(bundle),
        *(_describe_graph(bundle, graph) if graph else []),
    ]


def _describe_file(directory: Path, name: str, names: list[str]) -> str:
    """A graph with its precision by its name, and its size with that of its data."""
    files = [name, *list_data(names, name)]
    size = to_size(sum((directory / file).stat().st_size for file in files))
    precision = PRECISIONS.get(name.rpartition("/")[2], "unknown")
    data = f" with {', '.join(files[1:])}" if files[1:] else ""
    return f"{name} ({precision}, {size}{data})"


def _describe_tokenizer(bundle: Bundle, names: list[str]) -> str:
    pieces = bundle.tokenizer.get_vocab_size()
    limit = "" if TOKENIZER_CONFIG_NAME in names else f", no limit in {TOKENIZER_CONFIG_NAME}"
    return f"{TOKENIZER_NAME}, {pieces} pieces{limit}"


def _describe_labels(bundle: Bundle) -> Section:
    """How labels are read: beside markers in a text, or apart from it."""
    files = bundle.labels
    if files is None:
        return [("markers", _describe_markers(bundle))]
    told = f"{files.tokenizer.get_vocab_size()} pieces" if files.tokenizer else "missing"
    fused = [("labels and words", "attend to each other")] if files.is_fused else []
    return [("tokenizer of labels", f"{LABELS_TOKENIZER_NAME}, {told}"), *fused]


def _describe_markers(bundle: Bundle) -> str:
    """Their ids, and the config's where that is another."""
    told = ", ".join(f"{own.text} {own.id}" for own in (bundle.ent, bundle.sep))
    index = read_json(bundle.path / CONFIG_NAME).get("class_token_index")
    if index in (None, -1, bundle.ent.id):
        return told
    return f"{told}; {CONFIG_NAME} says {index} for {bundle.ent.text}: of another tokenizer?"


def _describe_graph(bundle: Bundle, path: Path) -> Section:
    """What the open graph says of itself, or why it cannot be opened."""
    try:
        graph = open_whole(bundle, path, [CPU], threads=1)
    except NerletError as error:
        return [("does not run", str(error))]
    axes = list(_list_axes(graph.text if isinstance(graph, BiGraph) else graph))
    fixed = [
        f"{name} takes {size} {counts}"
        for name, counts, size in axes
        if size.isdigit() and counts != "widths"
    ]
    shared = list(_find_shared(axes))
    section = [
        ("graph written by", graph.sessions.main.get_modelmeta().producer_name),
        ("sizes fixed in it", "; ".join(fixed)),
        ("names of axes", f"{'; '.join(shared)}; read by place" if shared else ""),
        ("relations", explain_frozen(graph.sessions) if bundle.rel else ""),
    ]
    return [(name, told) for name, told in section if told]


def _list_axes(graph: Graph | TokenGraph) -> Iterator[tuple[str, str, str]]:
    """Each axis whose size varies: its tensor, what it counts, and its name or fixed size."""
    session = graph.sessions.main
    counted = {**_INPUTS, "logits": _logits_axes(graph)}
    for arg in (*session.get_inputs(), *session.get_outputs()):
        for counts, size in zip(counted.get(arg.name, ()), arg.shape, strict=False):
            if counts:
                yield arg.name, counts, str(size or "")


def _logits_axes(graph: Graph | TokenGraph) -> tuple[str | None, ...]:
    if isinstance(graph, Graph):
        return "texts", "words", "widths", "labels"
    is_first = graph.is_parts_first
    return (None, "texts", "words", "labels") if is_first else ("texts", "words", "labels", None)


def _find_shared(axes: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Names that stand for several things."""
    meanings: dict[str, dict[str, None]] = {}
    for _, counts, size in axes:
        if size and not size.isdigit():
            meanings.setdefault(size, {})[counts] = None
    for name, several in meanings.items():
        if len(several) > 1:
            yield f"{name} is {' and '.join(several)}"
