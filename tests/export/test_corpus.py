"""Rows to corpus to examples: no negative that a row does not allow, no entity out of place."""

import json
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerlet.errors import InputError
from nerlet.negatives import Row
from nerlet.words import word_shape
from nerlet_export.corpus import build_corpus, limit_rows, read_rows, split_row
from nerlet_export.predict import prompt_layout
from nerlet_export.sampling import Sampling, draw_examples, make_example
from nerlet_export.tiny import make_checkpoint

LAYOUT = prompt_layout(make_checkpoint("bert", max_width=12))
PLAIN = Sampling(drop_type=0.0, lower_text=0.0, upper_text=0.0, no_shapes=0.0)


def row(words, ner, source="s", negatives="closed", **more):
    """A row as read; `ner` as files have it, with inclusive ends."""
    sets = {key: frozenset(value) for key, value in more.items()}
    entities = tuple((start, last + 1, label) for start, last, label in ner)
    return Row(tuple(words.split()), entities, source=source, negatives=negatives, **sets)


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
    example = make_example(row, corpus, sampling, LAYOUT, rng)
    assert example is not None
    return example


def labels_asked(corpus, source, index):
    """Every label that many draws of one row ask for."""
    rng = np.random.default_rng(0)
    rows = corpus.rows[source]
    asked: set[str] = set()
    for _ in range(60):
        example = make_example(rows[index], corpus, PLAIN, LAYOUT, rng)
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


def test_open_rows_take_no_companion_of_their_types_as_absent():
    both = [[1, 1, "chemist"], [1, 1, "scientist"]]
    rows = [
        row("the Ann", both, source="o", negatives="open"),
        row("a Bob", [[1, 1, "chemist"]], source="o", negatives="open"),
        row("one Cid", [[1, 1, "cook"]], source="o", negatives="open"),
    ]
    made = build_corpus(rows, make_checkpoint("bert").pieces, max_words=50)
    assert made.companions["chemist"] == {"scientist"}
    assert labels_asked(made, "o", 1) == {"chemist", "cook"}
    assert labels_asked(made, "o", 2) == {"chemist", "cook", "scientist"}


def test_an_open_row_is_unsure_of_companions_that_a_span_may_have():
    rows = [
        row("Ann met Bob", [[0, 0, "chemist"], [0, 0, "scientist"], [2, 2, "chemist"]]),
        row("one Cid", [[1, 1, "cook"]]),
    ]
    rows = [replace(item, source="o", negatives="open") for item in rows]
    made = build_corpus(rows, make_checkpoint("bert").pieces, max_words=50)
    example = draw(made.rows["o"][0], made, np.random.default_rng(0))
    assert example.unsure == [(2, 0, example.labels.index("scientist"))]


PASSAGES = replace(PLAIN, passages=1.0, passage_words=8)


@pytest.fixture(scope="module")
def numbered():
    """Rows of three words, of which one is an entity that is named after it."""
    words = [f"w{i}" for i in range(60)]
    pieces = make_checkpoint("bert", words=words).pieces
    rows = [
        row(f"w{i} w{i + 1} w{i + 2}", [[1, 1, f"type {i + 1}"]], source=policy, negatives=policy)
        for i in range(0, 60, 3)
        for policy in ("open", "closed", "explicit")
    ]
    names = {tuple(ids): word for word, ids in zip(words, pieces.encode_units(words), strict=True)}
    return build_corpus(rows, pieces, max_words=50), names


@pytest.mark.parametrize("source", ["open", "closed"])
def test_passages_keep_entities_in_place_and_ask_for_no_absent_type_that_is_there(numbered, source):
    corpus, names = numbered
    drawn = draw_examples(corpus, {source: 1.0}, PASSAGES, LAYOUT, np.random.default_rng(0))
    examples = [next(drawn) for _ in range(200)]
    assert {len(example.words) for example in examples} == set(range(3, 9))
    for example in examples:
        words = [names[tuple(ids)] for ids in example.words]
        there = {f"type {word[1:]}" for word in words if int(word[1:]) % 3 == 1}
        found = {(words[start], example.labels[i]) for start, _, i in example.positives}
        assert found == {(f"w{label[5:]}", label) for label in there}
        assert len(example.labels) > len(there)  # and some are absent


def test_rows_that_say_nothing_of_each_others_types_make_no_passage(numbered):
    corpus, _ = numbered
    drawn = draw_examples(corpus, {"explicit": 1.0}, PASSAGES, LAYOUT, np.random.default_rng(0))
    assert {len(next(drawn).words) for _ in range(50)} == {3}


