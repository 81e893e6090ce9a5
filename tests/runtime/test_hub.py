import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

import nerlet
from nerlet.errors import BundleError, InputError
from nerlet.hub import find_model
from tests.runtime.test_exports import write_with_data
from tests.toys import write_bundle, write_export

CACHE = "cache"


class HubError(Exception):
    """What the hub answers, as huggingface_hub raises it."""

    response = "404"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one repository, the folder `repository`, and a cache beside it."""

    class FakeHub:
        repository = tmp_path / "repository"
        cache = tmp_path / CACHE
        error: Exception | None = None
        asked: list[object] = []  # noqa: RUF012

        @classmethod
        def list_repo_files(cls, name, **options):
            cls.asked.append((name, options))
            if cls.error:
                raise cls.error
            files = [path for path in cls.repository.rglob("*") if path.is_file()]
            return sorted(path.relative_to(cls.repository).as_posix() for path in files)

        @classmethod
        def snapshot_download(cls, name, allow_patterns=None, *, local_files_only=False, **options):
            cls.asked.append((name, {**options, "local_files_only": local_files_only}))
            if local_files_only:
                if not cls.cache.exists():
                    raise FileNotFoundError("nothing in the cache")
                return str(cls.cache)
            for file in cls.list_repo_files(name):
                if any(fnmatch(file, pattern) for pattern in allow_patterns):
                    (cls.cache / file).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(cls.repository / file, cls.cache / file)
            return str(cls.cache)

    FakeHub.asked = []
    monkeypatch.setitem(sys.modules, "huggingface_hub", FakeHub)
    return FakeHub


def fetch(name="owner/name", **options):
    """Names of the files that are fetched."""
    path = find_model(name, **options)
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


def add(repository, *names):
    for name in names:
        (repository / name).parent.mkdir(exist_ok=True)
        shutil.copy(repository / "model.onnx", repository / name)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_local_directory_never_asks_the_hub(hub, tmp_path, kind):
    assert find_model(kind(tmp_path)) == tmp_path
    assert hub.asked == []


@pytest.mark.parametrize("path", [Path("owner/name"), "/no/such", "./owner/name", "a/b/c", "~/x"])
def test_what_can_only_be_a_local_path_never_asks_the_hub(hub, path):
    with pytest.raises(BundleError, match="expected a model directory, found nothing"):
        nerlet.GLiNER.from_pretrained(path)
    assert hub.asked == []


def test_a_local_file_never_asks_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="expected a model directory, found a file"):
        nerlet.GLiNER.from_pretrained("model.onnx")
    assert hub.asked == []


def test_a_model_of_the_hub_finds_entities(hub, toy):
    write_export(hub.repository)
    model = nerlet.GLiNER.from_pretrained("owner/name", threads=1)
    assert model.predict_entities("Ada", "person") == toy.predict_entities("Ada", "person")


@pytest.mark.parametrize("write", [write_bundle, write_export])
def test_what_reads_the_labels_of_a_bi_encoder_is_fetched_too(hub, write):
    write(hub.repository)
    names = {
        *("labels_encoder.onnx", "labels_tokenizer/tokenizer.json"),
        "labels_tokenizer/tokenizer_config.json",
    }
    add(hub.repository, *names)
    assert names <= fetch()


def test_a_name_is_fetched_with_its_options(hub):
    write_export(hub.repository)
    find_model("owner/name", revision="v1", cache_dir="here", token="t")
    listed, fetched = hub.asked[:2]
    assert listed == ("owner/name", {"revision": "v1", "token": "t"})
    assert fetched == (
        "owner/name",
        {"revision": "v1", "cache_dir": "here", "token": "t", "local_files_only": False},
    )


def test_of_an_export_only_the_graph_of_the_device_is_fetched(hub):
    write_export(hub.repository)
    add(hub.repository, "model_quantized.onnx", "onnx/model.onnx", "onnx/model_q4.onnx")
    (hub.repository / "model.safetensors").write_bytes(b"")
    assert fetch() == {"gliner_config.json", "tokenizer.json", "model.onnx"}


@pytest.mark.parametrize("choice", [{"device": "cuda"}, {"providers": ["CUDAExecutionProvider"]}])
def test_for_cuda_half_precision_is_fetched(hub, monkeypatch, choice):
    write_export(hub.repository)
    add(hub.repository, "onnx/model_fp16.onnx")
    monkeypatch.setattr("nerlet.model.load", lambda path, **_: path)
    nerlet.GLiNER.from_pretrained("owner/name", **choice)
    assert [file.name for file in hub.cache.rglob("*.onnx")] == ["model_fp16.onnx"]


@pytest.mark.parametrize("graph", ["onnx/model_q4.onnx", "model_q4.onnx"])
def test_a_named_graph_is_fetched_alone(hub, graph):
    write_export(hub.repository)
    add(hub.repository, "onnx/model_q4.onnx", "model_quantized.onnx")
    nerlet.GLiNER.from_pretrained("owner/name", graph=graph)
    assert [file.name for file in hub.cache.rglob("*.onnx")] == ["model_q4.onnx"]


@pytest.mark.parametrize("folder", ["", "onnx/"])
@pytest.mark.parametrize("data", ["model.onnx.data", "model.onnx_data", "model.onnx_data_1"])
def test_external_data_is_fetched_with_its_graph(hub, data, folder):
    write_with_data(hub.repository, data, folder)
    others = ["model_fp16.onnx_data", "model.onnx_data.txt"]
    for other in others:
        (hub.repository / folder / other).write_bytes(b"")
    assert fetch() >= {f"{folder}model.onnx", f"{folder}{data}"}
    assert not any((hub.cache / folder / other).exists() for other in others)
    nerlet.load(hub.cache, threads=1)


def test_a_bundle_of_ours_is_fetched_whole(hub):
    write_bundle(hub.repository)
    add(hub.repository, "label.onnx", "text.onnx", "model_fp16.onnx", "model_q4.onnx")
    (hub.repository / "weights.bin").write_bytes(b"")
    assert fetch() == {
        *("nerlet.json", "gliner_config.json", "tokenizer.json", "model.onnx"),
        *("label.onnx", "text.onnx", "weights.bin", "model_fp16.onnx"),
    }


def test_a_pytorch_checkpoint_gives_the_lines_that_fetch_and_convert_it(hub):
    write_export(hub.repository)
    (hub.repository / "model.onnx").rename(hub.repository / "pytorch_model.bin")
    lines = r"hf download owner/name --local-dir name && nerlet-export convert name name-nerlet$"
    with pytest.raises(BundleError, match=rf"found a PyTorch checkpoint .*{lines}"):
        find_model("owner/name")
    assert not hub.cache.exists()


def test_a_repository_that_is_no_gliner_model_is_not_fetched(hub):
    hub.repository.mkdir()
    (hub.repository / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match=r"expected gliner_config\.json or nerlet\.json in the r"):
        find_model("owner/name")


@pytest.mark.parametrize(
    ("name", "is_cuda", "device"),
    [("model_fp16.onnx", False, "cuda"), ("model_quantized.onnx", True, "cpu")],
)
def test_a_repository_without_a_graph_for_the_device_is_not_fetched(hub, name, is_cuda, device):
    write_export(hub.repository)
    (hub.repository / "model.onnx").rename(hub.repository / name)
    with pytest.raises(BundleError, match=f"found {name}; take device='{device}', or name one"):
        find_model("owner/name", is_cuda=is_cuda)
    assert not hub.cache.exists()


def test_a_graph_that_the_repository_lacks_is_an_error(hub):
    write_export(hub.repository)
    with pytest.raises(InputError, match=r"expected one of model\.onnx, which is what owner/name"):
        find_model("owner/name", graph="model_q4.onnx")


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("bad name")])
def test_a_name_that_cannot_be_fetched_says_why_and_what_to_do(hub, error):
    hub.error = error
    why = f"^owner/name: .* the hub gave {type(error).__name__}: {error}; "
    with pytest.raises(BundleError, match=rf"{why}.*`hf download owner/name --local-dir name`"):
        find_model("owner/name")


def test_without_a_network_a_model_is_taken_from_the_cache(hub):
    write_export(hub.cache)
    hub.error = OSError("no network")
    assert find_model("owner/name") == hub.cache


def test_what_the_hub_refuses_is_not_taken_from_the_cache(hub):
    write_export(hub.cache)
    hub.error = HubError("no such repository")
    with pytest.raises(BundleError, match="the hub gave HubError: no such repository"):
        find_model("owner/name")


def test_local_files_only_never_asks_the_network(hub):
    write_export(hub.cache)
    assert find_model("owner/name", local_files_only=True) == hub.cache
    assert [options["local_files_only"] for _, options in hub.asked] == [True]


def test_a_missing_hub_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match="`pip install huggingface_hub`, or give a directory"):
        find_model("owner/name")


@pytest.mark.parametrize(
    ("name", "advice"), [("load_onnx_model", "leave it out"), ("onnx_model_file", "called graph")]
)
def test_an_unknown_option_is_refused(hub, tmp_path, name, advice):
    options: dict[str, Any] = {name: "x"}
    with pytest.raises(InputError, match=rf"^{name}: expected no such argument.*{advice}"):
        find_model(tmp_path, **options)
    assert hub.asked == []
