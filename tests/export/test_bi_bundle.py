"""What a bi-encoder's bundle, and the reference's export of one, can do and refuse."""

import json
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import nerlet
from nerlet import bi_graph
from nerlet.bundle import open_bundle, read_manifest
from nerlet.describe import describe_bundle
from nerlet.errors import BundleError, GraphError, InputError
from nerlet.label_encoder import LabelEncoder, pad_pieces
from nerlet.selection import SELECTION_PATH, Selector
from nerlet.sessions import open_sessions
from nerlet_export import verify
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.convert import convert
from nerlet_export.graph import INPUTS, build_graph, build_labels_encoder
from nerlet_export.onnx_graph import make_graph
from tests.export.bi_models import (
    MAX_LABEL_PIECES,
    collate,
    load_bi_reference,
    make_bi_reference,
    run_bi_reference,
)
from tests.export.parity import find_difference
from tests.export.reference_models import (
    MAX_LEN,
    make_reference,
)

TEXTS = ["the cat sat on a mat", "10 % of x-ray", "a", "(a) b c d e f g h i j k l m n o p q r s t"]
LABELS = ["person", "a b", "x", "date", "some thing"]
SEEDS = {"markerV0": 3, "token_level": 6}  # with which a model finds much


@pytest.fixture(scope="module", params=SEEDS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    model = make_bi_reference(
        folder / "encoders",
        encoder="deberta-v2",
        labels_encoder="bert",
        span_mode=request.param,
        labels_width=20,
        seed=SEEDS[request.param],
    )
    model.save_pretrained(folder / "checkpoint", safe_serialization=True)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def bundle(checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "BATCHES", 2)
        convert(checkpoint, checkpoint.parent / "bundle", precision="fp32")
    return checkpoint.parent / "bundle"


@pytest.fixture(scope="module")
def exported(checkpoint):
    """What the reference's exporter writes, with the tokenizer of labels that it leaves out."""
    folder = checkpoint.parent / "export"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of tracing
        load_bi_reference(checkpoint).export_to_onnx(str(folder))
    shutil.copytree(checkpoint / "labels_tokenizer", folder / "labels_tokenizer")
    return folder


@pytest.fixture
def model(bundle):
    return nerlet.load(bundle, threads=2)


@pytest.fixture(scope="module")
def oracle(checkpoint):
    return load_bi_reference(checkpoint)


def copy_without(source: Path, target: Path, *names: str) -> Path:
    shutil.copytree(source, target)
    for name in names:
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return target


def check_same(ours, expected):
    assert sum(map(len, expected)) > 5
    for own, other in zip(ours, expected, strict=True):
        assert find_difference(own, other) == ""


def test_the_bundle_holds_both_graphs_and_both_tokenizers(bundle, checkpoint):
    manifest = read_manifest(bundle)
    assert set(manifest.files) == {
        *("gliner_config.json", "tokenizer.json", "tokenizer_config.json", "model.onnx"),
        *("labels_encoder.onnx", "labels_tokenizer/tokenizer.json"),
        "labels_tokenizer/tokenizer_config.json",
    }
    token = "token_level" in str(checkpoint)
    assert manifest.architecture == ("bi_token" if token else "bi")
    assert manifest.special_tokens == {}
    verified: dict[str, Any] = manifest.verification
    assert verified["float"]["max_difference"] < 1e-4
    text = onnx.load(bundle / "model.onnx").graph
    assert [value.name for value in text.input][-1] == "labels_embeddings"
    assert len(text.input) == (5 if token else 7)


def test_all_ways_to_ask_agree(model, oracle):
    expected = oracle.inference(TEXTS, LABELS, threshold=0.4)
    check_same(model.inference(TEXTS, LABELS, threshold=0.4), expected)
    check_same(list(model.stream(iter(TEXTS), LABELS, threshold=0.4)), expected)
    check_same([model.predict_entities(own, LABELS, threshold=0.4) for own in TEXTS], expected)
    given = model.encode_labels(LABELS)
    check_same(model.batch_predict_with_embeds(TEXTS, given, LABELS, threshold=0.4), expected)
    given = torch.from_numpy(given)
    alone = [model.predict_with_embeds(own, given, LABELS, True, 0.4) for own in TEXTS]  # noqa: FBT003
    check_same(alone, expected)
    words = [text.split() for text in TEXTS]
    spans = model.predict_words(words, {name: name for name in LABELS}, threshold=0.4)
    assert sum(map(len, spans)) > 5


def test_the_reference_runs_our_graph_beside_our_embeddings(model, bundle, oracle):
    mixed = load_bi_reference(bundle, load_onnx_model=True, onnx_model_file="model.onnx")
    given = torch.from_numpy(model.encode_labels(LABELS))
    found = mixed.batch_predict_with_embeds(TEXTS, given.numpy(), LABELS, threshold=0.4)
    check_same(found, oracle.inference(TEXTS, LABELS, threshold=0.4))


def test_an_export_of_the_references_own_is_read(exported, oracle):
    model = nerlet.load(exported, threads=1)
    check_same(
        model.inference(TEXTS, LABELS, threshold=0.4),
        oracle.inference(TEXTS, LABELS, threshold=0.4),
    )
    for method in (model.encode_labels, lambda own: model.save_labels("x.npz", own)):
        with pytest.raises(InputError, match=r"expected an encoder of labels .*make a bundle"):
            method(LABELS)
    with pytest.raises(InputError, match="reads labels itself; give the labels alone, or make"):
        model.batch_predict_with_embeds(TEXTS, np.zeros((5, 16)), LABELS)


class BesideEmbeddings(torch.nn.Module):
    """The reference's model, as its exports of 2025 with `from_labels_embeddings` have it."""

    def __init__(self, core, names):
        super().__init__()
        self.core = core
        self.names = names

    def forward(self, *tensors):
        return self.core(**dict(zip(self.names, tensors, strict=True))).logits


@pytest.mark.parametrize("name", ["labels_embeds", "labels_embeddings"])
def test_an_export_that_takes_embeddings_is_read_under_both_names(exported, oracle, tmp_path, name):
    folder = copy_without(exported, tmp_path / "export", "model.onnx", "labels_tokenizer")
    batch = collate(oracle, TEXTS, LABELS)
    given = oracle.encode_labels(LABELS)
    names = [own for own in INPUTS if own in batch]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's own
        torch.onnx.export(
            BesideEmbeddings(oracle.model, [*names, "labels_embeds"]),
            (*(batch[own] for own in names), given),
            folder / "model.onnx",
            input_names=[*names, name],
            output_names=["logits"],
            dynamic_axes={
                **{own: {0: "batch", 1: "size"} for own in names},
                name: {0: "labels", 1: "hidden_size"},
            },
            opset_version=17,
            dynamo=False,
        )
    model = nerlet.load(folder, threads=1)
    check_same(
        model.batch_predict_with_embeds(TEXTS, given, LABELS, threshold=0.4),
        oracle.inference(TEXTS, LABELS, threshold=0.4),
    )
    with pytest.raises(InputError, match="expected their embeddings"):
        model.inference(TEXTS, LABELS)


@pytest.mark.parametrize("has_selector", [False, True])
def test_texts_with_the_same_labels_run_together_on_a_device(bundle, model, has_selector):
    """As on another device, whose memory is the host's: texts in batches, and thresholds there."""
    device = nerlet.load(bundle, threads=1)
    graph: Any = device._scorer.graph
    text = graph.text
    text.sessions.providers = ["SomeExecutionProvider"]
    if has_selector and hasattr(text, "selector"):
        text.selector = Selector(open_sessions(SELECTION_PATH, threads=1))
    labels = [LABELS, LABELS[::-1], LABELS, ["date", "x"], LABELS[::-1]]
    texts = [*TEXTS, ""]
    ours, expected = (
        own.inference(texts, labels, threshold=0.3, batch_size=3) for own in (device, model)
    )
    check_same(ours, expected)


def test_an_export_without_the_labels_tokenizer_says_where_to_get_it(exported, tmp_path):
    folder = copy_without(exported, tmp_path / "export", "labels_tokenizer")
    with pytest.raises(BundleError, match="copy the checkpoint's folder `labels_tokenizer` there"):
        nerlet.load(folder)


def test_our_files_are_read_without_their_manifest(bundle, model, tmp_path):
    folder = copy_without(bundle, tmp_path / "whole", "nerlet.json")
    again = nerlet.load(folder, threads=1)
    expected = model.inference(TEXTS, LABELS, threshold=0.4)
    assert again.inference(TEXTS, LABELS, threshold=0.4) == expected


def test_a_graph_without_an_encoder_of_labels_takes_embeddings_alone(bundle, model, tmp_path):
    given = model.encode_labels(LABELS)
    gone = ("nerlet.json", "labels_encoder.onnx", "labels_tokenizer")
    alone = nerlet.load(copy_without(bundle, tmp_path / "alone", *gone), threads=1)
    found = alone.batch_predict_with_embeds(TEXTS, given, LABELS, threshold=0.4)
    assert found == model.inference(TEXTS, LABELS, threshold=0.4)
    with pytest.raises(InputError, match=r"expected their embeddings, .*batch_predict_with_embeds"):
        alone.inference(TEXTS, LABELS)
    with pytest.raises(InputError, match="expected an encoder of labels"):
        alone.load_labels(tmp_path / "labels.npz")


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.zeros((3, 16)), LABELS, r"shape \(5, 16\).* found shape \(3, 16\)"),
        (np.zeros((5, 15)), LABELS, r"found shape \(5, 15\)"),
        (np.full((5, 16), np.nan), LABELS, "finite"),
        (np.zeros((2, 16)), ["a", "a"], r"shape \(1, 16\), a row .* once its duplicates drop"),
        (np.zeros((1, 16)), [["a"], ["b"], ["a"], ["a"]], "the same labels for all texts"),
    ],
)
def test_embeddings_that_are_not_these_labels_are_refused(model, embeddings, labels, message):
    with pytest.raises(InputError, match=message):
        model.batch_predict_with_embeds(TEXTS, embeddings, labels)


