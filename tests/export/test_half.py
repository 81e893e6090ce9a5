"""Half precision for CUDA, as far as a CPU can tell: it rounds between nodes as float16 does."""

import logging
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import nerlet
from nerlet.errors import GraphError
from nerlet.graph import Graph
from nerlet.manifest import read_manifest
from nerlet.selection import SELECTION_PATH, Selector
from nerlet.sessions import open_sessions
from nerlet_export import convert as convert_module
from nerlet_export import verify
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.cli import main
from nerlet_export.convert import convert
from nerlet_export.graph import build_graph
from nerlet_export.half import HALF_MEAN_DRIFT, check_half, halve_graph, round_graph
from nerlet_export.onnx_graph import (
    OnnxGraph,
    check_graph,
    join_weights,
    make_graph,
    split_weights,
)
from nerlet_export.samples import draw_sample
from nerlet_export.tiny import ENCODERS, make_checkpoint

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    **{encoder: (encoder, {}) for encoder in ENCODERS},
    "isolated": ("bert", {"label_attention": "isolated", "label_pooling": "mean"}),
    "shapes": ("bert", {"word_shapes": True}),
    "reference": (
        "deberta-v2",
        {"span_mode": "markerV0", "num_rnn_layers": 1, "hidden_size": 12},
    ),
}
TEXTS = ["Ada wrote .", "x", "On Monday the U.S. bought 3 cats in Rome", "so it goes " * 15]
LABELS = ["person", "city", "a b", "date"]


@pytest.fixture(scope="module", params=SETTINGS)
def graphs(request):
    """A checkpoint, its float graph and that in half precision."""
    encoder, settings = SETTINGS[request.param]
    checkpoint = make_checkpoint(encoder, **settings)
    graph = build_graph(checkpoint)
    return checkpoint, graph, halve_graph(graph)


def arrays(graph: OnnxGraph) -> list[np.ndarray]:
    """All constants of a graph."""
    model = join_weights(graph)
    tensors = list(model.graph.initializer)
    tensors += [own.t for node in model.graph.node for own in node.attribute if own.HasField("t")]
    return [numpy_helper.to_array(tensor) for tensor in tensors]


def test_the_signature_is_the_references(graphs):
    checkpoint, _, half = graphs
    verify.check_signature(half.model, checkpoint.model.config)
    check_graph(half)
    assert verify.open_session(half).get_outputs()[0].type == "tensor(float)"


def test_scores_are_near_those_of_the_float_graph(graphs):
    checkpoint, graph, half = graphs
    drift = check_half(checkpoint, graph, half, threshold=0.5)
    assert 0 < drift.mean_score_drift < HALF_MEAN_DRIFT / 4
    assert drift.max_score_drift < 0.03
    # The T5 takes most spans for entities, with scores so near 1 that many are equal
    is_t5 = checkpoint.model.config.model_name == "tiny-t5"
    assert drift.entity_agreement > (0.9 if is_t5 else 0.98)


def test_weights_are_float16_and_no_constant_overflows(graphs):
    _, graph, half = graphs
    matrices = [own for own in arrays(half) if own.dtype.kind == "f" and own.ndim > 1]
    nodes = half.model.graph.node
    recurrent = {name for node in nodes if node.op_type == "LSTM" for name in node.input}
    recurrent &= half.weights.keys()
    singles = [own for own in matrices if own.dtype == np.float32]
    waves = [node for node in nodes if node.op_type == "Cos"]
    assert len(singles) <= len(recurrent) + len(waves)  # whose frequencies make angles
    assert len(matrices) > 10
    floats = [own for own in arrays(half) if own.dtype.kind == "f" and own.size]
    assert max(np.abs(own).max() for own in floats) <= 10_000
    sizes = [sum(own.nbytes for own in each.weights.values()) for each in (half, graph)]
    assert sizes[0] < sizes[1]


def test_halving_leaves_the_float_graph_alone(graphs):
    _, graph, _ = graphs
    before = join_weights(graph).SerializeToString(deterministic=True)
    halve_graph(graph)
    assert join_weights(graph).SerializeToString(deterministic=True) == before


def test_norms_and_what_becomes_a_whole_number_stay_float32():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        own (int64[n] places, float[n, 4] x, float[4] scale) => (float[n, 4] y, int64[n] bucket)
        {
            far = Cast <to = 1> (places)
            log = Log (far)
            eight = Constant <value_float = 8.0> ()
            steps = Mul (log, eight)
            bucket = Cast <to = 7> (steps)
            wide = Mul (x, eight)
            normed = LayerNormalization (wide, scale)
            y = Mul (normed, eight)
        }"""
    )
    exact = split_weights(model)
    half = halve_graph(exact)
    inferred = onnx.shape_inference.infer_shapes(half.model)
    types = {own.name: own.type.tensor_type.elem_type for own in inferred.graph.value_info}
    assert {types[name] for name in ("far", "log", "steps")} == {TensorProto.FLOAT}
    assert types["wide"] == TensorProto.FLOAT16
    (norm,) = [node for node in half.model.graph.node if node.op_type == "LayerNormalization"]
    assert types[norm.input[0]] == types[norm.output[0]] == TensorProto.FLOAT
    places = np.arange(1, 3000)
    feeds = {"places": places, "x": np.ones((2999, 4), np.float32), "scale": np.ones(4, np.float32)}
    found, expected = (
        verify.open_session(own, is_optimized=False).run(["bucket"], feeds)[0]
        for own in (round_graph(half), exact)
    )
    assert found.tolist() == expected.tolist()


def test_a_cpu_rounds_between_nodes_only_where_it_is_made_to():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        own (float16[n] x) => (float[n] y) { square = Mul (x, x)  y = Cast <to = 1> (square) }"""
    )
    graph = split_weights(model)
    feeds = {"x": np.array([300, 2], np.float16)}
    found = [
        verify.open_session(own, is_optimized=False).run(["y"], feeds)[0].tolist()
        for own in (graph, round_graph(graph))
    ]
    assert found == [[90000, 4], [np.inf, 4]]


