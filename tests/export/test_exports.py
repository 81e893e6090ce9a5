"""Folders as the reference exports them and as the hub has them, loaded as they are."""

import warnings

import onnx
import pytest

import nerlet
from nerlet.bundle import open_bundle
from nerlet.oddities import describe_export
from tests.export.reference_models import (
    load_reference,
    make_reference,
    make_token_reference,
)

TEXTS = ["the cat sat on a mat", "10 % of x-ray", "a", "(a) b c d e f g h i j k l m n o p q r s t"]
LABELS = ["person", "a b", "x"]


def export(model, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of tracing
        model.export_to_onnx(str(folder), quantize=True)


@pytest.fixture(scope="module", params=["bert", "deberta-v2"])
def exported(request, tmp_path_factory):
    """A folder that the reference has exported, its graphs moved to `onnx/`."""
    folder = tmp_path_factory.mktemp(request.param)
    make_reference(folder / "encoder", encoder=request.param).save_pretrained(folder / "model")
    export(load_reference(folder / "model"), folder / "export")
    (folder / "export" / "onnx").mkdir()
    for name in ("model.onnx", "model_quantized.onnx"):
        (folder / "export" / name).rename(folder / "export" / "onnx" / name)
    return folder / "export"


def load_theirs(folder, name):
    return load_reference(folder, load_onnx_model=True, onnx_model_file=f"onnx/{name}")


def find(model):
    found = [model.predict_entities(text, LABELS, threshold=0.3) for text in TEXTS]
    assert sum(map(len, found)) > 5
    return [[(own["start"], own["end"], own["label"]) for own in entities] for entities in found]


@pytest.mark.parametrize(
    ("graph", "name"),
    [(None, "model.onnx"), ("model_quantized.onnx",) * 2, ("onnx/model_quantized.onnx",) * 2],
)
def test_entities_are_the_references_on_the_same_file(exported, graph, name):
    name = name.rpartition("/")[2]
    model = nerlet.load(exported, graph=graph, threads=1)
    assert find(model) == find(load_theirs(exported, name))


def test_an_export_with_external_data_finds_the_same(exported, tmp_path):
    for file in exported.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    model = onnx.load(exported / "onnx" / "model.onnx")
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    assert find(nerlet.load(tmp_path, threads=1)) == find(nerlet.load(exported, threads=1))


def test_info_reads_the_axes_of_the_references_span_graphs_by_place(exported):
    told = dict(describe_export(open_bundle(exported)))
    assert told["graph written by"] == "pytorch"
    assert "sequence_length is pieces and words" in told["names of axes"]
    assert "sizes fixed in it" not in told


def test_info_reads_the_axes_of_the_references_token_graphs_by_place(tmp_path):
    model = make_token_reference(tmp_path / "encoder", encoder="bert")
    export(model, tmp_path / "export")
    told = dict(describe_export(open_bundle(tmp_path / "export")))
    assert "batch_size is texts and words" in told["names of axes"]
    assert "sequence_length is pieces and labels" in told["names of axes"]
