import math
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import nerlet
from nerlet import sessions
from nerlet.bundle import default_bundle_path
from nerlet.errors import GraphError, InputError
from nerlet.graph import Graph, TokenGraph
from nerlet.sessions import open_sessions
from tests.toys import MAX_WIDTH, make_graph, make_wordpiece, write_export

CUDA = "CUDAExecutionProvider"


def open_graph(path, max_width, **choice):
    return Graph(open_sessions(path, **choice), max_width)


@pytest.fixture
def save(tmp_path):
    """Saves a graph and gives its path."""

    def save_graph(model):
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return save_graph


def make_stub(inputs, output=("logits", TensorProto.FLOAT, ["B", "L", "K", "C"]), **more):
    """A graph with any signature; its output is a constant."""
    name, dtype, shape = output
    sizes = [size if isinstance(size, int) else 1 for size in shape]
    value = helper.make_tensor("value", dtype, sizes, [1] * math.prod(sizes))
    graph = helper.make_graph(
        [helper.make_node("Constant", [], [name], value=value)],
        "stub",
        [helper.make_tensor_value_info(*own) for own in inputs],
        [helper.make_tensor_value_info(name, dtype, shape)],
    )
    return helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], **more
    )


INPUTS = [
    ("input_ids", TensorProto.INT64, ["B", "T"]),
    ("attention_mask", TensorProto.INT64, ["B", "T"]),
    ("words_mask", TensorProto.INT64, ["B", "T"]),
    ("text_lengths", TensorProto.INT64, ["B", 1]),
    ("span_idx", TensorProto.INT64, ["B", "N", 2]),
    ("span_mask", TensorProto.BOOL, ["B", "N"]),
]


def test_the_toy_graph_opens_on_the_cpu(save):
    graph = open_graph(save(make_graph(make_wordpiece())), MAX_WIDTH)
    assert (graph.sessions.device, graph.has_word_shapes) == ("cpu", False)
    assert graph.sessions.providers == ["CPUExecutionProvider"]


def test_word_shapes_are_found_as_an_optional_input(save):
    assert open_graph(save(make_graph(make_wordpiece(), word_shapes=True)), 4).has_word_shapes


def test_a_graph_of_another_kind_than_its_config_is_refused(save):
    with pytest.raises(
        GraphError, match=r"of a span model, .*span_mask, found input_ids, .*_lengths;"
    ):
        open_graph(save(make_stub(INPUTS[:4])), MAX_WIDTH)
    with pytest.raises(GraphError, match=r"the inputs of a token-level model.*span_mask;"):
        TokenGraph(open_sessions(save(make_stub(INPUTS))), 1, 2)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (INPUTS[1:], "expected the inputs of a span model, input_ids, .*found attention_mask"),
        (
            [*INPUTS, ("labels_embeddings", TensorProto.FLOAT, ["C", "D"])],
            "labels_embeddings; th",
        ),
        (
            [("input_ids", TensorProto.INT32, ["B", "T"]), *INPUTS[1:]],
            r"expected input_ids as tensor\(int64\) of 2 axes, found tensor\(int32\)",
        ),
        (
            [*INPUTS[:5], ("span_mask", TensorProto.BOOL, ["B", "L", "K"])],
            r"expected span_mask as tensor\(bool\) of 2 axes, .* of 3 axes \['B', 'L', 'K'\]",
        ),
    ],
)
def test_other_inputs_are_refused(save, inputs, message):
    with pytest.raises(GraphError, match=message):
        open_graph(save(make_stub(inputs)), MAX_WIDTH)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            ("scores", TensorProto.FLOAT, ["B", "L", "K", "C"]),
            "expected an output logits, found sc",
        ),
        (("logits", TensorProto.FLOAT16, ["B", "L", "K", "C"]), r"found tensor\(float16\)"),
        (("logits", TensorProto.FLOAT, ["B", "L", "C"]), "of 4 axes, found .* of 3 axes"),
        (("logits", TensorProto.FLOAT, ["B", "L", 8, "C"]), "max_width 4 on axis 2.*found 8"),
    ],
)
def test_another_output_is_refused(save, output, message):
    with pytest.raises(GraphError, match=message):
        open_graph(save(make_stub(INPUTS, output)), MAX_WIDTH)


def test_a_width_that_only_the_run_shows_is_refused(tmp_path):
    model = nerlet.load(write_export(tmp_path / "toy", config={"max_width": 3}), threads=1)
    with pytest.raises(GraphError, match=r"model\.onnx: "):
        model.predict_entities("Bill Gates", ["person"])


def test_a_graph_made_for_another_marker_is_refused(tmp_path):
    path = write_export(tmp_path / "toy")
    tokenizer = make_wordpiece()
    graph = make_graph(tokenizer)
    (marker,) = [own for own in graph.graph.initializer if own.name == "ent_id"]
    marker.CopyFrom(numpy_helper.from_array(np.array(tokenizer.token_to_id("on")), "ent_id"))
    onnx.save(graph, path / "model.onnx")
    model = nerlet.load(path, threads=1)
    with pytest.raises(
        GraphError, match=r"expected logits of shape \(1, 2, 4, 1\).*found \(1, 2, 4, 2"
    ):
        model.predict_entities("on on", ["person"])


def test_an_output_of_open_rank_is_taken(save):
    graph = make_stub(INPUTS)
    graph.graph.output[0].type.tensor_type.ClearField("shape")
    graph.graph.node[0].output[0] = "constant"
    graph.graph.node.add(op_type="NonZero", input=["input_ids"], output=["nonzero"])
    graph.graph.node.add(op_type="Reshape", input=["nonzero", "flat"], output=["sizes"])
    graph.graph.node.add(op_type="Reshape", input=["constant", "sizes"], output=["logits"])
    graph.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
    path = save(graph)
    assert ort.InferenceSession(path).get_outputs()[0].shape == []
    assert open_graph(path, MAX_WIDTH).sessions.device == "cpu"


