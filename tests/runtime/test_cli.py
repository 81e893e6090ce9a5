import json
import sys
import warnings

import pytest

from nerlet.cli import main
from tests.runtime.fake_model import FakeModel, Terminal


@pytest.fixture
def model(monkeypatch):
    fake = FakeModel()

    def load(path, graph=None):
        fake.loaded.append(path)
        fake.graphs.append(graph)
        return fake

    monkeypatch.setattr("nerlet.model.load", load)
    return fake


@pytest.fixture
def run(capsys):
    """Run the command; returns its status and what it printed."""

    def run_command(*arguments: str):
        try:
            status = main(arguments)
        except SystemExit as ending:
            status = int(ending.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_command


def write_rows(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_extract_prints_one_object_a_line_into_a_pipe(model, run):
    status, out, err = run("extract", "-l", "person", "-l", "place", "Ada saw Zoë", "nobody")
    assert (status, err) == (0, "")
    first, second = map(json.loads, out.splitlines())
    assert list(first) == ["text", "entities"]
    assert first["entities"][1] == {
        "start": 8, "end": 11, "text": "Zoë", "label": "person", "score": 0.875,
    }  # fmt: skip
    assert second == {"text": "nobody", "entities": []}
    assert "Zoë" in out  # not escaped
    assert model.loaded == [None]


def test_extract_hands_its_options_to_the_model(model, run):
    options = ("--threshold", "0.25", "--nested", "--multi-label", "--model", "some/where")
    assert run("extract", "-l", "a", *options, "--graph", "b.onnx", "x")[0] == 0
    assert (model.loaded, model.graphs) == (["some/where"], ["b.onnx"])
    assert model.calls == [
        {"text": "x", "labels": ["a"], "threshold": 0.25, "flat_ner": False, "multi_label": True}
    ]


def test_extract_leaves_the_defaults_to_the_model(model, run):
    run("extract", "-l", "a", "x")
    assert model.calls == [
        {"text": "x", "labels": ["a"], "threshold": None, "flat_ner": True, "multi_label": False}
    ]


@pytest.mark.usefixtures("model")
def test_extract_prints_a_table_when_asked_to(run):
    _, out, _ = run("extract", "-l", "person", "--format", "table", "Ada met Babbage", "nobody")
    assert out.splitlines() == [
        "Ada met Babbage",
        "  Ada      person  0.88",
        "  Babbage  person  0.88",
        "nobody",
        "  no entities",
    ]


def test_extract_finds_relations_where_they_are_asked_for(model, run, tmp_path):
    options = ("-l", "person", "-r", "met", "--relation", "knew")
    status, out, _ = run("extract", *options, "--threshold", "0.2", "Ada met Babbage", "Ada")
    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert list(first) == ["text", "entities", "relations"]
    assert [own["tail"]["text"] for own in first["relations"]] == ["Babbage"]
    assert second["relations"] == []
    assert (model.calls[0]["relations"], model.calls[0]["threshold"]) == (["met", "knew"], 0.2)
    path = tmp_path / "texts.txt"
    path.write_text("Ada met Babbage\nAda\n", encoding="utf-8")
    assert run("extract", *options, "--file", str(path)) == (0, out, "")


@pytest.mark.usefixtures("model")
def test_extract_prints_relations_below_entities(run):
    options = ("-l", "person", "-r", "met", "--format", "table")
    _, out, _ = run("extract", *options, "Ada met Babbage", "nobody")
    assert out.splitlines() == [
        "Ada met Babbage",
        "  Ada      person  0.88",
        "  Babbage  person  0.88",
        "  Ada  met ->  Babbage  0.75",
        "nobody",
        "  no entities",
        "  no relations",
    ]


@pytest.mark.usefixtures("model")
def test_extract_prints_a_coloured_table_on_a_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["extract", "-l", "person", "Ada"]) == 0
    assert terminal.getvalue().splitlines()[1] == "  Ada  \x1b[34mperson\x1b[0m  \x1b[2m0.88\x1b[0m"


@pytest.mark.usefixtures("model")
def test_extract_reads_a_text_from_each_line_of_a_file(run, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffAda\r\n\nΩ x\u2028y\nlast".encode())
    status, out, _ = run("extract", "-l", "a", "--file", str(path))
    assert status == 0
    texts = [json.loads(line)["text"] for line in out.split("\n")[:-1]]
    assert texts == ["Ada", "", "Ω x\u2028y", "last"]


@pytest.mark.usefixtures("model")
def test_extract_names_the_line_that_is_no_utf8_after_the_good_ones(run, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"Ada\nna\xefve\n")
    status, out, err = run("extract", "-l", "a", "--file", str(path))
    assert status == 2
    assert json.loads(out)["text"] == "Ada"
    expected = f"nerlet: {path}, line 2: expected UTF-8, got byte 0xef at 2; convert the file\n"
    assert err == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("find",), "invalid choice: 'find'"),
        (("extract", "x"), "the following arguments are required: -l/--label"),
        (("extract", "-l", "a"), "expected either texts or --file, got both or neither"),
        (("extract", "-l", "a", "--file", "f", "x"), "expected either texts or --file"),
        (("extract", "-l", "a", "--file", "no/such"), "No such file or directory: 'no/such'"),
        (
            ("extract", "-l", "a", "--threshold", "high", "x"),
            "expected a number from 0 to 1, got high",
        ),
        (("extract", "-l", "a", "\udcff"), "argument TEXT: expected UTF-8, got '\\udcff'"),
        (("extract", "-l", "a", "--format", "xml", "x"), "invalid choice: 'xml'"),
        (("info", "no/such"), "no/such: expected a model directory, found nothing"),
        (("evaluate", "no/such"), "no/such: expected a file or folder of labelled texts"),
        (("evaluate", "--threshold", "nan", "x"), "--threshold: expected a number from 0 to 1"),
        (("evaluate", "--limit", "0", "x"), "expected a number of at least 1, got 0"),
        (("evaluate", "--limit", "1.5", "x"), "expected a number of at least 1, got 1.5"),
        (("calibrate", "--folds", "1", "x"), "expected a number of at least 2, got 1"),
        (("calibrate", "--folds", "all", "x"), "expected a number of at least 2, got all"),
    ],
)
@pytest.mark.usefixtures("model")
def test_bad_input_is_one_line_and_status_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.startswith("nerlet: ")
    assert err.count("\n") == 1


