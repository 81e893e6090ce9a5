"""Read labelled texts: `.jsonl` or `.jsonl.gz` files, one JSON object a line.

A row is `{"tokenized_text": [words], "ner": [[start, end_inclusive, type], ...]}`, the
reference's training format. The first line may instead be `{"labels": [types]}`: what to prompt
with every row. Without it `nerlet.negatives` chooses from the rows. Types and words are taken as
they are, and a span that is listed twice counts once.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nerlet.errors import InputError
from nerlet.negatives import Row, choose_labels

_SUFFIXES = (".jsonl", ".jsonl.gz")
# The environment variable that names the folder of all labelled texts.
_DATA_VARIABLE = "NERLET_DATA"


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text and what to ask of it.

    Attributes:
        words: The text, in words.
        entities: Every (start, end, type) of it once; word indices, half-open.
        labels: The types to prompt; none where nothing can be judged.
        judged: The only spans (start, end) that the annotator looked at; None means all.
    """

    words: tuple[str, ...]
    entities: frozenset[tuple[int, int, str]]
    labels: tuple[str, ...]
    judged: frozenset[tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """The labelled texts of one file.

    Attributes:
        name: The file's name without its suffix.
        labels: Every type that is prompted or annotated somewhere in the file.
        examples: In the order of the file.
    """

    name: str
    labels: tuple[str, ...]
    examples: tuple[Example, ...]

    def first(self, count: int | None) -> "Dataset":
        """The same with only the first `count` examples; None keeps all."""
        return replace(self, examples=self.examples[:count])


def find_data(path: str | Path) -> Path:
    """Where labelled texts lie.

    Args:
        path: Of a file or folder. A relative one that does not exist in the current folder is
            looked up under the folder that the environment variable NERLET_DATA names.

    Raises:
        InputError: It is in neither place; names both.
    """
    path = Path(path)
    if path.exists():
        return path
    problem = f"{path}: expected a file or folder of labelled texts, found nothing"
    if path.is_absolute():
        raise InputError(f"{problem}; give another path")
    root = os.environ.get(_DATA_VARIABLE)
    if not root:
        raise InputError(f"{problem}; give another path, or set {_DATA_VARIABLE} to its folder")
    found = Path(root) / path
    if found.exists():
        return found
    raise InputError(f"{problem} there, nor at {found}, where {_DATA_VARIABLE} points")


def list_datasets(path: str | Path) -> list[Path]:
    """The labelled files that a path stands for.

    Args:
        path: One file, or a folder: then its files of the known suffixes, by name, without
            those of folders inside. Found by `find_data`.

    Raises:
        InputError: There is no such path, no such file in the folder, or two files differ only
            in their suffix.
    """
    path = find_data(path)
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.iterdir() if f.name.endswith(_SUFFIXES) and f.is_file())
    if not files:
        inside = sorted(f.name for f in path.iterdir() if f.is_dir())
        hint = f"; name one of its folders: {', '.join(inside)}" if inside else ""
        raise InputError(f"{path}: expected .jsonl or .jsonl.gz files, found none{hint}")
    names = [_dataset_name(file) for file in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{path}: two files are named {twice[0]}; keep one of them")
    return files


def read_rows(path: str | Path) -> Iterator[tuple[Row, Mapping[str, object]]]:
    """Read the rows of a labelled file without a labels line, one by one.

    Yields:
        Each row, and the record that it was read from, for fields that only training knows.

    Raises:
        InputError: As in `read_dataset`.
    """
    for number, line in enumerate(_read_lines(Path(path)), start=1):
        where = f"{path}, line {number}"
        record = _parse_record(line, where)
        yield parse_row(record, where), record


def read_dataset(path: str | Path, *, negatives: str | None = None) -> Dataset:
    """Read one labelled file.

    Args:
        path: Of the file.
        negatives: Which absent types are certain (`nerlet.negatives`) in rows that do not say.

    Raises:
        InputError: The file cannot be read, or a line is not what the format asks for; names
            file and line.
    """
    path = Path(path)
    labels: tuple[str, ...] | None = None
    rows: list[Row] = []
    for number, line in enumerate(_read_lines(path), start=1):
        where = f"{path}, line {number}"
        record = _parse_record(line, where)
        if number == 1 and "tokenized_text" not in record:
            labels = _read_labels(record, where)
        else:
            row = parse_row(record, where, labels)
            rows.append(replace(row, negatives=row.negatives or negatives))
    if not rows:
        raise InputError(f"{path}: expected rows with tokenized_text and ner, found none")
    prompts = choose_labels(rows) if labels is None else [labels] * len(rows)
    examples = tuple(_to_example(row, own) for row, own in zip(rows, prompts, strict=True))
    if labels is None:
        labels = tuple(sorted(set().union(*prompts)))
    return Dataset(_dataset_name(path), labels, examples)


def _dataset_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def _to_example(row: Row, labels: tuple[str, ...]) -> Example:
    """A row with its prompt."""
    # Fine typing of single mentions says nothing about the rest of the text.
    only = row.negatives == "one-mention"
    judged = frozenset((start, end) for start, end, _ in row.entities) if only else None
    return Example(row.words, frozenset(row.entities), labels, judged)


def _read_lines(path: Path) -> Iterator[str]:
    """The lines of a file, unpacked where its name says that it is packed."""
    unpack = gzip.open if path.suffix == ".gz" else open
    try:
        with unpack(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected UTF-8 lines of JSON; reading failed: {error}"
        ) from error


def _parse_record(line: str, where: str) -> Mapping[str, object]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: expected a JSON object; {error}") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a JSON object, got {_short(record)}")
    return record


