"""Graphs with their weights beside them: the same answers, and large ones in two files."""

import json

import numpy as np
import onnx
import pytest
import torch

import nerlet
from nerlet_export import onnx_graph, verify
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.convert import convert
from nerlet_export.graph import build_graph
from nerlet_export.onnx_graph import join_weights, split_weights, write_graphs
from nerlet_export.samples import draw_sample
from nerlet_export.tiny import ENCODERS, make_checkpoint

TEXT = "Ada wrote to Babbage about 3 engines ."
LABELS = ["person", "thing"]


@pytest.fixture
def no_room(monkeypatch):
    """No graph is small enough for one file."""
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 0)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_weights_go_past_the_tracer(encoder, monkeypatch):
    sizes = []
    load = onnx.load_from_string

    def spy(written):
        sizes.append(len(load(written).graph.initializer))
        return load(written)

    monkeypatch.setattr("nerlet_export.graph.onnx.load_from_string", spy)
    checkpoint = make_checkpoint(encoder)
    graph = build_graph(checkpoint)
    products = [node for node in graph.model.graph.node if node.op_type == "MatMul"]
    named = [own for node in products for own in node.input if own.endswith(".columns")]
    assert len(named) >= 10
    assert sizes[0] <= len(graph.weights) - len(set(named))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_graph_and_model_share_weights_and_the_model_stays_what_it_is(encoder, tmp_path):
    checkpoint = make_checkpoint(encoder)
    before = {name: own.clone() for name, own in checkpoint.model.state_dict().items()}
    graph = build_graph(checkpoint)
    state = checkpoint.model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(own, before[name]) for name, own in state.items())
    model = checkpoint.span_model
    for weight in (model.encoder.words.weight, model.heads.label.last.weight):
        own = weight.detach().numpy()
        assert any(np.shares_memory(own, array) for array in graph.weights.values())
    save_checkpoint(tmp_path, checkpoint)
    saved = load_checkpoint(tmp_path).model.state_dict()
    assert all(torch.equal(own, before[name]) for name, own in saved.items())


def test_splitting_and_joining_change_nothing():
    graph = build_graph(make_checkpoint("deberta-v2", num_rnn_layers=1))
    whole = join_weights(graph)
    before = whole.SerializeToString(deterministic=True)
    again = split_weights(whole)
    assert whole.SerializeToString(deterministic=True) == before
    assert again.weights.keys() == graph.weights.keys()
    for name, array in graph.weights.items():
        np.testing.assert_array_equal(again.weights[name], array)


def test_a_session_keeps_the_weights_that_it_reads():
    checkpoint = make_checkpoint("bert")
    sample = draw_sample(checkpoint, seed=1)
    expected = verify.run_torch(checkpoint, sample.feeds)
    session = verify.open_session(build_graph(checkpoint))  # nobody else has the graph
    known = verify.known_cells(sample)
    np.testing.assert_allclose(
        verify.run_graph(session, sample.feeds)[known], expected[known], atol=1e-4, rtol=1e-5
    )


@pytest.mark.usefixtures("no_room")
def test_files_beside_weights_answer_as_the_graph_does(tmp_path):
    checkpoint = make_checkpoint("bert")
    graph = build_graph(checkpoint)
    write_graphs({"model.onnx": graph}, tmp_path)
    once = (tmp_path / "weights.bin").stat().st_size
    write_graphs({"again.onnx": graph}, tmp_path)
    assert (tmp_path / "weights.bin").stat().st_size >= 2 * once - 64
    sample = draw_sample(checkpoint, seed=1)
    expected = verify.run_graph(verify.open_session(graph), sample.feeds)
    for name in ("model.onnx", "again.onnx"):
        onnx.checker.check_model(str(tmp_path / name))
        found = verify.run_graph(verify.open_session(tmp_path / name), sample.feeds)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("no_room")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_large_bundle_has_its_weights_in_a_file_and_finds_the_same(
    tmp_path, monkeypatch, precision
):
    save_checkpoint(tmp_path / "checkpoint", make_checkpoint("bert"))
    large = convert(tmp_path / "checkpoint", tmp_path / "large", precision=precision, fp16=True)
    assert large.weights_sha256 == large.files["weights.bin"].sha256
    monkeypatch.undo()
    small = convert(tmp_path / "checkpoint", tmp_path / "small", precision=precision)
    assert "weights.bin" not in small.files
    found, expected = (
        nerlet.load(tmp_path / name, threads=1).predict_entities(TEXT, LABELS, threshold=0.3)
        for name in ("large", "small")
    )
    assert found
    assert json.dumps(found) == json.dumps(expected)
