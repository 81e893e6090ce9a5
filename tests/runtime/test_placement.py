"""Which file runs where, as far as can be seen without a GPU."""

import onnx
import onnxruntime as ort
import pytest

import nerlet
from nerlet.bundle import open_bundle
from nerlet.errors import BundleError, GraphError
from nerlet.manifest import read_manifest, record_file
from nerlet.placement import choose_cuda_graph, open_graph
from tests.toys import make_graph, make_wordpiece, write_bundle, write_export

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def write_fp16_bundle(path, **changes):
    """A toy bundle with a second graph; float, for nothing here depends on what is in it."""
    files = dict(read_manifest(write_bundle(path)).files)
    onnx.save(make_graph(make_wordpiece()), path / "model_fp16.onnx")
    files["model_fp16.onnx"] = record_file(path / "model_fp16.onnx")
    return write_bundle(path, files=files, **changes)


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are opened on what passes for CUDA, with their providers."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU, CUDA])
    session, names = ort.InferenceSession, []

    def open_session(path, options, providers, **_):
        names.append((path.rpartition("/")[2], providers))
        own = session(path, options, providers=[CPU])
        own.get_providers = lambda: providers
        return own

    monkeypatch.setattr(ort, "InferenceSession", open_session)
    return names


def choose(path, **choice):
    choice = {"device": "cuda", "providers": None, "threads": 1, **choice}
    return open_graph(open_bundle(path), **choice)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_cuda_takes_half_precision_where_there_is_one(tmp_path, opened, precision):
    graph = choose(write_fp16_bundle(tmp_path, precision=precision))
    assert opened == [("model_fp16.onnx", [CUDA, CPU]), ("select.onnx", [CUDA, CPU])]
    assert (graph.sessions.device, graph.sessions.memory) == ("cuda", "cuda")
    assert graph.selector is not None


def test_the_cpu_never_takes_half_precision(tmp_path, opened):
    graph = choose(write_fp16_bundle(tmp_path), device="cpu")
    assert opened == [("model.onnx", [CPU])]
    assert graph.selector is None


def test_cuda_takes_a_float_graph_as_it_is(tmp_path, opened):
    choose(write_bundle(tmp_path), providers=[CUDA])
    assert opened == [("model.onnx", [CUDA]), ("select.onnx", [CUDA])]


def test_cuda_takes_an_export_of_the_reference(tmp_path, opened):
    choose(write_export(tmp_path))
    assert [name for name, _ in opened] == ["model.onnx", "select.onnx"]


@pytest.mark.parametrize("choice", [{"device": "cuda"}, {"providers": [CUDA]}])
def test_int8_alone_is_an_error_on_cuda_that_says_what_to_do(tmp_path, opened, choice):
    path = write_bundle(tmp_path, precision="int8")
    line = rf"`nerlet-export convert CHECKPOINT_DIR {path} --fp16`"
    with pytest.raises(GraphError, match=rf"int8 alone.*MatMulIntegerToFloat.*{line}"):
        nerlet.load(path, **choice)
    assert opened == []


def test_a_half_precision_file_that_the_manifest_does_not_list_is_not_taken(tmp_path):
    write_fp16_bundle(tmp_path)
    assert choose_cuda_graph(open_bundle(write_bundle(tmp_path))) == tmp_path / "model.onnx"


def test_a_damaged_half_precision_file_is_refused(tmp_path):
    write_fp16_bundle(tmp_path)
    (tmp_path / "model_fp16.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model_fp16\.onnx: expected .* bytes with sha256"):
        open_bundle(tmp_path)
