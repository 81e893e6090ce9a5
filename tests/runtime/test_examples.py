import gzip
import json
from pathlib import Path

import pytest

from nerlet.errors import InputError
from nerlet.examples import find_data, list_datasets, read_dataset

ROW = {"tokenized_text": ["Ada", "Lovelace", "met", "Babbage"], "ner": [[0, 1, "person"]]}

GOOD_LINE = json.dumps(ROW).encode() + b"\n"


def write(path, *records):
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["set.jsonl", "set.jsonl.gz"])
def test_labels_line_is_what_every_row_is_prompted_with(tmp_path, name):
    plain = {"tokenized_text": ["naïve", "Ω"], "ner": []}
    path = write(tmp_path / name, {"labels": ["place", "person", "place"]}, ROW, plain)
    dataset = read_dataset(path)
    assert dataset.name == "set"
    assert dataset.labels == ("place", "person")
    assert [example.labels for example in dataset.examples] == [("place", "person")] * 2
    assert dataset.examples[0].words == ("Ada", "Lovelace", "met", "Babbage")
    assert dataset.examples[0].entities == {(0, 2, "person")}
    assert dataset.examples[1].words == ("naïve", "Ω")


def test_span_listed_twice_counts_once_but_may_have_two_types(tmp_path):
    row = ROW | {"ner": [[0, 1, "person"], [0, 1, "person"], [0, 1, "writer"]]}
    dataset = read_dataset(write(tmp_path / "set.jsonl", row))
    assert dataset.examples[0].entities == {(0, 2, "person"), (0, 2, "writer")}


def test_single_mentions_are_judged_where_they_are(tmp_path):
    row = ROW | {"negatives": "one-mention"}
    dataset = read_dataset(write(tmp_path / "set.jsonl", row, ROW))
    assert [example.judged for example in dataset.examples] == [{(0, 2)}, None]


def test_first_examples_keep_the_labels_of_all(tmp_path):
    closed = [ROW | {"negatives": "closed", "ner": [[0, 0, name]]} for name in "abc"]
    dataset = read_dataset(write(tmp_path / "set.jsonl", *closed)).first(1)
    assert len(dataset.examples) == 1
    assert dataset.examples[0].labels == dataset.labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1], "line 2: expected a JSON object, got [1]"),
        ({"ner": []}, "line 2: expected a list of strings as tokenized_text, got nothing"),
        ({"tokenized_text": ["a", 1], "ner": []}, "line 2: expected a list of strings"),
        ({"tokenized_text": "a", "ner": []}, "line 2: expected a list of strings"),
        ({"tokenized_text": ["a"]}, "line 2: expected a list ner of spans, got nothing"),
        (ROW | {"ner": [[0, 4, "person"]]}, "line 2: expected [start, end_inclusive, type]"),
        (ROW | {"ner": [[1, 0, "person"]]}, "line 2: expected [start, end_inclusive, type]"),
        (ROW | {"ner": [[-1, 0, "person"]]}, "line 2: expected [start, end_inclusive, type]"),
        (ROW | {"ner": [[0, 0]]}, "within 4 words, got [0, 0]"),
        (ROW | {"ner": [[0, 0, "animal"]]}, "line 2: type 'animal' is not in the file's labels"),
        (ROW | {"negatives": 1}, "line 2: expected a string as negatives, got 1"),
        (ROW | {"present": "x"}, "line 2: expected a list of strings as present"),
    ],
)
def test_bad_row_names_file_and_line(tmp_path, record, message):
    path = write(tmp_path / "set.jsonl", {"labels": ["person"]}, record)
    with pytest.raises(InputError) as caught:
        read_dataset(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("labels", [[], [""], ["a", " "], "a", None, [1]])
def test_bad_labels_line(tmp_path, labels):
    path = write(tmp_path / "set.jsonl", {"labels": labels}, ROW)
    with pytest.raises(InputError, match=r"line 1: expected .* labels, got "):
        read_dataset(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("set.jsonl", b"{not json}\n", "line 1: expected a JSON object; "),
        ("set.jsonl", b'{"labels": ["a"]}\n\n', "line 2: expected a JSON object; "),
        ("set.jsonl", b'{"labels": ["a"]}\n', "expected rows with tokenized_text and ner"),
        ("set.jsonl", b"", "expected rows with tokenized_text and ner"),
        ("set.jsonl", b"\xff\xfe", "expected UTF-8 lines of JSON"),
        ("set.jsonl.gz", b"no gzip", "expected UTF-8 lines of JSON"),
        ("set.jsonl.gz", gzip.compress(GOOD_LINE * 99)[:-9], "reading failed"),
    ],
    ids=["no json", "blank line", "no rows", "empty", "no utf-8", "no gzip", "cut gzip"],
)
def test_unreadable_file(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_dataset(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.jsonl: expected UTF-8 lines of JSON; reading"):
        read_dataset(tmp_path / "none.jsonl")


def test_folder_stands_for_its_files_by_name(tmp_path):
    for name in ("b.jsonl", "a.jsonl.gz", "notes.txt"):
        write(tmp_path / name, ROW)
    (tmp_path / "more").mkdir()
    assert [path.name for path in list_datasets(tmp_path)] == ["a.jsonl.gz", "b.jsonl"]
    assert list_datasets(tmp_path / "b.jsonl") == [tmp_path / "b.jsonl"]


def test_folder_without_files_tells_its_folders(tmp_path):
    (tmp_path / "ood").mkdir()
    with pytest.raises(InputError, match=r"found none; name one of its folders: ood"):
        list_datasets(tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: expected a file or folder"):
        list_datasets(tmp_path / "nowhere")


def test_relative_path_is_looked_up_under_the_data_folder(tmp_path, monkeypatch):
    there = tmp_path / "data" / "eval" / "ood"
    there.mkdir(parents=True)
    write(there / "a.jsonl", ROW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NERLET_DATA", str(tmp_path / "data"))
    assert find_data("eval/ood") == there
    assert list_datasets("eval/ood") == [there / "a.jsonl"]
    # What lies in the current folder comes first.
    (tmp_path / "eval" / "ood").mkdir(parents=True)
    assert find_data("eval/ood") == Path("eval/ood")


def test_path_that_is_in_neither_place_names_both(tmp_path, monkeypatch):
    monkeypatch.setenv("NERLET_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        find_data("eval/none")
    assert str(caught.value).startswith("eval/none: expected a file or folder of labelled texts")
    assert str(tmp_path / "eval" / "none") in str(caught.value)


@pytest.mark.parametrize("root", [None, ""])
def test_path_without_a_data_folder_tells_how_to_name_one(monkeypatch, root):
    monkeypatch.delenv("NERLET_DATA", raising=False)
    if root is not None:
        monkeypatch.setenv("NERLET_DATA", root)
    with pytest.raises(InputError, match=r"eval/none: expected .* NERLET_DATA"):
        find_data("eval/none")


def test_absolute_path_is_looked_up_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("NERLET_DATA", str(tmp_path))
    with pytest.raises(InputError) as caught:
        find_data(tmp_path / "none")
    assert "NERLET_DATA" not in str(caught.value)


def test_two_files_of_one_name(tmp_path):
    write(tmp_path / "a.jsonl", ROW)
    write(tmp_path / "a.jsonl.gz", ROW)
    with pytest.raises(InputError, match="two files are named a"):
        list_datasets(tmp_path)
