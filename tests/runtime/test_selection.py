"""Thresholds on the device, through the same IO binding, on the CPU: no GPU is there to test on."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerlet
from nerlet.decode import Candidates
from nerlet.errors import GraphError
from nerlet.graph import Graph
from nerlet.scores import find_candidates, sigmoid
from nerlet.selection import SELECTION_PATH, Selector, open_selector
from nerlet.sessions import _MEMORY, HOST, Sessions, open_sessions
from nerlet_export.selection import build_selection
from tests.strategies import span_logits
from tests.toys import write_export

TEXTS = ["Ada", "Bill Gates founded Microsoft on April 4, 1975.", "", "\u200b", "on", "Apple 1975"]
LABELS = ["person", "organization", "date"]
DEVICE = "SomeExecutionProvider"
THRESHOLDS = st.one_of(st.sampled_from([0, 0.5, 1]), st.floats(0, 1))


@pytest.fixture(scope="module")
def selector():
    return Selector(open_sessions(SELECTION_PATH, threads=1))


@pytest.fixture
def on_device(toy_path, selector):
    """The toy model as on a device, whose memory is the host's."""
    return put_on_device(toy_path, selector)


def put_on_device(path, selector):
    bundle = nerlet.load(path, threads=1).bundle
    sessions = open_sessions(bundle.path / "model.onnx", threads=1)
    sessions.providers = [DEVICE]
    return nerlet.GLiNER(bundle, Graph(sessions, bundle.max_width, selector))


def columns(candidates: Candidates) -> list[list[float]]:
    parts = (candidates.start, candidates.end, candidates.label, candidates.score)
    return [part.tolist() for part in parts]


def test_the_file_is_what_the_export_makes():
    assert SELECTION_PATH.read_bytes() == build_selection().SerializeToString(deterministic=True)
    onnx.checker.check_model(onnx.load(SELECTION_PATH), full_check=True)


@given(st.lists(span_logits(), min_size=1, max_size=4), st.data())
def test_candidates_of_a_padded_batch_are_those_of_each_text(selector, texts, data):
    K = data.draw(st.integers(1, 4))
    slopes = np.arange(K, dtype=np.float32)[:, None]
    texts = [own[:, :1].repeat(K, axis=1) + slopes for own in texts]  # all of one width
    thresholds = []
    for own in texts:  # also such as are the score of a span, to the bit
        exact = st.sampled_from(sigmoid(own).ravel().tolist()) if own.size else THRESHOLDS
        drawn = [data.draw(st.one_of(THRESHOLDS, exact)) for _ in range(own.shape[2])]
        thresholds.append(np.array(drawn, np.float32))
    sizes = [max(own.shape[axis] for own in texts) for axis in (0, 2)]
    batch = np.full((len(texts), sizes[0], K, sizes[1]), 50, np.float32)  # padding means nothing
    for row, own in enumerate(texts):
        batch[row, : own.shape[0], :, : own.shape[2]] = own
    lengths = [len(own) for own in texts]
    found = selector.select(ort.OrtValue.ortvalue_from_numpy(batch), thresholds, lengths)
    expected = [
        find_candidates(own, threshold=limits)
        for own, limits in zip(texts, thresholds, strict=True)
    ]
    assert list(map(columns, found)) == list(map(columns, expected))
    assert {own.score.dtype.name for own in found} == {"float32"}


def test_nothing_above_the_thresholds(selector):
    logits = ort.OrtValue.ortvalue_from_numpy(np.full((2, 3, 1, 2), -5, np.float32))
    thresholds = [np.full(2, 0.5, np.float32)] * 2
    assert [len(own) for own in selector.select(logits, thresholds, [3, 1])] == [0, 0]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, {"person": 0.3, "date": 0.8}])
def test_a_device_finds_what_the_cpu_finds(toy, on_device, threshold):
    texts, sets = TEXTS * 2, [LABELS, ["person"], ["date", "person"]] * 4
    options = {"threshold": threshold, "flat_ner": False, "multi_label": True}
    expected = toy.inference(texts, sets, **options)
    assert sum(map(len, expected)) >= 2
    assert on_device.inference(texts, sets, batch_size=5, **options) == expected


def test_only_the_candidates_leave_the_device(on_device, monkeypatch):
    bound = []
    run_bound = Sessions.run_bound

    def spy(self, outputs, feeds, memory):
        bound.append((tuple(outputs), memory))
        return run_bound(self, outputs, feeds, HOST)

    monkeypatch.setattr(Sessions, "run_bound", spy)
    monkeypatch.setattr(Sessions, "run", None)
    monkeypatch.setitem(_MEMORY, DEVICE, "cuda")
    assert len(on_device.predict_entities("Ada", LABELS)) == 1
    assert bound == [(("logits",), "cuda"), (("cells", "above"), HOST)]


def test_optional_inputs_are_bound(shaped_toy, selector):
    on_device = put_on_device(shaped_toy.bundle.path, selector)
    expected = shaped_toy.inference(TEXTS, LABELS)
    assert expected[1][0]["score"] > 0.99  # of a Title word: the shapes were read
    assert on_device.inference(TEXTS, LABELS) == expected


def test_class_probs_take_the_logits_from_the_device(toy, on_device):
    expected = toy.inference(TEXTS, LABELS, return_class_probs=True)
    assert on_device.inference(TEXTS, LABELS, return_class_probs=True) == expected
    streamed = on_device.stream(iter(TEXTS), LABELS, return_class_probs=True)
    assert list(streamed) == expected
    assert set(expected[0][0]["class_probs"]) == set(LABELS)


def test_words_and_streams_on_a_device(toy, on_device):
    sentences = [["Ada"], [], ["Bill", "Gates", "on", "1975"]]
    assert on_device.predict_words(sentences, LABELS) == toy.predict_words(sentences, LABELS)
    scored, expected = (
        list(map(columns, model.score_words(sentences, LABELS, threshold=0.1)))
        for model in (on_device, toy)
    )
    assert scored == expected
    assert list(on_device.stream(TEXTS, LABELS)) == list(toy.stream(TEXTS, LABELS))


def test_a_graph_of_another_width_is_refused_on_a_device(tmp_path, selector):
    model = put_on_device(write_export(tmp_path / "toy"), selector)
    model._scorer.graph.max_width = 3
    with pytest.raises(GraphError, match=r"logits of shape \(1, 1, 3, 3\).*found \(1, 1, 4, 3\)"):
        model.predict_entities("Ada", LABELS)


def test_an_input_that_fails_is_told_on_a_device(toy):
    sessions = toy._scorer.graph.sessions
    feeds = {"input_ids": np.zeros((1, 2, 3), np.int64)}
    with pytest.raises(GraphError, match=r"failed on inputs of shapes \{'input_ids': \(1, 2, 3\)"):
        sessions.run_bound(["logits"], feeds, HOST)


def test_the_cpu_has_no_selector(toy):
    sessions = toy._scorer.graph.sessions
    assert (sessions.memory, open_selector(sessions)) == (HOST, None)


def test_a_device_with_memory_has_a_selector(toy, monkeypatch):
    sessions = toy._scorer.graph.sessions
    monkeypatch.setattr(Sessions, "memory", "cuda")  # its providers stay the CPU's
    assert isinstance(open_selector(sessions), Selector)
