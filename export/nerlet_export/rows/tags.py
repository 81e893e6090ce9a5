"""Tags of words to spans: IO, IOB1, BIO (IOB2), BIOES, BILOU.

Which scheme a file follows is found from its tags. Sequences that break it are read as `conlleval`
reads them: what continues nothing begins an entity, and what is not ended ends where it stops.

Source: conlleval.pl of the CoNLL-2000 shared task; `seqeval` in its default mode.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nerlet_export.rows.labelled import Span

Tag = tuple[str, str]  # "B", "I", "E" or "S" and a type, or OUTSIDE
OUTSIDE: Tag = ("O", "")

_PREFIXED = re.compile(r"([BIELSU])-(.+)")
_PREFIXES = {"L": "E", "U": "S"}  # BILOU's names for those of BIOES


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a file's tags are written.

    Attributes:
        name: As people call it.
        has_prefixes: False where a tag is the bare type.
        marks_begin: An entity that does not begin with B or S breaks it.
        marks_end: An entity that does not end with E or S breaks it.
    """

    name: str
    has_prefixes: bool
    marks_begin: bool = False
    marks_end: bool = False


def find_scheme(sentences: Iterable[Sequence[str]]) -> Scheme:
    """Find which scheme the tags of a file follow.

    Args:
        sentences: All tags of the file as written.

    Returns:
        BIOES or BILOU where a tag of theirs occurs; BIO where a B- comes where IOB1 has none; IO
        where no tag has a prefix. What is left is read alike by IOB1 and BIO, but for breaks.
    """
    prefixes: set[str] = set()
    has_bare = begins_anywhere = False
    for tags in sentences:
        before = ""
        for tag in tags:
            found = _PREFIXED.fullmatch(tag)
            prefixes |= {found[1]} if found else set()
            has_bare |= not found and tag != "O"
            begins_anywhere |= bool(found) and tag[0] == "B" and before[2:] != tag[2:]
            before = tag
    if has_bare and not prefixes:
        return Scheme("IO", has_prefixes=False)
    if prefixes & set("LU"):
        return Scheme("BILOU", has_prefixes=True, marks_begin=True, marks_end=True)
    if prefixes & set("ES"):
        return Scheme("BIOES", has_prefixes=True, marks_begin=True, marks_end=True)
    name = "BIO" if begins_anywhere else "IOB1"
    return Scheme(name, has_prefixes=True, marks_begin=begins_anywhere)


def parse_tag(tag: str, scheme: Scheme) -> Tag | None:
    """Split a tag into prefix and type; None where it is none of the scheme's."""
    if tag == "O":
        return OUTSIDE
    if not scheme.has_prefixes:
        return ("I", tag)
    found = _PREFIXED.fullmatch(tag)
    return (_PREFIXES.get(found[1], found[1]), found[2]) if found else None


def is_tag(tag: str) -> bool:
    """Whether a text is O or a prefix with a type."""
    return tag == "O" or _PREFIXED.fullmatch(tag) is not None


def join_tags(tags: Sequence[Tag], scheme: Scheme) -> tuple[list[Span], list[int]]:
    """Join the tags of one sentence to spans.

    Args:
        tags: As `parse_tag` gives them.
        scheme: Decides what counts as broken, never what the spans are.

    Returns:
        The spans, and the places of tags that break the scheme.
    """
    spans: list[Span] = []
    broken: list[int] = []
    start, label = 0, ""  # of the entity under way; no type where there is none
    for place, (prefix, own) in enumerate([*tags, OUTSIDE]):
        goes_on = prefix in "IE" and own == label
        if label and not goes_on:
            spans.append((start, place, label))
            if scheme.marks_end:
                broken.append(place - 1)
        if not goes_on:
            start = place
            if scheme.marks_begin and prefix in "IE":
                broken.append(place)
        label = own
        if prefix in "ES":
            spans.append((start, place + 1, own))
            label = ""
    return spans, sorted(set(broken))
