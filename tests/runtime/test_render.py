import io

import pytest

from nerlet.entities import Entity
from nerlet.render import can_show_colour, render_entities, render_pairs
from tests.runtime.fake_model import Terminal


def entity(text: str, label: str = "x") -> Entity:
    return {"start": 0, "end": len(text), "text": text, "label": label, "score": 0.5}


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


def test_text_cannot_steer_the_terminal():
    shown = render_entities("a\x1b[2J\nb\rc", [entity("a\x1b[2J\nb")], ["x"], colour=False)
    assert shown.splitlines() == ["a [2J b c", "  a [2J b  x  0.50"]


def test_long_text_is_cut_in_the_heading():
    heading = render_entities("字" * 80, [], ["x"], colour=False).splitlines()[0]
    assert heading == "字" * 49 + "…"


def test_pairs_line_up():
    assert render_pairs([("a", "1"), ("bcd", "2")]) == "a    1\nbcd  2"