def test_what_is_kept_changes_no_bit(bundle, model):
    alone = np.concatenate([model.encode_labels(own) for own in LABELS])
    fresh = nerlet.load(bundle, threads=1)
    np.testing.assert_array_equal(fresh.encode_labels(LABELS[::-1])[::-1], alone)
    np.testing.assert_array_equal(fresh.encode_labels([*LABELS, *LABELS])[5:], alone)
    expected = model.inference(TEXTS, LABELS, threshold=0.2)
    model.inference(TEXTS, ["another", "date"])
    assert model.inference(TEXTS, LABELS, threshold=0.2) == expected


def test_labels_are_saved_and_loaded(bundle, model, tmp_path, monkeypatch):
    path = tmp_path / "labels.npz"
    model.save_labels(path, [*LABELS, LABELS[0]])
    expected = model.inference(TEXTS, LABELS, threshold=0.2)
    again = nerlet.load(bundle, threads=1)
    monkeypatch.setattr(LabelEncoder, "_read", None)  # no label is read any more
    assert again.load_labels(str(path)) == LABELS
    assert again.inference(TEXTS, LABELS, threshold=0.2) == expected
    np.testing.assert_array_equal(again.encode_labels(LABELS), model.encode_labels(LABELS))


def test_labels_of_another_model_are_refused(checkpoint, model, tmp_path):
    path = tmp_path / "labels.npz"
    model.save_labels(path, LABELS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "BATCHES", 1)
        convert(checkpoint, tmp_path / "int8")
    other = nerlet.load(tmp_path / "int8", threads=1)
    with pytest.raises(InputError, match="expected embeddings of this model's labels encoder"):
        other.load_labels(path)
    for content in (b"", b"PK\3\4", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            model.load_labels(path)
    np.savez(path, labels=np.array(["a"]))
    with pytest.raises(InputError, match="found the arrays labels"):
        model.load_labels(path)
    with pytest.raises(InputError, match="cannot be read"):
        model.load_labels(tmp_path / "none.npz")


def test_thousands_of_labels_run_in_parts_and_find_the_same(model, monkeypatch):
    labels = [f"{a} {b} {c}" for a in "abcdefghijklmno" for b in range(20) for c in range(10)]
    assert len(labels) == 3000
    text = " ".join(["word"] * 30)
    given = model.encode_labels(labels)
    assert given.shape == (3000, 16)
    whole = model.inference([text], labels, threshold=0.7, multi_label=True)
    sizes = []
    find = bi_graph.BiGraph._find_part

    def find_part(self, feeds, limits, **options):
        sizes.append(len(limits[0]))
        return find(self, feeds, limits, **options)

    monkeypatch.setattr(bi_graph.BiGraph, "_find_part", find_part)
    monkeypatch.setattr(bi_graph, "_PART_BYTES", 2**20)
    parts = model.inference([text], labels, threshold=0.7, multi_label=True)
    assert len(sizes) > 3
    assert sum(sizes) == 3000
    check_same(parts, whole)


def test_class_probabilities_are_those_of_all_labels(model, monkeypatch):
    options = {"threshold": 0.4, "return_class_probs": True}
    whole = model.inference(TEXTS, LABELS, **options)
    monkeypatch.setattr(bi_graph, "_PART_BYTES", 1)
    parts = model.inference(TEXTS, LABELS, **options)
    assert [[own.get("class_probs") for own in found] for found in parts] == [
        [pytest.approx(own["class_probs"]) if "class_probs" in own else None for own in found]
        for found in whole
    ]


def test_many_threads_may_ask_at_once(model):
    expected = [model.predict_entities(text, LABELS, threshold=0.3) for text in TEXTS]
    found = []

    def ask(place):
        for text in TEXTS:
            model.predict_entities(text, LABELS[place:])  # other labels in between
        found.append([model.predict_entities(text, LABELS, threshold=0.3) for text in TEXTS])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(4)]
    for own in threads:
        own.start()
    for own in threads:
        own.join()
    assert found == [expected] * 4


