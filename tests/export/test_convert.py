"""Conversion end to end: every family, both precisions, and nothing written that is wrong."""

import hashlib
import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from safetensors.torch import load_file, save_file

import nerlet
from nerlet.batch import make_batch
from nerlet.errors import GraphError, InputError
from nerlet.manifest import read_manifest
from nerlet.scores import sigmoid
from nerlet_export import convert as convert_module
from nerlet_export import verify
from nerlet_export.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nerlet_export.cli import main
from nerlet_export.convert import About, convert
from nerlet_export.graph import IR_VERSION, OPSET, build_graph
from nerlet_export.onnx_graph import OnnxGraph, join_weights, make_graph, split_weights
from nerlet_export.quantize import quantize_columns, quantize_graph, quantize_rows
from nerlet_export.samples import draw_sample, make_prompt
from nerlet_export.tiny import ENCODERS, make_checkpoint
from tests.export.reference_models import load_reference_on_onnx

REFERENCE_HEAD = {
    "span_mode": "markerV0",
    "num_rnn_layers": 1,
    "hidden_size": 12,
}
SHAPED = {"label_attention": "isolated", "label_pooling": "mean", "word_shapes": True}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{encoder}-paper": (encoder, {}) for encoder in ENCODERS},
    **{f"{encoder}-reference": (encoder, REFERENCE_HEAD) for encoder in ENCODERS},
    "bert-isolated": ("bert", {"label_attention": "isolated"}),
    "bert-shapes": ("bert", {"word_shapes": True, "label_pooling": "mean"}),
    "bert-both": ("bert", SHAPED),
}
INPUTS = {
    "input_ids": ("tensor(int64)", ["batch", "pieces"]),
    "attention_mask": ("tensor(int64)", ["batch", "pieces"]),
    "words_mask": ("tensor(int64)", ["batch", "pieces"]),
    "text_lengths": ("tensor(int64)", ["batch", 1]),
    "span_idx": ("tensor(int64)", ["batch", "spans", 2]),
    "span_mask": ("tensor(bool)", ["batch", "spans"]),
}
TEXT = "Bill Gates founded Microsoft on April 4, 1975, in Albuquerque; the U.S. at 3.5 % - x_y!"
LABELS = ["person", "organization", "date"]


def write_checkpoint(folder: Path, variant: str) -> Checkpoint:
    encoder, settings = VARIANTS[variant]
    checkpoint = make_checkpoint(encoder, **settings)
    if checkpoint.model.encoder.segments is not None:  # zeros in a new model
        torch.nn.init.normal_(checkpoint.model.encoder.segments.weight, std=0.5)
    save_checkpoint(folder, checkpoint)
    return checkpoint


@pytest.fixture(scope="module", params=VARIANTS)
def bundles(request, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Path]]:
    """Of each variant its checkpoint and both bundles."""
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder / "checkpoint", request.param)
    for precision in ("fp32", "int8"):
        convert(folder / "checkpoint", folder / precision, precision=precision)
    return request.param, {name: folder / name for name in ("checkpoint", "fp32", "int8")}


