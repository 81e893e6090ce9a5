"""Isolated labels are read once and kept, and that changes no score."""

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
import torch

import nerlet
from nerlet.arguments import read_tasks
from nerlet.cached import CachedGraph
from nerlet.errors import GraphError, InputError
from nerlet.graph import Graph
from nerlet.placement import open_graph
from nerlet.scoring import Scorer
from nerlet.sessions import open_sessions
from nerlet.words import split_words
from nerlet_export import convert as convert_module
from nerlet_export import verify
from nerlet_export.checkpoint import save_checkpoint
from nerlet_export.convert import convert
from nerlet_export.graph import build_parts
from nerlet_export.onnx_graph import make_graph
from nerlet_export.tiny import make_checkpoint

ISOLATED: dict[str, Any] = {"label_attention": "isolated"}
VARIANTS: dict[str, dict[str, Any]] = {
    "first": ISOLATED,
    "mean": {**ISOLATED, "label_pooling": "mean"},
    "shapes": {**ISOLATED, "label_pooling": "mean", "word_shapes": True},
    "lstm": {**ISOLATED, "num_rnn_layers": 1, "span_mode": "markerV0"},
    "projection": {**ISOLATED, "hidden_size": 12},
}
LABELS = ["person", "city", "a b", "date", "time of day"]
TEXTS = ["Ada wrote to Bob .", "x", "On Monday the U.S. bought 3 cats in Rome", "so " * 60]


def make_lively(**settings):
    checkpoint = make_checkpoint("bert", **settings)
    if checkpoint.model.encoder.segments is not None:  # zeros in a new model
        torch.nn.init.normal_(checkpoint.model.encoder.segments.weight, std=0.5)
    return checkpoint


