"""Text in the columns of a terminal: measured, padded, cut and wrapped, wide characters as two."""

import shutil
import unicodedata
from collections.abc import Iterable
from typing import TextIO


def find_width(stream: TextIO) -> int | None:
    """Columns of the terminal that a stream writes to; None where it is none."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def clean(text: str) -> str:
    """A text on one line, without characters that would steer the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def measure(text: str) -> int:
    """Columns that a text takes: wide characters two, combining ones none."""
    return sum(map(_measure_character, text))


def pad(text: str, width: int) -> str:
    """A text filled up with spaces to so many columns."""
    return text + " " * (width - measure(text))


def cut(text: str, width: int) -> str:
    """A text that fits into so many columns, its lost end shown as an ellipsis."""
    if measure(text) <= width:
        return text
    return text[: _count_fitting(text, width - 1)] + "…"


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces, and inside a word that is wider.

    Args:
        text: On one line, as `clean` makes it.
        width: At least 2, so that a wide character fits.
    """
    lines = [""]
    for part in _split_words(text, width):
        joined = f"{lines[-1]} {part}" if lines[-1] else part
        if measure(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def _split_words(text: str, width: int) -> Iterable[str]:
    """The words of a text, those that are too wide in parts."""
    for word in text.split():
        rest = word
        while measure(rest) > width:
            count = _count_fitting(rest, width)
            yield rest[:count]
            rest = rest[count:]
        yield rest


def _count_fitting(text: str, width: int) -> int:
    """How many of the first characters fit; marks stay with the character before them."""
    used = 0
    for count, character in enumerate(text):
        used += _measure_character(character)
        if used > width:
            return count
    return len(text)


def _measure_character(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def to_size(count: int) -> str:
    """A number of bytes in MB, or kB where that is more telling."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