def test_a_cut_text_is_told_without_blaming_the_labels(model):
    with pytest.warns(UserWarning, match="40 words at the end of 1 texts .* at once; split"):
        model.predict_entities("a " * (MAX_LEN + 40), LABELS)


def test_texts_may_hold_what_the_reference_adds_to_its_tokenizer(model):
    found = model.inference(["[FLERT] <<ENT>> a <<SEP>>", "\udc80 a"], LABELS, threshold=0.1)
    assert len(found) == 2


def test_labels_that_cannot_be_read_are_errors(model):
    model.encode_labels("x " * (MAX_LABEL_PIECES - 2))
    with pytest.raises(InputError, match=rf"at most {MAX_LABEL_PIECES} pieces.* one of 121"):
        model.encode_labels("x " * (MAX_LABEL_PIECES - 1))
    with pytest.raises(InputError, match="of which the model's tokenizer reads nothing"):
        model.inference(TEXTS, ["\x01"])
    for labels in ([""], [1], ["a", " "]):
        with pytest.raises(InputError, match="expected texts that are not empty"):
            model.encode_labels(labels)
    assert model.encode_labels([]).shape == (0, 16)
    with pytest.raises(InputError, match="batch_size: expected a whole number"):
        model.encode_labels(LABELS, 0)


