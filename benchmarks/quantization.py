"""Which int8 scheme: size, speed, agreement with PyTorch, and does a text's company matter?

Each scheme is applied to the same float graph; the embedding tables are int8 by row in all. Timed:
one run of the graph, one thread, schemes alternating, on texts of several lengths with five labels.
Not timed: tokenizing and decoding. Quality: the first sentences of each file of `dev/zero`, F1
and agreement of entities with PyTorch's at the model's threshold. Company: the largest difference
of a score when the labels are asked in another order, and when the sentence is padded among others.
The float graph reads isolated labels in one order (`nerlet_export.graph.SortedLabels`), so the
first is a test of that. Static scales are calibrated
on `dev/seen`.

Run: NERLET_DATA=DIR python benchmarks/quantization.py [--checkpoint DIR] [--rounds 20]
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import nerlet
from harness import print_result, print_table, time_alternating
from nerlet.batch import Tensor, make_batch
from nerlet.decode import Span
from nerlet.evaluate import Counts, Dataset, Predict, average_f1, count_matches, evaluate
from nerlet.examples import list_datasets, read_dataset
from nerlet.manifest import (
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    TEXT_GRAPH_NAME,
    WEIGHTS_NAME,
    record_file,
    write_manifest,
)
from nerlet.prompt import Prompt
from nerlet.scores import sigmoid
from nerlet_export.checkpoint import Checkpoint, load_checkpoint
from nerlet_export.convert import convert
from nerlet_export.graph import write_graphs
from nerlet_export.predict import TorchPredictor
from nerlet_export.quantize import quantize_graph
from nerlet_export.samples import make_prompt

Floats = NDArray[np.float32]
Arrays = dict[str, NDArray[np.generic]]
Ranges = dict[str, tuple[float, float]]
Multiply = Callable[[onnx.NodeProto, Floats, Arrays], list[onnx.NodeProto]]

LABELS = ("person", "organization", "location", "date", "product")
TEXT = "Bill Gates and Paul Allen founded Microsoft in Albuquerque , on April 4 , 1975 . "
LENGTHS = (16, 64, 384)
BATCH = 4  # texts in a padded batch


@dataclass(frozen=True, slots=True)
class Quality:
    """What a scheme gives on labelled texts.

    Attributes:
        f1: Average over the files, in percent.
        agreement: F1 of its entities, PyTorch's taken as truth, in percent.
        order_difference: Largest difference of a score under another order of labels.
        batch_difference: Largest difference of a score between a text alone and in a batch.
    """

    f1: float
    agreement: float
    order_difference: float
    batch_difference: float


def main() -> None:
    """Measure all schemes; print a table and the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("models/small-checkpoint"))
    parser.add_argument("--rounds", type=int, default=20, help="timed runs of each scheme")
    parser.add_argument("--sentences", type=int, default=100, help="of each labelled file")
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint)
    datasets = [read_dataset(p).first(options.sentences) for p in list_datasets("dev/zero")]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        threshold = convert(options.checkpoint, bundle, precision="fp32").threshold or 0.5
        exact = onnx.load(bundle / GRAPH_NAME)
        schemes = make_schemes(exact, checkpoint)
        expected = _find_all(TorchPredictor(checkpoint, threshold=threshold), datasets)
        quality, sizes = {}, {}
        for name, graph in schemes.items():
            _put_graph(bundle, graph)
            sizes[name] = sum(file.stat().st_size for file in bundle.iterdir()) / 1e6
            model = nerlet.load(bundle, threads=1)
            found = _find_all(_predictor(model, threshold), datasets)
            company = _measure_company(open_session(graph), checkpoint, datasets)
            quality[name] = Quality(found.f1, 100 * _agree(expected, found), *company)
    quality["PyTorch fp32"] = Quality(expected.f1, 100.0, 0.0, 0.0)
    times = _time_all(schemes, checkpoint, options.rounds)
    results = [
        {
            "scheme": name,
            "megabytes": round(sizes[name], 2),
            **{f"ms_{n}": round(times[n][name], 2) for n in LENGTHS},
            **{f"to_fp32_{n}": round(times[n][name] / times[n]["fp32"], 2) for n in LENGTHS},
            "f1": round(quality[name].f1, 2),
            "f1_to_torch": round(quality[name].f1 - expected.f1, 2),
            "agreement": round(quality[name].agreement, 1),
            "order_difference": float(f"{quality[name].order_difference:.2g}"),
            "batch_difference": float(f"{quality[name].batch_difference:.2g}"),
        }
        for name in schemes
    ]
    print_table(list(results[0]), [list(result.values()) for result in results])
    print_result("quantization", results)


