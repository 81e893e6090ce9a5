"""Embeddings of labels in a file, so that thousands need not be read again: one `.npz`.

It holds `labels`, their `embeddings`, float32, (C, D), and the `fingerprint` of what made them.
"""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nerlet.errors import InputError
from nerlet.exports import list_data, list_names
from nerlet.label_files import LabelFiles
from nerlet.manifest import record_file

Floats = NDArray[np.float32]
_KEYS = frozenset({"labels", "embeddings", "fingerprint"})


def find_fingerprint(files: LabelFiles, encoder_path: Path) -> str:
    """Return a hash of what makes embeddings: the graph, its data and the tokenizer."""
    data = list_data(list_names(files.directory), encoder_path.name)
    paths = [encoder_path, *(files.directory / name for name in data), files.tokenizer_path]
    hashes = "".join(record_file(path).sha256 for path in paths)
    return hashlib.sha256(hashes.encode()).hexdigest()


def write_embeddings(
    path: Path, labels: Sequence[str], embeddings: Floats, fingerprint: str
) -> None:
    """Write embeddings (C, D) of labels.

    Raises:
        OSError: The file cannot be written.
    """
    written = io.BytesIO()
    names = np.array(labels, dtype=np.str_)
    np.savez(written, labels=names, embeddings=embeddings, fingerprint=np.array(fingerprint))
    path.write_bytes(written.getvalue())


def read_embeddings(path: Path, fingerprint: str, width: int) -> tuple[list[str], Floats]:
    """Read what `write_embeddings` wrote.

    Args:
        path: The file.
        fingerprint: Of the model that is to use them.
        width: D.

    Returns:
        Labels, and their embeddings, (C, D).

    Raises:
        InputError: No such file, another kind of file, or embeddings of another model.
    """
    expected = f"{path}: expected embeddings as save_labels writes them"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{expected}, but it cannot be read ({error}); save them again") from error
    if found.keys() != _KEYS:
        raise InputError(f"{expected}, found the arrays {', '.join(found)}; save them again")
    if str(found["fingerprint"]) != fingerprint:
        raise InputError(
            f"{path}: expected embeddings of this model's labels encoder, found those of another, "
            "or of another precision; save them again with this model"
        )
    labels, embeddings = found["labels"].tolist(), found["embeddings"]
    if embeddings.dtype != np.float32 or embeddings.shape != (len(labels), width):
        raise InputError(
            f"{expected}, float32 of shape {(len(labels), width)}, found {embeddings.dtype} of "
            f"shape {embeddings.shape}; save them again"
        )
    return labels, embeddings
