"""What a bundle of a joint model is, what its graph takes, and the reference's own exports."""

import json
import re
import warnings
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import nerlet
from nerlet.bundle import open_bundle
from nerlet.errors import BundleError, GraphError, InputError
from nerlet.manifest import SpecialToken, read_json
from nerlet.oddities import describe_export
from nerlet.relation_model import RelationGLiNER
from nerlet_export import verify
from nerlet_export.checkpoint import load_checkpoint, save_checkpoint
from nerlet_export.config import TOKEN_LEVEL
from nerlet_export.convert import convert
from nerlet_export.graph import build_graph
from nerlet_export.onnx_graph import make_graph
from nerlet_export.verify_relations import compare_relations
from tests.export.parity import find_difference
from tests.export.reference_models import load_reference, load_reference_on_onnx
from tests.export.relation_models import make_relation_reference
from tests.export.test_relex import find_relation_difference

TEXTS = ["the cat sat on a mat", "10 % of x-ray", "a", "(a) b c d e f g h i j"]
LABELS = ["person", "a b"]
RELATIONS = ["likes", "works for"]
LOW: dict[str, Any] = {"threshold": 0.3, "adjacency_threshold": 0.1, "relation_threshold": 0.02}


@pytest.fixture(scope="module", autouse=True)
def _few_batches():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "BATCHES", 3)  # so that conversions are quick
        yield


