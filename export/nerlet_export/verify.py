"""Is the graph the model? Signature and float logits must agree; int8 drift is measured.

Limits stand in one table below, half precision's in `half`. A graph that fails is not written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from nerlet.batch import Tensor
from nerlet.cached import CachedGraph, LabelPieces
from nerlet.decode import Span, select_spans
from nerlet.errors import GraphError
from nerlet.evaluate import count_matches
from nerlet.manifest import LABEL_GRAPH_NAME, TEXT_GRAPH_NAME
from nerlet.prompt import Prompt
from nerlet.scores import find_candidates, sigmoid
from nerlet.sessions import Sessions
from nerlet.threads import count_usable_threads
from nerlet.token_scores import find_token_candidates
from nerlet_export.bi import LABELS_INPUT, PIECES_INPUTS
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.compare import agreement
from nerlet_export.config import ModelConfig
from nerlet_export.graph import (
    OUTPUT,
    Port,
    input_ports,
    labels_ports,
    optional_inputs,
    output_ports,
)
from nerlet_export.onnx_graph import OnnxGraph, open_graph
from nerlet_export.samples import Sample, draw_sample, make_prompt
from nerlet_export.token_heads import PARTS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Floats = NDArray[np.float32]


class Session(Protocol):
    """What runs a graph, as onnxruntime's does."""

    def run(self, outputs: list[str], feeds: dict[str, Tensor]) -> list[Any]:
        """Return the outputs by name."""


# The limits. Float: largest difference of a logit, absolute plus relative to its size.
FLOAT_ATOL = 1e-4
FLOAT_RTOL = 1e-5
PARTS_ATOL = 1e-5  # of a score
BATCHES = 12  # ragged batches of 1 to 5 texts that every graph is compared on


@dataclass(frozen=True, slots=True)
class FloatReport:
    """Float graph against PyTorch.

    Attributes:
        max_difference: Largest difference of a logit over all compared cells.
        tolerance: What was allowed at that cell.
        cells: Logits compared.
    """

    max_difference: float
    tolerance: float
    cells: int


