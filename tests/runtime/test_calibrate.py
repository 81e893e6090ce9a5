import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nerlet
import nerlet.calibrate
from nerlet.arguments import OwnThresholds
from nerlet.bundle import open_bundle
from nerlet.calibrate import GRID, calibrate, choose_thresholds
from nerlet.cli import main
from nerlet.decode import select_spans
from nerlet.errors import BundleError, InputError
from nerlet.evaluate import average_f1, evaluate
from nerlet.examples import Dataset, Example
from nerlet.manifest import read_manifest, write_manifest
from nerlet.scored import score_texts
from nerlet.store import store_thresholds
from tests.strategies import candidates
from tests.toys import write_bundle, write_export

LABELS = ("x", "y", "z")
WORDS = 16  # of the strategy


@st.composite
def scored_sets(draw):
    """Datasets, and the candidates of each text by its words."""
    found = {}
    datasets = []
    for name in ("a", "b")[: draw(st.integers(1, 2))]:
        examples = []
        for number in range(draw(st.integers(1, 4))):
            own = draw(candidates(most=8, words=WORDS))
            words = tuple(f"{name}{number}_{word}" for word in range(WORDS))
            found[words] = own
            spans = zip(own.start.tolist(), own.end.tolist(), own.label.tolist(), strict=True)
            named = [(start, end, LABELS[label]) for start, end, label in spans]
            right = draw(st.lists(st.sampled_from(named), unique=True)) if named else []
            examples.append(Example(words, frozenset([*right, (0, 16, "x")]), LABELS))
        datasets.append(Dataset(name, LABELS, tuple(examples)))
    return datasets, found


def score(datasets, found):
    return score_texts(lambda sentences, _: [found[words] for words in sentences], datasets)


def mean_f1(datasets, found, thresholds: OwnThresholds) -> float:
    """By the way that a model predicts and `evaluate` measures."""
    limits = np.array([thresholds.of(label) for label in LABELS], np.float32)

    def predict(sentences, _):
        passed = [own.take(own.score > limits[own.label]) for own in map(found.get, sentences)]
        return [select_spans(own, nested=False, multi_label=False) for own in passed]

    return average_f1([evaluate(predict, dataset) for dataset in datasets])


@given(scored_sets(), st.integers(1, 4))
def test_chosen_thresholds_are_never_worse_than_one(drawn, least):
    datasets, found = drawn
    chosen = choose_thresholds(score(datasets, found), near=0.5, min_entities=least)
    one = {each: mean_f1(datasets, found, OwnThresholds(each, {})) for each in GRID}
    assert one[chosen.overall] == pytest.approx(max(one.values()))
    assert mean_f1(datasets, found, chosen) >= one[chosen.overall] - 1e-9
    entities = [e[2] for d in datasets for example in d.examples for e in example.entities]
    assert all(entities.count(label) >= least for label in chosen.by_prompt)


@given(scored_sets())
def test_order_of_rows_and_files_does_not_matter(drawn):
    datasets, found = drawn
    turned = [replace(each, examples=each.examples[::-1]) for each in datasets[::-1]]
    one, other = (
        choose_thresholds(score(d, found), near=0.5, min_entities=1) for d in (datasets, turned)
    )
    assert one == other


@given(scored_sets(), st.tuples(*[st.sampled_from(GRID)] * 3))
def test_counts_are_those_of_evaluate(drawn, limits):
    datasets, found = drawn
    thresholds = OwnThresholds(0.5, dict(zip(LABELS, limits, strict=True)))
    if sum(len(each.examples) for each in datasets) < 2:
        return
    measured = calibrate(score(datasets, found), thresholds, min_entities=1, folds=2)
    assert measured.average_f1("before") == pytest.approx(mean_f1(datasets, found, thresholds))
    chosen = mean_f1(datasets, found, measured.thresholds)
    assert measured.average_f1("chosen_on") == pytest.approx(chosen)


@given(scored_sets())
def test_one_label_alone_finds_the_best_of_the_grid(drawn):
    datasets, found = drawn
    scored = score(datasets, found)
    limits = scored.limits(OwnThresholds(0.5, {}))
    ascent = nerlet.calibrate._Ascent(scored, limits)
    for place in range(len(LABELS)):
        tried = ascent._try(place, GRID)
        forced = [
            mean_f1(datasets, found, OwnThresholds(0.5, {LABELS[place]: each})) for each in GRID
        ]
        assert tried == pytest.approx(forced)


