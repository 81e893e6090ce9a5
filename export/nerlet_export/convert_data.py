"""Labelled files of other tools to rows of the training format: read, rename, split, write.

Every file is read before one is written, and nothing that exists is replaced. What rows do not hold
as their files did is counted in the summary, or ends the conversion.
"""

import gzip
import json
import logging
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nerlet.errors import InputError
from nerlet.examples import find_data
from nerlet_export.rows.detect import read_labelled
from nerlet_export.rows.labelled import Labelled, Notes, Reading

logger = logging.getLogger(__name__)

_SUFFIXES = (".jsonl", ".jsonl.gz")
# Fields of rows that list types.
_ABSENT, _PRESENT = "explicit_negatives", "present"
_TYPE_FIELDS = (_ABSENT, _PRESENT)


@dataclass(frozen=True, slots=True)
class Writing:
    """What rows become.

    Attributes:
        source: Name of where rows come from; None keeps what a row says, else "own".
        negatives: Which absent types are certain (`corpus`); None keeps what a row says, else
            "closed": every type of the source is labelled wherever it occurs.
        license: Licence class; None keeps what a row says, if anything.
        renames: New names of types by their old ones.
        splits: Share of the texts that a further file gets, by its name without suffix.
        seed: Of the shuffle that splits.
    """

    source: str | None = None
    negatives: str | None = None
    license: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def convert_data(
    inputs: Sequence[Path | str],
    output: Path | str,
    *,
    reading: Reading | None = None,
    writing: Writing | None = None,
) -> None:
    """Convert labelled files to one file of rows, or to that and one for each split.

    Args:
        inputs: CoNLL, JSON or spaCy files (`rows`), found by `nerlet.examples.find_data`.
        output: The file, `.jsonl` or `.jsonl.gz`; those of splits come beside it. Rows of one text
            stay together, and rows keep their order. The file of a split begins with a line of all
            types, to be prompted with, where every type is labelled in every row.
        reading: How files are read.
        writing: What rows become.

    Raises:
        InputError: A file cannot be read (`rows`), no text has a word, an output exists or has
            another suffix, a rename names no type of the files, or a split gets or leaves no text.
            Nothing is written.
    """
    reading, writing = reading or Reading(), writing or Writing()
    output = Path(output)
    targets = _targets(output, writing.splits)
    notes = Notes()
    rows: list[Labelled] = []
    for path in map(find_data, inputs):
        read = read_labelled(path, reading, notes)
        logger.info("%s: %s", path, _count(read))
        rows += read
    rows = _rename(_clean(rows, notes), writing.renames)
    if not rows:
        raise InputError(f"{', '.join(map(str, inputs))}: expected texts with words, found none")
    for line in notes.lines():
        logger.info("%s", line)
    types = Counter(label for row in rows for _, _, label in row.entities)
    logger.info("types: %s", ", ".join(f"{name} {n}" for name, n in types.most_common()) or "none")
    records = [_record(row, writing) for row in rows]
    labels = sorted(types) if _is_closed(records) else None
    parts = _split(rows, writing)
    written = [
        _write(target, [records[i] for i in places], labels if target is not output else None)
        for target, places in zip(targets, parts, strict=True)
    ]
    for fresh, target, places in zip(written, targets, parts, strict=True):
        fresh.replace(target)
        logger.info("%s: %s", target, _count([rows[i] for i in places], types))


def _targets(output: Path, splits: Mapping[str, float]) -> list[Path]:
    """The files to write, the main one first."""
    suffix = next((s for s in reversed(_SUFFIXES) if output.name.endswith(s)), None)
    if suffix is None:
        raise InputError(f"{output}: expected an output that ends in {' or '.join(_SUFFIXES)}")
    if odd := [name for name in splits if Path(name).name != name]:
        raise InputError(f"--split names {odd[0]!r}, expected the name of a file without a folder")
    targets = [output, *(output.with_name(name + suffix) for name in splits)]
    for target in targets:
        if target.exists():
            raise InputError(f"{target}: it exists, and is not replaced; move it away")
        if targets.count(target) > 1:
            raise InputError(f"{target}: expected a split of another name than the output's")
    return targets


