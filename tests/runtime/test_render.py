import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerlet.columns import find_width, measure, wrap
from nerlet.entities import Entity
from nerlet.evaluate import Counts, Scores
from nerlet.relations import RelatedEntity, Relation
from nerlet.render import (
    can_show_colour,
    render_entities,
    render_relations,
    render_scores,
    render_sections,
)
from tests.runtime.fake_model import Terminal


def entity(text: str, label: str = "x") -> Entity:
    return {"start": 0, "end": len(text), "text": text, "label": label, "score": 0.5}


def relate(head: str, name: str, tail: str) -> Relation:
    ends = (
        RelatedEntity(start=0, end=len(text), text=text, type="x", entity_idx=place)
        for place, text in enumerate((head, tail))
    )
    return Relation(head=next(ends), tail=next(ends), relation=name, score=0.5)


@pytest.fixture
def clean_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def test_colour_on_a_terminal_only(clean_terminal):
    assert can_show_colour(clean_terminal)
    assert not can_show_colour(io.StringIO())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_where_it_is_refused(clean_terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not can_show_colour(clean_terminal)


def test_empty_no_color_refuses_nothing(clean_terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    assert can_show_colour(clean_terminal)


def test_each_label_has_its_colour():
    shown = render_entities("ab", [entity("a", "x"), entity("b", "y")], ["x", "y"], colour=True)
    _, first, second = shown.splitlines()
    assert "\x1b[34mx\x1b[0m" in first
    assert "\x1b[32my\x1b[0m" in second


def test_columns_line_up_with_wide_and_combining_characters():
    entities = [entity("東京"), entity("e\u0301a"), entity("abcd")]
    lines = render_entities("t", entities, ["x"], colour=False).splitlines()[1:]
    assert lines == ["  東京  x  0.50", "  e\u0301a    x  0.50", "  abcd  x  0.50"]


def test_relations_line_up_and_are_cut():
    related = [relate("Ada", "met", "字" * 9), relate("a\x1b[2J", "knew well", "b")]
    lines = render_relations(related, colour=False, width=38).splitlines()
    assert lines == [
        "  Ada    met      ->  字字字…   0.50",
        "  a [2J  knew we… ->  b         0.50",
    ]
    assert all(measure(line) <= 38 for line in lines)
    assert render_relations([], colour=False) == "  no relations"


def test_text_cannot_steer_the_terminal():
    shown = render_entities("a\x1b[2J\nb\rc", [entity("a\x1b[2J\nb")], ["x"], colour=False)
    assert shown.splitlines() == ["a [2J b c", "  a [2J b  x  0.50"]


def test_long_text_is_cut_in_the_heading():
    heading = render_entities("字" * 80, [], ["x"], colour=False).splitlines()[0]
    assert heading == "字" * 49 + "…"


def test_sections_line_up():
    shown = render_sections([[("a", "1")], [("bcd", "2"), ("e", "x\x1b[2J")]])
    assert shown == "a    1\n\nbcd  2\ne    x [2J"


def test_long_values_are_wrapped_below_themselves():
    shown = render_sections([[("a", "one two 東京東京東京"), ("b", "")]], width=11)
    assert shown == "a  one two\n   東京東京\n   東京\nb  "


@given(st.text(alphabet="ab 字e\u0301\u3099", max_size=30), st.integers(2, 9))
def test_wrapping_loses_nothing_and_fits(text, width):
    lines = wrap(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(measure(line) <= width for line in lines)


@pytest.mark.parametrize("width", [30, 60, 100])
def test_entities_fit_the_terminal(width):
    found = [entity("字" * 60, "label " * 20), entity("a", "b")]
    labels = ["label " * 20, "b"]
    lines = render_entities("字" * 80, found, labels, colour=False, width=width).splitlines()
    assert max(map(measure, lines)) <= width
    assert lines[1].endswith("  0.50")
    assert measure(lines[1]) == measure(lines[2])


def test_a_mark_is_not_cut_from_its_letter():
    heading = render_entities("e\u0301" * 60, [], ["x"], colour=False, width=50).splitlines()[0]
    assert heading == "e\u0301" * 49 + "…"


def test_scores_fit_the_terminal():
    counts = Counts(1, 1, 1)
    scores = [Scores("set " * 20, 1, counts, {"字" * 50: counts, "a": counts})]
    lines = render_scores(scores, per_type=True, width=60).splitlines()
    assert {measure(line) for line in lines} == {60}
    assert render_scores(scores, per_type=True).count("字") == 50


def test_width_is_that_of_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "33")
    assert find_width(Terminal()) == 33
    assert find_width(io.StringIO()) is None