def test_fewer_texts_than_folds(toy):
    texts = (Example(("Ada",), frozenset([(0, 1, "person")]), ("person",)),) * 3
    scored = score_texts(
        lambda s, own: toy.score_words(s, list(own)), [Dataset("a", ("person",), texts)]
    )
    with pytest.raises(InputError, match="at least 2 different texts"):
        calibrate(scored, toy.own_thresholds, folds=2)


def test_texts_without_entities(toy):
    texts = tuple(Example((word,), frozenset(), ("person",)) for word in ("Ada", "in"))
    scored = score_texts(
        lambda s, own: toy.score_words(s, list(own)), [Dataset("a", ("person",), texts)]
    )
    with pytest.raises(InputError, match="found none in 2 texts; give labelled ones"):
        calibrate(scored, toy.own_thresholds, folds=2)


@pytest.fixture
def data(tmp_path):
    """Of single words, which score 0.73, persons are right and dates are not."""
    rows: list[dict[str, object]] = [{"labels": ["person", "date"]}]
    for number in range(40):
        words = ["Ada", "on", "4", "x" * (number + 1)]
        rows.append({"tokenized_text": words, "ner": [[0, 0, "person"]]})
        rows.append(
            {"tokenized_text": [*words, "April", "4"], "ner": [[0, 0, "person"], [4, 5, "date"]]}
        )
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_command_stores_thresholds_that_calls_use(tmp_path, data, capsys):
    path = write_bundle(tmp_path / "toy")
    command = ["calibrate", "--model", str(path), str(data), "--min-entities", "1", "--json"]
    assert main([*command, "--dry-run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert read_manifest(path).label_thresholds == {}
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert printed["average_f1"]["before"] < printed["average_f1"]["after_held_out"] == 100
    manifest = read_manifest(path)
    assert main(command) == 0
    assert "the model has these thresholds already" in capsys.readouterr().err
    assert manifest.label_thresholds == printed["label_thresholds"]
    assert manifest.threshold == printed["threshold"]
    found = nerlet.load(path, threads=1).predict_entities("Ada on 4", ["person", "date"])
    assert [entity["label"] for entity in found] == ["person"]
    assert main(["calibrate", "--model", str(path), "--reset"]) == 0
    assert read_manifest(path).label_thresholds == {}
    assert read_manifest(path).threshold == manifest.threshold


def test_command_prints_a_table(tmp_path, data, capsys):
    path = write_bundle(tmp_path / "toy")
    assert main(["calibrate", "--model", str(path), str(data), "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert "one threshold, held out" in printed.out
    assert "of single labels" in printed.out
    assert "nothing written" in printed.err


@pytest.mark.parametrize("kind", ["export", "shipped", "read-only"])
def test_models_that_cannot_be_changed(tmp_path, data, capsys, monkeypatch, kind):
    write = write_export if kind == "export" else write_bundle
    path = write(tmp_path / "toy")
    if kind == "shipped":
        monkeypatch.setattr("nerlet.store.default_bundle_path", lambda: path)
    if kind == "read-only":
        monkeypatch.setattr("os.access", lambda *_: False)
    before = {file: file.read_bytes() for file in path.iterdir()}
    assert main(["calibrate", "--model", str(path), str(data)]) == 2
    assert "--dry-run" in capsys.readouterr().err
    assert main(["calibrate", "--model", str(path), str(data), "--dry-run"]) == 0
    assert {file: file.read_bytes() for file in path.iterdir()} == before


def test_a_model_that_changes_meanwhile(tmp_path):
    path = write_bundle(tmp_path / "toy")
    bundle = open_bundle(path)
    present = replace(read_manifest(path), name="renamed")
    write_manifest(path, present)
    store_thresholds(bundle, OwnThresholds(0.25, {"\ud800": 0.5}))
    stored = replace(present, threshold=0.25, label_thresholds={"\ud800": 0.5})
    assert read_manifest(path) == stored
    record = replace(present.files["model.onnx"], sha256="0" * 64)
    write_manifest(path, replace(present, files={**present.files, "model.onnx": record}))
    with pytest.raises(BundleError, match="another has taken its place; calibrate again"):
        store_thresholds(bundle, OwnThresholds(0.5, {}))
    assert read_manifest(path).threshold == present.threshold


def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch):
    path = write_bundle(tmp_path / "toy")
    bundle = open_bundle(path)

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(BundleError, match="writing failed: disk full; copy the folder"):
        store_thresholds(bundle, OwnThresholds(0.25, {}))
    assert read_manifest(path) == bundle.manifest


def test_data_or_reset(capsys):
    assert main(["calibrate", "--reset", "data"]) == 2
    assert main(["calibrate"]) == 2
    assert capsys.readouterr().err.count("expected either DATA or --reset") == 2