@dataclass(frozen=True, slots=True)
class PartsReport:
    """The two graphs of labels and texts against PyTorch.

    Attributes:
        max_score_difference: Over all compared cells.
        tolerance: What was allowed.
        cells: Scores compared.
    """

    max_score_difference: float
    tolerance: float
    cells: int


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Int8 or half-precision graph against float graph on the same prompts.

    Attributes:
        mean_score_drift: Mean absolute difference of a score.
        max_score_drift: Largest one.
        logit_error: Root mean square difference of logits over their standard deviation.
        entity_agreement: F1 of the other graph's entities, the float graph's taken as truth, at
            `threshold`; 1 where neither finds any.
        entities: Entities that the float graph finds.
        threshold: What counts as an entity.
    """

    mean_score_drift: float
    max_score_drift: float
    logit_error: float
    entity_agreement: float
    entities: int
    threshold: float


def check_signature(model: onnx.ModelProto, config: ModelConfig) -> None:
    """Check names, element types, ranks and dynamic axes.

    Raises:
        GraphError: Something differs; the message says what.
    """
    defaults = {tensor.name for tensor in model.graph.initializer}
    found = {value.name: value for value in model.graph.input if value.name not in defaults}
    inputs = input_ports(config)
    if list(found) != list(inputs):
        raise GraphError(f"graph inputs are {list(found)}, expected {list(inputs)}")
    for name, (dtype, axes) in inputs.items():
        _check_value(found[name], dtype, axes)
    optional = [value.name for value in model.graph.input if value.name in defaults]
    expected = list(optional_inputs(config))
    if optional != expected:
        raise GraphError(f"optional graph inputs are {optional}, expected {expected}")
    _check_outputs(model, output_ports(config))


def check_labels_signature(model: onnx.ModelProto, config: ModelConfig) -> None:
    """Check the same of the graph that reads a bi-encoder's labels.

    Raises:
        GraphError: Something differs; the message says what.
    """
    *inputs, output = labels_ports(config).items()
    found = [value.name for value in model.graph.input]
    if found != [own for own, _ in inputs]:
        raise GraphError(f"graph inputs are {found}, expected {[own for own, _ in inputs]}")
    for value, (_, own) in zip(model.graph.input, inputs, strict=True):
        _check_value(value, *own)
    _check_outputs(model, dict([output]))


def _check_outputs(model: onnx.ModelProto, expected: Mapping[str, Port]) -> None:
    names = [value.name for value in model.graph.output]
    if names != list(expected):
        raise GraphError(f"graph outputs are {names}, expected {list(expected)}")
    for value in model.graph.output:
        _check_value(value, *expected[value.name])


def _check_value(value: onnx.ValueInfoProto, dtype: int, axes: tuple[str | int, ...]) -> None:
    tensor = value.type.tensor_type
    found = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    if (tensor.elem_type, found) != (dtype, axes):
        raise GraphError(
            f"{value.name}: element type {tensor.elem_type} and axes {found}, expected {dtype} "
            f"and {axes}"
        )


def compare_float(
    checkpoint: Checkpoint, graph: OnnxGraph, labels: OnnxGraph | None = None
) -> FloatReport:
    """Compare a float graph with PyTorch on ragged batches.

    Args:
        checkpoint: The model in PyTorch.
        graph: Its float graph.
        labels: The graph that reads labels, where it is a bi-encoder.

    Raises:
        GraphError: A logit differs by more than the tolerance, or a shape differs.
    """
    session = open_whole(graph, labels)
    worst = FloatReport(0.0, FLOAT_ATOL, 0)
    for seed in range(BATCHES):
        sample = draw_sample(checkpoint, seed=seed + 1, size=1 + seed % 5)
        expected = run_torch(checkpoint, sample.feeds)
        found = run_graph(session, sample.feeds)
        if found.shape != expected.shape:
            raise GraphError(f"logits have shape {found.shape}, PyTorch's {expected.shape}")
        known = known_cells(sample)
        difference = np.abs(found - expected)[known]
        allowed = FLOAT_ATOL + FLOAT_RTOL * np.abs(expected)[known]
        place = int((difference - allowed).argmax())
        if not difference[place] <= allowed[place]:
            raise GraphError(
                f"the float graph differs from PyTorch: a logit by {difference[place]:.2e}, "
                f"allowed {allowed[place]:.2e} (batch {seed}); the graph is not written"
            )
        top = int(difference.argmax())
        cells = worst.cells + len(difference)
        if difference[top] >= worst.max_difference:
            worst = FloatReport(float(difference[top]), float(allowed[top]), cells)
        else:
            worst = FloatReport(worst.max_difference, worst.tolerance, cells)
    return worst


def compare_parts(checkpoint: Checkpoint, parts: Mapping[str, OnnxGraph]) -> PartsReport:
    """Compare a model's two float graphs with PyTorch's whole, text by text.

    Raises:
        GraphError: A score differs by more than `PARTS_ATOL`.
    """
    graph = open_parts(checkpoint, parts)
    worst, cells = 0.0, 0
    for seed in range(4 * BATCHES):
        sample = draw_sample(checkpoint, seed=seed + 1, size=1)
        prompt, labels = sample_prompt(checkpoint, sample)
        found = sigmoid(graph.run(prompt, labels))
        expected = sigmoid(run_torch(checkpoint, sample.feeds)[0])
        known = known_cells(sample)[0]
        worst = max(worst, float(np.abs(found - expected)[known].max()))
        cells += int(known.sum())
        if not worst <= PARTS_ATOL:
            raise GraphError(
                f"the graphs of labels and texts differ from PyTorch: a score by {worst:.2e}, "
                f"allowed {PARTS_ATOL:.0e} (text {seed}); the graphs are not written"
            )
    return PartsReport(worst, PARTS_ATOL, cells)


def open_parts(checkpoint: Checkpoint, parts: Mapping[str, OnnxGraph]) -> CachedGraph:
    """Open a model's two graphs as the runtime does."""
    text, label = (
        Sessions(lambda _, own=parts[name]: open_session(own), Path(name), 1)  # type: ignore[misc]
        for name in (TEXT_GRAPH_NAME, LABEL_GRAPH_NAME)
    )
    return CachedGraph(text, label, checkpoint.pieces.ent_id)


