import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerlet.words import (
    DIGITS,
    LOWER,
    MIXED,
    OTHER,
    TITLE,
    UPPER,
    WORD_SHAPE_COUNT,
    Word,
    as_words,
    split_words,
    word_shape,
)


def test_words_carry_their_offsets():
    assert split_words("Bill-Gates founded\tMS.") == [
        Word("Bill-Gates", 0, 10),
        Word("founded", 11, 18),
        Word("MS", 19, 21),
        Word(".", 21, 22),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \n\t\u00a0\u2003", []),
        ("1.1", ["1", ".", "1"]),
        ("a--b", ["a", "-", "-", "b"]),
        ("snake_case-too", ["snake_case-too"]),
        ("don't", ["don", "'", "t"]),
        ("日本語です。", ["日本語です", "。"]),
        ("👩‍🚀 Ada", ["👩", "\u200d", "🚀", "Ada"]),
        ("a\u200bb", ["a", "\u200b", "b"]),
        ("<<ENT>>", ["<", "<", "ENT", ">", ">"]),
    ],
)
def test_words_of_odd_texts(text, words):
    assert [word.text for word in split_words(text)] == words


@given(st.text())
def test_words_slice_back_to_the_text_in_order(text):
    words = split_words(text)
    assert all(text[word.start : word.end] == word.text for word in words)
    assert all(one.end <= other.start for one, other in pairwise(words))


@given(st.text())
def test_words_hold_every_visible_character_and_no_space(text):
    kept = "".join(word.text for word in split_words(text))
    assert kept == re.sub(r"\s", "", text)


def test_given_words_count_as_one_character_each():
    assert as_words(["New York", ""]) == [Word("New York", 0, 1), Word("", 1, 2)]


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("gates", LOWER),
        ("4th", LOWER),
        ("straße", LOWER),
        ("Gates", TITLE),
        ("A", TITLE),
        ("3D", TITLE),
        ("Don't", TITLE),
        ("O'Neil", TITLE),
        ("New-York", TITLE),
        ("Élan", TITLE),
        ("\u01c5", TITLE),  # a title-case letter
        ("NASA", UPPER),
        ("COVID-19", UPPER),
        ("МГУ", UPPER),
        ("iPhone", MIXED),
        ("McDonald", MIXED),
        ("e-Mail", MIXED),
        ("DNA-based", MIXED),
        ("1975", DIGITS),
        ("2,000.50", DIGITS),
        ("50%", DIGITS),
        ("04/05/1975", DIGITS),
        ("日本", OTHER),
        ("日本3", OTHER),
        ("-", OTHER),
        ("$", OTHER),
        ("", OTHER),
    ],
)
def test_shape_of(word, shape):
    assert word_shape(word) == shape


@given(st.text(max_size=12))
def test_every_word_has_a_shape_and_0_is_none(word):
    assert 1 <= word_shape(word) < WORD_SHAPE_COUNT


@given(st.text(alphabet="abcdé", min_size=1))
def test_shapes_tell_case_apart(word):
    upper = UPPER if len(word) > 1 else TITLE
    shapes = (word_shape(word), word_shape(word.capitalize()), word_shape(word.upper()))
    assert shapes == (LOWER, TITLE, upper)