def _read_labels(record: Mapping[str, object], where: str) -> tuple[str, ...]:
    """The types of a labels line, each once."""
    labels = _read_strings(record, "labels", where)
    if not labels or not all(label.strip() for label in labels):
        raise InputError(f"{where}: expected names of types in labels, got {_short(list(labels))}")
    return tuple(dict.fromkeys(labels))


def parse_row(
    record: Mapping[str, object], where: str, labels: tuple[str, ...] | None = None
) -> Row:
    """Check one record of the training format.

    Args:
        record: As JSON has it.
        where: File and line, for errors.
        labels: The only types that it may have; None for any.

    Raises:
        InputError: A field is missing or of another type, or a span is not within the words.
    """
    words = _read_strings(record, "tokenized_text", where)
    entities = _read_entities(record, len(words), where)
    for _, _, label in entities:
        if labels is not None and label not in labels:
            raise InputError(
                f"{where}: type {label!r} is not in the file's labels line; add it there"
            )
    return Row(
        words,
        entities,
        source=_read_string(record, "source", where),
        negatives=_read_string(record, "negatives", where),
        services=frozenset(_read_strings(record, "services", where, optional=True)),
        present=frozenset(_read_strings(record, "present", where, optional=True)),
        explicit_negatives=frozenset(
            _read_strings(record, "explicit_negatives", where, optional=True)
        ),
    )


def _read_entities(
    record: Mapping[str, object], words: int, where: str
) -> tuple[tuple[int, int, str], ...]:
    """The annotated spans; the file's ends are inclusive, these are not."""
    spans = record.get("ner")
    if not isinstance(spans, list):
        raise InputError(f"{where}: expected a list ner of spans, got {_short(spans)}")
    entities = []
    for span in spans:
        match span:
            case [int(start), int(last), str(label)] if 0 <= start <= last < words and label:
                entities.append((start, last + 1, label))
            case _:
                raise InputError(
                    f"{where}: expected [start, end_inclusive, type] within {words} words, "
                    f"got {_short(span)}"
                )
    return tuple(entities)


def _read_string(record: Mapping[str, object], key: str, where: str) -> str | None:
    value = record.get(key)
    if value is None or isinstance(value, str):
        return value
    raise InputError(f"{where}: expected a string as {key}, got {_short(value)}")


def _read_strings(
    record: Mapping[str, object], key: str, where: str, *, optional: bool = False
) -> tuple[str, ...]:
    value = record.get(key, [] if optional else None)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise InputError(f"{where}: expected a list of strings as {key}, got {_short(value)}")


def _short(value: object) -> str:
    """A value as JSON, cut to fit a message; `nothing` where it is absent."""
    if value is None:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
