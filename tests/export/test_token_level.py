"""Token-level models: the reference's checkpoints and exports, the same entities."""

import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

import nerlet
from nerlet.bundle import read_manifest
from nerlet.errors import GraphError, InputError
from nerlet.manifest import record_file, write_manifest
from nerlet.words import split_words
from nerlet_export import verify
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.convert import convert
from nerlet_export.graph import build_graph
from nerlet_export.onnx_graph import make_graph
from nerlet_export.quantize import quantize_graph
from nerlet_export.samples import draw_sample
from tests.export.parity import Outcome
from tests.export.reference_models import (
    load_reference,
    load_reference_on_onnx,
    make_token_reference,
    reference_logits,
)
from tests.export.test_oracle import Trio, compare

# Encoder, projection, LSTM.
MODELS = {
    "bert": ("bert", False, False),
    "bert-projected-lstm": ("bert", True, True),
    "deberta-v2": ("deberta-v2", False, False),
    "deberta-v2-lstm": ("deberta-v2", False, True),
    "roberta-projected": ("roberta", True, False),
}
TEXTS = ["the cat sat on a mat", "10 % of x-ray", "a", "(a) b c d e f g h i j k l m n o p q r s t"]
LABELS = ["person", "a b", "x"]


@pytest.fixture(scope="module", params=MODELS)
def trio(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    encoder, is_projected, has_rnn = MODELS[request.param]
    model = make_token_reference(
        folder / "encoder", encoder=encoder, is_projected=is_projected, has_rnn=has_rnn
    )
    model.save_pretrained(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "bundle", precision="fp32")
    return Trio(
        load_reference(folder / "checkpoint"),
        nerlet.load(folder / "bundle", threads=1),
        load_reference_on_onnx(folder / "bundle"),
    )


def test_logits_are_the_references(trio):
    expected = reference_logits(trio.oracle, TEXTS, LABELS).numpy()
    mixed = reference_logits(trio.mixed, TEXTS, LABELS).numpy()
    assert expected.shape == mixed.shape == (4, 22, 3, 3)
    assert expected.std() > 1.0
    for row, text in enumerate(TEXTS):
        words = len(split_words(text))
        np.testing.assert_allclose(mixed[row, :words], expected[row, :words], atol=1e-4)


def test_same_entities_as_the_reference(trio):
    """Flat, nested, multi-label, thresholds and label sets by text, described labels."""
    found: tuple[Outcome, Outcome] = compare(trio, seed=3)
    for outcome in found:
        assert not outcome.differences, f"{len(outcome.differences)}: {outcome.differences[0]}"
        assert outcome.compared > 120
        assert outcome.entities > 200
        assert outcome.excluded <= 0.02 * outcome.compared


def test_spans_may_be_of_any_width(trio):
    (found,) = trio.ours.score_words([list("abcdefghijklmnop")], LABELS, threshold=0.1)
    assert (found.end - found.start).max() > trio.ours.bundle.max_width


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("token")
    make_token_reference(folder / "encoder", encoder="bert").save_pretrained(folder / "checkpoint")
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def bundle(checkpoint, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundle")
    convert(checkpoint, target, precision="fp32")
    return target


def put_graph(bundle, target, model):
    """A copy of a bundle with another graph."""
    target.mkdir()
    for path in bundle.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    onnx.save(model, target / "model.onnx")
    manifest = read_manifest(target)
    files = {**manifest.files, "model.onnx": record_file(target / "model.onnx")}
    write_manifest(target, replace(manifest, files=files))
    return target


def transpose_output(model, order):
    """The same graph, the axes of its logits in another order; names of axes stay as they were."""
    turned = onnx.ModelProto()
    turned.CopyFrom(model)
    (maker,) = [node for node in turned.graph.node if "logits" in node.output]
    maker.output[list(maker.output).index("logits")] = "own"
    turned.graph.node.append(helper.make_node("Transpose", ["own"], ["logits"], perm=order))
    return turned


def test_the_older_layout_gives_the_same(bundle, tmp_path):
    older = transpose_output(onnx.load(bundle / "model.onnx"), [3, 0, 1, 2])
    model = nerlet.load(bundle, threads=1)
    other = nerlet.load(put_graph(bundle, tmp_path / "older", older), threads=1)
    found = model.inference(TEXTS, LABELS, threshold=0.3)
    assert sum(map(len, found)) > 5
    assert other.inference(TEXTS, LABELS, threshold=0.3) == found


def test_an_unknown_layout_is_refused(bundle, tmp_path):
    turned = transpose_output(onnx.load(bundle / "model.onnx"), [0, 3, 1, 2])
    with pytest.raises(GraphError, match=r"\(1, 2, 1, 3\) or \(3, 1, 2, 1\).*found \(1, 3, 2, 1\)"):
        nerlet.load(put_graph(bundle, tmp_path / "turned", turned))


def test_an_export_of_the_references_own_is_read(checkpoint, tmp_path):
    reference = load_reference(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of tracing
        reference.export_to_onnx(str(tmp_path), quantize=False)
    model = nerlet.load(tmp_path, threads=1)
    for text in TEXTS:
        expected = reference.predict_entities(text, LABELS, threshold=0.3)
        found = model.predict_entities(text, LABELS, threshold=0.3)
        assert [(e["start"], e["end"], e["label"]) for e in found] == [
            (e["start"], e["end"], e["label"]) for e in expected
        ]


def test_words_without_pieces_shift_nothing(bundle):
    model = nerlet.load(bundle, threads=1)
    text = "the cat sat on a mat"
    expected = model.predict_entities(text, LABELS, threshold=0.2)
    assert expected
    found = model.predict_entities(text.replace(" ", " \u200b "), LABELS, threshold=0.2)
    assert [e["text"].replace("\u200b ", "") for e in found] == [e["text"] for e in expected]
    assert [e["score"] for e in found] == [e["score"] for e in expected]


def test_int8_drift_is_measured_and_small(checkpoint):
    model = load_checkpoint(checkpoint)
    graph = build_graph(model)
    drift = verify.measure_drift(model, graph, quantize_graph(graph), threshold=0.3)
    assert drift.entities > 20
    assert drift.mean_score_drift < 0.02


def test_a_wrong_graph_is_not_written(checkpoint):
    model = load_checkpoint(checkpoint)
    graph = build_graph(model)
    (name,) = (own for own in graph.weights if own.endswith("out_mlp.3.bias"))
    wrong = {**graph.weights, name: graph.weights[name] + np.float32(0.01)}
    with pytest.raises(GraphError, match="differs from PyTorch"):
        verify.compare_float(model, make_graph(graph.model, wrong))


def test_a_checkpoint_goes_back_to_the_reference(checkpoint, tmp_path):
    model = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path / "again", model)
    again = reference_logits(load_reference(tmp_path / "again"), TEXTS, LABELS)
    torch.testing.assert_close(again, reference_logits(load_reference(checkpoint), TEXTS, LABELS))


def test_the_signature_is_the_references(checkpoint):
    model = load_checkpoint(checkpoint)
    graph = build_graph(model)
    verify.check_signature(graph.model, model.model.config)
    names = ["input_ids", "attention_mask", "words_mask", "text_lengths"]
    assert [value.name for value in graph.model.graph.input] == names
    assert set(draw_sample(model, seed=1).feeds) == set(names)


def test_token_level_models_are_not_trained(checkpoint):
    with pytest.raises(InputError, match="trains span models only"):
        _ = load_checkpoint(checkpoint).span_model