def test_other_models_say_that_they_have_no_embeddings(toy):
    for name, arguments in (
        ("encode_labels", (LABELS,)),
        ("save_labels", ("x.npz", LABELS)),
        ("load_labels", ("x.npz",)),
        ("batch_predict_with_embeds", (TEXTS, np.zeros((5, 4)), LABELS)),
        ("predict_with_embeds", (TEXTS[0], np.zeros((5, 4)), LABELS)),
    ):
        with pytest.raises(InputError, match="expected a bi-encoder, which has an encoder of its"):
            getattr(toy, name)(*arguments)


def test_int8_and_half_precision_are_measured_and_small(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "BATCHES", 3)
    verified: dict[str, Any] = convert(checkpoint, tmp_path / "int8", fp16=True).verification
    assert verified["int8"]["entities"] > 40
    assert verified["int8"]["mean_score_drift"] < 0.02
    assert verified["fp16"]["mean_score_drift"] < 0.002
    assert "model_fp16.onnx" in read_manifest(tmp_path / "int8").files
    size = {
        name: (tmp_path / "int8" / name).stat().st_size
        for name in ("model.onnx", "labels_encoder.onnx")
    }
    assert min(size.values()) > 1000
    model = nerlet.load(tmp_path / "int8", threads=1)
    assert sum(map(len, model.inference(TEXTS, LABELS, threshold=0.3))) > 5
    monkeypatch.setattr(verify, "BATCHES", 1)
    convert(checkpoint, tmp_path / "int8", precision="fp32")  # over the folder that is there
    assert open_bundle(tmp_path / "int8").labels is not None
    assert read_manifest(tmp_path / "int8").precision == "fp32"