def overflow(checkpoint):
    """The encoder's vectors 30,000 times as large, and what reads them as much smaller."""
    norm = checkpoint.model.encoder.model.encoder.layer[-1].output.LayerNorm
    heads = checkpoint.model.heads
    for tensor, factor in (
        (norm.weight, 3e4),
        (norm.bias, 3e4),
        (heads.label.first.weight, 1 / 3e4),
        (heads.span.out_project.first.weight, 1 / 3e4),
    ):
        tensor.data *= factor
    return checkpoint


def test_a_value_that_overflows_is_an_error_and_nothing_is_written(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", overflow(make_checkpoint("bert")))
    convert(tmp_path / "checkpoint", tmp_path / "float", precision="fp32")
    with pytest.raises(GraphError, match=r"not finite: a value exceeds 65504; nothing is written"):
        convert(tmp_path / "checkpoint", tmp_path / "half", precision="fp32", fp16=True)
    assert not (tmp_path / "half").exists()


def test_large_drift_is_an_error_and_nothing_is_written(tmp_path, monkeypatch):
    def perturbed(graph):
        half = halve_graph(graph)
        louder = {
            name: array * np.float16(1.1)
            for name, array in half.weights.items()
            if array.dtype == np.float16 and array.ndim == 2
        }
        return make_graph(half.model, {**half.weights, **louder})

    monkeypatch.setattr(convert_module, "halve_graph", perturbed)
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint("bert"))
    with pytest.raises(GraphError, match=r"half precision differs .* allowed 0.005 and 0.1"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32", fp16=True)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("precision", "settings"),
    [("fp32", {}), ("int8", {}), ("int8", {"label_attention": "isolated"})],
    ids=str,
)
def test_the_bundle_has_the_file_and_the_cpu_does_not_take_it(
    tmp_path, caplog, precision, settings
):
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint("bert", **settings))
    plain = convert(tmp_path / "checkpoint", tmp_path / "plain", precision=precision)
    with caplog.at_level(logging.INFO, logger="nerlet_export"):
        convert(tmp_path / "checkpoint", tmp_path / "both", precision=precision, fp16=True)
    assert "fp16, on the CPU, against float: score drift 0.00" in caplog.text
    manifest = read_manifest(tmp_path / "both")
    files = dict(manifest.files)
    half = files.pop("model_fp16.onnx")
    assert half.bytes == (tmp_path / "both" / "model_fp16.onnx").stat().st_size
    assert (files, manifest.precision) == (plain.files, precision)
    report = manifest.verification["fp16"]
    assert isinstance(report, dict)
    assert 0 < report["mean_score_drift"] < report["max_score_drift"] < 0.1
    found, expected = (
        nerlet.load(tmp_path / name, threads=1).inference(TEXTS, LABELS, threshold=0.3)
        for name in ("both", "plain")
    )
    assert found == expected


def test_the_command_adds_half_precision(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint("mpnet"))
    folders = [str(tmp_path / "checkpoint"), str(tmp_path / "bundle")]
    assert main(["convert", *folders, "--precision", "fp32", "--fp16"]) == 0
    assert "model_fp16.onnx" in read_manifest(tmp_path / "bundle").files


def test_half_precision_holds_for_another_batch_after_writing(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint("deberta-v2"))
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32", fp16=True)
    sample = draw_sample(load_checkpoint(tmp_path / "checkpoint"), seed=4, size=3)
    known = verify.known_cells(sample)
    half, exact = (
        verify.run_graph(verify.open_session(tmp_path / "bundle" / name), sample.feeds)[known]
        for name in ("model_fp16.onnx", "model.onnx")
    )
    assert 0 < np.abs(half - exact).max() < 0.1  # of logits of about 10


@pytest.mark.parametrize("variant", SETTINGS)
def test_a_device_that_pads_to_few_lengths_finds_the_same(tmp_path, monkeypatch, variant):
    encoder, settings = SETTINGS[variant]
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint(encoder, **settings))
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    bundle = nerlet.load(tmp_path / "bundle", threads=1).bundle
    alone, padded = (open_sessions(bundle.path / "model.onnx", threads=1) for _ in range(2))
    padded.providers = ["SomeExecutionProvider"]
    selector = Selector(open_sessions(SELECTION_PATH, threads=1))
    lengths = []
    run_bound = padded.run_bound

    def spy(outputs, feeds, memory):
        lengths.append(feeds["input_ids"].shape[1])
        return run_bound(outputs, feeds, memory)

    monkeypatch.setattr(padded, "run_bound", spy)
    expected, found = (
        nerlet.GLiNER(bundle, graph).score_words(
            [text.split() for text in TEXTS], LABELS, threshold=0.0
        )
        for graph in (Graph(alone, 4), Graph(padded, 4, selector))
    )
    assert lengths
    assert [length % 32 for length in lengths] == [0] * len(lengths)
    for own, other in zip(found, expected, strict=True):
        for column in ("start", "end", "label"):
            assert getattr(own, column).tolist() == getattr(other, column).tolist()
        np.testing.assert_allclose(own.score, other.score, atol=1e-5)
