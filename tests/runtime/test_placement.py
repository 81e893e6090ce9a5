"""Which file runs where, as far as can be seen without a GPU."""

import onnx
import onnxruntime as ort
import pytest

import nerlet
from nerlet.bundle import default_bundle_path, open_bundle
from nerlet.errors import BundleError, GraphError, InputError
from nerlet.manifest import read_manifest, record_file
from nerlet.placement import open_graph
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
    assert open_bundle(write_bundle(tmp_path)).cuda_graph_path == tmp_path / "model.onnx"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", ["model.onnx", "model_fp16.onnx"])
def test_a_named_graph_of_a_bundle_runs_whole_on_any_device(tmp_path, opened, device, name):
    path = write_fp16_bundle(tmp_path, precision="int8")
    nerlet.load(path, graph=name, device=device)
    assert opened[0][0] == name


def test_a_named_graph_replaces_the_two_parts():
    bundle = open_bundle(default_bundle_path(), "model.onnx")
    assert (bundle.label_graph_path, bundle.text_graph_path) == (None, None)


def test_a_bundle_runs_no_graph_that_its_manifest_does_not_list(tmp_path):
    path = write_bundle(tmp_path)
    onnx.save(make_graph(make_wordpiece()), path / "model_q4.onnx")
    with pytest.raises(InputError, match=r"expected one of model\.onnx, .* found 'model_q4\.onnx'"):
        nerlet.load(path, graph="model_q4.onnx")


EXPORTED = [
    "onnx/model.onnx",
    *("model_quantized.onnx", "model_int8.onnx", "model_uint8.onnx", "model_q4.onnx"),
    *("model_fp16.onnx", "model_q4f16.onnx", "model_bnb4.onnx"),
]


def write_graphs(path, *names):
    """A toy export with its graph under other names."""
    write_export(path)
    graph = (path / "model.onnx").read_bytes()
    (path / "model.onnx").unlink()
    for name in names:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(graph)
    return path


@pytest.mark.parametrize("count", range(5))
def test_the_cpu_takes_an_exports_float_graph_then_int8_then_4_bits(tmp_path, opened, count):
    choose(write_graphs(tmp_path, *EXPORTED[count:]), device="cpu")
    assert opened == [(EXPORTED[count].rpartition("/")[2], [CPU])]


@pytest.mark.parametrize(("left_out", "expected"), [((), 5), ((5,), 0)])
def test_cuda_takes_an_exports_half_precision_then_float(tmp_path, opened, left_out, expected):
    names = [name for place, name in enumerate(EXPORTED) if place not in left_out]
    choose(write_graphs(tmp_path, *names))
    assert opened[0][0] == EXPORTED[expected].rpartition("/")[2]


def test_a_graph_in_the_root_comes_before_one_in_the_folder_onnx(tmp_path):
    path = write_graphs(tmp_path, "onnx/model.onnx", "model.onnx")
    assert open_bundle(path).graph_path == path / "model.onnx"


@pytest.mark.parametrize("name", EXPORTED[5:])
def test_half_precision_alone_never_runs_on_the_cpu_unasked(tmp_path, opened, name):
    path = write_graphs(tmp_path, name)
    with pytest.raises(GraphError, match=rf"graph for {CPU} .*found {name};.* graph='{name}'"):
        choose(path, device="cpu")
    assert opened == []
    nerlet.load(path, graph=name)
    assert [own for own, _ in opened] == [name]


@pytest.mark.parametrize("name", EXPORTED[1:5])
def test_int8_of_an_export_never_runs_on_cuda_unasked(tmp_path, opened, name):
    path = write_graphs(tmp_path, name)
    with pytest.raises(GraphError, match=rf"graph for {CUDA} .*found {name};.* graph='{name}'"):
        choose(path)
    assert opened == []


@pytest.mark.parametrize("name", ["own.onnx", "onnx/own.onnx"])
def test_a_named_graph_may_have_any_name_in_the_root_or_in_onnx(tmp_path, opened, name):
    nerlet.load(write_graphs(tmp_path, "model.onnx", name), graph="own.onnx")
    assert [own for own, _ in opened] == ["own.onnx"]


def test_a_graph_that_is_not_there_is_an_error_that_lists_those_that_are(tmp_path):
    path = write_graphs(tmp_path, "onnx/model.onnx", "model_q4.onnx")
    message = rf"expected one of model_q4\.onnx, onnx/model\.onnx, which is what {path} has"
    with pytest.raises(InputError, match=message):
        nerlet.load(path, graph="model_fp16.onnx")


def test_a_graph_outside_the_model_is_not_there(tmp_path):
    path = write_graphs(tmp_path / "toy", "model.onnx")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"graph: expected one of"):
        nerlet.load(path, graph="../model.onnx")


def test_a_damaged_half_precision_file_is_refused(tmp_path):
    write_fp16_bundle(tmp_path)
    (tmp_path / "model_fp16.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model_fp16\.onnx: expected .* bytes with sha256"):
        open_bundle(tmp_path)
