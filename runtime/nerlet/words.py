"""Text to words, the first step of a prediction; training splits with the same function."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

WORD_PATTERN = r"\w+(?:[-_]\w+)*|\S"

# Word shapes; 0 is kept for "no word" (prompt, special pieces, padding).
LOWER, TITLE, UPPER, MIXED, DIGITS, OTHER = range(1, 7)
WORD_SHAPE_COUNT = 7

_find_words = re.compile(WORD_PATTERN).finditer
_DIGIT_SIGNS = frozenset(",.-:/%")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a text: `text == whole[start:end]`, in code points, half-open."""

    text: str
    start: int
    end: int


WordSplitter = Callable[[str], Sequence[Word]]


def split_words(text: str) -> list[Word]:
    """Split a text into runs of word characters (joined by `-` or `_`) and single signs.

    Args:
        text: Any text; it is neither lower-cased nor normalised.

    Returns:
        Words in order; together they hold every character that is not white space.

    Source: the `whitespace` splitter of GLiNER.
    """
    return [Word(match.group(), match.start(), match.end()) for match in _find_words(text)]


def as_words(texts: Sequence[str]) -> list[Word]:
    """Return given words as those of a text in which each is one character long."""
    return [Word(text, index, index + 1) for index, text in enumerate(texts)]


def word_shape(word: str) -> int:
    """Return the class of a word's letter case, which uncased encoders cannot see.

    Letters are the characters with case, by Unicode; a title-case letter counts as upper.

    - `LOWER` (1): has letters, all of them lower.
    - `TITLE` (2): its first letter is upper, and each later upper letter follows a character that
      is not a letter ("Gates", "Don't", "New-York", "A", "3D").
    - `UPPER` (3): at least two letters, all of them upper ("NASA", "COVID-19").
    - `MIXED` (4): any other word with letters ("iPhone", "McDonald").
    - `DIGITS` (5): no letters; digits, perhaps with the signs `, . - : / %`.
    - `OTHER` (6): everything else: signs, scripts without case, the empty string.

    Args:
        word: One word.

    Returns:
        A shape from 1 to `WORD_SHAPE_COUNT - 1`.
    """
    if word.islower():
        return LOWER
    letters = [_is_upper(char) for char in word if _has_case(char)]
    if not letters:
        return DIGITS if _is_number(word) else OTHER
    if len(letters) > 1 and all(letters):
        return UPPER
    return TITLE if letters[0] and _upper_only_at_starts(word) else MIXED


def _is_upper(char: str) -> bool:
    return char.isupper() or char.istitle()


def _has_case(char: str) -> bool:
    return char.islower() or _is_upper(char)


def _upper_only_at_starts(word: str) -> bool:
    """Return whether no upper letter follows a letter."""
    return not any(_has_case(before) and _is_upper(char) for before, char in pairwise(word))


def _is_number(word: str) -> bool:
    has_digit = any(char.isdigit() for char in word)
    return has_digit and all(char.isdigit() or char in _DIGIT_SIGNS for char in word)
