"""The command on a real bundle and graph, end to end."""

import json
from unittest.mock import Mock

import onnx
import pytest

from nerlet.bundle import default_bundle_path
from nerlet.cli import main
from tests.runtime.test_placement import write_fp16_bundle
from tests.toys import ENT, SEP, make_wordpiece, write_bundle, write_export

SENTENCE = "Bill Gates founded Microsoft on April 4."
LABELS = ("-l", "person", "-l", "organization", "-l", "date")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return printed.out


def test_extract(toy_path, toy, capsys):
    out = run(capsys, "extract", *LABELS, "--model", toy_path, SENTENCE)
    answer = json.loads(out)
    found = [(entity["text"], entity["label"]) for entity in answer["entities"]]
    assert found == [("Bill Gates", "person"), ("Microsoft", "organization"), ("April 4", "date")]
    assert answer["entities"] == toy.predict_entities(SENTENCE, list(LABELS[1::2]))


def test_extract_nested_at_a_threshold(toy_path, capsys):
    options = ("--nested", "--threshold", "0.7", "--format", "table", "--model", toy_path)
    out = run(capsys, "extract", *LABELS, *options, SENTENCE)
    rows = [line.split("  ")[1].strip() for line in out.splitlines()[1:]]
    assert rows == ["Bill Gates", "Bill", "Gates", "Microsoft", "April 4", "April", "4"]


