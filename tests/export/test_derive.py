"""Derived dates: whole dates or nothing."""

import pytest

from nerlet.negatives import Row
from nerlet_export.derive import derive_coarse, derive_dates, find_dates


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("He was born on March 3 , 1847 in Edinburgh .", ["March 3 , 1847"]),
        ("signed 12 May 2021", ["12 May 2021"]),
        ("on the 4th of July , 1776 they", ["4th of July , 1776"]),
        ("since 1990 and in June 2004", ["1990", "June 2004"]),
        ("dated 2019-04-30", ["2019-04-30"]),
        ("on 2 / 8 / 1935 in", ["2 / 8 / 1935"]),
        ("no such thing here", []),
    ],
)
def test_written_dates_are_found_whole(text, dates):
    words = text.split()
    found = find_dates(words)
    assert found is not None
    assert [" ".join(words[start:end]) for start, end in found] == dates


@pytest.mark.parametrize(
    "text",
    ["1975 people came", "in 1975 , 40 people", "they may 5", "last Monday", "two days ago", "May"],
)
def test_texts_that_may_hold_other_dates_are_left_out(text):
    assert find_dates(text.split()) is None


def row(text, *entities):
    return Row(tuple(text.split()), entities, source="s", negatives="closed")


def test_rows_keep_their_entities_and_get_no_other_negatives():
    person = (0, 1, "person")
    dated, undated = derive_dates([row("Ann left in 1990", person), row("Ann left", person)])
    assert dated.entities == (person, (3, 4, "date"))
    assert (dated.source, dated.explicit_negatives) == ("dates", frozenset())
    assert undated.source == "dates-none"
    assert undated.explicit_negatives == frozenset({"date"})
    assert {dated.negatives, undated.negatives} == {"explicit"}


def test_a_date_inside_an_entity_is_left_out():
    assert list(derive_dates([row("the May 1 , 1990 Act", (1, 6, "law"))])) == []


@pytest.mark.parametrize("text", ["see you tomorrow", "since the sixties", "at Christmas"])
def test_rows_with_dates_in_other_words_do_not_say_that_there_is_none(text):
    assert list(derive_dates([row(text)])) == []


def test_coarse_rows_have_coarse_types_alone():
    entities = ((0, 1, "politician"), (2, 3, "public company"), (4, 5, "no such type"))
    fine = Row(("Ann", "led", "Acme", "in", "May"), entities, "multiconer2_en", "closed")
    (coarse,) = derive_coarse([fine, row("Ann left")])
    assert coarse.source == "multiconer2_en-coarse"
    assert set(coarse.entities) == {(0, 1, "person"), (2, 3, "organization"), (2, 3, "company")}
    assert coarse.words == fine.words
    assert coarse.negatives == "closed"