def sample_prompt(checkpoint: Checkpoint, sample: Sample) -> tuple[Prompt, LabelPieces]:
    """The one text of a sample, laid out without its labels, and their pieces."""
    (text,), (labels,) = sample.texts, sample.labels
    pieces = checkpoint.pieces.encode_units(labels)
    return make_prompt(checkpoint, text, ()), tuple(map(tuple, pieces))


def measure_drift(
    checkpoint: Checkpoint,
    float_graph: OnnxGraph,
    int8_graph: OnnxGraph,
    *,
    threshold: float,
    labels: tuple[OnnxGraph, OnnxGraph] | None = None,
) -> DriftReport:
    """Measure what quantisation changes, one text a run as the runtime does on the CPU.

    Args:
        checkpoint: The model in PyTorch.
        float_graph: Its graph.
        int8_graph: The same, quantised.
        threshold: What counts as an entity.
        labels: The two graphs that read labels, where it is a bi-encoder.
    """
    samples = [draw_sample(checkpoint, seed=1000 + seed, size=1) for seed in range(8 * BATCHES)]
    float_labels, int8_labels = labels or (None, None)
    exact = run_samples(float_graph, samples, float_labels)
    rough = run_samples(int8_graph, samples, int8_labels)
    return compare_logits(samples, exact, rough, threshold)


def run_samples(
    graph: OnnxGraph,
    samples: Sequence[Sample],
    labels: OnnxGraph | None = None,
    *,
    is_optimized: bool = True,
) -> list[Floats]:
    """Logits of each sample. The session is closed then: a large graph's takes gigabytes."""
    session = open_whole(graph, labels, is_optimized=is_optimized)
    return [run_graph(session, sample.feeds) for sample in samples]


def compare_logits(
    samples: Sequence[Sample],
    float_logits: Sequence[Floats],
    other_logits: Sequence[Floats],
    threshold: float,
) -> DriftReport:
    """Measure how far scores and entities of one graph are from those of the float one."""
    exact, rough = [], []
    counts = count_matches((), ())
    for sample, *logits in zip(samples, float_logits, other_logits, strict=True):
        find = find_spans if sample.is_of_spans else find_token_spans
        known = known_cells(sample)
        exact.append(logits[0][known])
        rough.append(logits[1][known])
        lengths = sample.feeds["text_lengths"][:, 0].tolist()
        for row, (length, labels) in enumerate(zip(lengths, sample.labels, strict=True)):
            cut = cut_padding(sample, row, length, len(labels))
            spans = [{_key(span) for span in find(own[cut], threshold)} for own in logits]
            counts += count_matches(spans[0], spans[1])
    a, b = np.concatenate(exact), np.concatenate(rough)
    drift = np.abs(sigmoid(a) - sigmoid(b))
    return DriftReport(
        mean_score_drift=float(drift.mean()),
        max_score_drift=float(drift.max()),
        logit_error=float(np.sqrt(np.mean((a - b) ** 2)) / max(float(a.std()), 1e-9)),
        entity_agreement=agreement(counts),
        entities=counts.annotated,
        threshold=threshold,
    )


def cut_padding(sample: Sample, row: int, words: int, labels: int) -> tuple[slice | int, ...]:
    """Where a text's own logits stand in its batch's."""
    whole = (slice(None),) if sample.is_of_spans else ()
    return row, slice(words), *whole, slice(labels)