def test_relations_are_asked_of_a_joint_model(toy_path, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text(SENTENCE, encoding="utf-8")
    for source in ([SENTENCE], ["--file", str(tmp_path / "texts.txt")]):
        options = ("-r", "founded", "--model", str(toy_path), *source)
        assert main(["extract", *LABELS, *options]) == 2
        err = capsys.readouterr().err
        assert "relations: " in err
        assert "load a joint model" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan"])
def test_threshold_outside_its_range(toy_path, capsys, threshold):
    options = (f"--threshold={threshold}", "--model", str(toy_path))
    with pytest.raises(SystemExit, match="2"):
        main(["extract", *LABELS, *options, SENTENCE])
    err = capsys.readouterr().err
    assert f"--threshold: expected a number from 0 to 1, got {threshold}" in err
    assert err.count("\n") == 1


def test_damaged_bundle(tmp_path, capsys):
    path = write_bundle(tmp_path / "toy")
    (path / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert main(["extract", *LABELS, "--model", str(path), SENTENCE]) == 2
    err = capsys.readouterr().err
    assert "tokenizer.json" in err
    assert err.count("\n") == 1


def tell(capsys: pytest.CaptureFixture[str], path: object) -> dict[str, str]:
    """What `nerlet info` prints, by name."""
    lines = [line for line in run(capsys, "info", path).splitlines() if line]
    pairs = [line.split("  ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(lines)  # nothing is told twice
    return {name: value.strip() for name, value in pairs}


def test_info_of_a_bundle(tmp_path, capsys):
    path = write_bundle(tmp_path / "toy", threshold=0.25, max_positions=64)
    told = tell(capsys, path)
    assert told["name"] == "toy"
    assert told["licence"] == "CC0-1.0"
    assert told["precision"] == "fp32"
    assert told["longest text"] == "30 words"
    assert told["longest prompt"] == "64 pieces"
    assert told["threshold"] == "0.25"
    assert (told["on the CPU"], told["on CUDA"]) == ("model.onnx", "model.onnx")


def test_info_tells_which_file_runs_where(tmp_path, capsys):
    told = tell(capsys, default_bundle_path())
    assert told["on the CPU"] == "label.onnx, text.onnx"
    assert told["on CUDA"] == "nothing: only fp16 and fp32 run there"
    told = tell(capsys, write_fp16_bundle(tmp_path / "toy", precision="int8"))
    assert (told["on the CPU"], told["on CUDA"]) == ("model.onnx", "model_fp16.onnx")


def test_info_tells_calibrated_thresholds(tmp_path, capsys):
    own = {"person": 0.5, "x": 0.35}
    path = write_bundle(
        tmp_path / "toy", threshold=0.25, label_thresholds=own, figures={"threshold": 0.4}
    )
    told = tell(capsys, path)
    assert told["threshold"] == "0.25"
    assert told["of single labels"] == "person 0.5, x 0.35"
    assert told["threshold in training"] == "0.4"


def test_info_tells_figures_and_training(tmp_path, capsys):
    figures = {
        "data": {"file": "train", "licenses": ["a", "b"], "mixture": {"set_1": 0.5, "c": 0.25}},
        "steps": 10,
        "examples": 20,
        "words": 30,
        "seconds": 40,
        "threshold": 0.25,
        "dev": {"sgd_x": 36.45, "y": 50.64},
        "by_hand": True,
    }
    verification = {
        "float": {"max_difference": 4.578e-05, "cells": 3},
        "nodes": 7,
        "int8": {"mean_score_drift": 0.25, "entity_agreement": 0.875},
        "data": {"torch_f1": 40.25, "bundle_f1": 40.5},
    }
    path = write_bundle(
        tmp_path / "toy", threshold=0.25, figures=figures, verification=verification
    )
    told = tell(capsys, path)
    assert list(told)[-10:] == [
        *("on labelled texts", "graph against PyTorch", "int8 against float", "nodes"),
        *("F1 in training", "training", "data", "licences of data", "mixture", "by hand"),
    ]
    assert told["on labelled texts"] == "torch f1 40.25, bundle f1 40.5"
    assert told["graph against PyTorch"] == "max difference 4.578e-05, cells 3"
    assert told["int8 against float"] == "mean score drift 0.25, entity agreement 0.875"
    assert told["F1 in training"] == "mean 43.55: sgd_x 36.45, y 50.64"
    assert told["training"] == "10 steps, 20 examples, 30 words, 40 seconds"
    assert told["licences of data"] == "a, b"
    assert told["mixture"] == "set_1 0.5, c 0.25"
    assert told["by hand"] == "yes"


def test_info_tells_figures_of_any_form(tmp_path, capsys):
    figures = {"data": [1, {"a": [None]}], "dev": "poor", "threshold": 0.5, "seconds": []}
    told = tell(capsys, write_bundle(tmp_path / "toy", threshold=0.5, figures=figures))
    assert (told["data"], told["F1 in training"]) == ("1, (a (none))", "poor")


def test_info_of_an_export_without_manifest(tmp_path, capsys):
    out = run(capsys, "info", write_export(tmp_path / "export"))
    assert "name            export" in out
    assert "without nerlet.json: no licence or hashes recorded" in out
    assert "threshold       0.5" in out


def test_info_tells_the_files_of_an_export_and_which_one_runs(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    graph = (path / "model.onnx").read_bytes()
    (path / "onnx").mkdir()
    (path / "onnx" / "model_fp16.onnx").write_bytes(graph)
    (path / "onnx" / "model_fp16.onnx_data").write_bytes(bytes(2_000_000))
    (path / "own.onnx").write_bytes(graph)
    told = tell(capsys, path)
    size = f"{len(graph) / 1e3:.1f} kB"
    half = f"{(len(graph) + 2_000_000) / 1e6:.1f} MB with onnx/model_fp16.onnx_data"
    assert told["graphs"].split("), ") == [
        f"model.onnx (fp32, {size}",
        f"onnx/model_fp16.onnx (fp16, {half}",
        f"own.onnx (unknown, {size})",
    ]
    assert (told["on the CPU"], told["on CUDA"]) == ("model.onnx", "onnx/model_fp16.onnx")


@pytest.mark.parametrize(
    ("name", "cpu", "cuda"),
    [
        ("model_q4f16.onnx", "nothing: half precision runs there by name alone", "nothing: only f"),
        ("model_q4.onnx", "model_q4.onnx", "nothing: only fp16 and fp32 run there"),
    ],
)
def test_info_tells_of_devices_that_run_nothing(tmp_path, capsys, name, cpu, cuda):
    path = write_export(tmp_path / "export")
    (path / "model.onnx").rename(path / name)
    told = tell(capsys, path)
    assert told["on the CPU"] == cpu
    assert told["on CUDA"].startswith(cuda)


def test_info_tells_of_a_named_graph(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    (path / "model.onnx").rename(path / "own.onnx")
    assert "on the CPU      own.onnx" in run(capsys, "info", path, "--graph", "own.onnx")


def test_info_tells_where_the_tokenizer_is_from_and_its_markers(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    tokenizer = make_wordpiece()
    count, ent, sep = tokenizer.get_vocab_size(), *map(tokenizer.token_to_id, (ENT, SEP))
    told = tell(capsys, path)
    assert told["tokenizer"] == (
        f"tokenizer.json, {count} pieces, no limit in tokenizer_config.json"
    )
    assert told["markers"] == f"{ENT} {ent}, {SEP} {sep}"


def test_info_tells_of_markers_that_differ_from_the_config(tmp_path, capsys):
    told = tell(capsys, write_export(tmp_path / "export", config={"class_token_index": 7}))
    assert told["markers"].endswith(
        "; gliner_config.json says 7 for <<ENT>>: of another tokenizer?"
    )


def test_info_tells_of_a_graph_that_does_not_run(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    (path / "model.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert "found a Git LFS pointer" in tell(capsys, path)["does not run"]


def test_info_tells_of_axes_whose_names_or_sizes_mislead(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    graph = onnx.load(path / "model.onnx")
    (logits,) = graph.graph.output
    logits.type.tensor_type.shape.dim[1].dim_param = "T"
    (mask,) = [own for own in graph.graph.input if own.name == "words_mask"]
    mask.type.tensor_type.shape.dim[0].dim_value = 1
    graph.producer_name = "pytorch"
    onnx.save(graph, path / "model.onnx")
    told = tell(capsys, path)
    assert told["graph written by"] == "pytorch"
    assert told["names of axes"] == "T is pieces and words; read by place"
    assert told["sizes fixed in it"] == "words_mask takes 1 texts"


def test_a_named_graph_is_the_one_that_finds_entities(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    (path / "model.onnx").rename(path / "own.onnx")
    out = run(capsys, "extract", *LABELS, "--model", path, "--graph", "own.onnx", SENTENCE)
    assert len(json.loads(out)["entities"]) == 3


def test_info_counts_what_is_on_disk(tmp_path, capsys):
    path = write_export(tmp_path / "export")
    (path / "extra").write_bytes(bytes(2_000_000))
    sizes = [file.stat().st_size for file in path.iterdir()]
    graph = (path / "model.onnx").stat().st_size
    assert f"{sum(sizes) / 1e6:.1f} MB, graph {graph / 1e3:.1f} kB" in run(capsys, "info", path)


def test_evaluate(toy_path, tmp_path, capsys):
    # Given words are kept as they are, also one with a space inside.
    rows = [
        {"labels": ["person", "date"]},
        {"tokenized_text": ["on one", "Ada", "Gates"], "ner": [[1, 2, "person"]]},
        {"tokenized_text": ["in", "1975"], "ner": [[0, 1, "date"]]},
        {"tokenized_text": [], "ner": []},
    ]
    path = tmp_path / "toy.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = run(capsys, "evaluate", path, "--model", toy_path, "--json", "--per-type")
    figures = json.loads(out)["sets"]["toy"]
    assert figures["sentences"] == 3
    assert (figures["precision"], figures["recall"], figures["f1"]) == (50.0, 50.0, 50.0)
    assert figures["types"]["person"]["f1"] == 100.0


def test_evaluate_names_the_file_whose_types_do_not_fit(tmp_path, capsys, monkeypatch):
    model = write_bundle(tmp_path / "toy", max_positions=16)
    data = tmp_path / "data"
    data.mkdir()
    good = {"tokenized_text": ["Ada"], "ner": [[0, 0, "person"]]}
    (data / "a.jsonl").write_text(json.dumps(good), encoding="utf-8")
    closed = [
        {"tokenized_text": ["Ada"], "ner": [[0, 0, f"a{n}"]], "negatives": "closed"}
        for n in range(20)
    ]
    (data / "b.jsonl").write_text("\n".join(map(json.dumps, closed)), encoding="utf-8")
    run_graph = Mock()
    monkeypatch.setattr("nerlet.graph.Graph.run", run_graph)
    assert main(["evaluate", str(data), "--model", str(model)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"nerlet: {data / 'b.jsonl'}: a text is asked for 20 types at once")
    assert "of the model's 16 positions" in err
    assert "several files" in err
    assert err.count("\n") == 1
    run_graph.assert_not_called()
