import json
import shutil

import pytest

import nerlet
from nerlet.bundle import default_bundle_path, open_bundle
from nerlet.errors import BundleError
from nerlet.positions import count_positions
from tests.toys import ENT, MAX_LEN, MAX_WIDTH, SEP, write_bundle, write_export


def test_our_bundle(tmp_path):
    path = write_bundle(tmp_path / "toy", threshold=0.25, max_positions=64)
    bundle = open_bundle(path)
    assert (bundle.path, bundle.graph_path) == (path, path / "model.onnx")
    assert (bundle.max_width, bundle.max_len, bundle.max_positions) == (MAX_WIDTH, MAX_LEN, 64)
    assert bundle.threshold == 0.25
    assert (bundle.ent.text, bundle.sep.text) == (ENT, SEP)
    assert bundle.tokenizer.token_to_id(ENT) == bundle.ent.id
    assert bundle.manifest is not None
    assert bundle.manifest.name == "toy"


def test_an_export_of_the_reference_with_its_defaults(tmp_path):
    path = write_export(tmp_path / "toy", config={"max_len": None, "labels_encoder": None})
    bundle = open_bundle(str(path))
    assert (bundle.max_width, bundle.max_len, bundle.max_positions) == (MAX_WIDTH, 384, None)
    assert (bundle.threshold, bundle.manifest) == (None, None)
    assert (bundle.ent.text, bundle.sep.text) == (ENT, SEP)


@pytest.mark.parametrize(
    ("encoder_config", "tokenizer_limit", "expected"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, None, 512),
        ({"model_type": "bert", "max_position_embeddings": 512}, 128, 128),
        ({"model_type": "bert", "max_position_embeddings": 512}, 1e30, 512),
        (None, 256, 256),
        (None, None, None),
    ],
)
def test_positions_are_the_smaller_limit(tmp_path, encoder_config, tokenizer_limit, expected):
    path = write_export(tmp_path / "toy", config={"encoder_config": encoder_config})
    if tokenizer_limit is not None:
        text = json.dumps({"model_max_length": tokenizer_limit})
        (path / "tokenizer_config.json").write_text(text)
    assert open_bundle(path).max_positions == expected


@pytest.mark.parametrize(
    ("encoder_config", "expected"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "electra", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "deberta-v2", "max_position_embeddings": 512}, 512),
        (
            {
                "model_type": "deberta-v2",
                "max_position_embeddings": 512,
                "position_biased_input": False,
            },
            None,
        ),
        ({"model_type": "t5"}, None),
    ],
)
def test_positions_of_encoders(encoder_config, expected):
    assert count_positions(encoder_config) == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"subtoken_pooling": "mean"}, "expected subtoken_pooling 'first', found 'mean'"),
        ({"words_splitter_type": "spacy"}, "expected words_splitter_type 'whitespace'"),
        ({"max_width": 0}, "max_width: expected a whole number of at least 1, found 0"),
        ({"max_len": "long"}, "max_len: expected a whole number of at least 1, found 'long'"),
        ({"ent_token": "[ENT]"}, r"expected the marker '\[ENT\]' of gliner_config.json"),
    ],
)
def test_what_this_version_cannot_run_is_refused(tmp_path, config, message):
    with pytest.raises(BundleError, match=message):
        open_bundle(write_export(tmp_path / "toy", config=config))


def test_a_directory_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"expected nerlet\.json or gliner_config\.json"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match=r"found nothing.*GLiNER\.from_pretrained"):
        nerlet.load(tmp_path / "absent")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="expected a model directory, found a file"):
        nerlet.load(tmp_path / "model.onnx")


def test_a_missing_or_damaged_tokenizer_is_refused(tmp_path):
    path = write_export(tmp_path / "toy")
    (path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(BundleError, match=r"tokenizer\.json: expected a tokenizer"):
        open_bundle(path)
    (path / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json: expected this file, found none"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "gliner_config.json"])
def test_a_changed_file_is_refused(tmp_path, toy_path, name):
    path = shutil.copytree(toy_path, tmp_path / "toy")
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: expected \d+ bytes with sha256 .* found"):
        open_bundle(path)
    (path / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: expected this file, as nerlet\.json lists it"):
        open_bundle(path)


def test_a_marker_with_another_id_is_refused(tmp_path):
    path = write_bundle(tmp_path / "toy")
    manifest = json.loads((path / "nerlet.json").read_text())
    manifest["special_tokens"]["ent"]["id"] -= 40
    (path / "nerlet.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"expected the id \d+ for '<<ENT>>'"):
        open_bundle(path)


def test_the_default_bundle_is_beside_the_package(monkeypatch, tmp_path):
    checkout = tmp_path / "runtime" / "nerlet"
    monkeypatch.setattr("nerlet.bundle.__file__", str(checkout / "bundle.py"))
    assert default_bundle_path() == tmp_path / "models" / "small"
    (checkout / "models" / "small").mkdir(parents=True)
    assert default_bundle_path() == checkout / "models" / "small"
