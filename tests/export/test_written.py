"""The rows written for the default model are sound: export/data/written*.jsonl."""

import json
from pathlib import Path

import pytest

from nerlet.words import split_words
from nerlet_export.corpus import read_rows

DATA = Path(__file__).parents[2] / "export" / "data"
COUNTS = {
    "written.jsonl": 7491,
    "written-2.jsonl": 4886,
    "written-3.jsonl": 7197,
    "written-4.jsonl": 1006,
}
FIELDS = {"tokenized_text", "ner", "source", "negatives", "license"}


@pytest.fixture(scope="module")
def records():
    return [
        json.loads(line)
        for name in COUNTS
        for line in (DATA / name).read_text(encoding="utf-8").splitlines()
    ]


@pytest.mark.parametrize("name", COUNTS)
def test_every_row_is_read_as_permissive_and_open(records, name):
    """Reading checks types of fields, and that spans are within the words."""
    rows = list(read_rows(DATA / name, licenses=["permissive"]))
    assert len(rows) == COUNTS[name]
    source = "passages" if name == "written-4.jsonl" else "written"
    assert {(row.source, row.negatives) for row in rows} == {(source, "open")}
    assert all(record.keys() - {"explicit_negatives"} == FIELDS for record in records)


def test_words_are_those_that_the_model_reads(records):
    words = {word for record in records for word in record["tokenized_text"]}
    assert [word for word in words if [w.text for w in split_words(word)] != [word]] == []
    assert all(record["tokenized_text"] for record in records)


def test_types_are_plain_lower_case_words(records):
    types = {label for record in records for *_, label in record["ner"]}
    types |= {label for record in records for label in record.get("explicit_negatives", [])}
    assert [x for x in types if not x or x != " ".join(x.lower().split())] == []


def test_no_row_lacks_what_it_has(records):
    for record in records:
        absent = record.get("explicit_negatives", [])
        assert not {label for *_, label in record["ner"]}.intersection(absent), record
        assert len(set(absent)) == len(absent), record


def test_nothing_is_there_twice(records):
    texts = [" ".join(record["tokenized_text"]).lower() for record in records]
    assert len(set(texts)) == len(texts)
    for record in records:
        assert len(set(map(tuple, record["ner"]))) == len(record["ner"]), record
