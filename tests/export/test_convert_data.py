"""Labelled files become rows, and whatever they do not hold is said or refused.

Random tag sequences were held against `seqeval` and `.spacy` files against spaCy by hand; here
spaCy is a stand-in where it is not installed.
"""

import gzip
import json
import logging
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import DocBin, Span

from nerlet.errors import InputError
from nerlet.examples import read_dataset
from nerlet_export.cli import main
from nerlet_export.convert_data import Writing, convert_data
from nerlet_export.corpus import read_rows
from nerlet_export.rows.conll import read_conll
from nerlet_export.rows.detect import read_labelled
from nerlet_export.rows.labelled import Labelled, Notes, Reading
from nerlet_export.rows.offsets import place_spans
from nerlet_export.rows.tags import find_scheme, join_tags, parse_tag

# The example on the page of the CoNLL-2003 shared task, as published (IOB1).
CONLL_2003 = """-DOCSTART- -X- -X- O

U.N. NNP I-NP I-ORG
official NN I-NP O
Ekeus NNP I-NP I-PER
heads VBZ I-VP O
for IN I-PP O
Baghdad NNP I-NP I-LOC
. . O O
"""
WORDS = st.sampled_from(["Ada", "of", "New-York", "3D", "!", "é", "東京", "R2_D2"])


@st.composite
def sentences(draw: st.DrawFn) -> Labelled:
    """Words with spans that do not overlap; neighbours may be of one type."""
    words = draw(st.lists(WORDS, min_size=1, max_size=12))
    cuts = draw(st.lists(st.integers(0, len(words)), max_size=8, unique=True))
    borders = sorted({0, len(words), *cuts})
    spans = []
    for start, end in pairwise(borders):
        label = draw(st.sampled_from(["", "PER", "LOC"]))
        if label:
            spans.append((start, end, label))
    return Labelled(tuple(words), tuple(spans))


def write_tags(row: Labelled, scheme: str) -> list[str]:
    """Tags of a row, by the definition of each scheme."""
    begin, inside, end, single = {
        "BIO": ("B", "I", "I", "B"),
        "IOB1": ("I", "I", "I", "I"),
        "BIOES": ("B", "I", "E", "S"),
        "BILOU": ("B", "I", "L", "U"),
    }[scheme]
    tags = ["O"] * len(row.words)
    for start, stop, label in row.entities:
        marks = [inside] * (stop - start)
        marks[0], marks[-1] = begin, (end if stop - start > 1 else single)
        if scheme == "IOB1" and start and tags[start - 1].endswith(label):
            marks[0] = "B"
        tags[start:stop] = [f"{mark}-{label}" for mark in marks]
    return tags


def to_conll(rows: list[Labelled], scheme: str, separator: str = " ") -> list[str]:
    lines = []
    for row in rows:
        tags = write_tags(row, scheme)
        lines += [separator.join(pair) for pair in zip(row.words, tags, strict=True)] + [""]
    return lines


@pytest.mark.parametrize("separator", [" ", "\t"])
@pytest.mark.parametrize("scheme", ["BIO", "IOB1", "BIOES", "BILOU"])
@given(rows=st.lists(sentences(), min_size=1, max_size=4))
def test_tags_of_every_scheme_come_back(scheme, separator, rows):
    notes = Notes()
    read = read_conll(to_conll(rows, scheme, separator), "f", Reading(), notes)
    assert [(row.words, row.entities) for row in read] == [(r.words, r.entities) for r in rows]
    assert list(notes.lines()) == []


@given(row=sentences(), blanks=st.lists(st.sampled_from([" ", "  ", "\u00a0"]), min_size=12))
def test_offsets_come_back(row, blanks):
    places, text = [], ""
    for word, blank in zip(row.words, blanks, strict=False):
        places.append((len(text), len(text) + len(word)))
        text += word + blank
    spans = [(places[s][0], places[e - 1][1], label) for s, e, label in row.entities]
    notes = Notes()
    found = place_spans(text, spans, "f", Reading(), notes)
    assert (found.words, found.entities) == (row.words, row.entities)
    assert list(notes.lines()) == []


