"""Derived dates: whole dates or nothing."""

import pytest

from nerlet_export.derive import derive_dates, find_dates


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
    assert [" ".join(words[first : last + 1]) for first, last in found] == dates


@pytest.mark.parametrize(
    "text",
    ["1975 people came", "in 1975 , 40 people", "they may 5", "last Monday", "two days ago", "May"],
)
def test_texts_that_may_hold_other_dates_are_left_out(text):
    assert find_dates(text.split()) is None


def test_rows_keep_their_entities_and_get_no_other_negatives():
    source = {
        "tokenized_text": ["Ann", "left", "in", "1990"],
        "ner": [[0, 0, "person"]],
        "source": "s",
    }
    none = {"tokenized_text": ["Ann", "left"], "ner": [[0, 0, "person"]], "source": "s"}
    dated, undated = derive_dates([source, none])
    assert dated["ner"] == [[0, 0, "person"], [3, 3, "date"]]
    assert (dated["source"], dated["explicit_negatives"]) == ("dates", [])
    assert (undated["source"], undated["explicit_negatives"]) == ("dates-none", ["date"])
    assert {dated["negatives"], undated["negatives"]} == {"explicit"}


def test_a_date_inside_an_entity_is_left_out():
    row = {
        "tokenized_text": ["the", "May", "1", ",", "1990", "Act"],
        "ner": [[1, 5, "law"]],
        "source": "s",
    }
    assert list(derive_dates([row])) == []