def test_missing_model_is_one_line_and_status_2(run, tmp_path):
    status, _, err = run("extract", "-l", "a", "--model", str(tmp_path), "x")
    assert status == 2
    assert err.startswith(f"nerlet: {tmp_path}: expected ")
    assert err.count("\n") == 1


def test_warnings_are_one_line_each(model, run, monkeypatch):
    def cut(*_, **__):
        warnings.warn("9 words were\ncut", UserWarning, stacklevel=1)
        return []

    monkeypatch.setattr(model, "predict_entities", cut)
    status, out, err = run("extract", "-l", "a", "x", "y")
    assert (status, out.count("\n")) == (0, 2)
    assert err == "nerlet: warning: 9 words were cut\n" * 2


def test_interrupt_ends_quietly(model, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "predict_entities", interrupt)
    assert run("extract", "-l", "a", "x") == (130, "", "")


def test_bug_is_not_hidden(model, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(model, "predict_entities", fail)
    with pytest.raises(ZeroDivisionError):
        main(["extract", "-l", "a", "x"])


@pytest.fixture
def data(tmp_path):
    right = {"tokenized_text": ["Ada", "sat"], "ner": [[0, 0, "person"]]}
    missed = {"tokenized_text": ["she", "sat"], "ner": [[0, 0, "person"], [1, 1, "act"]]}
    write_rows(tmp_path / "big.jsonl", {"labels": ["person", "act"]}, right, missed)
    write_rows(tmp_path / "small.jsonl", {"labels": ["person"]}, right)
    return tmp_path


def test_evaluate_prints_percents_as_json(model, run, data):
    status, out, err = run("evaluate", str(data), "--json", "--threshold", "0.3", "--model", "m")
    assert (status, err) == (0, "")
    assert json.loads(out) == {
        "sets": {
            "big": {"precision": 100.0, "recall": 33.33, "f1": 50.0, "sentences": 2},
            "small": {"precision": 100.0, "recall": 100.0, "f1": 100.0, "sentences": 1},
        },
        "average_f1": 75.0,
    }
    assert model.loaded == ["m"]
    assert model.calls[0] == {"labels": ["person", "act"], "threshold": 0.3}


@pytest.mark.usefixtures("model")
def test_evaluate_prints_a_table(run, data):
    _, out, _ = run("evaluate", str(data))
    assert out.splitlines() == [
        "set      sentences  precision  recall     F1",
        "big              2      100.0    33.3   50.0",
        "small            1      100.0   100.0  100.0",
        "average                                 75.0",
    ]


@pytest.mark.usefixtures("model")
def test_evaluate_tells_of_each_type(run, data):
    _, out, _ = run("evaluate", str(data), "--per-type")
    assert "  act       1 spans        0.0     0.0    0.0" in out.splitlines()
    _, out, _ = run("evaluate", str(data), "--per-type", "--json")
    types = json.loads(out)["sets"]["big"]["types"]
    assert types["person"] == {"precision": 100.0, "recall": 50.0, "f1": 66.67, "spans": 2}


@pytest.mark.usefixtures("model")
def test_evaluate_reads_one_file_and_its_first_rows(run, data):
    _, out, _ = run("evaluate", str(data / "big.jsonl"), "--limit", "1", "--json")
    assert json.loads(out)["sets"] == {
        "big": {"precision": 100.0, "recall": 100.0, "f1": 100.0, "sentences": 1}
    }


@pytest.mark.usefixtures("model")
def test_evaluate_finds_its_files_under_the_data_folder(run, data, monkeypatch):
    monkeypatch.setenv("NERLET_DATA", str(data.parent))
    status, out, _ = run("evaluate", f"{data.name}/small.jsonl", "--json")
    assert (status, list(json.loads(out)["sets"])) == (0, ["small"])
    assert "NERLET_DATA" in run("evaluate", "--help")[1]


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("options", [("--json",), ()])
def test_evaluate_prints_a_type_with_half_a_character(run, tmp_path, options):
    row = {"tokenized_text": ["Ada"], "ner": [[0, 0, "a\ud800"]]}
    path = write_rows(tmp_path / "half.jsonl", row)
    status, out, err = run("evaluate", str(path), "--per-type", *options)
    assert (status, err) == (0, "")
    if options:
        assert list(json.loads(out)["sets"]["half"]["types"]) == ["a\ud800"]


@pytest.mark.usefixtures("model")
def test_name_that_is_no_utf8_is_shown_escaped(run):
    status, _, err = run("evaluate", "no/such\udcff")
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("nerlet: no/such\\udcff: expected")


def test_evaluate_names_a_bad_row_before_it_loads_a_model(model, run, data):
    write_rows(data / "worse.jsonl", {"labels": ["a"]}, {"tokenized_text": 1})
    status, out, err = run("evaluate", str(data))
    assert (status, out) == (2, "")
    assert err.startswith(f"nerlet: {data / 'worse.jsonl'}, line 2: expected a list of strings")
    assert model.loaded == []


def test_help_names_the_commands(run):
    status, out, _ = run("--help")
    assert status == 0
    assert all(command in out for command in ("extract", "info", "evaluate"))


def test_version(run):
    status, out, _ = run("--version")
    assert status == 0
    assert out.split()[0] == "nerlet"
    assert out.split()[1][0].isdigit()
