"""Spans in characters to spans in words, which the runtime's own splitter makes."""

import logging
from collections.abc import Iterable

from nerlet.errors import InputError
from nerlet.words import Word, split_words
from nerlet_export.rows.labelled import Labelled, Notes, Reading, Span

logger = logging.getLogger(__name__)

# What becomes of a span that cuts a word: the end, the whole word, or the span left out.
MISFITS = ("error", "snap", "drop")


def place_spans(
    text: str, spans: Iterable[Span], where: str, reading: Reading, notes: Notes
) -> Labelled:
    """Split a text into words, and put spans on them.

    Args:
        text: As the file has it.
        spans: Characters, half-open; blanks at their ends do not matter.
        where: File and place, for errors and the log.
        reading: What becomes of spans that cut words; each of them is logged.
        notes: Gets them, too.

    Raises:
        InputError: A span is not within the text or has no type; or it cuts a word, or holds none,
            and `misfits` does not say what to do.
    """
    words = split_words(text)
    entities = []
    for start, end, label in spans:
        if not 0 <= start < end <= len(text):
            raise InputError(
                f"{where}: expected spans within the {len(text)} characters of the text, found "
                f"{start}-{end} {label!r}; offsets count code points, and ends are exclusive"
            )
        check_type(label, where)
        held = [i for i, word in enumerate(words) if word.end > start and word.start < end]
        if not held or words[held[0]].start < start or words[held[-1]].end > end:
            found = f"{where}: span {start}-{end} {text[start:end]!r} {label!r}"
            if not _keep_misfit(found, [words[i] for i in held], text, reading, notes):
                continue
        entities.append((held[0], held[-1] + 1, label))
    return Labelled(tuple(word.text for word in words), tuple(entities))


def check_type(label: str, where: str) -> None:
    """Refuse a type that no model could be asked for."""
    if not label.strip():
        raise InputError(f"{where}: expected the type of a span in words, found {label!r}")


def _keep_misfit(found: str, held: list[Word], text: str, reading: Reading, notes: Notes) -> bool:
    """Whether to keep a span that cuts the words it holds a part of; reports it."""
    whole = text[held[0].start : held[-1].end] if held else ""
    problem = f"{found} ends within words, which are {whole!r}" if held else f"{found} has no word"
    if reading.misfits == "drop":
        logger.warning("%s: left out", problem)
        notes.add("spans do not fit words and are left out", found)
        return False
    if reading.misfits == "snap" and held:
        logger.warning("%s: widened to them", problem)
        notes.add("spans do not fit words and are widened to whole ones", found)
        return True
    raise InputError(f"{problem}; correct it, or give --misfits {'snap or ' * bool(held)}drop")