@pytest.mark.parametrize("content", [b"", b"not a graph"])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"model\.onnx: expected an ONNX graph"):
        open_graph(path, MAX_WIDTH)


@pytest.fixture
def path(save):
    return save(make_graph(make_wordpiece()))


@pytest.fixture
def installed(monkeypatch):
    """Sets which distributions seem to be installed, and that onnxruntime knows no CUDA."""

    def set_installed(*names):
        monkeypatch.setattr("nerlet.sessions._is_installed", lambda name: name in names)

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    return set_installed


@pytest.mark.parametrize(
    ("distributions", "advice"),
    [
        (["onnxruntime"], "`pip uninstall -y onnxruntime`, then `pip install onnxruntime-gpu`"),
        (["onnxruntime-gpu"], "nvidia-smi"),
    ],
)
@pytest.mark.parametrize("choice", [{"device": "cuda"}, {"providers": [CUDA]}])
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(
    path, installed, distributions, advice, choice
):
    installed(*distributions)
    with pytest.raises(GraphError, match=f"{CUDA}: expected one of .*{advice}"):
        open_graph(path, MAX_WIDTH, **choice)


@pytest.mark.parametrize("available", [["CPUExecutionProvider"], ["CPUExecutionProvider", CUDA]])
@pytest.mark.parametrize("choice", [{"device": "cuda"}, {"providers": [CUDA]}])
def test_two_packages_of_onnxruntime_are_an_error_before_anything_runs(
    path, installed, monkeypatch, available, choice
):
    installed("onnxruntime", "onnxruntime-gpu")
    monkeypatch.setattr(ort, "get_available_providers", lambda: available)
    monkeypatch.setattr(ort, "InferenceSession", None)
    advice = "`pip uninstall -y onnxruntime onnxruntime-gpu`, then `pip install onnxruntime-gpu`"
    with pytest.raises(GraphError, match=f"{CUDA}: expected one .*both installed.*{advice}"):
        open_graph(path, MAX_WIDTH, **choice)


def test_two_packages_of_onnxruntime_run_on_the_cpu(path, installed):
    installed("onnxruntime", "onnxruntime-gpu")
    assert open_graph(path, MAX_WIDTH, device="cpu").sessions.device == "cpu"


def test_a_run_that_fails_on_a_device_is_not_repeated_on_the_cpu(path):
    assert open_graph(path, MAX_WIDTH).sessions.main._enable_fallback is False


def test_a_gpu_that_is_dropped_silently_is_an_error(path, monkeypatch):
    known = ["CPUExecutionProvider", CUDA]
    monkeypatch.setattr(ort, "get_available_providers", lambda: known)
    session = ort.InferenceSession

    def open_on_cpu(path, options, providers, **_):
        assert providers == [CUDA, "CPUExecutionProvider"]
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", open_on_cpu)
    with pytest.raises(
        GraphError, match=rf"{CUDA}: .* dropped it and kept \['CPUExecutionProvider"
    ):
        open_graph(path, MAX_WIDTH, device="cuda")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"device": "gpu"}, "device: expected cpu or cuda, found 'gpu'"),
        ({"providers": []}, r"providers: expected a list of provider names, found \[\]"),
        ({"providers": "CPUExecutionProvider"}, "providers: expected a list"),
        ({"providers": ["NoSuchProvider"]}, "NoSuchProvider: expected one of "),
    ],
)
def test_an_unknown_device_is_refused(path, choice, message):
    with pytest.raises(GraphError, match=message):
        open_graph(path, MAX_WIDTH, **choice)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True, "2"])
def test_bad_thread_counts_are_refused(path, threads):
    with pytest.raises(InputError, match="threads: expected a whole number of at least 1"):
        open_graph(path, MAX_WIDTH, threads=threads)


def test_session_options(path, monkeypatch):
    seen = []
    session = ort.InferenceSession

    def spy(path, options, **others):
        seen.append(options)
        return session(path, options, **others)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    monkeypatch.setattr("nerlet.sessions.count_usable_threads", lambda: 3)
    open_graph(path, MAX_WIDTH)
    open_graph(path, MAX_WIDTH, threads=2)
    assert [options.intra_op_num_threads for options in seen] == [3, 2]
    options = seen[0]
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert not options.enable_mem_pattern
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert options.get_session_config_entry("session.set_denormal_as_zero") == "1"


def test_slow_fusions_are_left_out(tmp_path, monkeypatch):
    """onnxruntime's fused bias and GELU takes longer on a CPU than the two do."""
    source = default_bundle_path() / "model.onnx"
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    ort.InferenceSession(source, options)
    ours = sessions._make_options(1)
    ours.optimized_model_filepath = str(tmp_path / "ours.onnx")
    monkeypatch.setattr(sessions, "_make_options", lambda _: ours)
    sessions.open_sessions(source, threads=1)
    kinds = [
        {node.op_type for node in onnx.load(tmp_path / name, load_external_data=False).graph.node}
        for name in ("all.onnx", "ours.onnx")
    ]
    slow = {"BiasGelu", "SkipLayerNormalization"}
    assert kinds[0] & slow
    assert not kinds[1] & slow


def test_threads_sleep_between_runs():
    """An app that has the model loaded uses no processor while it asks for nothing."""
    model = nerlet.load(threads=2)
    used = 0.0
    for _ in range(10):
        model.predict_entities("Ada Lovelace wrote to Charles Babbage. " * 20, ["person"])
        before = time.process_time()
        time.sleep(0.02)
        used += time.process_time() - before
    assert used < 0.05
