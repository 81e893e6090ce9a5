"""Rows to examples: no negative that a row does not allow, no entity out of place."""

import json

import numpy as np
import pytest

from nerlet.errors import InputError
from nerlet.words import word_shape
from nerlet_export.corpus import (
    Sampling,
    build_corpus,
    draw_examples,
    make_example,
    read_rows,
    split_row,
)
from nerlet_export.tiny import make_checkpoint

PLAIN = Sampling(drop_type=0.0, lower_text=0.0, upper_text=0.0, no_shapes=0.0)


def row(words, ner, source="s", negatives="closed", **more):
    return {
        "tokenized_text": words.split(),
        "ner": ner,
        "source": source,
        "negatives": negatives,
        "license": "permissive",
        **more,
    }


ROWS = [
    row("Ann met Bob", [[0, 0, "person"], [2, 2, "person"]]),
    row("in Rome", [[1, 1, "city"]]),
    row("a red car", [[1, 1, "color"]], source="t"),
    row("by bus", [[1, 1, "ride"]], source="g", negatives="per-service", services=["Bus"]),
    row("by air", [[1, 1, "flight"]], source="g", negatives="per-service", services=["Air"]),
    row("both", [], source="g", negatives="per-service", services=["Air", "Bus"]),
    row("x y", [[0, 0, "p1"], [1, 1, "p2"]], source="h", negatives="closed-split"),
    row("x z", [[0, 0, "q1"]], source="h", negatives="closed-split"),
    row("x w", [[0, 0, "p2"], [1, 1, "p3"]], source="h", negatives="closed-split"),
    row("a cat", [[1, 1, "cat"]], source="w", negatives="closure", present=["cat", "animal"]),
    row("a dog", [[1, 1, "dog"]], source="w", negatives="closure", present=["dog", "animal"]),
    row("an ape", [[1, 1, "animal"]], source="w", negatives="closure", present=["animal"]),
    row("go on", [[0, 0, "act"]], source="o", negatives="open"),
    row("one of", [[0, 0, "number"]], source="u", negatives="one-mention"),
    row("two of", [[0, 0, "pair"]], source="u", negatives="one-mention"),
    row("web of", [[0, 0, "subject"]], source="b", negatives="partial"),
    row("net of", [[0, 0, "object"]], source="b", negatives="partial"),
    row("it is", [[0, 0, "kept"]], source="e", negatives="explicit", explicit_negatives=["absent"]),
    row("so it", [[0, 0, "other"]], source="e", negatives="explicit"),
]


@pytest.fixture(scope="module")
def corpus():
    return build_corpus(ROWS, make_checkpoint("bert").pieces, max_words=50)


def draw(row, corpus, rng, sampling=PLAIN):
    """One example of a row that always gives one."""
    example = make_example(row, corpus, sampling, rng)
    assert example is not None
    return example


def labels_asked(corpus, source, index):
    """Every label that many draws of one row ask for."""
    rng = np.random.default_rng(0)
    rows = corpus.rows[source]
    asked: set[str] = set()
    for _ in range(60):
        example = make_example(rows[index], corpus, PLAIN, rng)
        asked.update(example.labels if example else ())
    return asked


@pytest.mark.parametrize(
    ("source", "index", "expected"),
    [
        ("s", 0, {"person", "city"}),
        ("t", 0, {"color"}),
        ("g", 0, {"ride"}),
        ("g", 2, {"ride", "flight"}),
        ("e", 0, {"kept", "absent"}),
        ("h", 0, {"p1", "p2", "p3"}),
        ("h", 1, {"q1"}),
        ("w", 0, {"cat", "dog"}),  # never "animal": a cat is one
        ("w", 2, {"animal", "cat", "dog"}),
        ("u", 0, {"number", "pair"}),
        ("b", 0, {"subject", "object"}),
    ],
)
def test_negatives_are_those_that_the_row_allows(corpus, source, index, expected):
    assert labels_asked(corpus, source, index) == expected


def test_open_rows_take_types_from_everywhere(corpus):
    assert {"person", "flight", "q1"} < labels_asked(corpus, "o", 0)


def test_one_mention_rows_know_only_their_mention(corpus):
    example = draw(corpus.rows["u"][0], corpus, np.random.default_rng(0))
    assert example.known_spans == [(0, 0)]


def test_partial_rows_are_unsure_on_labelled_spans(corpus):
    rng = np.random.default_rng(0)
    examples = [draw(corpus.rows["b"][0], corpus, rng) for _ in range(20)]
    both = next(e for e in examples if len(e.labels) == 2)
    assert sorted(both.unsure) == [(0, 0, 0), (0, 0, 1)]


def test_crops_keep_entities_in_place():
    words = [f"w{i}" for i in range(100)]
    long = row(" ".join(words), [[i, i + 1, "odd"] for i in range(1, 98, 8)])
    pieces = make_checkpoint("bert", words=words).pieces
    corpus = build_corpus([long], pieces, max_words=384)
    names = {tuple(ids): word for word, ids in zip(words, pieces.encode_units(words), strict=True)}
    rng = np.random.default_rng(1)
    for _ in range(50):
        example = draw(corpus.rows["s"][0], corpus, rng)
        assert len(example.words) == PLAIN.crop_words
        for start, width, _ in example.positives:
            number = int(names[tuple(example.words[start])][1:])
            assert width == 1
            assert number % 8 == 1


def test_spans_wider_than_k_are_neither_targets_nor_negatives():
    wide = row("a b c d e f g h i j k l m n o", [[0, 13, "wide"], [14, 14, "thin"]])
    corpus = build_corpus([wide], make_checkpoint("bert").pieces, max_words=50)
    rng = np.random.default_rng(0)
    examples = [draw(corpus.rows["s"][0], corpus, rng) for _ in range(20)]
    assert {label for e in examples for label in e.labels} == {"thin"}


def test_long_rows_are_split_without_losing_words():
    parts = list(split_row(row("a b c d e", [[0, 1, "x"], [1, 2, "y"], [3, 4, "z"]]), 2))
    assert [part["tokenized_text"] for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    assert [part["ner"] for part in parts] == [[[0, 1, "x"]], [], []]


def test_shapes_can_be_those_of_lower_cased_text(corpus):
    lower = Sampling(drop_type=0.0, lower_text=1.0, upper_text=0.0, no_shapes=0.0)
    example = draw(corpus.rows["s"][0], corpus, np.random.default_rng(0), lower)
    assert set(example.shapes) == {word_shape("ann")}


def test_licences_and_flags_choose_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    kept = row("a", [])
    lines = [kept, row("b", [], license="unclear"), row("c", [], near_mit=True)]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert list(read_rows(path, licenses=["permissive"])) == [kept]


def test_an_unknown_policy_is_an_error_with_its_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("a", [], negatives="perhaps")))
    with pytest.raises(InputError, match=r"line 1: negatives is 'perhaps'"):
        list(read_rows(path, licenses=["permissive"]))


def test_a_mixture_of_unknown_sources_is_an_error(corpus):
    with pytest.raises(InputError, match="source 'nowhere' has no rows"):
        next(draw_examples(corpus, {"nowhere": 1.0}, PLAIN, np.random.default_rng(0)))
