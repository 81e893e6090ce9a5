"""spaCy's `.spacy` files (DocBin) to rows; spaCy itself reads them, where it is installed."""

import zlib
from typing import Any

from nerlet.errors import InputError
from nerlet_export.rows.labelled import Labelled, Notes, Reading
from nerlet_export.rows.offsets import place_spans


def read_docbin(data: bytes, path: str, reading: Reading, notes: Notes) -> list[Labelled]:
    """Read the documents of a file; their texts are split as the runtime does, not as spaCy did.

    Args:
        data: The file.
        path: Of the file, for errors and notes.
        reading: The span group, and what becomes of spans that cut words.
        notes: Gets those spans, what is not annotated, and span groups that are left out.

    Raises:
        InputError: spaCy is not installed, the file is damaged, or it has no such span group.
    """
    rows = []
    is_found = False
    for number, doc in enumerate(_load(data, path), start=1):
        where = f"{path}, document {number}"
        is_found |= reading.spans_key in doc.spans
        _note_losses(doc, where, reading, notes)
        spans = doc.spans.get(reading.spans_key, []) if reading.spans_key else doc.ents
        places = [(span.start_char, span.end_char, span.label_) for span in spans]
        rows.append(place_spans(doc.text, places, where, reading, notes))
    if reading.spans_key and not is_found:
        raise InputError(f"{path}: expected span groups {reading.spans_key!r}, found none")
    return rows


def _load(data: bytes, path: str) -> list[Any]:
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError as error:
        raise InputError(
            f"{path}: spaCy reads such files and is not there ({error}); pip install spacy"
        ) from error
    try:
        return list(DocBin().from_bytes(data).get_docs(Vocab()))
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error) as error:
        raise InputError(f"{path}: expected a DocBin of spaCy; reading failed: {error}") from error


def _note_losses(doc: Any, where: str, reading: Reading, notes: Notes) -> None:  # noqa: ANN401
    """Note what of a document its row does not say."""
    for key in doc.spans:
        if key != reading.spans_key and len(doc.spans[key]):
            kind = f"documents have a span group {key!r} that is left out (--spans-key)"
            notes.add(kind, where)
    if reading.spans_key and doc.ents:
        notes.add("documents have entities that are left out (no --spans-key)", where)
    if not reading.spans_key and any(token.ent_iob == 0 for token in doc):
        notes.add("documents are not annotated all over; the rest counts as no entity", where)
