"""The accuracy benchmarks count what `nerlet.evaluate` counts, and show it beside the paper."""

import json
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import accuracy
import nerlet
from ablations import summarize
from nerlet.evaluate import evaluate, read_dataset
from nerlet_export.checkpoint import save_checkpoint
from nerlet_export.tiny import make_checkpoint
from paper import TABLE1
from sweep import add_run, variant_settings

ROOT = Path(__file__).parents[2]
LABELS = ["person", "organization", "date"]
GATES = ["Bill", "Gates", "founded", "Microsoft", "on", "April", "4", ",", "1975", "."]
OTHERS = [
    ("Angela Merkel met Emmanuel Macron in Berlin .", [[0, 1, "person"], [3, 4, "person"]]),
    ("nothing is said of anybody", []),
    ("Apple was founded by Steve Jobs", [[0, 0, "organization"], [4, 5, "person"]]),
]


def write_rows(path, rows):
    lines = [{"labels": LABELS}]
    lines += [{"tokenized_text": words, "ner": ner} for words, ner in rows]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def folder(tmp_path):
    """The paper's own example with its date cut short, and a set that the paper does not have."""
    path = tmp_path / "sets"
    path.mkdir()
    gold = [[0, 1, "person"], [3, 3, "organization"], [8, 8, "date"]]
    write_rows(path / "crossner_ai.jsonl", [(GATES, gold)])
    write_rows(path / "mine.jsonl", [(text.split(), ner) for text, ner in OTHERS])
    return path


def run(*arguments, results):
    assert accuracy.main([*map(str, arguments), "--results", str(results)]) == 0
    return json.loads((results / f"accuracy-{arguments[0]}.json").read_text(encoding="utf-8"))


def test_table1_is_what_evaluate_counts_and_what_a_hand_counts(folder, tmp_path):
    document = run("table1", folder, results=tmp_path / "results")
    (result,) = document["results"]
    model = nerlet.load()
    # By hand: person and organization are right, the date's three words too many.
    assert result["sets"]["crossner_ai"] == {
        "precision": 66.67,
        "recall": 66.67,
        "f1": 66.67,
        "sentences": 1,
    }
    mine = read_dataset(folder / "mine.jsonl")
    scores = evaluate(lambda words, labels: model.predict_words(words, list(labels)), mine)
    found = model.predict_words([text.split() for text, _ in OTHERS], LABELS)
    spans = [{(s.start, s.end - 1, LABELS[s.label]) for s in own} for own in found]
    gold = [{tuple(entity) for entity in ner} for _, ner in OTHERS]
    right = sum(len(a & b) for a, b in zip(spans, gold, strict=True))
    by_hand = 200 * right / (sum(map(len, spans)) + sum(map(len, gold)))
    assert result["sets"]["mine"]["f1"] == round(100 * scores.total.f1, 2) == round(by_hand, 2)
    assert result["mean_f1"] == pytest.approx((200 / 3 + by_hand) / 2, abs=0.01)
    assert (result["mean_of"], result["mean_f1_of_all"]) == (2, None)
    assert model.manifest is not None
    assert result["model"]["sha256"] == model.manifest.weights_sha256
    assert result["model"]["threshold"] == model.threshold


def test_the_table_shows_the_paper_on_the_same_sets(folder, tmp_path):
    (folder / "mine.jsonl").unlink()
    run("table1", folder, results=tmp_path)
    lines = (tmp_path / "accuracy-table1.md").read_text(encoding="utf-8").splitlines()
    rows = {cells[1]: cells[2:-1] for line in lines if len(cells := split_row(line)) > 2}
    assert rows["system"][2] == "AI"
    assert rows["system"][-2:] == ["mean of 1", "mean of 7"]
    assert rows["small (int8)"][2:] == ["66.7", "", "", "", "", "66.7", ""]
    assert rows["GLiNER-L"][-2:] == ["57.2", "60.9"]
    assert rows["GoLLIE"][-3:] == ["", "59.1", ""]  # no figure for Science


def split_row(line):
    return [cell.strip() for cell in line.split("|")]


def test_rows_of_the_paper_have_the_means_that_it_gives():
    means = {
        name: round(sum(row.values()) / len(row), 1)
        for name, row in TABLE1.rows.items()
        if len(row) == len(TABLE1.sets)
    }
    assert means == {"ChatGPT": 47.5, "UniNER-7B": 53.4, "UniNER-13B": 55.6, "GLiNER-L": 60.9}


def test_a_checkpoint_is_measured_beside_the_bundle(folder, toy_path, tmp_path):
    save_checkpoint(tmp_path / "model", make_checkpoint("bert", words=GATES))
    given = ("--model", toy_path, "--checkpoint", tmp_path / "model", "--threshold", 0.4)
    document = run("table1", folder, *given, results=tmp_path)
    bundle, torch = document["results"]
    assert bundle["model"]["threshold"] == torch["model"]["threshold"] == 0.4
    assert torch["model"]["precision"] == "fp32, PyTorch"
    assert bundle["sets"].keys() == torch["sets"].keys() == {"crossner_ai", "mine"}