@pytest.fixture(scope="module", params=["markerV0", TOKEN_LEVEL])
def folder(request, tmp_path_factory):
    """A checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    model = make_relation_reference(
        folder / "encoder", encoder="bert", span_mode=request.param, seed=2
    )
    model.save_pretrained(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "bundle", precision="fp32")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return nerlet.load(folder / "bundle", threads=1)


@pytest.fixture(scope="module")
def oracle(folder):
    return load_reference(folder / "checkpoint")


def test_the_bundle_says_that_it_is_a_joint_model(folder, model):
    assert isinstance(model, RelationGLiNER)
    manifest: dict[str, Any] = read_json(folder / "bundle" / "nerlet.json")
    assert manifest["architecture"] == "relex"
    assert model.bundle.rel == SpecialToken(**manifest["special_tokens"]["rel"])
    relations = manifest["verification"]["relations"]
    assert relations["max_difference"] < 1e-4
    assert relations["pairs"] > 50
    graph = onnx.load(folder / "bundle" / "model.onnx").graph
    names = [value.name for value in graph.output]
    assert names == ["logits", "rel_idx", "rel_logits", "rel_mask", "entity_spans"]
    optional = {tensor.name: tensor for tensor in graph.initializer}
    for name in ("threshold", "adjacency_threshold"):
        assert numpy_helper.to_array(optional[name]) == np.float32(0.5)


def test_relations_of_one_text_as_in_the_reference(model, oracle):
    found, given = 0, (True, *LOW.values())  # in the reference's order
    for text in TEXTS:
        expected = oracle.predict_relations(text, LABELS, RELATIONS, *given)
        ours = model.predict_relations(text, LABELS, RELATIONS, *given)
        assert find_difference(ours[0], expected[0]) == ""
        assert find_relation_difference(ours[1], expected[1]) == ""
        found += len(ours[1])
    assert found > 10


def test_entities_alone_as_in_the_reference(model, oracle):
    """Without relations, and with such that only move the scores."""
    for relations in (None, RELATIONS):
        options: dict[str, Any] = {"relations": relations} if relations else {}
        expected = [oracle.predict_entities(text, LABELS, **options) for text in TEXTS]
        ours = [model.predict_entities(text, LABELS, **options) for text in TEXTS]
        assert sum(map(len, ours)) > 2
        assert not any(map(find_difference, ours, expected))
        if options:
            options = {**options, "return_relations": False}
        assert model.inference(TEXTS, LABELS, **options) == ours


def test_relations_may_be_none_or_differ_by_text(model):
    entities, relations = model.inference(TEXTS, LABELS, relations=[], **LOW)
    assert entities == model.inference(TEXTS, LABELS, threshold=LOW["threshold"])
    assert relations == [[]] * 4
    sets = [["likes"], [], ["likes"], RELATIONS]
    _, relations = model.inference(TEXTS, LABELS, relations=sets, **LOW)
    assert relations[1] == []
    for own, text, asked in zip(relations, TEXTS, sets, strict=True):
        assert own == model.predict_relations(text, LABELS, asked, **LOW)[1]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stream_gives_what_each_text_gives(folder, threads):
    model: Any = nerlet.load(folder / "bundle", threads=threads)
    texts = ["", *TEXTS]
    pairs = list(model.stream(iter(texts), LABELS, relations=RELATIONS, **LOW))
    assert pairs == [model.predict_relations(text, LABELS, RELATIONS, **LOW) for text in texts]
    assert sum(len(found) for _, found in pairs) > 10
    alone = list(model.stream(texts, LABELS, threshold=LOW["threshold"]))
    assert alone == model.inference(texts, LABELS, threshold=LOW["threshold"])
    assert any(alone)


def test_a_stream_with_relations_tells_at_the_call_what_is_wrong(model):
    wrongs: list[dict[str, Any]] = [{"relations": [""]}, {"relation_threshold": 2}, {"labels": []}]
    for wrong in wrongs:
        with pytest.raises(InputError):
            model.stream(iter(()), **{"labels": LABELS, "relations": RELATIONS, **wrong})


def test_a_stream_warns_of_each_text_that_is_cut(model):
    long = " ".join(["a"] * 170)
    with pytest.warns(UserWarning, match="cut") as caught:
        list(model.stream([long, "a", long], LABELS, relations=RELATIONS, **LOW))
    assert len(caught) == 2


def test_given_spans_and_class_scores_go_with_relations(model, oracle):
    spans = [[{"start": 0, "end": 3}, {"start": 4, "end": 7}, {"start": 17, "end": 20}]]
    options = {"relations": RELATIONS, "input_spans": spans, "return_class_probs": True, **LOW}
    (expected,), (related,) = oracle.inference(TEXTS[:1], LABELS, **options)
    (ours,), (found,) = model.inference(TEXTS[:1], LABELS, **options)
    assert find_difference(ours, expected) == ""
    assert find_relation_difference(found, related) == ""


def test_words_without_pieces_and_markers_in_texts_change_nothing(model):
    text = TEXTS[0]
    entities, relations = model.predict_relations(text, LABELS, RELATIONS, **LOW)
    assert relations
    wide = model.predict_relations(text.replace(" ", " \u200b "), LABELS, RELATIONS, **LOW)
    assert [own["score"] for own in wide[0]] == [own["score"] for own in entities]
    assert [own["score"] for own in wide[1]] == [own["score"] for own in relations]
    model.predict_relations("a <<REL>> b <<ENT>>", LABELS, RELATIONS, **LOW)


def test_the_reference_runs_our_graph_with_its_thresholds(folder, oracle):
    """As it gives none to a graph, those are the defaults; `entity_spans` sets its places right."""
    mixed = load_reference_on_onnx(folder / "bundle")
    for text in TEXTS:
        options = {"threshold": 0.5, "relation_threshold": 0.02}
        expected = oracle.predict_relations(text, LABELS, RELATIONS, **options)
        found = mixed.predict_relations(text, LABELS, RELATIONS, **options)
        assert find_difference(found[0], expected[0]) == ""
        assert find_relation_difference(found[1], expected[1]) == ""


def test_a_checkpoint_goes_back_to_the_reference(folder, oracle, tmp_path):
    save_checkpoint(tmp_path / "again", load_checkpoint(folder / "checkpoint"))
    again = load_reference(tmp_path / "again")
    options = {"relations": RELATIONS, **LOW}
    assert again.inference(TEXTS, LABELS, **options) == oracle.inference(TEXTS, LABELS, **options)


def test_int8_drift_is_measured_and_small(folder, tmp_path):
    drift: Any = convert(folder / "checkpoint", tmp_path / "int8").verification["int8"]
    assert drift["entities"] > 20
    assert drift["mean_score_drift"] < 0.04
    model = nerlet.load(tmp_path / "int8", threads=1)
    assert any(model.inference(TEXTS, LABELS, relations=RELATIONS, **LOW)[1])


def test_a_wrong_graph_is_not_written(folder):
    model = load_checkpoint(folder / "checkpoint")
    graph = build_graph(model)
    name = next(own for own in graph.weights if own.endswith("layers.0.bias"))
    others = {**graph.weights, name: graph.weights[name] + np.float32(0.1)}
    with pytest.raises(GraphError, match="a relation's logit by"):
        compare_relations(model, make_graph(graph.model, others))


@pytest.mark.parametrize("options", [{"fp16": True}, {"dev": ["data"]}])
def test_what_is_not_built_for_joint_models_is_refused(folder, tmp_path, options, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"a joint .* is converted without"):
        convert(folder / "checkpoint", tmp_path / "out", **options)
    with pytest.raises(InputError, match=r"architecture 'relex': .* trains span models only"):
        _ = load_checkpoint(folder / "checkpoint").span_model


def test_unknown_layers_and_other_tokenizers_are_refused(folder, tmp_path):
    for path in (folder / "checkpoint").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "gliner_config.json").read_text())
    for key, value, message in (
        ("relations_layer", "biaffine", "relations_layer is 'biaffine', but .* builds 'none' or"),
        ("triples_layer", "RotatE", "triples_layer is 'RotatE', but"),
        ("embed_rel_token", False, "embed_rel_token is False"),
        ("rel_token_index", 7, "<<REL>> has the id .* rel_token_index 7"),
    ):
        text = json.dumps({**config, key: value})
        (tmp_path / "gliner_config.json").write_text(text)
        with pytest.raises(BundleError, match=message):
            load_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def exported(folder):
    export(load_reference(folder / "checkpoint"), folder / "export")
    return folder / "export"


def export(model, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of tracing
        model.export_to_onnx(str(folder))


def test_an_export_of_the_references_own_says_why_it_finds_no_relations(exported, oracle):
    """Of entities it finds the right ones or, as its counts are frozen, fails, which is told."""
    frozen = r"freezes thresholds of 0.5 and the number .* nerlet-export convert"
    told = dict(describe_export(open_bundle(exported)))
    assert re.search(frozen, told.get("relations") or told["does not run"])
    if "relations" not in told:
        with pytest.raises(GraphError, match=frozen):
            nerlet.load(exported, threads=1)
        return
    model = nerlet.load(exported, threads=1)
    with pytest.raises(GraphError, match=frozen):
        model.predict_relations(TEXTS[0], LABELS, RELATIONS)
    for text in TEXTS:
        try:
            found = model.predict_entities(text, LABELS, threshold=0.3)
        except GraphError as error:
            assert re.search(frozen, str(error), re.DOTALL)  # noqa: PT017
        else:
            expected = oracle.predict_entities(text, LABELS, threshold=0.3)
            assert find_difference(found, expected) == ""


def test_an_export_traced_on_no_entity_finds_the_entities(folder, tmp_path):
    """Such graphs of tokens run on every text, and would find no relation in any."""
    model = load_reference(folder / "checkpoint")
    if model.config.span_mode != TOKEN_LEVEL:
        return
    with torch.no_grad():
        model.model.scorer.out_mlp[-1].bias.sub_(6.0)
    export(model, tmp_path)
    ours = nerlet.load(tmp_path, threads=1)
    for text in TEXTS:
        expected = model.predict_entities(text, LABELS, threshold=0.01)
        assert find_difference(ours.predict_entities(text, LABELS, threshold=0.01), expected) == ""
    with pytest.raises(GraphError, match="relations are missing"):
        ours.inference(TEXTS, LABELS, relations=RELATIONS)
