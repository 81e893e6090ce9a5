"""A labelled file to rows, by the format that its content shows."""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

from nerlet.errors import InputError
from nerlet_export.rows.conll import looks_like_conll, read_conll
from nerlet_export.rows.docbin import read_docbin
from nerlet_export.rows.labelled import Labelled, Notes, Reading
from nerlet_export.rows.records import read_records

FORMATS = ("conll", "json", "spacy")

_GZIP, _DOCBIN = b"\x1f\x8b", b"\x78\x9c"


def read_labelled(path: Path, reading: Reading, notes: Notes) -> list[Labelled]:
    """Read a file of any of `FORMATS`, perhaps gzipped.

    Raises:
        InputError: The file cannot be read, holds no rows, or is not what its format asks for;
            names file and place.
    """
    data = _read_bytes(path)
    name = str(path)
    if reading.format == "spacy" or (not reading.format and data.startswith(_DOCBIN)):
        rows = read_docbin(data, name, reading, notes)
    else:
        lines = _read_lines(data, path)
        is_json = reading.format == "json" or (not reading.format and _looks_like_json(lines))
        read = read_records if is_json else read_conll
        rows = read(lines, name, reading, notes)
    if not rows:
        raise InputError(f"{path}: expected labelled rows, found none")
    return rows


def _looks_like_json(lines: Sequence[str]) -> bool:
    first = next((line for line in lines if line.strip()), "")
    return first.lstrip().startswith(("{", "[")) and not looks_like_conll(first)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: expected a labelled file; reading failed: {error}") from error


def _read_lines(data: bytes, path: Path) -> list[str]:
    """The lines of a text, ended as on any system, and by nothing else that Unicode calls one."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: expected UTF-8; {error}") from error
    return io.StringIO(text, newline=None).read().split("\n")