def find_spans(logits: Floats, threshold: float) -> list[Span]:
    """Decode one text's logits (L, K, C), flat."""
    candidates = find_candidates(logits, threshold=threshold)
    return select_spans(candidates, nested=False, multi_label=False)


def find_token_spans(logits: Floats, threshold: float) -> list[Span]:
    """Decode one text's logits (L, C, 3) of a token-level model, flat."""
    candidates = find_token_candidates(logits, threshold=threshold)
    return select_spans(candidates, nested=False, multi_label=False)


def _key(span: Span) -> tuple[int, int, int]:
    return span.start, span.end, span.label


def open_session(source: OnnxGraph | Path, *, is_optimized: bool = True) -> ort.InferenceSession:
    """Open a graph on the CPU, quietly."""
    options = ort.SessionOptions()
    if not is_optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.intra_op_num_threads = count_usable_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if isinstance(source, OnnxGraph):
        return open_graph(source, options)
    return ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def open_whole(graph: OnnxGraph, labels: OnnxGraph | None, *, is_optimized: bool = True) -> Session:
    """Open a model's graph on the CPU, with that of a bi-encoder's labels before it."""
    session: Session = open_session(graph, is_optimized=is_optimized)
    return session if labels is None else LabelsFirst(open_session(labels), session)


class LabelsFirst:
    """The two graphs of a bi-encoder as one, from pieces to logits."""

    def __init__(self, labels: Session, text: Session) -> None:
        self._labels = labels
        self._text = text

    def run(self, outputs: list[str], feeds: dict[str, Tensor]) -> list[Any]:
        """Return the outputs of the text's graph."""
        others = {name: own for name, own in feeds.items() if name not in PIECES_INPUTS}
        (embeddings,) = self._labels.run(
            [LABELS_INPUT], {name: feeds[name] for name in PIECES_INPUTS}
        )
        return self._text.run(outputs, {**others, LABELS_INPUT: embeddings})


def run_graph(session: Session, feeds: Mapping[str, Tensor]) -> Floats:
    """Logits of a batch, (B, L, K, C)."""
    logits: Floats = session.run([OUTPUT], dict(feeds))[0]
    return logits


def run_torch(checkpoint: Checkpoint, feeds: Mapping[str, Tensor]) -> Floats:
    """The same from PyTorch."""
    logits: Floats = run_torch_whole(checkpoint, feeds)[0]
    return logits


def run_torch_whole(
    checkpoint: Checkpoint, feeds: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """All outputs of PyTorch: a joint model has more than logits."""
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
        found = checkpoint.model(**checkpoint.model.prepare(tensors))
    return [own.numpy() for own in (found if isinstance(found, tuple) else (found,))]


def known_cells(sample: Sample) -> NDArray[np.bool_]:
    """Which cells of logits mean something: spans or words of the text, labels of the prompt."""
    lengths = sample.feeds["text_lengths"]  # (B, 1)
    L = int(lengths.max())
    counts = np.array([len(labels) for labels in sample.labels])
    is_label = np.arange(counts.max())[None, :] < counts[:, None]  # (B, C)
    if not sample.is_of_spans:
        is_word = np.arange(L) < lengths  # (B, L)
        known = is_word[:, :, None] & is_label[:, None]  # (B, L, C)
        return np.broadcast_to(known[..., None], (*known.shape, PARTS))
    mask = sample.feeds["span_mask"].astype(np.bool_)
    spans = mask.reshape(len(mask), L, -1)  # (B, L, K)
    cells: NDArray[np.bool_] = spans[..., None] & is_label[:, None, None, :]
    return cells


def as_figures(report: "DataclassInstance") -> dict[str, object]:
    """A report as plain values for the manifest, floats with four digits."""
    return {
        key: float(f"{value:.4g}") if isinstance(value, float) else value
        for key, value in asdict(report).items()
    }