def test_without_negatives_nothing_absent_is_asked_for(corpus):
    rng = np.random.default_rng(0)
    none = replace(PLAIN, negative_ratio=0.0)
    for rows in corpus.rows.values():
        for item in rows:
            example = make_example(item, corpus, none, LAYOUT, rng)
            types = {label for _, _, label in item.spans}
            assert set(example.labels if example else ()) == types


def test_one_mention_rows_know_only_their_mention(corpus):
    example = draw(corpus.rows["u"][0], corpus, np.random.default_rng(0))
    assert example.known_spans == [(0, 0)]


def test_partial_rows_are_unsure_on_labelled_spans(corpus):
    rng = np.random.default_rng(0)
    examples = [draw(corpus.rows["b"][0], corpus, rng) for _ in range(20)]
    both = next(e for e in examples if len(e.labels) == 2)
    assert sorted(both.unsure) == [(0, 0, 0), (0, 0, 1)]


def test_the_finest_type_asked_for_is_trained_alone():
    rows = [
        row("in Rome", [[1, 1, "capital"], [1, 1, "city"]], negatives="explicit"),
        row("to Bari", [[1, 1, "city"]], negatives="explicit"),
    ]
    made = build_corpus(rows, make_checkpoint("bert").pieces, max_words=50)
    rng = np.random.default_rng(0)
    example = draw(made.rows["s"][0], made, rng, replace(PLAIN, finest=True))
    capital, city = (example.labels.index(label) for label in ("capital", "city"))
    assert example.positives == [(1, 0, capital)]
    assert example.unsure == [(1, 0, city)]
    assert len(draw(made.rows["s"][0], made, rng).positives) == 2


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


def test_spans_close_up_on_the_words_that_the_model_sees(monkeypatch):
    """Where U+200B has no pieces, a span with it is neither lost nor taken as absent."""
    pieces = make_checkpoint("bert").pieces

    def encode(_: object, units: list[str]) -> list[list[int]]:
        return [[] if unit == "\u200b" else [5] for unit in units]

    monkeypatch.setattr(type(pieces), "encode_units", encode)
    hidden = row("in \u200b New \u200b York \u200b \u200b", [[1, 5, "city"], [5, 6, "odd"]])
    (made,) = build_corpus([hidden], pieces, max_words=50).rows["s"]
    assert len(made.words) == 3
    assert made.spans == ((1, 3, "city"),)


@pytest.mark.parametrize(("value", "count"), [(None, 1), ("", 1), ("mine", 0), (["mine"], -1)])
def test_a_licence_is_a_string(tmp_path, value, count):
    line = {"tokenized_text": ["a"], "ner": [], "license": value}
    (tmp_path / "f.jsonl").write_text(json.dumps(line), encoding="utf-8")
    rows = read_rows(tmp_path / "f.jsonl", licenses=[""])
    if count >= 0:
        assert len(list(rows)) == count
    else:
        with pytest.raises(InputError, match=r"line 1: license is \['mine'\], expected a"):
            list(rows)


def test_long_rows_are_split_without_losing_words():
    parts = list(split_row(row("a b c d e", [[0, 1, "x"], [1, 2, "y"], [3, 4, "z"]]), 2))
    assert [part.words for part in parts] == [("a", "b"), ("c",), ("d", "e")]
    # x and y overlap, so that one of them has to be cut
    assert [part.entities for part in parts] == [((0, 2, "x"),), (), ((0, 2, "z"),)]


@given(
    widths=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=20),
    max_words=st.integers(1, 9),
)
def test_split_rows_keep_every_entity_that_fits(widths, max_words):
    ends = list(accumulate(width for width, _ in widths))
    spans = [
        (end - width, end)
        for end, (width, is_entity) in zip(ends, widths, strict=True)
        if is_entity
    ]
    whole = row(" ".join(map(str, range(ends[-1]))), [[a, b - 1, "x"] for a, b in spans])
    parts = list(split_row(whole, max_words))
    assert [word for part in parts for word in part.words] == list(whole.words)
    assert all(len(part.words) <= max_words for part in parts)
    found = [part.words[start:stop] for part in parts for start, stop, _ in part.entities]
    assert found == [whole.words[a:b] for a, b in spans if b - a <= max_words]