@pytest.fixture(scope="module", params=[("shapes", "fp32"), ("shapes", "int8")], ids=str)
def bundle(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    variant, precision = request.param
    save_checkpoint(folder / "checkpoint", make_lively(**VARIANTS[variant]))
    convert(folder / "checkpoint", folder / "bundle", precision=precision)
    return folder / "bundle"


@pytest.fixture
def model(bundle):
    return nerlet.load(bundle, threads=1)


def logits_of(model, text, labels, split=split_words):
    """Logits of one text, (L, K, C)."""
    (task,) = read_tasks(1, labels, 0.5, model.own_thresholds, multi_label=False, flat_ner=True)
    ((_, _, scored),) = model._scorer.score_all([text], split, [task], None)
    return scored.logits


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_two_graphs_are_the_model(variant):
    checkpoint = make_lively(**VARIANTS[variant])
    report = verify.compare_parts(checkpoint, build_parts(checkpoint))
    assert report.cells > 10_000
    assert report.max_score_difference < 1e-5


def test_models_with_joint_labels_are_one_file(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint("bert"))
    manifest = convert(tmp_path / "checkpoint", tmp_path / "bundle")
    assert "model.onnx" in manifest.files
    assert not {"label.onnx", "text.onnx", "weights.bin"} & manifest.files.keys()
    assert isinstance(nerlet.load(tmp_path / "bundle")._scorer.graph, Graph)


def test_weights_are_stored_once(bundle):
    """Each tensor that graphs share has one place, and no large one is left inside."""
    places: dict[tuple[int, int], set[str]] = {}
    for name in ("model.onnx", "label.onnx", "text.onnx"):
        graph = onnx.load(bundle / name, load_external_data=False).graph
        assert max(len(tensor.raw_data) for tensor in graph.initializer) < 1024
        for tensor in graph.initializer:
            entry = {own.key: own.value for own in tensor.external_data}
            if entry:
                assert entry["location"] == "weights.bin"
                place = (int(entry["offset"]), int(entry["length"]))
                places.setdefault(place, set()).add(name)
    size = (bundle / "weights.bin").stat().st_size
    assert size - 64 * len(places) < sum(length for _, length in places) <= size
    assert any(len(names) == 3 for names in places.values())  # the encoder's
    contents = (bundle / "weights.bin").read_bytes()
    stored = [contents[offset : offset + length] for offset, length in places]
    assert len(set(stored)) == len(stored)


def test_the_cpu_takes_the_two_graphs_and_scores_as_the_whole(bundle, model):
    whole = Scorer(model.bundle, Graph(open_sessions(bundle / "model.onnx"), 4))
    assert isinstance(model._scorer.graph, CachedGraph)
    other = nerlet.GLiNER(model.bundle, whole.graph)
    atol = 1e-4 if "fp32" in model.manifest.precision else 0.1  # of a logit, of about 10
    for text in TEXTS:
        found, expected = (logits_of(own, text, LABELS) for own in (model, other))
        inside = np.arange(len(found))[:, None] + np.arange(4) < len(found)
        np.testing.assert_allclose(found[inside], expected[inside], atol=atol)


def test_neither_order_nor_what_was_asked_before_changes_a_bit(bundle, model):
    base = logits_of(model, TEXTS[2], LABELS)
    rng = np.random.default_rng(0)
    for _ in range(5):
        logits_of(model, TEXTS[0], [LABELS[0], "something else"])
        order = rng.permutation(len(LABELS))
        turned = logits_of(model, TEXTS[2], [LABELS[i] for i in order])
        np.testing.assert_array_equal(turned, base[..., order])
    fresh = nerlet.load(bundle, threads=1)
    np.testing.assert_array_equal(logits_of(fresh, TEXTS[2], LABELS), base)


def test_a_label_is_read_once(model, monkeypatch):
    graph = model._scorer.graph
    read = Mock(wraps=graph._label.run)
    monkeypatch.setattr(graph._label, "run", read)
    for text in TEXTS:
        logits_of(model, text, LABELS)
    assert read.call_count == len(LABELS)
    logits_of(model, TEXTS[0], ["person", "new", "city"])
    assert read.call_count == len(LABELS) + 1


def test_what_is_kept_is_bounded_and_the_least_recently_used_goes(model):
    kept = model._scorer.graph
    small = CachedGraph(kept.sessions, kept._label, kept._ent_id, kept_bytes=4000)
    bounded = nerlet.GLiNER(model.bundle, small)
    for labels in (LABELS, LABELS[:2], LABELS[2:], LABELS):
        expected = logits_of(model, TEXTS[2], labels)
        np.testing.assert_array_equal(logits_of(bounded, TEXTS[2], labels), expected)
        assert small._size == sum(a.nbytes for own in small._kept.values() for a in own) <= 4000
    assert 0 < len(small._kept) < len(LABELS)
    first = next(iter(small._kept))
    small._find([first])
    assert list(small._kept)[-1] == first


def test_hundreds_of_labels_leave_the_whole_text(model):
    """Labels have positions of their own: here two thousand pieces beside a limit of 600."""
    labels = [f"label number {i}" for i in range(150)]
    assert logits_of(model, TEXTS[3], labels).shape == (60, 4, 150)
    with pytest.warns(UserWarning, match=r"400 words .* takes 100 words and 600 pieces at once"):
        logits_of(model, "so " * 500, ["person"])
    with pytest.raises(InputError, match="leaves no room"):
        logits_of(model, TEXTS[0], ["x " * 700])


def test_many_texts_score_as_alone(bundle, model):
    labels = [LABELS, LABELS[::-1], ["person"], ["date", "city"]] * 20
    texts = TEXTS * 20
    alone = [
        model.predict_entities(text, own, threshold=0.3)
        for text, own in zip(texts, labels, strict=True)
    ]
    assert sum(map(len, alone)) > 100
    threaded = nerlet.load(bundle, threads=3)
    assert threaded.inference(texts, labels, threshold=0.3) == alone
    expected = [model.predict_entities(text, LABELS, threshold=0.3) for text in texts]
    assert list(threaded.stream(iter(texts), LABELS, threshold=0.3)) == expected


def test_another_signature_is_refused(bundle):
    text, label = (open_sessions(bundle / own) for own in ("text.onnx", "label.onnx"))
    with pytest.raises(GraphError, match=r"label\.onnx: expected the inputs directions, "):
        CachedGraph(label, label, 5)
    with pytest.raises(GraphError, match=r"text\.onnx: expected the inputs input_ids and "):
        CachedGraph(text, text, 5)


def test_texts_attend_block_by_block(bundle):
    """As onnxruntime does without mask and bias where keys and values come by rows."""
    graph = onnx.load(bundle / "text.onnx", load_external_data=False).graph
    attention = [node for node in graph.node if node.op_type == "MultiHeadAttention"]
    axes = {own.name: len(own.type.tensor_type.shape.dim) for own in graph.input}
    kept = [name for name in axes if name.startswith(("keys_", "values_"))]
    assert len(kept) == 2 * len(attention) > 0
    assert {axes[name] for name in kept} == {3}
    assert {len(node.input) for node in attention} == {3}


def test_keys_by_heads_of_an_earlier_version_are_refused(bundle):
    text, label = (open_sessions(bundle / own) for own in ("text.onnx", "label.onnx"))
    outputs = [Mock(shape=[*own.shape, 4]) for own in label.main.get_outputs()]
    for mock, own in zip(outputs, label.main.get_outputs(), strict=True):
        mock.name = own.name
    label.main = Mock(wraps=label.main, get_outputs=lambda: outputs)
    with pytest.raises(GraphError, match=r"expected keys of 3 axes .* export it again"):
        CachedGraph(text, label, 5)


def test_graphs_that_differ_are_not_written(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "checkpoint", make_lively(**ISOLATED))

    def perturbed(checkpoint):
        parts = build_parts(checkpoint)
        label = parts["label.onnx"]
        (name,) = (own for own in label.weights if own.endswith("position_embeddings.weight"))
        louder = {**label.weights, name: label.weights[name] * np.float32(1.5)}
        return {**parts, "label.onnx": make_graph(label.model, louder)}

    monkeypatch.setattr(convert_module, "build_parts", perturbed)
    with pytest.raises(GraphError, match=r"graphs of labels and texts differ .* not written"):
        convert(tmp_path / "checkpoint", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_an_older_bundle_of_one_graph_still_opens(model):
    alone = replace(model.bundle, label_graph_path=None, text_graph_path=None)
    graph = open_graph(alone, "cpu", None, 1)
    assert isinstance(graph, Graph)
    expected = model.predict_entities(TEXTS[2], LABELS, threshold=0.3)
    found = nerlet.GLiNER(alone, graph).predict_entities(TEXTS[2], LABELS, threshold=0.3)
    assert [own["text"] for own in found] == [own["text"] for own in expected]