def _clean(rows: Iterable[Labelled], notes: Notes) -> list[Labelled]:
    """Leave out what holds nothing: rows without words, spans that are there twice."""
    kept = []
    for number, row in enumerate(rows, start=1):
        spans = tuple(dict.fromkeys(row.entities))
        for start, end, label in spans if len(spans) < len(row.entities) else ():
            for _ in range(row.entities.count((start, end, label)) - 1):
                notes.add("spans are there twice and count once", " ".join(row.words[start:end]))
        if row.words:
            kept.append(replace(row, entities=spans))
        else:
            notes.add("texts have no words and are left out", f"row {number} of all")
    return kept


def _rename(rows: Sequence[Labelled], renames: Mapping[str, str]) -> list[Labelled]:
    types = {label for row in rows for label in _types(row)}
    unknown = sorted(renames.keys() - types)
    if unknown:
        raise InputError(
            f"--rename names {', '.join(unknown)}, expected types of the files: "
            f"{', '.join(sorted(types)) or 'they have none'}"
        )
    return [_rename_row(row, renames) for row in rows] if renames else list(rows)


def _types(row: Labelled) -> Iterator[str]:
    """Every type that a row names: of its entities, present, absent."""
    yield from (label for _, _, label in row.entities)
    for key in _TYPE_FIELDS:
        yield from row.fields.get(key, ())


def _rename_row(row: Labelled, renames: Mapping[str, str]) -> Labelled:
    """A row under new names; what has an absent type's new name and is present is not absent."""
    entities = dict.fromkeys((start, end, renames.get(x, x)) for start, end, x in row.entities)
    fields = {
        key: sorted({renames.get(x, x) for x in value}) if key in _TYPE_FIELDS else value
        for key, value in row.fields.items()
    }
    if _ABSENT in fields:
        present = {label for _, _, label in entities}.union(fields.get(_PRESENT, ()))
        fields[_ABSENT] = [label for label in fields[_ABSENT] if label not in present]
    return replace(row, entities=tuple(entities), fields=fields)


def _record(row: Labelled, writing: Writing) -> dict[str, Any]:
    """A row as its line has it."""
    record: dict[str, Any] = {
        "tokenized_text": row.words,
        "ner": [[start, end - 1, label] for start, end, label in row.entities],
        "source": "own",
        "negatives": "closed",
        **row.fields,
    }
    chosen = {
        "source": writing.source,
        "negatives": writing.negatives,
        "license": writing.license,
    }
    return record | {key: value for key, value in chosen.items() if value is not None}


def _is_closed(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every type of the rows is labelled in all of them."""
    return {(r["source"], r["negatives"]) for r in records} == {(records[0]["source"], "closed")}


def _split(rows: Sequence[Labelled], writing: Writing) -> list[list[int]]:
    """Places of the rows of each file; those of equal texts are in one."""
    texts = list(dict.fromkeys(row.words for row in rows))
    random.Random(writing.seed).shuffle(texts)
    owner: dict[tuple[str, ...], int] = {}
    begin = 0
    for number, (name, share) in enumerate(writing.splits.items(), start=1):
        if not (math.isfinite(share) and 0 < share < 1):
            raise InputError(f"--split gives {name} {share}, expected a share between 0 and 1")
        end = begin + round(share * len(texts))
        if end == begin or end >= len(texts):
            raise InputError(
                f"--split: a share of {share} for {name} gives it or leaves for training none of "
                f"{len(texts)} texts; give another share, or more texts"
            )
        owner |= dict.fromkeys(texts[begin:end], number)
        begin = end
    parts: list[list[int]] = [[] for _ in range(len(writing.splits) + 1)]
    for place, row in enumerate(rows):
        parts[owner.get(row.words, 0)].append(place)
    return parts


def _write(path: Path, records: Iterable[object], labels: Sequence[str] | None) -> Path:
    """Write lines to a file beside `path`, which takes its place once all are written."""
    first = [{"labels": labels}] if labels else []
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in [*first, *records])
    data = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return fresh


def _count(rows: Sequence[Labelled], types: Iterable[str] = ()) -> str:
    """What rows hold, and which of the types they lack."""
    own = Counter(label for row in rows for _, _, label in row.entities)
    widest = max((end - start for row in rows for start, end, _ in row.entities), default=0)
    longest = max((len(row.words) for row in rows), default=0)
    lacking = [label for label in types if label not in own]
    return (
        f"{len(rows)} rows of up to {longest} words, {own.total()} entities of up to {widest}"
        + (f"; none of {', '.join(lacking)}" if lacking else "")
    )