def test_fewer_rows_of_a_seed_are_among_its_more():
    rows = [row(f"w{i}", [], source="ab"[i % 2]) for i in range(40)]
    few, more = limit_rows(rows, 3, seed=1), limit_rows(rows, 9, seed=1)
    assert [item.source for item in few].count("a") == [item.source for item in few].count("b") == 3
    assert {item.words for item in few} < {item.words for item in more}
    assert few == [item for item in rows if item in few]
    assert limit_rows(rows, 3, seed=2) != few
    assert limit_rows(rows, 0, seed=1) == limit_rows(rows, 20, seed=1) == rows


def test_shapes_can_be_those_of_lower_cased_text(corpus):
    lower = Sampling(drop_type=0.0, lower_text=1.0, upper_text=0.0, no_shapes=0.0)
    example = draw(corpus.rows["s"][0], corpus, np.random.default_rng(0), lower)
    assert set(example.shapes) == {word_shape("ann")}


def write(path, *records):
    base = {"tokenized_text": ["a"], "ner": [[0, 0, "x"]], "negatives": "closed"}
    path.write_text("\n".join(json.dumps(base | record) for record in records))
    return path


def test_licences_and_flags_choose_rows(tmp_path):
    path = write(
        tmp_path / "rows.jsonl",
        {"source": "kept", "license": "permissive"},
        {"source": "unclear", "license": "unclear"},
        {"source": "near", "license": "permissive", "near_mit": True},
        {"source": "unsaid"},
    )
    assert [row.source for row in read_rows(path, licenses=["permissive"])] == ["kept"]
    assert [row.source for row in read_rows(path, licenses=[""])] == ["unsaid"]


def test_rows_that_say_nothing_of_negatives_get_none_unless_told(tmp_path):
    path = write(tmp_path / "rows.jsonl", {"license": "own", "negatives": None})
    (silent,) = read_rows(path, licenses=["own"])
    (told,) = read_rows(path, licenses=["own"], negatives="closed")
    assert (silent.negatives, told.negatives) == ("explicit", "closed")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"license": "own", "negatives": "perhaps"}, "line 1: negatives is 'perhaps'"),
        ({"license": "own", "ner": [[0, 1, "x"]]}, "line 1: expected .start, end_inclusive, type."),
        ({"license": "own", "tokenized_text": "a"}, "line 1: expected a list of strings"),
    ],
)
def test_bad_rows_are_errors_with_their_line(tmp_path, record, message):
    with pytest.raises(InputError, match=message):
        list(read_rows(write(tmp_path / "rows.jsonl", record), licenses=["own"]))


@pytest.mark.parametrize("max_width", [4, 16])
def test_entities_are_targets_up_to_the_models_own_width(max_width):
    wide = row("a b c d e f g h i j k l m n o p", [[0, 5, "six"], [6, 15, "ten"], [6, 6, "one"]])
    corpus = build_corpus([wide], make_checkpoint("bert").pieces, max_words=50)
    layout = replace(LAYOUT, max_width=max_width)
    example = make_example(corpus.rows["s"][0], corpus, PLAIN, layout, np.random.default_rng(0))
    assert example is not None
    found = {(start, width, example.labels[label]) for start, width, label in example.positives}
    ten, six = (6, 9, "ten"), (0, 5, "six")
    assert found == ({(6, 0, "one")} if max_width == 4 else {(6, 0, "one"), six, ten})


def test_texts_are_cut_to_the_encoders_positions():
    long = row("ab cd ef gh", [[0, 0, "x"], [3, 3, "x"]])
    corpus = build_corpus([long], make_checkpoint("bert").pieces, max_words=50)
    # [CLS] [ENT] x <<SEP>> [SEP] are five pieces, each word is two.
    layout = replace(LAYOUT, max_positions=10)
    example = make_example(corpus.rows["s"][0], corpus, PLAIN, layout, np.random.default_rng(0))
    assert example is not None
    assert len(example.words) == 2
    assert example.positives == [(0, 0, 0)]
    nothing = replace(LAYOUT, max_positions=6)
    rng = np.random.default_rng(0)
    assert make_example(corpus.rows["s"][0], corpus, PLAIN, nothing, rng) is None


def test_rows_that_give_no_label_are_an_error():
    silent = build_corpus(
        [row("no entity", [], negatives="explicit")], make_checkpoint("bert").pieces, max_words=50
    )
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="gave no label to ask for"):
        next(draw_examples(silent, {"s": 1.0}, PLAIN, LAYOUT, rng))


def test_a_mixture_of_unknown_sources_is_an_error(corpus):
    with pytest.raises(InputError, match="source 'nowhere' has no rows"):
        next(draw_examples(corpus, {"nowhere": 1.0}, PLAIN, LAYOUT, np.random.default_rng(0)))