def make_schemes(exact: onnx.ModelProto, checkpoint: Checkpoint) -> dict[str, onnx.ModelProto]:
    """The float graph and each scheme's graph, by name; the one in use is called "by row"."""
    activations = _read_activations(exact, checkpoint)
    static = {
        "min and max": {x: (float(v.min()), float(v.max())) for x, v in activations.items()},
        "99.99%": {x: _percentile(v, 0.01) for x, v in activations.items()},
        "least squares": {x: _least_squares(v) for x, v in activations.items()},
    }
    return {
        "fp32": exact,
        "by row": quantize_graph(exact),
        "by row, 7-bit weights": _with_weights(quantize_graph(exact), exact, 64),
        "by row, 8-bit weights": _with_weights(quantize_graph(exact), exact, 127),
        "by tensor, 7-bit weights": _rewrite(exact, multiply_by_tensor),
        **{f"static, {how}": _rewrite(exact, _static(own)) for how, own in static.items()},
        "MatMulNBits 8 bits, blocks of 128": _rewrite(exact, _by_block(8, 128)),
        "MatMulNBits 8 bits, blocks of 32": _rewrite(exact, _by_block(8, 32)),
        "MatMulNBits 4 bits, blocks of 32": _rewrite(exact, _by_block(4, 32)),
    }


def multiply_by_tensor(
    node: onnx.NodeProto, weights: Floats, arrays: Arrays
) -> list[onnx.NodeProto]:
    """One dynamic scale for the whole activation, 7-bit weights."""
    x = node.input[0]
    arrays[f"{node.name}.int8"], arrays[f"{node.name}.w"] = _round(weights, 64)
    scaled = [f"{node.name}.u8", f"{node.name}.scale", f"{node.name}.zero"]
    return [helper.make_node("DynamicQuantizeLinear", [x], scaled), *_int8_product(node, scaled)]


def _static(ranges: Ranges) -> Multiply:
    """One constant scale for each activation, 7-bit weights."""

    def multiply(node: onnx.NodeProto, weights: Floats, arrays: Arrays) -> list[onnx.NodeProto]:
        low, high = min(ranges[node.input[0]][0], 0), max(ranges[node.input[0]][1], 0)
        scale = (high - low) / 255
        arrays[f"{node.name}.scale"] = np.array(scale, dtype=np.float32)
        arrays[f"{node.name}.zero"] = np.array(round(-low / scale), dtype=np.uint8)
        arrays[f"{node.name}.int8"], arrays[f"{node.name}.w"] = _round(weights, 64)
        scaled = [f"{node.name}.u8", f"{node.name}.scale", f"{node.name}.zero"]
        quantize = helper.make_node("QuantizeLinear", [node.input[0], *scaled[1:]], scaled[:1])
        return [quantize, *_int8_product(node, scaled)]

    return multiply


