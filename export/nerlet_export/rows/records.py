"""JSON files to rows: the reference's training format, and texts with spans in characters.

A file is a list of records or one record a line. A record is one of

* `{"tokenized_text": [words], "ner": [[start, end_inclusive, type], ...]}`, other fields kept; the
  reference's `ner_negatives` and `ner_labels` become `explicit_negatives`;
* `{"text": ..., "spans": [{"start": ..., "end": ..., "label": ...}, ...]}` of Prodigy; spans may
  also be `[start, end, label]`, and under `entities`, `label` or `labels` (doccano);
* `[text, {"entities": [[start, end, label], ...]}]` of spaCy.

The first record may be `{"labels": [types]}`, as in files to evaluate on; rows that name no source
then have the file's name as theirs, since those types are labelled in this file alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nerlet.errors import InputError
from nerlet.examples import parse_row
from nerlet_export.corpus import POLICIES
from nerlet_export.rows.labelled import Labelled, Notes, Reading, Span
from nerlet_export.rows.offsets import check_type, place_spans

_SPAN_KEYS = ("spans", "entities", "label", "labels")
_FORMS = 'tokenized_text and ner, text and spans, or [text, {"entities": ...}]'


def read_records(lines: Sequence[str], path: str, reading: Reading, notes: Notes) -> list[Labelled]:
    """Read the records of a file.

    Args:
        lines: Of the file.
        path: Of the file, for errors and notes.
        reading: What becomes of spans that cut words.
        notes: Gets those spans, records that an annotator refused, and types without entities.

    Raises:
        InputError: The file is no JSON, or a record is of none of the forms; names file and place.
    """
    rows: list[Labelled] = []
    labels: list[str] = []
    for number, (record, where) in enumerate(_parse(lines, path)):
        if number == 0 and isinstance(record, dict) and record.keys() == {"labels"}:
            labels = _strings(record["labels"], "labels", where)
        elif isinstance(record, dict) and record.get("answer", "accept") != "accept":
            notes.add("records are not accepted (`answer`) and left out", where)
        else:
            rows.append(_read(record, where, reading, notes))
    if labels:
        name = {"source": Path(path).name.removesuffix(".gz").removesuffix(".jsonl")}
        rows = [replace(row, fields={**name, **row.fields}) for row in rows]
    used = {label for row in rows for _, _, label in row.entities}
    for label in dict.fromkeys(labels):
        if label not in used:
            notes.add("types of a labels line have no entity and are left out", f"{path}: {label}")
    return rows


def _parse(lines: Sequence[str], path: str) -> Iterator[tuple[Any, str]]:
    """Each record, and where it stands."""
    whole = _parse_whole(lines, path)
    if whole is not None:
        for number, record in enumerate(whole, start=1):
            yield record, f"{path}, record {number}"
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line), f"{path}, line {number}"
            except ValueError as error:
                raise InputError(
                    f"{path}, line {number}: expected one JSON record a line; {error}"
                ) from error


def _parse_whole(lines: Sequence[str], path: str) -> list[object] | None:
    """The records of a file that is one JSON value; None where each line is one."""
    filled = [line for line in lines if line.strip()]
    try:
        whole = json.loads("\n".join(lines))
    except ValueError as error:
        if len(filled) > 1 and _is_json(filled[0]):
            return None
        raise InputError(
            f"{path}: expected a JSON list, or one JSON record a line; {error}"
        ) from error
    # One line may be one record of a file with a record a line.
    if len(filled) == 1 and (isinstance(whole, dict) or _is_pair(whole)):
        return None
    if isinstance(whole, list) and not _is_pair(whole):
        return whole
    return [whole]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_pair(record: object) -> bool:
    return (
        isinstance(record, list)
        and len(record) == 2
        and isinstance(record[0], str)
        and isinstance(record[1], dict)
    )


def _read(record: Any, where: str, reading: Reading, notes: Notes) -> Labelled:  # noqa: ANN401
    """A row of one record, any JSON value."""
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: expected text of whole characters; {error}") from error
    match record:
        case {"tokenized_text": _}:
            return _read_tokenized(record, where)
        case {"text": str(text)}:
            return place_spans(text, _spans(record, where), where, reading, notes)
        case [str(text), {"entities": _} as labelled]:
            return place_spans(text, _spans(labelled, where), where, reading, notes)
        case _:
            raise InputError(f"{where}: expected {_FORMS}, found {_short(record)}")


def _read_tokenized(record: Mapping[str, object], where: str) -> Labelled:
    row = parse_row(record, where)
    if "" in row.words:
        raise InputError(f"{where}: expected words in tokenized_text, found an empty one")
    for label in row.types:
        check_type(label, where)
    if row.negatives is not None and row.negatives not in POLICIES:
        raise InputError(
            f"{where}: negatives is {row.negatives!r}, expected one of {', '.join(POLICIES)}"
        )
    fields = {k: v for k, v in record.items() if k not in ("tokenized_text", "ner")}
    absent = set(row.explicit_negatives)
    for key in ("ner_negatives", "ner_labels"):
        if key in fields:
            absent.update(_strings(fields.pop(key), key, where))
    if absent:
        fields["explicit_negatives"] = sorted(absent - row.types)
    return Labelled(row.words, row.entities, fields)


def _spans(record: Mapping[str, object], where: str) -> Iterator[Span]:
    keys = [key for key in _SPAN_KEYS if key in record]
    spans = record[keys[0]] if keys else None
    if len(keys) != 1 or not isinstance(spans, list):
        raise InputError(
            f"{where}: expected a list of spans under one of {', '.join(_SPAN_KEYS)}, found "
            f"{_short(record)}"
        )
    for span in spans:
        match span:
            case [int(start), int(end), str(label)] if label:
                yield start, end, label
            case {"start": int(start), "end": int(end), "label": str(label)} if label:
                yield start, end, label
            case _:
                raise InputError(
                    f"{where}: expected a span as [start, end, label] or with these three as keys, "
                    f"found {_short(span)}"
                )


def _strings(value: object, key: str, where: str) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise InputError(f"{where}: expected a list of strings as {key}, found {_short(value)}")


def _short(value: object) -> str:
    """A value as JSON, cut to fit a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