def torch_scores(folder: Path, seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Logits of a ragged batch in PyTorch, which of them mean something, and the batch."""
    checkpoint = load_checkpoint(folder)
    sample = draw_sample(checkpoint, seed=seed, size=3)
    return verify.run_torch(checkpoint, sample.feeds), verify.known_cells(sample), sample.feeds


def test_float_graph_is_the_model_and_int8_is_near(bundles):
    _, paths = bundles
    expected, known, feeds = torch_scores(paths["checkpoint"], seed=77)
    exact = open_graph(paths["fp32"]).run(["logits"], feeds)[0]
    assert exact.shape == expected.shape
    np.testing.assert_allclose(exact[known], expected[known], atol=1e-4, rtol=1e-5)
    rough = open_graph(paths["int8"]).run(["logits"], feeds)[0]
    assert rough.shape == expected.shape
    error = np.sqrt(np.mean((rough - expected)[known] ** 2)) / expected[known].std()
    assert 0 < error < 0.35  # toy layers of 16 columns; real ones average more


def open_graph(bundle: Path) -> ort.InferenceSession:
    return verify.open_session(bundle / "model.onnx")


def test_signature_is_the_references(bundles):
    name, paths = bundles
    has_shapes = VARIANTS[name][1].get("word_shapes", False)
    for precision in ("fp32", "int8"):
        session = open_graph(paths[precision])
        assert {arg.name: (arg.type, arg.shape) for arg in session.get_inputs()} == INPUTS
        (output,) = session.get_outputs()
        assert (output.name, output.type) == ("logits", "tensor(float)")
        assert output.shape == ["batch", "words", 4, "labels"]
        optional = [arg.name for arg in session.get_overridable_initializers()]
        assert (["word_shapes"] if has_shapes else []) == [
            name for name in optional if name == "word_shapes"
        ]
        graph = onnx.load(paths[precision] / "model.onnx")
        declared = [value.name for value in graph.graph.input]
        assert declared == [*INPUTS, "word_shapes"][: len(INPUTS) + has_shapes]
        assert 8 <= graph.ir_version <= 10
        versions = {own.domain: own.version for own in graph.opset_import}
        assert versions.pop("") <= 19
        has_own = precision == "int8" or not name.startswith("albert")
        assert versions == ({"com.microsoft": 1} if has_own else {})


def test_both_open_in_nerlet_and_in_the_reference(bundles):
    """The reference knows no word shapes, which nerlet finds in the text: so only where none."""
    name, paths = bundles
    for precision in ("fp32", "int8"):
        ours = nerlet.load(paths[precision], threads=1)
        found = ours.predict_entities(TEXT, LABELS, threshold=0.3, flat_ner=False)
        theirs = load_reference_on_onnx(paths[precision]).predict_entities(
            TEXT, LABELS, threshold=0.3, flat_ner=False
        )
        if VARIANTS[name][1].get("word_shapes"):
            assert all(own["text"] == TEXT[own["start"] : own["end"]] for own in theirs)
            assert found != theirs
        else:
            assert [own | {"score": 0} for own in found] == [own | {"score": 0} for own in theirs]
            scores = [[own["score"] for own in side] for side in (found, theirs)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def verification(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "nerlet.json").read_text("utf-8"))["verification"]
    return report


def test_manifest_describes_the_files_and_the_verification(bundles):
    name, paths = bundles
    for precision in ("fp32", "int8"):
        folder = paths[precision]
        manifest = read_manifest(folder)
        assert manifest.precision == precision
        assert sorted(path.name for path in folder.iterdir()) == sorted(
            [*manifest.files, "nerlet.json"]
        )
        for file_name, record in manifest.files.items():
            content = (folder / file_name).read_bytes()
            assert record.bytes == len(content)
            assert record.sha256 == hashlib.sha256(content).hexdigest()
        report = verification(folder)
        assert 0 <= report["float"]["max_difference"] <= report["float"]["tolerance"]
        assert report["float"]["cells"] > 10_000
        assert ("int8" in report) is (precision == "int8")
    drift = report["int8"]
    assert 0 < drift["mean_score_drift"] < drift["max_score_drift"] <= 1
    assert 0 < drift["logit_error"] < 0.5
    assert 0.3 < drift["entity_agreement"] <= 1
    assert drift["entities"] > 50 or "reference" in name  # whose random logits have any mean
    assert drift["threshold"] == 0.5


def initializers(graph: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def largest_pair_sums(values: np.ndarray) -> np.ndarray:
    """Of each column, the largest size that inputs 2i and 2i + 1 of one sign add up to."""
    wide = values.astype(int)
    pairs = np.pad(wide, ((0, len(wide) % 2), (0, 0))).reshape(-1, 2, wide.shape[1])
    sums = [np.maximum(own, 0).sum(axis=1).max(axis=0) for own in (pairs, -pairs)]
    largest: np.ndarray = np.max(sums, axis=0)
    return largest


def test_int8_weights_by_column_and_tables_by_row(bundles):
    _, paths = bundles
    before = initializers(onnx.load(paths["fp32"] / "model.onnx"))
    graph = onnx.load(paths["int8"] / "model.onnx")
    after = initializers(graph)
    products = [node for node in graph.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) >= 10
    for node in products:
        values = after[node.input[1]]
        scales = after[node.input[1].removesuffix(".int8") + ".scales"]
        assert values.dtype == np.int8
        assert largest_pair_sums(values).max() <= 128
        assert largest_pair_sums(values).min() >= 126
        assert scales.shape == (values.shape[1],)
    weights = {name for name, array in after.items() if array.dtype == np.float32}
    others = [node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert not [
        name for node in others for name in node.input if name in weights and after[name].ndim > 1
    ]
    assert not [node for node in graph.graph.node if node.op_type == "Identity"]
    lookups = [
        node
        for node in graph.graph.node
        if node.op_type == "Gather" and node.input[0].endswith(".rows")
    ]
    assert lookups
    sizes = {after[node.input[0]].shape for node in lookups}
    words = load_checkpoint(paths["checkpoint"]).model.encoder.words.weight.detach().numpy()
    assert words.shape in sizes
    for node in lookups:
        table = node.input[0].removesuffix(".rows")
        rows, scales = after[node.input[0]], after[f"{table}.scales"]
        assert rows.dtype == np.int8
        assert scales.shape == (len(rows), 1)
        assert (np.abs(rows * scales - before[table]) <= scales / 2 + 1e-7).all()
    ours = {node.op_type for node in graph.graph.node if node.domain == "com.microsoft"}
    assert ours <= {"MatMulIntegerToFloat", "MultiHeadAttention"}
    large = [n for n, a in after.items() if a.dtype == np.float32 and a.ndim == 2 and len(a) >= 64]
    assert [name for name in large if not name.endswith(".scales")] == []
    # Not of the files: in toys the added nodes weigh more than the weights.
    assert sum(a.nbytes for a in after.values()) < sum(a.nbytes for a in before.values())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("variant", ["bert-isolated", "bert-both"])
def test_order_of_isolated_labels_changes_no_score(tmp_path, variant, precision):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", variant)
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision=precision)
    session = open_graph(tmp_path / "bundle")
    rng = np.random.default_rng(0)
    labels = ["person", "x y", "y x", "location", "a long label of many pieces", "date"]
    base, _ = own_scores(session, checkpoint, [TEXT], [labels])
    assert np.ptp(base, axis=-1).mean() > 0.1  # labels differ, so a mix-up would show
    for _ in range(8):
        order = rng.permutation(len(labels))
        turned, _ = own_scores(session, checkpoint, [TEXT], [[labels[i] for i in order]])
        np.testing.assert_array_equal(turned, base[..., order])


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("variant", ["bert-isolated", "bert-both", "bert-paper", "roberta-paper"])
def test_scores_are_the_same_alone_and_padded_in_a_batch(tmp_path, variant, precision):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", variant)
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision=precision)
    session = open_graph(tmp_path / "bundle")
    texts = ["Ada wrote .", TEXT, "x", "On Monday the U.S. bought 3 cats"]
    labels = [["person"], LABELS, ["a b", "date"], ["one", "two", "three", "four"]]
    batch, lengths = own_scores(session, checkpoint, texts, labels)
    for row, (text, asked) in enumerate(zip(texts, labels, strict=True)):
        alone, _ = own_scores(session, checkpoint, [text], [asked])
        ends = np.arange(lengths[row])[:, None] + np.arange(alone.shape[2])
        padded = batch[row, : lengths[row], :, : len(asked)]
        inside = ends < lengths[row]
        np.testing.assert_allclose(padded[inside], alone[0][inside], atol=1e-5)


def test_isolated_labels_of_one_text_beyond_the_positions_of_another_in_its_batch(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "bert-isolated")
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    session = open_graph(tmp_path / "bundle")
    many = [f"a label {number}" for number in range(100)]  # 600 positions are fewer pieces
    batch, _ = own_scores(session, checkpoint, ["Ada wrote", "On Monday ."], [many, ["date"]])
    alone, _ = own_scores(session, checkpoint, ["On Monday ."], [["date"]])
    np.testing.assert_allclose(batch[1, 0, 0, :1], alone[0, 0, 0], atol=1e-5)


def own_scores(
    session: ort.InferenceSession,
    checkpoint: Checkpoint,
    texts: list[str],
    labels: list[list[str]],
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a batch (B, L, K, C), and the words of each text."""
    config = checkpoint.model.config
    prompts = [make_prompt(checkpoint, *pair) for pair in zip(texts, labels, strict=True)]
    feeds = make_batch(prompts, config.max_width, word_shapes=config.word_shapes)
    return sigmoid(session.run(["logits"], feeds)[0]), feeds["text_lengths"][:, 0]


def test_word_shapes_left_out_are_zeros(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", "bert-both")
    convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    _, known, feeds = torch_scores(tmp_path / "checkpoint", seed=5)
    session = open_graph(tmp_path / "bundle")
    shapes = feeds.pop("word_shapes")
    assert shapes.any()
    without = session.run(["logits"], feeds)[0]
    zeros = session.run(["logits"], feeds | {"word_shapes": np.zeros_like(shapes)})[0]
    given = session.run(["logits"], feeds | {"word_shapes": shapes})[0]
    np.testing.assert_array_equal(without, zeros)
    assert np.abs(given - zeros)[known].max() > 0.1


def perturbed_graph(checkpoint: Checkpoint) -> OnnxGraph:
    """A graph that has one weight a little off, by 1% of its largest."""
    graph = build_graph(checkpoint)
    name = max(graph.weights, key=lambda name: graph.weights[name].size)
    return make_graph(graph.model, {**graph.weights, name: graph.weights[name] * np.float32(1.01)})


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_graph_that_is_not_the_model_is_not_written(tmp_path, monkeypatch, precision):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    monkeypatch.setattr(convert_module, "build_graph", perturbed_graph)
    with pytest.raises(GraphError, match=r"differs from PyTorch: a logit by .* not written"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", precision=precision)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_graph_of_nans_is_not_written(tmp_path, monkeypatch):
    def broken(checkpoint: Checkpoint) -> OnnxGraph:
        graph = build_graph(checkpoint)
        nans = {name: np.full_like(array, np.nan) for name, array in graph.weights.items()}
        return make_graph(graph.model, nans)

    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    monkeypatch.setattr(convert_module, "build_graph", broken)
    with pytest.raises(GraphError, match="differs from PyTorch"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    assert not (tmp_path / "bundle").exists()


def test_a_failed_conversion_leaves_the_bundle_before_it(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    convert(tmp_path / "checkpoint", tmp_path / "bundle")
    before = {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()}
    monkeypatch.setattr(convert_module, "build_graph", perturbed_graph)
    with pytest.raises(GraphError):
        convert(tmp_path / "checkpoint", tmp_path / "bundle")
    assert {path.name: path.read_bytes() for path in (tmp_path / "bundle").iterdir()} == before


def rename_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[3].name = "lengths"


def freeze_axis(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


def drop_unused_input(graph: onnx.ModelProto) -> None:
    del graph.graph.input[3]


def change_type(graph: onnx.ModelProto) -> None:
    graph.graph.input[5].type.tensor_type.elem_type = TensorProto.INT64


def change_width(graph: onnx.ModelProto) -> None:
    graph.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 3


def add_default(graph: onnx.ModelProto) -> None:
    graph.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1)), "words_mask"))


@pytest.mark.parametrize(
    "spoil",
    [rename_input, freeze_axis, drop_unused_input, change_type, change_width, add_default],
)
def test_another_signature_is_refused(spoil):
    checkpoint = make_checkpoint("bert")
    graph = build_graph(checkpoint).model
    verify.check_signature(graph, checkpoint.model.config)
    spoil(graph)
    with pytest.raises(GraphError):
        verify.check_signature(graph, checkpoint.model.config)


def test_signature_with_word_shapes_must_have_them():
    shaped, plain = make_checkpoint("bert", word_shapes=True), make_checkpoint("bert")
    with pytest.raises(GraphError, match="optional graph inputs"):
        verify.check_signature(build_graph(shaped).model, plain.model.config)
    with pytest.raises(GraphError, match="optional graph inputs"):
        verify.check_signature(build_graph(plain).model, shaped.model.config)


def test_quantised_numbers():
    rng = np.random.default_rng(0)
    array = rng.normal(size=(70, 5)).astype(np.float32) * 10.0 ** np.arange(-3, 2, dtype=np.float32)
    array[3] = 0
    values, scales = quantize_columns(array)
    assert largest_pair_sums(values).max() <= 128  # 255 * 128 < 2 ** 15
    one_sign, scales_of_one_sign = quantize_columns(np.ones((3, 1), dtype=np.float32))
    assert one_sign[:, 0].tolist() == [64, 64, 64]
    np.testing.assert_allclose(scales_of_one_sign, 2 / 127)
    two_signs, _ = quantize_columns(np.array([[1.0], [-1.0]], dtype=np.float32))
    assert two_signs[:, 0].tolist() == [127, -127]
    zeros, scales_of_zeros = quantize_columns(np.zeros((3, 1), dtype=np.float32))
    assert not zeros.any()
    assert not scales_of_zeros.any()
    assert (np.abs(values * scales - array) <= scales / 2 * 1.0001).all()
    rows, row_scales = quantize_rows(array)
    assert np.abs(rows.astype(int)).max() == 127
    assert (np.abs(rows * row_scales - array) <= row_scales / 2 * 1.0001).all()
    assert not rows[3].any()


def test_a_row_of_zeros_gives_zeros():
    """Its scale is 0, and the rows beside it lose nothing."""
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    x[1] = 0
    graph = split_weights(make_shared_graph(is_inner=False))
    exact, rough = (
        verify.open_session(own).run(["y"], {"x": x})[0] for own in (graph, quantize_graph(graph))
    )
    assert not rough[1].any()
    np.testing.assert_allclose(rough, exact, atol=0.3)


def test_quantising_leaves_the_float_graph_alone():
    graph = build_graph(make_checkpoint("deberta-v2"))
    before = join_weights(graph).SerializeToString(deterministic=True)
    quantize_graph(graph)
    assert join_weights(graph).SerializeToString(deterministic=True) == before


def float_values(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def make_shared_graph(*, is_inner: bool) -> onnx.ModelProto:
    """X W and, of the same W, either X W in an inner graph or X W^T; and X V, all summed."""
    rng = np.random.default_rng(0)
    make = onnx.helper.make_node
    tables = {name: rng.normal(size=(8, 8)).astype(np.float32) for name in ("W", "V")}
    nodes = [make("MatMul", ["x", "W"], ["a"], "a"), make("MatMul", ["x", "V"], ["c"], "c")]
    if is_inner:
        branch = onnx.helper.make_graph(
            [make("MatMul", ["x", "W"], ["inner"], "inner")],
            "branch",
            [],
            [float_values("inner", ["n", 8])],
        )
        tables["yes"] = np.ones((), dtype=np.bool_)
        nodes.append(make("If", ["yes"], ["b"], "b", then_branch=branch, else_branch=branch))
    else:
        nodes.append(make("Gemm", ["x", "W"], ["b"], "b", transB=1))
    nodes.append(make("Sum", ["a", "b", "c"], ["y"], "y"))
    graph = onnx.helper.make_graph(
        nodes,
        "shared",
        [float_values("x", ["n", 8])],
        [float_values("y", ["n", 8])],
        [numpy_helper.from_array(array, name) for name, array in tables.items()],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


@pytest.mark.parametrize("is_inner", [True, False])
def test_a_weight_that_cannot_be_int8_everywhere_stays_float(is_inner):
    graph = split_weights(make_shared_graph(is_inner=is_inner))
    quantised = quantize_graph(graph)
    int8_constants = {"int8.step", "int8.zero"}
    assert set(initializers(join_weights(quantised))) - {"yes"} == {
        "W",
        "V.int8",
        "V.scales",
        *int8_constants,
    }
    x = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
    exact, rough = (verify.open_session(own).run(["y"], {"x": x})[0] for own in (graph, quantised))
    np.testing.assert_allclose(rough, exact, atol=0.3)


def make_rectified_graph(kind: str, *, is_hidden: bool) -> onnx.ModelProto:
    """Relu(x) W or GELU(x) W; hidden: something between."""
    make = onnx.helper.make_node
    nodes = [make("Relu", ["x"], ["r"])]
    if kind == "gelu":
        nodes = [
            make("Div", ["x", "root"], ["d"]),
            make("Erf", ["d"], ["e"]),
            make("Add", ["e", "one"], ["s"]),
            make("Mul", ["x", "s"], ["m"]),
            make("Mul", ["m", "half"], ["r"]),
        ]
    if is_hidden:
        nodes.append(make("Identity", ["r"], ["i"]))
    nodes.append(make("MatMul", ["i" if is_hidden else "r", "W"], ["y"], "product"))
    W = np.random.default_rng(0).choice([-1.0, 1.0], size=(64, 8))
    W[::2] = 0  # so that 8 bits hold the weights exactly
    tables = {"W": W, "root": np.sqrt(2), "one": 1.0, "half": 0.5}
    graph = onnx.helper.make_graph(
        nodes,
        "rectified",
        [float_values("x", ["n", 64])],
        [float_values("y", ["n", 8])],
        [
            numpy_helper.from_array(np.array(array, dtype=np.float32), name)
            for name, array in tables.items()
        ],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


@pytest.mark.parametrize("kind", ["relu", "gelu"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_what_is_hardly_negative_gets_finer_steps(kind, scale):
    """Rows of every size, one of zeros and one that is negative throughout among them."""
    x = np.random.default_rng(1).normal(scale=scale, size=(200, 64)).astype(np.float32)
    x[0], x[1] = 0, -np.abs(x[1])
    errors = []
    for is_hidden in (False, True):
        graph = split_weights(make_rectified_graph(kind, is_hidden=is_hidden))
        exact, rough = (
            verify.open_session(own).run(["y"], {"x": x})[0]
            for own in (graph, quantize_graph(graph))
        )
        assert not rough[0].any()
        errors.append(np.abs(exact - rough).mean() / np.abs(exact).mean())
    is_small = kind == "gelu" and scale < 1  # all of it below what the largest is taken for
    assert errors[0] < (3 if is_small else 0.75) * errors[1]
    assert errors[0] < 0.02


def test_what_the_bundle_says_of_itself(tmp_path):
    write_checkpoint(tmp_path / "my-model", "bert-paper")
    about = About(name="mine", origin="my own", license="CC-BY-4.0", threshold=0.35)
    manifest = convert(tmp_path / "my-model", tmp_path / "bundle", precision="int8", about=about)
    assert (manifest.name, manifest.origin, manifest.license) == ("mine", "my own", "CC-BY-4.0")
    assert verification(tmp_path / "bundle")["int8"]["threshold"] == 0.35
    model = nerlet.load(tmp_path / "bundle", threads=1)
    assert model.threshold == 0.35
    assert model.manifest == manifest


def test_without_a_word_the_bundle_has_the_checkpoints_name(tmp_path):
    write_checkpoint(tmp_path / "my-model", "bert-paper")
    manifest = convert(tmp_path / "my-model", tmp_path / "bundle", precision="fp32")
    assert manifest.name == "my-model"
    assert "my-model" in manifest.origin
    assert manifest.license.startswith("unknown")
    assert str(tmp_path) not in (tmp_path / "bundle" / "nerlet.json").read_text(encoding="utf-8")


def test_figures_of_training_go_along(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    card = {"encoder": "some/encoder", "threshold": 0.4, "dev_f1": 12.5}
    (tmp_path / "checkpoint" / "training.json").write_text(json.dumps(card), encoding="utf-8")
    manifest = convert(tmp_path / "checkpoint", tmp_path / "bundle", precision="fp32")
    assert manifest.figures == card
    assert manifest.threshold == 0.4
    assert manifest.origin == "trained by nerlet-export from some/encoder"


def test_differences_and_drift_are_printed(tmp_path, caplog):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    with caplog.at_level(logging.INFO, logger="nerlet_export"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle")
    printed = caplog.text
    number = r"\d\.\d\de-\d\d"
    line = (
        rf"float graph against PyTorch: largest difference of a logit {number} \(allowed {number}"
    )
    assert re.search(line, printed)
    assert "int8 against float: score drift" in printed
    assert "entity agreement F1" in printed


@pytest.mark.parametrize("fp16", [False, True])
def test_each_step_is_announced(tmp_path, caplog, fp16):
    write_checkpoint(tmp_path / "checkpoint", "bert-isolated")
    with caplog.at_level(logging.INFO, logger="nerlet_export"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", fp16=fp16)
    steps = ("reading", "tracing", "comparing", "quantising", "measuring", "halving", "writing")
    first = [message.split()[0] for message in caplog.messages]
    announced = [word for word in first if word in steps]
    halving = ["halving", "measuring"] if fp16 else []
    expected = ["reading", "tracing", "comparing", "tracing", "quantising", "measuring"]
    assert announced == [*expected, *halving, "writing"]


def test_an_unknown_precision(tmp_path):
    with pytest.raises(InputError, match="precision is 'fp16', expected 'fp32' or 'int8'"):
        convert(tmp_path, tmp_path / "bundle", precision="fp16")


def test_a_threshold_that_no_bundle_may_have(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    with pytest.raises(InputError, match=r"threshold is 35, expected a number from 0 to 1"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle", about=About(threshold=35))
    assert not (tmp_path / "bundle").exists()


def test_a_threshold_of_zero_is_a_threshold(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    convert(tmp_path / "checkpoint", tmp_path / "bundle", about=About(threshold=0.0))
    assert verification(tmp_path / "bundle")["int8"]["threshold"] == 0.0


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nerlet_export", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command_converts_to_int8_by_default(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    done = run_command("convert", tmp_path / "checkpoint", tmp_path / "bundle", "--license", "MIT")
    assert done.returncode == 0, done.stderr
    assert "int8 against float" in done.stderr
    manifest = read_manifest(tmp_path / "bundle")
    assert (manifest.precision, manifest.license) == ("int8", "MIT")


def test_command_prints_its_own_lines_and_no_librarys(tmp_path):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    done = run_command("convert", tmp_path / "checkpoint", tmp_path / "bundle", "--fp16")
    assert done.returncode == 0, done.stderr
    assert "halving to fp16" in done.stderr
    assert len(done.stderr.splitlines()) <= 12


def test_command_says_what_is_wrong_in_one_line(tmp_path):
    done = run_command("convert", tmp_path, tmp_path / "bundle")
    assert done.returncode == 2
    assert done.stdout == ""
    step, line = done.stderr.splitlines()
    assert step == f"reading {tmp_path}"
    assert line.startswith("nerlet-export: ")
    assert "gliner_config.json" in line
    assert not (tmp_path / "bundle").exists()


def test_command_keeps_to_one_line_where_a_library_does_not(tmp_path, capsys):
    write_checkpoint(tmp_path / "checkpoint", "bert-paper")
    weights = tmp_path / "checkpoint" / "model.safetensors"
    state = load_file(weights)
    save_file({**state, "prompt_rep_layer.3.bias": torch.zeros(3)}, weights)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "bundle")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "size mismatch for heads.label.3.bias" in line