def _int8_product(node: onnx.NodeProto, scaled: Sequence[str]) -> list[onnx.NodeProto]:
    u8, scale, zero = scaled
    n = node.name
    return [
        helper.make_node("MatMulInteger", [u8, f"{n}.int8", zero], [f"{n}.int32"]),
        helper.make_node("Cast", [f"{n}.int32"], [f"{n}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [scale, f"{n}.w"], [f"{n}.both"]),
        helper.make_node("Mul", [f"{n}.float", f"{n}.both"], list(node.output)),
    ]


def _by_block(bits: int, block: int) -> Multiply:
    """The operator of onnxruntime's that quantises activations by row and block itself."""

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
                domain="com.microsoft",
                accuracy_level=4,  # int8 activations
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


def _rewrite(exact: onnx.ModelProto, multiply: Multiply) -> onnx.ModelProto:
    """The graph with each product with a constant matrix rewritten, tables int8 by row."""
    model = onnx.ModelProto()
    model.CopyFrom(exact)
    products = {node.name: weights for node, weights in _products(exact.graph)}
    used = {node.input[1] for node in exact.graph.node if node.name in products}
    arrays: Arrays = {}
    nodes: list[onnx.NodeProto] = []
    for node in exact.graph.node:
        is_product = node.name in products
        nodes += multiply(node, products[node.name], arrays) if is_product else [node]
    kept = [tensor for tensor in exact.graph.initializer if tensor.name not in used]
    kept += [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return quantize_graph(model)


def _with_weights(model: onnx.ModelProto, exact: onnx.ModelProto, levels: int) -> onnx.ModelProto:
    """Our scheme with other weights, which saturate without VNNI where `levels` is above 64."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node, weights in _products(exact.graph):
        for part, array in zip(("int8", "scales"), _round(weights, levels), strict=True):
            name = f"{node.input[1]}.{part}"
            tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
    return model


def _read_activations(exact: onnx.ModelProto, checkpoint: Checkpoint) -> dict[str, Floats]:
    """What the left sides of all products are on some sentences of `dev/seen`."""
    model = onnx.ModelProto()
    model.CopyFrom(exact)
    names = list(dict.fromkeys(node.input[0] for node, _ in _products(exact.graph)))
    for name in names:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    session = open_session(model)
    datasets = [read_dataset(path).first(12) for path in list_datasets("dev/seen")]
    prompts = [own for dataset in datasets for own in _prompts(checkpoint, dataset)]
    runs = [session.run(names, _feeds(checkpoint, [own])) for own in prompts]
    return {
        name: np.concatenate([values.ravel() for values in column])
        for name, column in zip(names, zip(*runs, strict=True), strict=True)
    }


def _percentile(values: Floats, percent: float) -> tuple[float, float]:
    low, high = np.percentile(values, [percent, 100 - percent])
    return float(low), float(high)


def _least_squares(values: Floats) -> tuple[float, float]:
    """The range, a fraction of the whole one, whose rounding and clipping cost least."""
    some = np.random.default_rng(0).choice(values, 100_000)
    best = (np.inf, 1.0)
    for part in np.linspace(0.2, 1.0, 17):
        low, high = min(values.min() * part, 0.0), max(values.max() * part, 0.0)
        scale = (high - low) / 255
        rounded = np.rint(np.clip(some, low, high) / scale) * scale
        best = min(best, (float(np.mean((rounded - some) ** 2)), float(part)))
    return float(values.min() * best[1]), float(values.max() * best[1])


@dataclass(frozen=True, slots=True)
class _Found:
    """Average F1 in percent, and every entity (dataset, sentence, start, end, label)."""

    f1: float
    entities: frozenset[tuple[str, int, int, int, int]]


def _find_all(predict: Predict, datasets: Sequence[Dataset]) -> _Found:
    entities = set()
    scores = []
    for dataset in datasets:
        spans: list[list[Span]] = []

        def record(
            sentences: Sequence[Sequence[str]],
            labels: Sequence[str],
            spans: list[list[Span]] = spans,
        ) -> Sequence[Sequence[Span]]:
            found = [list(own) for own in predict(sentences, labels)]
            spans.extend(found)
            return found

        scores.append(evaluate(record, dataset))
        entities |= {
            (dataset.name, sentence, s.start, s.end, s.label)
            for sentence, own in enumerate(spans)
            for s in own
        }
    return _Found(100 * average_f1(scores), frozenset(entities))


def _predictor(model: nerlet.GLiNER, threshold: float) -> Predict:
    return lambda words, labels: model.predict_words(words, list(labels), threshold=threshold)


def _agree(expected: _Found, found: _Found) -> float:
    counts: Counts = count_matches(expected.entities, found.entities)
    return counts.f1


def _put_graph(bundle: Path, graph: onnx.ModelProto) -> None:
    """Replace the graph of a bundle, its record in the manifest too; it has no other graph then."""
    write_graphs({GRAPH_NAME: graph}, bundle)
    manifest = nerlet.bundle.read_manifest(bundle)
    parts = {LABEL_GRAPH_NAME, TEXT_GRAPH_NAME, WEIGHTS_NAME}
    files = {name: record for name, record in manifest.files.items() if name not in parts}
    files[GRAPH_NAME] = record_file(bundle / GRAPH_NAME)
    write_manifest(bundle, replace(manifest, files=files))


def _measure_company(
    session: ort.InferenceSession, checkpoint: Checkpoint, datasets: Sequence[Dataset]
) -> tuple[float, float]:
    """Largest difference of a score: labels in another order; text in a batch."""
    by_order = by_batch = 0.0
    for dataset in datasets:
        short = dataset.first(2 * BATCH)
        prompts = _prompts(checkpoint, short)
        alone = [_scores(session, checkpoint, [own])[0] for own in prompts]
        for example, own in zip(short.examples, alone, strict=True):
            text = " ".join(example.words)
            turned = make_prompt(checkpoint, text, example.labels[::-1])
            other = _scores(session, checkpoint, [turned])[0]
            by_order = max(by_order, _difference(own, other[..., ::-1]))
        for begin in range(0, len(prompts), BATCH):
            batch = _scores(session, checkpoint, prompts[begin : begin + BATCH])
            for own, row in zip(alone[begin : begin + BATCH], batch, strict=True):
                by_batch = max(by_batch, _difference(own, row[: len(own), :, : own.shape[2]]))
    return by_order, by_batch


def _difference(a: Floats, b: Floats) -> float:
    """Largest difference over the spans that lie in the text; (L, K, C) each."""
    ends = np.arange(a.shape[0])[:, None] + np.arange(a.shape[1])
    return float(np.abs(a - b)[ends < len(a)].max())


def _scores(
    session: ort.InferenceSession, checkpoint: Checkpoint, prompts: Sequence[Prompt]
) -> Floats:
    logits: Floats = session.run(["logits"], _feeds(checkpoint, prompts))[0]
    scores: Floats = sigmoid(logits)
    return scores


def _prompts(checkpoint: Checkpoint, dataset: Dataset) -> list[Prompt]:
    return [make_prompt(checkpoint, " ".join(e.words), e.labels) for e in dataset.examples]


def _feeds(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
    config = checkpoint.model.config
    return make_batch(prompts, config.max_width, word_shapes=config.word_shapes)


def open_session(graph: onnx.ModelProto) -> ort.InferenceSession:
    """Open a graph on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    source = graph.SerializeToString()
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _time_all(
    schemes: dict[str, onnx.ModelProto], checkpoint: Checkpoint, rounds: int
) -> dict[int, dict[str, float]]:
    """Median milliseconds of a run, by length of the text and scheme."""
    sessions = {name: open_session(graph) for name, graph in schemes.items()}
    times = {}
    for length in LENGTHS:
        words = (TEXT * length).split()[:length]
        feeds = _feeds(checkpoint, [make_prompt(checkpoint, " ".join(words), LABELS)])
        calls = {
            name: lambda session=session, feeds=feeds: session.run(["logits"], feeds)
            for name, session in sessions.items()
        }
        timings = time_alternating(calls, rounds=rounds)
        times[length] = {name: timing.median_ms for name, timing in timings.items()}
    return times


if __name__ == "__main__":
    main()