@pytest.mark.parametrize(
    ("tags", "spans", "broken"),
    [
        ("B-X O I-X I-X", [(0, 1, "X"), (2, 4, "X")], [2]),
        ("B-X I-Y I-Y", [(0, 1, "X"), (1, 3, "Y")], [1]),
        ("I-X I-X B-X", [(0, 2, "X"), (2, 3, "X")], []),
        ("I-X I-Y", [(0, 1, "X"), (1, 2, "Y")], []),
        ("B-X I-X O S-X", [(0, 2, "X"), (3, 4, "X")], [1]),
        ("S-X I-X E-X", [(0, 1, "X"), (1, 3, "X")], [1]),
        ("E-X E-X", [(0, 1, "X"), (1, 2, "X")], [0, 1]),
        ("U-X B-X L-X B-X", [(0, 1, "X"), (1, 3, "X"), (3, 4, "X")], [3]),
        ("X X O Y-Z", [(0, 2, "X"), (3, 4, "Y-Z")], []),
    ],
)
def test_broken_sequences_are_read_as_conlleval_does(tags, spans, broken):
    raw = tags.split()
    scheme = find_scheme([raw])
    parsed = [tag for tag in (parse_tag(tag, scheme) for tag in raw) if tag]
    assert join_tags(parsed, scheme) == (spans, broken)


def test_the_example_of_conll_2003(tmp_path):
    source = tmp_path / "eng.train"
    source.write_text(CONLL_2003, encoding="utf-8")
    out = tmp_path / "out" / "train.jsonl"
    assert (
        main(["data", str(source), str(out), "--rename", "PER = person", "--license", "mine"]) == 0
    )
    (line,) = out.read_text(encoding="utf-8").splitlines()
    assert json.loads(line) == {
        "tokenized_text": ["U.N.", "official", "Ekeus", "heads", "for", "Baghdad", "."],
        "ner": [[0, 0, "ORG"], [2, 2, "person"], [5, 5, "LOC"]],
        "source": "own",
        "negatives": "closed",
        "license": "mine",
    }
    (row,) = read_rows(out, licenses=["mine"])
    assert row.entities == ((0, 1, "ORG"), (2, 3, "person"), (5, 6, "LOC"))


def test_columns_comments_and_breaks(tmp_path):
    text = "# id 1 domain=en\n1\tB-X\tAda\n2\tI-X\tB.\n\n1\tO\t#\n2\tI-X\tC\n"
    (tmp_path / "f").write_bytes(gzip.compress(text.replace("\n", "\r\n").encode("utf-8-sig")))
    notes = Notes()
    rows = read_labelled(tmp_path / "f", Reading("conll", word_column=-1, tag_column=2), notes)
    assert [row.words for row in rows] == [("Ada", "B."), ("#", "C")]
    assert [row.entities for row in rows] == [((0, 2, "X"),), ((1, 2, "X"),)]
    comments, breaks = notes.lines()
    assert comments.startswith("1 comment lines are left out")
    assert breaks.endswith("f, line 6: I-X")


TEXT = "Ada met Bob-Lee in Rome."
GOOD = [[0, 3, "PER"], [8, 15, "PER"], [19, 24, "LOC"]]
OBJECTS = [{"start": s, "end": e, "label": label} for s, e, label in GOOD]
SPLIT = ["Ada", "met", "Bob-Lee", "in", "Rome", "."]
TOKENIZED = {"tokenized_text": SPLIT, "ner": [[0, 0, "PER"], [2, 2, "PER"], [4, 5, "LOC"]]}


