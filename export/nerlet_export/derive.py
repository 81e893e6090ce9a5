"""Rows derived from others by rule: their dates, and coarser types.

Dates: everybody asks for dates, and the permissive sources hardly have any in running text. Written
dates are regular enough to be found by rule, so rows in which every trace of a date is part of one
that a rule is sure of become rows of a source of their own, "dates", with `date` beside their own
types; rows without any trace say that `date` is absent. Other types get no negatives from here.

Coarser types: a source that splits persons into athletes, politicians and so on, and calls the
remaining ones `person`, teaches that a politician is no person. That is right where both are asked
for and wrong where only `person` is, so each of its rows comes once more with coarse types alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from nerlet.negatives import Row

# Source -> coarse type -> what it is made of: MultiCoNER v2's own grouping (Fetahu et al., 2023),
# with the two kinds of company once more.
_COARSE: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "multiconer2_en": {
        "person": (
            "artist", "athlete", "cleric", "person", "politician", "scientist", "sports manager",
        ),
        "organization": (
            "aerospace manufacturer", "car manufacturer", "musical group", "organization",
            "private company", "public company", "sports team",
        ),
        "company": (
            "aerospace manufacturer", "car manufacturer", "private company", "public company",
        ),
        "location": ("facility", "human settlement", "location", "station"),
        "creative work": ("artwork", "musical work", "software", "visual work", "written work"),
        "product": ("clothing", "drink", "food", "product", "vehicle"),
        "medical term": (
            "anatomical structure", "disease", "medical procedure", "medication or vaccine",
            "symptom",
        ),
    }
}  # fmt: skip

SOURCE = "dates"
LABEL = "date"

_MONTH = (
    "(?:January|February|March|April|May|June|July|August|September|October|November|December|"
    "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)"
)
_DAY = r"(?:[12]\d|3[01]|0?[1-9])(?:st|nd|rd|th)?"
_YEAR = r"(?:1[5-9]|20)\d\d"
# Over words joined by single spaces; a match begins and ends at a word.
_DATE = re.compile(
    rf"(?<!\S)(?:"
    rf"{_MONTH}(?: \.)? {_DAY}(?: ,)? {_YEAR}|{_DAY} (?:of )?{_MONTH}(?: ,)? {_YEAR}"
    rf"|{_MONTH}(?: ,)? {_YEAR}|{_MONTH}(?: \.)? {_DAY}|{_DAY} (?:of )?{_MONTH}"
    rf"|{_YEAR}-\d\d?-\d\d?|\d\d?/\d\d?/{_YEAR}|\d\d? / \d\d? / {_YEAR}"
    rf"|(?<=\bin ){_YEAR}|(?<=\bsince ){_YEAR}|(?<=\buntil ){_YEAR}"
    rf")(?!\S)"
)
# What might be a date or a part of one; a row with such a trace outside the matches is left out.
_TRACE = re.compile(
    rf"\d|(?<!\S){_MONTH}(?!\S)|(?i:day|month|year|week|weekend|centur|decade|tonight|tomorrow|"
    r"yesterday|spring|summer|autumn|winter|\bfall\b|morning|evening|night|noon|ago\b|\bera\b|"
    r"\bage\b|\bages\b|period|season|quarter|christmas|easter|thanksgiving|\beve\b|ramadan|"
    r"twenties|thirties|forties|fifties|sixties|seventies|eighties|nineties|\bnow\b|\bsoon\b|"
    r"\brecent|currently|eighteen|nineteen|\bdates?\b|\btime)"
)


def derive_dates(rows: Iterable[Row]) -> Iterator[Row]:
    """Make rows of the source "dates" out of other rows.

    Args:
        rows: As read.

    Yields:
        For each row that the rules are sure of: its entities and its dates, or `date` among its
        `explicit_negatives`; `negatives` is "explicit", so nothing else is taken as absent.
    """
    for row in rows:
        dates = find_dates(row.words)
        if dates is None or LABEL in row.types or _clash(row.entities, dates):
            continue
        yield Row(
            words=row.words,
            entities=(*row.entities, *((start, end, LABEL) for start, end in dates)),
            source=SOURCE if dates else f"{SOURCE}-none",
            negatives="explicit",
            explicit_negatives=frozenset() if dates else frozenset({LABEL}),
        )


def derive_coarse(rows: Iterable[Row]) -> Iterator[Row]:
    """Make rows of coarse types, as the sources "NAME-coarse".

    Args:
        rows: As read.

    Yields:
        Each row of a source with coarse types: its entities under these alone.
    """
    for row in rows:
        groups = _COARSE.get(row.source or "")
        if groups:
            entities = tuple(
                (start, end, coarse)
                for start, end, label in row.entities
                for coarse, kinds in groups.items()
                if label in kinds
            )
            yield replace(row, entities=entities, source=f"{row.source}-coarse")


def find_dates(words: Sequence[str]) -> list[tuple[int, int]] | None:
    """Find the dates of a text, half-open ranges of words; None where the rules are not sure."""
    text = " ".join(words)
    place = {}
    offset = 0
    for index, word in enumerate(words):
        place[offset] = index
        offset += len(word) + 1
    found = [(match.start(), match.end()) for match in _DATE.finditer(text)]
    rest = _DATE.sub(lambda match: "_" * len(match.group()), text)
    if _TRACE.search(rest):
        return None
    ends = {begin + len(words[index]): index for begin, index in place.items()}
    return [(place[begin], ends[end] + 1) for begin, end in found]


def _clash(entities: Iterable[tuple[int, int, str]], dates: Sequence[tuple[int, int]]) -> bool:
    """Whether a date overlaps an entity."""
    return any(start < stop and first < end for start, end, _ in entities for first, stop in dates)


DERIVATIONS: Mapping[str, Callable[[Iterable[Row]], Iterator[Row]]] = {
    "dates": derive_dates,
    "coarse": derive_coarse,
}
