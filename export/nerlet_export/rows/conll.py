"""CoNLL files to rows: a word a line with its tag in a column, and blank lines between sentences.

Columns are parted by tabs where the file's first line has one, else by blanks. `-DOCSTART-` lines
part sentences, and lines that begin with "# " and end in no tag are comments.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nerlet.errors import InputError
from nerlet_export.rows.labelled import Labelled, Notes, Reading
from nerlet_export.rows.tags import Scheme, Tag, find_scheme, is_tag, join_tags, parse_tag

_DOCUMENT = "-DOCSTART-"
_BLANKS = re.compile(r"[ \t]+")


@dataclass(slots=True)
class _Sentence:
    """Words, their tags as written, and the line of each."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


def read_conll(lines: Sequence[str], path: str, reading: Reading, notes: Notes) -> list[Labelled]:
    """Read the sentences of a file.

    Args:
        lines: Of the file.
        path: Of the file, for errors and notes.
        reading: The columns.
        notes: Gets tags that break their scheme, and comments.

    Raises:
        InputError: A line has too few columns, another number of them than the first, an empty word
            or no tag, or none of the file's tags says that a word is in no entity; names the place.
    """
    sentences = [item for item in _split(lines, path, reading, notes) if item.words]
    scheme = find_scheme(item.tags for item in sentences)
    if not scheme.has_prefixes:
        _check_outside(sentences, path, reading)
    rows = []
    for item in sentences:
        tags = [
            _parse(tag, scheme, f"{path}, line {line}")
            for tag, line in zip(item.tags, item.lines, strict=True)
        ]
        spans, broken = join_tags(tags, scheme)
        for place in broken:
            kind = f"tags break {scheme.name} and are read as conlleval reads them"
            notes.add(kind, f"{path}, line {item.lines[place]}: {item.tags[place]}")
        rows.append(Labelled(tuple(item.words), tuple(spans)))
    if not scheme.has_prefixes:
        kind = "files have bare types as tags: neighbours of one type are taken as one entity"
        notes.add(kind, path)
    return rows


def looks_like_conll(line: str) -> bool:
    """Whether a line has several columns, of which the last is a tag or the first a document."""
    columns = _columns(line, "\t" in line)
    return len(columns) > 1 and (is_tag(columns[-1]) or columns[0] == _DOCUMENT)


def _split(lines: Sequence[str], path: str, reading: Reading, notes: Notes) -> Iterator[_Sentence]:
    """The sentences; some may be empty."""
    sentence = _Sentence()
    count, has_tabs = 0, False
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        if not line.strip(" \t") or line.startswith(_DOCUMENT):
            yield sentence
            sentence = _Sentence()
            continue
        has_tabs = has_tabs if count else "\t" in line
        columns = _columns(line, has_tabs)
        if line.startswith("# ") and not is_tag(columns[-1]):
            notes.add("comment lines are left out", where)
            continue
        count = count or len(columns)
        if len(columns) != count:
            raise InputError(
                f"{where}: expected {count} columns as in the lines before, found {len(columns)}: "
                f"{line!r}; columns are parted by {'tabs' if has_tabs else 'blanks'} in this file"
            )
        sentence.words.append(_pick(columns, reading.word_column, "word", where))
        sentence.tags.append(_pick(columns, reading.tag_column, "tag", where))
        sentence.lines.append(number)
    yield sentence


def _check_outside(sentences: Sequence[_Sentence], path: str, reading: Reading) -> None:
    """Refuse bare tags without an O: any text in columns, such as parts of speech, is like that."""
    tags = list(dict.fromkeys(tag for item in sentences for tag in item.tags))
    if "O" not in tags:
        raise InputError(
            f"{path}: expected tags such as O, B-TYPE or I-TYPE in column {reading.tag_column}, "
            f"found {', '.join(tags[:5])}, and no O; say where tags stand by --tag-column"
        )


def _columns(line: str, has_tabs: bool) -> list[str]:  # noqa: FBT001  (private)
    if has_tabs:
        return [column.strip(" ") for column in line.rstrip("\t ").split("\t")]
    return _BLANKS.split(line.strip(" \t"))


def _pick(columns: Sequence[str], column: int, name: str, where: str) -> str:
    place = column - 1 if column > 0 else len(columns) + column
    if not 0 <= place < len(columns) or len(columns) < 2:
        raise InputError(
            f"{where}: expected a word and a tag, the {name} in column {column}, found "
            f"{len(columns)} columns: {list(columns)!r}; give --word-column and --tag-column, or "
            "--format where this is no CoNLL file"
        )
    if not columns[place]:
        raise InputError(f"{where}: expected a {name} in column {column}, found nothing there")
    return columns[place]


def _parse(tag: str, scheme: Scheme, where: str) -> Tag:
    parsed = parse_tag(tag, scheme)
    if parsed is None:
        raise InputError(
            f"{where}: expected a tag such as O, B-TYPE or I-TYPE, found {tag!r}; say where tags "
            "stand by --tag-column"
        )
    return parsed