@pytest.mark.parametrize("layout", ["list", "lines", "indented"])
@pytest.mark.parametrize(
    "record",
    [
        TOKENIZED,
        {"text": TEXT, "spans": OBJECTS, "answer": "accept", "meta": {"source": "x"}},
        {"text": TEXT, "entities": GOOD},
        {"id": 3, "text": TEXT, "label": GOOD},
        [TEXT, {"entities": GOOD}],
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_every_form_of_json_gives_the_same_rows(tmp_path, record, layout, count):
    records = [record] * count
    text = {
        "list": json.dumps(records),
        "lines": "\n".join(map(json.dumps, records)) + "\n\n",
        "indented": json.dumps(records, indent=1),
    }[layout]
    (tmp_path / "f").write_text(text, encoding="utf-8")
    notes = Notes()
    rows = read_labelled(tmp_path / "f", Reading(), notes)
    entities = ((0, 1, "PER"), (2, 3, "PER"), (4, 6, "LOC"))
    assert [(row.words, row.entities) for row in rows] == [(tuple(SPLIT), entities)] * count
    assert list(notes.lines()) == []


def test_rows_of_the_reference_keep_their_fields(tmp_path):
    extra = {"source": "s", "negatives": "open", "near": 1, "ner_negatives": ["x", "PER"]}
    write(tmp_path / "f", TOKENIZED | extra | {"ner_labels": ["LOC", "y"]})
    convert_data([tmp_path / "f"], tmp_path / "o.jsonl")
    (row,) = map(json.loads, (tmp_path / "o.jsonl").read_text("utf-8").splitlines())
    assert row == TOKENIZED | {
        "source": "s", "negatives": "open", "near": 1, "explicit_negatives": ["x", "y"]
    }  # fmt: skip
    convert_data([tmp_path / "f"], tmp_path / "p.jsonl", writing=Writing("t", "closed", "mine"))
    (row,) = map(json.loads, (tmp_path / "p.jsonl").read_text("utf-8").splitlines())
    assert (row["source"], row["negatives"], row["license"]) == ("t", "closed", "mine")


def test_renames_reach_every_field_that_names_types(tmp_path):
    """An old name left in `present` would let the new one be taken as absent."""
    first = TOKENIZED | {"negatives": "closure", "present": ["GPE", "LOC", "PER"]}
    first |= {"explicit_negatives": ["ORG", "person", "place"]}
    write(tmp_path / "f", first)
    renames = {"PER": "person", "GPE": "place", "ORG": "group"}
    convert_data([tmp_path / "f"], tmp_path / "o.jsonl", writing=Writing(renames=renames))
    (row,) = map(json.loads, (tmp_path / "o.jsonl").read_text("utf-8").splitlines())
    assert row["present"] == ["LOC", "person", "place"]
    assert row["explicit_negatives"] == ["group"]
    assert row["ner"] == [[0, 0, "person"], [2, 2, "person"], [4, 5, "LOC"]]


def test_what_rows_do_not_hold_is_counted(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    refused = {"text": "a", "spans": [], "answer": "reject"}
    twice = {"text": "a b", "spans": [[0, 1, "X"], [0, 1, "X"]]}
    write(tmp_path / "f.jsonl", {"labels": ["X", "Y"]}, refused, twice, {"text": " ", "spans": []})
    convert_data([tmp_path / "f.jsonl"], tmp_path / "o.jsonl")
    for part in (
        "1 records are not accepted (`answer`) and left out; first at ",
        "1 spans are there twice and count once; first at a",
        "1 texts have no words and are left out; first at row 2 of all",
        "f.jsonl: Y",
        "o.jsonl: 1 rows of up to 2 words, 1 entities of up to 1",
    ):
        assert part in caplog.text
    assert '"source": "f"' in (tmp_path / "o.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    ("misfits", "spans", "found"),
    [
        ("snap", [(9, 11, "X")], ((2, 3, "X"),)),
        ("drop", [(9, 11, "X"), (0, 3, "Y")], ((0, 1, "Y"),)),
        ("drop", [(7, 8, "X")], ()),
    ],
)
def test_spans_that_cut_words(misfits, spans, found, caplog):
    notes = Notes()
    row = place_spans(TEXT, spans, "f, line 3", Reading(misfits=misfits), notes)
    assert row.entities == found
    assert "f, line 3: span" in caplog.text
    assert len(list(notes.lines())) == 1


@pytest.mark.parametrize("misfits", ["error", "snap"])
def test_spans_without_a_word_are_never_snapped(misfits):
    with pytest.raises(InputError, match=r"span 7-8 ' ' 'X' has no word; .* --misfits drop"):
        place_spans(TEXT, [(7, 8, "X")], "f", Reading(misfits=misfits), Notes())


BAD = {
    "": "expected labelled rows, found none",
    "a O\nb\n": "line 2: expected 2 columns as in the lines before, found 1",
    "a\n": "line 1: expected a word and a tag, the word in column 1, found 1 columns",
    "a B-X\nb X\n": "line 2: expected a tag such as O, B-TYPE or I-TYPE, found 'X'",
    "\tO\nb\tO\n": "line 1: expected a word in column 1, found nothing there",
    "a O\n\udcff O\n": "line 2: expected UTF-8",
    "[1, 2": "expected a JSON list, or one JSON record a line; ",
    '{"text": "a", "spans": []}\n{"text"\n': "line 2: expected one JSON record a line; ",
    '[{"text": "a", "spans": []}, 3]': "record 2: expected tokenized_text and ner, text and",
    '{"text": "a"}\n': "expected a list of spans under one of spans, entities, label, labels",
    '{"text": "a", "spans": [[0, 1]]}\n': "line 1: expected a span as [start, end, label]",
    '{"text": "a", "spans": [[0, 2, "X"]]}\n': "line 1: expected spans within the 1 characters",
    '{"text": "abc", "spans": [[0, 1, "X"]]}\n': "line 1: span 0-1 'a' 'X' ends within words",
    '{"text": "\\ud800", "spans": []}\n': "line 1: expected text of whole characters",
    '{"text": "a", "spans": [[0, 1, "\\ud800"]]}\n': "line 1: expected text of whole characters",
    '{"text": "a", "spans": [[0, 1, " "]]}\n': "line 1: expected the type of a span in words",
    '{"tokenized_text": ["a"], "ner": [[0, 0, " "]]}\n': "line 1: expected the type of a span",
    '{"tokenized_text": ["a"], "ner": [], "negatives": "no"}\n': "line 1: negatives is 'no', ",
    '{"text": " ", "spans": []}\n': "expected texts with words, found none",
    "hello world\nfoo bar\n": "B-TYPE or I-TYPE in column -1, found world, bar, and no O",
    "Ada b-per\nmet o\n": "found b-per, o, and no O; say where tags stand by --tag-column",
    '{"tokenized_text": ["a"], "ner": {"X": [0]}}\n': "expected a list ner of spans",
    '{"tokenized_text": ["a", ""], "ner": []}\n': "line 1: expected words in tokenized_text",
    '{"labels": "X"}\n{"text": "a", "spans": []}': "line 1: expected a list of strings as labels",
    "x\udc9cx": "expected a DocBin of spaCy",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_files(tmp_path, capsys, monkeypatch, text):
    fake_spacy(monkeypatch, [])
    (tmp_path / "f").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["data", str(tmp_path / "f"), str(tmp_path / "o.jsonl")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert BAD[text] in line
    assert str(tmp_path / "f") in line
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rename", "PER = "], "--rename is 'PER = ', expected NAME=VALUE"),
        (["--rename", "PER"], "--rename is 'PER', expected NAME=VALUE"),
        (["--rename", "A=x", "--rename", "A=y"], "--rename is given twice for 'A'"),
        (["--rename", "A=x"], "--rename names A, expected types of the files: LOC, PER"),
        (["--split", "dev=x"], "--split gives dev 'x', expected a number"),
        (["--split", "dev=2"], "--split gives dev 2.0, expected a share between 0 and 1"),
        (["--split", "dev=0.1"], "--split: a share of 0.1 for dev gives it or leaves"),
        (["--split", "o=0.1"], "o.jsonl: expected a split of another name than the output's"),
        (["--split", "a/b=0.1"], "--split names 'a/b', expected the name of a file"),
    ],
)
def test_bad_options(tmp_path, capsys, arguments, message):
    write(tmp_path / "f", TOKENIZED)
    assert main(["data", str(tmp_path / "f"), str(tmp_path / "o.jsonl"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_nothing_is_replaced(tmp_path):
    write(tmp_path / "f", TOKENIZED)
    write(tmp_path / "dev.jsonl", {"mine": 1})
    with pytest.raises(InputError, match=r"dev\.jsonl: it exists, and is not replaced"):
        convert_data([tmp_path / "f"], tmp_path / "o.jsonl", writing=Writing(splits={"dev": 0.5}))
    with pytest.raises(InputError, match=r"expected an output that ends in \.jsonl"):
        convert_data([tmp_path / "f"], tmp_path / "o.json")


def test_a_split_is_seeded_and_keeps_equal_texts_together(tmp_path):
    rows = [{"text": f"t {n % 40}", "spans": [[0, 1, "X" if n else "Y"]]} for n in range(60)]
    write(tmp_path / "f", *rows)

    def split(seed: int, name: str) -> tuple[list[str], list[str]]:
        out = tmp_path / name / "train.jsonl.gz"
        writing = Writing(splits={"dev": 0.25}, seed=seed)
        convert_data([tmp_path / "f"], out, writing=writing)
        assert read_dataset(out.with_name("dev.jsonl.gz")).labels == ("X", "Y")
        with gzip.open(out, "rt") as train, gzip.open(out.with_name("dev.jsonl.gz"), "rt") as dev:
            return train.readlines(), dev.readlines()[1:]

    train, dev = split(0, "a")
    assert len(train) + len(dev) == 60
    assert len({json.loads(line)["tokenized_text"][1] for line in dev}) == 10
    assert not {l.split('"ner"')[0] for l in train} & {l.split('"ner"')[0] for l in dev}  # noqa: E741
    assert split(0, "b") == (train, dev)
    assert split(1, "c") != (train, dev)


def write(path: Path, *records: object) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def fake_spacy(monkeypatch: pytest.MonkeyPatch, docs: list[SimpleNamespace]) -> None:
    """Stand in for the part of spaCy that reads files; no documents is a damaged file."""

    class DocBin:
        def from_bytes(self, _: bytes) -> "DocBin":
            if not docs:
                raise ValueError("[E1014] Error loading DocBin data.")
            return self

        def get_docs(self, _: object) -> list[SimpleNamespace]:
            return docs

    for name, content in {"spacy": {}, "spacy.tokens": {"DocBin": DocBin}}.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    vocab = ModuleType("spacy.vocab")
    vocab.__dict__["Vocab"] = object
    monkeypatch.setitem(sys.modules, "spacy.vocab", vocab)


class Doc(SimpleNamespace):
    def __iter__(self):
        return iter([SimpleNamespace(ent_iob=iob) for iob in self.iobs])


def test_a_docbin(tmp_path, monkeypatch):
    def spans(places: list[list[Any]]) -> list[SimpleNamespace]:
        return [SimpleNamespace(start_char=s, end_char=e, label_=x) for s, e, x in places]

    group = {"sc": spans([[0, 3, "X"]])}
    fake_spacy(
        monkeypatch,
        [
            Doc(text=TEXT, ents=spans(GOOD), spans=group, iobs=[3]),
            Doc(text="a", ents=[], spans={}, iobs=[0]),
        ],
    )
    (tmp_path / "f").write_bytes(b"\x78\x9cx")
    notes = Notes()
    rows = read_labelled(tmp_path / "f", Reading(), notes)
    assert [row.entities for row in rows] == [((0, 1, "PER"), (2, 3, "PER"), (4, 6, "LOC")), ()]
    groups, holes = notes.lines()
    assert groups.startswith("1 documents have a span group 'sc' that is left out (--spans-key)")
    assert "not annotated all over" in holes
    assert "document 2" in holes
    rows = read_labelled(tmp_path / "f", Reading(spans_key="sc"), Notes())
    assert [row.entities for row in rows] == [((0, 1, "X"),), ()]
    with pytest.raises(InputError, match="expected span groups 'zz', found none"):
        read_labelled(tmp_path / "f", Reading(spans_key="zz"), Notes())


def test_spacy_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    monkeypatch.setitem(sys.modules, "spacy.tokens", None)
    (tmp_path / "f").write_bytes(b"\x78\x9cx")
    with pytest.raises(InputError, match="pip install spacy"):
        read_labelled(tmp_path / "f", Reading(), Notes())


def test_a_docbin_that_spacy_wrote(tmp_path):
    doc = spacy.blank("en")("Ada Lovelace didn't live in New York.")
    doc.ents = [Span(doc, 0, 2, label="PER"), Span(doc, 6, 8, label="LOC")]
    DocBin(docs=[doc]).to_disk(tmp_path / "f.spacy")
    (row,) = read_labelled(tmp_path / "f.spacy", Reading(), Notes())
    assert row.words == ("Ada", "Lovelace", "didn", "'", "t", "live", "in", "New", "York", ".")
    assert row.entities == ((0, 2, "PER"), (7, 9, "LOC"))