def test_wrong_graphs_are_not_written(checkpoint):
    own = load_checkpoint(checkpoint)
    graph, labels = build_graph(own), build_labels_encoder(own)
    (name,) = (own for own in labels.weights if own.endswith("projection.bias"))
    others = {**labels.weights, name: labels.weights[name] + np.float32(0.05)}
    with pytest.raises(GraphError, match="differs from PyTorch"):
        verify.compare_float(own, graph, make_graph(labels.model, others))
    with pytest.raises(GraphError, match="graph inputs are"):
        verify.check_labels_signature(graph.model, own.model.config)


def test_a_checkpoint_goes_back_to_the_reference(checkpoint, oracle, tmp_path):
    save_checkpoint(tmp_path / "again", load_checkpoint(checkpoint))
    again = run_bi_reference(load_bi_reference(tmp_path / "again"), TEXTS, LABELS).logits
    torch.testing.assert_close(again, run_bi_reference(oracle, TEXTS, LABELS).logits)


def test_what_a_checkpoint_lacks_comes_from_its_encoders(checkpoint, oracle, tmp_path):
    """Older ones hold neither the configs of their encoders nor the tokenizer of labels."""
    folder = copy_without(checkpoint, tmp_path / "checkpoint", "labels_tokenizer")
    config = json.loads((folder / "gliner_config.json").read_text(encoding="utf-8"))
    gone = {"encoder_config": None, "labels_encoder_config": None}
    (folder / "gliner_config.json").write_text(json.dumps({**config, **gone}), encoding="utf-8")
    own = load_checkpoint(folder)
    pieces = own.label_pieces.encode(LABELS)
    assert pieces == load_checkpoint(checkpoint).label_pieces.encode(LABELS)
    with torch.inference_mode():
        found = own.bi_model.embed_labels(*map(torch.from_numpy, pad_pieces(pieces).values()))
    torch.testing.assert_close(found, oracle.encode_labels(LABELS), atol=1e-4, rtol=0)
    config = {**config, "labels_encoder": str(tmp_path / "none"), **gone}
    (folder / "gliner_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BundleError, match=r"no labels_encoder_config.* set labels_encoder to"):
        load_checkpoint(folder)


def test_bi_encoders_are_not_trained(checkpoint):
    with pytest.raises(InputError, match=r"architecture 'bi.*trains span models only"):
        _ = load_checkpoint(checkpoint).span_model


def test_a_prompted_model_is_no_bi_encoder(tmp_path):
    make_reference(tmp_path / "encoder", encoder="bert").save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="expected a bi-encoder, found a model of architecture"):
        _ = load_checkpoint(tmp_path / "checkpoint").bi_model


def test_a_bundle_is_held_on_labelled_data(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "BATCHES", 1)
    rows = [
        {"tokenized_text": text.split(), "ner": [[0, 0, label]]}
        for text, label in zip(TEXTS, LABELS, strict=False)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    manifest = convert(checkpoint, tmp_path / "bundle", precision="fp32", dev=[data])
    verified: dict[str, Any] = manifest.verification
    (report,) = verified["data"]
    assert report["entity_agreement"] == 1
    assert report["entities"] > 3


def test_info_tells_the_kind_and_what_is_odd(bundle, exported):
    ours = dict(pair for section in describe_bundle(open_bundle(bundle)) for pair in section)
    assert ours["architecture"].startswith("bi")
    assert ours["longest label"] == f"{MAX_LABEL_PIECES} pieces"
    assert ours["labels"] == "up to 25 in training, by an encoder of their own"
    assert ours["labels read by"] == "labels_encoder.onnx, each once, on the CPU"
    theirs = dict(pair for section in describe_bundle(open_bundle(exported)) for pair in section)
    assert theirs["labels read by"].startswith("the graph itself, for every text")
    assert theirs["tokenizer of labels"].startswith("labels_tokenizer/tokenizer.json, ")
    assert "does not run" not in theirs
    assert "markers" not in theirs