def test_lower_case_changes_the_words_alone(folder, tmp_path):
    document = run("lowercase", folder / "mine.jsonl", results=tmp_path)
    (result,) = document["results"]
    cased = read_dataset(folder / "mine.jsonl")
    lower = accuracy.lower_words(cased)
    assert [e.entities for e in lower.examples] == [e.entities for e in cased.examples]
    assert lower.examples[0].words[0] == "angela"
    lost = 1 - result["lower_cased"]["f1"] / result["cased"]["f1"]
    assert result["lost_percent"] == pytest.approx(100 * lost, abs=0.02)
    assert result["is_within_limit"] == (lost < 1 / 3)


def test_ablations_are_means_over_seeds(tmp_path):
    runs = [
        {"variant": "a", "seed": 1, "f1": 10.0, "report": {"f1": 20.0, "precision": 1.0}},
        {"variant": "a", "seed": 2, "f1": 14.0, "report": {"f1": 20.0, "precision": 3.0}},
        {"variant": "b", "seed": 1, "f1": 9.0, "examples": 12_345, "seconds": 61.7},
    ]
    (tmp_path / "sweep-negatives.json").write_text(json.dumps({"runs": runs}))
    first, second = run("table5", results=tmp_path)["results"]
    assert first["figures"]["dev F1"] == {"mean": 12.0, "deviation": 2.83}
    assert first["figures"]["F1"] == {"mean": 20.0, "deviation": 0.0}
    assert second == {
        "variant": "b",
        "seeds": 1,
        "figures": {
            "dev F1": {"mean": 9.0, "deviation": None},
            "examples": {"mean": 12345.0, "deviation": None},
            "seconds": {"mean": 61.7, "deviation": None},
        },
    }
    assert summarize(runs)[0] == first
    text = (tmp_path / "accuracy-table5.md").read_text(encoding="utf-8")
    assert "| a | 2 | 12.0 ± 2.8 | 2.0 ± 1.4 | 20.0 ± 0.0 |  |  |" in text
    assert "| b | 1 | 9.0 |  |  | 12,345 | 62 |" in text


def test_a_sweep_that_was_not_run_is_an_error_that_names_the_command(tmp_path, capsys):
    assert accuracy.main(["figure6", "--results", str(tmp_path)]) == 2
    assert "python benchmarks/sweep.py benchmarks/sweeps/type_dropping.toml" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("text", ['{"ru', "{}", "[]", '{"runs": []}'])
def test_results_that_are_no_sweeps_are_an_error(tmp_path, capsys, text):
    (tmp_path / "sweep-negatives.json").write_text(text)
    assert accuracy.main(["table5", "--results", str(tmp_path)]) == 2
    assert "accuracy: sweep-negatives.json: expected " in capsys.readouterr().err


def test_a_results_folder_that_cannot_be_is_told_before_measuring(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert accuracy.main(["table1", str(folder), "--results", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert (printed.out, "File exists" in printed.err) == ("", True)


def test_a_table_that_cannot_be_written_is_printed(folder, tmp_path, capsys):
    (tmp_path / "accuracy-table1.json").mkdir()
    assert accuracy.main(["table1", str(folder), "--results", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert "| small (int8) |" in printed.out
    assert "Is a directory" in printed.err


@pytest.mark.parametrize("threshold", ["2", "nan"])
def test_a_threshold_that_is_none_is_not_blamed_on_the_data(folder, tmp_path, capsys, threshold):
    given = ["table1", str(folder), "--results", str(tmp_path), "--threshold", threshold]
    assert accuracy.main(given) == 2
    error = capsys.readouterr().err
    assert error.startswith("accuracy: --threshold: expected a number from 0 to 1, found")


def test_sweeps_side_by_side_lose_no_run(tmp_path):
    lock, path = tmp_path / "sweep.toml", tmp_path / "sweep.json"
    lock.write_text("")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: add_run(path, {"seed": seed}, lock), range(24)))
    seeds = [run["seed"] for run in json.loads(path.read_text())["runs"]]
    assert sorted(seeds) == list(range(24))
    assert sorted(tmp_path.iterdir()) == [path, lock]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks/sweeps").glob("*.toml")), ids=lambda path: path.stem
)
def test_sweeps_are_runs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = tomllib.loads(path.read_text(encoding="utf-8"))
    for changes in sweep["variants"].values():
        settings = variant_settings(sweep, changes, seed=7)
        assert settings.seed == 7
        assert bool(settings.start) != bool(settings.encoder)
