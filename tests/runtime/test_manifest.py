import json
from dataclasses import replace

import pytest

from nerlet.bundle import FileRecord, Manifest, SpecialToken, read_manifest, write_manifest
from nerlet.errors import BundleError

MANIFEST = Manifest(
    name="toy",
    origin="made by hand",
    license="CC0-1.0",
    precision="int8",
    max_width=12,
    max_len=384,
    special_tokens={"ent": SpecialToken("<<ENT>>", 7), "sep": SpecialToken("<<SEP>>", 8)},
    files={
        name: FileRecord(3, "0" * 64)
        for name in ("gliner_config.json", "tokenizer.json", "model.onnx", "sub/model.onnx.data")
    },
    max_positions=512,
    threshold=0.45,
    label_thresholds={"person": 0.3},
    word_shapes=True,
    label_attention="isolated",
    figures={"f1": {"ood": 51.5}},
    verification={"difference": 1e-6},
)


def test_a_manifest_is_read_as_written(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path) == MANIFEST
    assert next(iter(json.loads((tmp_path / "nerlet.json").read_text()))) == "schema_version"


def test_writing_replaces_the_whole_file_or_leaves_it(tmp_path, monkeypatch):
    write_manifest(tmp_path, MANIFEST)
    path = tmp_path / "nerlet.json"
    path.chmod(0o640)
    write_manifest(tmp_path, replace(MANIFEST, threshold=0.5))
    assert (read_manifest(tmp_path).threshold, path.stat().st_mode & 0o777) == (0.5, 0o640)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_manifest(tmp_path, MANIFEST)
    assert read_manifest(tmp_path).threshold == 0.5
    assert list(tmp_path.iterdir()) == [path]


def test_keys_with_a_default_may_be_absent():
    values = MANIFEST.to_dict()
    for key in ("threshold", "max_positions", "figures", "word_shapes", "label_attention"):
        del values[key]
    manifest = Manifest.from_dict(values)
    assert (manifest.threshold, manifest.max_positions, manifest.figures) == (None, None, {})
    assert (manifest.word_shapes, manifest.label_attention) == (False, "joint")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""),
        ("origin", None),
        ("license", 3),
        ("precision", "fp16"),
        ("architecture", "relations"),
        ("max_width", 0),
        ("max_width", True),
        ("max_len", 12.5),
        ("max_types", "25"),
        ("max_positions", 0),
        ("threshold", 1.5),
        ("threshold", float("nan")),
        ("threshold", True),
        ("threshold", 10**400),
        ("label_thresholds", None),
        ("label_thresholds", {"person": 1.5}),
        ("label_thresholds", {"": 0.5}),
        ("word_pattern", r"\S+"),
        ("word_shapes", 1),
        ("label_attention", "none"),
        ("figures", []),
        ("verification", None),
        ("special_tokens", {"ent": {"text": "<<ENT>>", "id": 7}}),
        ("special_tokens", {"ent": {"text": "a", "id": 7}, "sep": {"text": "b", "id": 7}}),
        ("special_tokens", {"ent": "<<ENT>>", "sep": "<<SEP>>"}),
        ("special_tokens", 3),
        ("special_tokens", {}),
        ("files", {}),
        ("files", {"model.onnx": {"bytes": 3}}),
    ],
)
def test_a_bad_value_is_refused_by_its_key(key, value):
    with pytest.raises(BundleError, match=rf"^nerlet\.json: {key}: expected .*, found "):
        Manifest.from_dict({**MANIFEST.to_dict(), key: value})


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("../model.onnx", FileRecord(3, "0" * 64)),
        ("/model.onnx", FileRecord(3, "0" * 64)),
        ("a\\..\\b", FileRecord(3, "0" * 64)),
        ("model.onnx", FileRecord(-1, "0" * 64)),
        ("model.onnx", FileRecord(3, "0" * 63)),
        ("model.onnx", FileRecord(3, "G" * 64)),
    ],
)
def test_a_bad_file_entry_is_refused(name, record):
    with pytest.raises(BundleError, match="files: expected names inside the directory"):
        replace(MANIFEST, files={**MANIFEST.files, name: record})


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (2, "install a newer nerlet"),
        (0, "export the model again"),
        (None, "export"),
        ("1", "export"),
    ],
)
def test_another_schema_says_what_to_do(version, remedy):
    with pytest.raises(BundleError, match=rf"expected schema_version 1, found .*{remedy}"):
        Manifest.from_dict({**MANIFEST.to_dict(), "schema_version": version})


def test_an_unknown_key_is_refused():
    with pytest.raises(BundleError, match="unknown key 'colour'"):
        Manifest.from_dict({**MANIFEST.to_dict(), "colour": "red"})


def test_a_missing_key_is_refused():
    values = MANIFEST.to_dict()
    del values["license"]
    with pytest.raises(BundleError, match=r"a key is missing .*license"):
        Manifest.from_dict(values)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema_version": 2}, "expected schema_version 1"),
        ({"max_len": 0}, "max_len: expected"),
        ({"files": {}}, "files: expected an entry"),
        ({"special_tokens": 3}, "special_tokens: expected"),
        ({"colour": "red"}, "unknown key 'colour'"),
    ],
)
def test_an_error_in_a_file_names_its_directory(tmp_path, change, problem):
    (tmp_path / "nerlet.json").write_text(json.dumps({**MANIFEST.to_dict(), **change}))
    with pytest.raises(BundleError) as caught:
        read_manifest(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: nerlet.json: {problem}")


@pytest.mark.parametrize("text", ["{", "[]", "\x00", None])
def test_a_file_that_is_no_json_object_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "nerlet.json").write_text(text)
    with pytest.raises(BundleError, match=r"nerlet\.json: expected a JSON"):
        read_manifest(tmp_path)
