"""Files of exports that are not ours: what is missing, and what is told of it."""

import onnx
import pytest

import nerlet
from nerlet.bundle import open_bundle
from nerlet.errors import BundleError
from tests.toys import make_graph, make_wordpiece, write_export


def write_with_data(path, data="model.onnx_data", folder=""):
    """A toy export whose graph has its weights in a file of its own."""
    write_export(path)
    (path / "model.onnx").unlink()
    place = path / folder
    place.mkdir(exist_ok=True)
    onnx.save(
        make_graph(make_wordpiece()),
        place / "model.onnx",
        save_as_external_data=True,
        location=data,
        size_threshold=0,
    )
    return path


@pytest.mark.parametrize("folder", ["", "onnx"])
@pytest.mark.parametrize("data", ["model.onnx_data", "model.onnx.data"])
def test_external_data_beside_the_graph_is_read(tmp_path, toy, data, folder):
    model = nerlet.load(write_with_data(tmp_path, data, folder), threads=1)
    assert model.predict_entities("Ada", "person") == toy.predict_entities("Ada", "person")


def test_external_data_in_the_hubs_cache_is_read(tmp_path, toy):
    """There the files are links to files of other names."""
    path = write_with_data(tmp_path / "snapshots")
    (tmp_path / "blobs").mkdir()
    for place, file in enumerate(sorted(path.iterdir())):
        target = file.rename(tmp_path / "blobs" / str(place))
        file.symlink_to(target)
    model = nerlet.load(path, threads=1)
    assert model.predict_entities("Ada", "person") == toy.predict_entities("Ada", "person")


def test_missing_external_data_is_named(tmp_path):
    path = write_with_data(tmp_path, "weights.data")
    (path / "weights.data").unlink()
    with pytest.raises(
        BundleError, match=r"model\.onnx: expected its weights in weights\.data beside it, found no"
    ):
        nerlet.load(path)


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    path = write_export(tmp_path)
    (path / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BundleError, match=r"found a Git LFS pointer; run `git lfs pull`"):
        nerlet.load(path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
def test_a_pytorch_checkpoint_gives_the_line_that_converts_it(tmp_path, weights):
    path = write_export(tmp_path / "a model")
    (path / "model.onnx").unlink()
    (path / "tokenizer.json").unlink()  # older checkpoints have none
    (path / weights).write_bytes(b"")
    line = rf"nerlet-export convert '{path}' '{path}-nerlet'$"
    with pytest.raises(BundleError, match=rf"found a PyTorch checkpoint \({weights}\).*{line}"):
        nerlet.load(path)


def test_no_weights_at_all_are_told(tmp_path):
    path = write_export(tmp_path / "toy")
    (path / "model.onnx").unlink()
    with pytest.raises(BundleError, match="found no ONNX file and no PyTorch checkpoint"):
        open_bundle(path)


def test_graphs_of_other_names_are_not_guessed_from(tmp_path):
    path = write_export(tmp_path / "toy")
    (path / "model.onnx").rename(path / "gliner.onnx")
    message = r"found only gliner\.onnx: name the one to run, with graph='gliner\.onnx' in Python"
    with pytest.raises(BundleError, match=message):
        open_bundle(path)
