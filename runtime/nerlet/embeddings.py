"""Embeddings of labels, of a bi-encoder: made, kept in a file, and taken from the caller.

Axis letters: C labels, D width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nerlet.arguments import LabelSet
from nerlet.bi_graph import BUNDLE, BiGraph
from nerlet.errors import InputError
from nerlet.label_encoder import LabelEncoder
from nerlet.label_store import find_fingerprint, read_embeddings, write_embeddings

Floats = NDArray[np.float32]


def expect_bi_encoder(graph: object, method: str) -> BiGraph:
    """Return a model's graph, where it is a bi-encoder's.

    Args:
        graph: Of the model.
        method: What was called.

    Raises:
        InputError: It is not.
    """
    if not isinstance(graph, BiGraph):
        raise InputError(
            f"{method}: expected a bi-encoder, which has an encoder of its own for labels, found a "
            "model that reads labels beside each text; give it the labels with each call"
        )
    return graph


def embed_labels(graph: BiGraph, labels: str | Sequence[str]) -> Floats:
    """Return the embeddings of labels, (C, D), the caller's own.

    Raises:
        InputError: The model has no encoder of labels, or cannot read one of these.
    """
    encoder = _expect_encoder(graph)
    return encoder.embed(graph.read_labels(_list_labels(labels))).copy()


def save_labels(graph: BiGraph, path: Path, labels: str | Sequence[str]) -> None:
    """Write the embeddings of labels to a file.

    Raises:
        InputError: As in `embed_labels`.
        OSError: The file cannot be written.
    """
    listed = list(dict.fromkeys(_list_labels(labels)))
    embeddings = embed_labels(graph, listed)
    fingerprint = find_fingerprint(graph.files, _expect_encoder(graph).sessions.path)
    write_embeddings(path, listed, embeddings, fingerprint)


def load_labels(graph: BiGraph, path: Path) -> list[str]:
    """Keep the embeddings of a file, and return its labels.

    Raises:
        InputError: The model has no encoder of labels, the file is none that `save_labels` wrote,
            or another model's.
    """
    encoder = _expect_encoder(graph)
    fingerprint = find_fingerprint(graph.files, encoder.sessions.path)
    labels, embeddings = read_embeddings(path, fingerprint, graph.files.width)
    encoder.keep(graph.read_labels(labels), embeddings)
    return labels


def check_embeddings(
    graph: BiGraph, embeddings: ArrayLike, label_sets: Sequence[LabelSet]
) -> Floats:
    """Return the embeddings that a caller gives as an array, float32, (C, D).

    Args:
        graph: Of the model.
        embeddings: An array, or what numpy makes one of.
        label_sets: Of each text.

    Raises:
        InputError: The graph does not take embeddings, or not these, or texts have different
            labels.
    """
    if not graph.embeddings_input:
        raise InputError(
            f"labels_embeddings: expected none, since {graph.sessions.path} reads labels itself; "
            f"give the labels alone, or {BUNDLE}"
        )
    if len(set(label_sets)) > 1:
        raise InputError(
            "labels: expected the same labels for all texts, whose embeddings are given, found "
            "others by text; call it for each set of labels"
        )
    given = np.ascontiguousarray(embeddings, dtype=np.float32)
    counts = [len(own.names) for own in label_sets[:1]] or [len(given)]
    expected = (counts[0], graph.files.width)
    if given.shape != expected or not np.isfinite(given).all():
        raise InputError(
            f"labels_embeddings: expected finite numbers of shape {expected}, a row for each label "
            f"once its duplicates drop, found shape {given.shape}; take what encode_labels gives "
            "for these labels"
        )
    return given


def _expect_encoder(graph: BiGraph) -> LabelEncoder:
    if graph.encoder is None:
        raise InputError(
            f"{graph.sessions.path}: expected an encoder of labels beside this graph, found none; "
            f"{BUNDLE}"
        )
    return graph.encoder


def _list_labels(labels: str | Sequence[str]) -> list[str]:
    listed = [labels] if isinstance(labels, str) else list(labels)
    if not all(isinstance(label, str) and label.strip() for label in listed):
        raise InputError(
            f"labels: expected texts that are not empty, found {labels!r}; give for example "
            "['person', 'date']"
        )
    return listed
