"""What every reader gives: labelled rows, and notes of whatever is not in them as it was."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Span = tuple[int, int, str]  # start, end, type; half-open


@dataclass(frozen=True, slots=True)
class Labelled:
    """One labelled text.

    Attributes:
        words: The text, in words; none is empty.
        entities: Spans of words.
        fields: What else the file says of the row, under the training format's names.
    """

    words: tuple[str, ...]
    entities: tuple[Span, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read.

    Attributes:
        format: One of `detect.FORMATS`; "" to go by content.
        word_column: Of CoNLL files, from 1; negative from the last, -1.
        tag_column: The same.
        misfits: One of `offsets.MISFITS`, for spans that cut words.
        spans_key: The span group of spaCy's documents to read; "" for their entities.
    """

    format: str = ""
    word_column: int = 1
    tag_column: int = -1
    misfits: str = "error"
    spans_key: str = ""


class Notes:
    """Counts whatever rows do not hold as their files did, and where each kind came first."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, where: str) -> None:
        """Count one more of a kind, which is named as in "3 KIND"."""
        count, first = self._found.get(kind, (0, where))
        self._found[kind] = (count + 1, first)

    def lines(self) -> Iterator[str]:
        """One line for each kind."""
        for kind, (count, first) in self._found.items():
            yield f"{count} {kind}; first at {first}"
