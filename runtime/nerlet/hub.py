"""A model's name to its directory: a local one as it is, else fetched from the Hugging Face hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nerlet.arguments import refuse_unknown
from nerlet.errors import BundleError, InputError, NerletError
from nerlet.exports import (
    CPU_ORDER,
    CUDA_ORDER,
    check_graphs,
    choose_graph,
    find_graph,
    list_data,
    list_graphs,
)
from nerlet.manifest import (
    CONFIG_NAME,
    FP16_GRAPH_NAME,
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    LABELS_ENCODER_NAME,
    LABELS_TOKENIZER_CONFIG_NAME,
    LABELS_TOKENIZER_NAME,
    MANIFEST_NAME,
    TEXT_GRAPH_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
)

_EXPORT_FILES = [
    CONFIG_NAME,
    TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    LABELS_ENCODER_NAME,
    LABELS_TOKENIZER_NAME,
    LABELS_TOKENIZER_CONFIG_NAME,
]
_BUNDLE_FILES = [
    MANIFEST_NAME,
    *_EXPORT_FILES,
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    TEXT_GRAPH_NAME,
    WEIGHTS_NAME,
    FP16_GRAPH_NAME,
]
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # of a repository; all else is a path


def find_model(
    model: str | Path,
    *,
    graph: str | None = None,
    is_cuda: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
    **unknown: object,
) -> Path:
    """Return the directory of a model.

    Args:
        model: A local directory, which never asks the hub, or a repository ("owner/name").
        graph: Name of the ONNX file to fetch; None: the one that suits the device.
        is_cuda: That is CUDA, not a CPU.
        revision: Branch, tag or commit of the repository.
        cache_dir: Where fetched files are kept.
        local_files_only: Take the repository from the cache, without the network.
        token: Access token for a private repository.
        **unknown: Refused.

    Raises:
        BundleError: Neither a directory nor a repository that can be fetched and has an ONNX graph.
        InputError: An unknown argument, or the repository has no such graph.
    """
    if "onnx_model_file" in unknown:
        raise InputError("onnx_model_file: expected no such argument; it is called graph here")
    refuse_unknown(unknown)
    if isinstance(model, Path) or Path(model).exists() or not _NAME.fullmatch(model):
        return Path(model)
    expected = f"{model}: expected a local directory or a model on the Hugging Face hub"
    try:
        import huggingface_hub  # not at the top: local models never need it
    except ImportError as error:
        raise BundleError(
            f"{expected}, found no such directory and no huggingface_hub; "
            "run `pip install huggingface_hub`, or give a directory"
        ) from error
    place: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "token": token}
    try:
        if local_files_only:
            return Path(huggingface_hub.snapshot_download(model, local_files_only=True, **place))
        return _fetch(huggingface_hub, model, graph, place, is_cuda=is_cuda)
    except NerletError:
        raise
    except Exception as error:  # network, name and cache errors share no base but this
        raise BundleError(
            f"{expected}, found no such directory, and the hub gave "
            f"{type(error).__name__}: {error}; check the name and the network. Without a network, "
            f"run `{_download_line(model)}` where there is one, copy the folder, and give its path"
        ) from error


def _fetch(
    hub: ModuleType, model: str, graph: str | None, place: dict[str, Any], *, is_cuda: bool
) -> Path:
    """Return the directory of a repository, fetched, or without a network as it was last."""
    try:
        names = hub.list_repo_files(model, revision=place["revision"], token=place["token"])
    except Exception as error:
        if getattr(error, "response", None) is not None:  # the hub has answered
            raise
        try:
            return Path(hub.snapshot_download(model, local_files_only=True, **place))
        except Exception:  # noqa: BLE001  # nothing kept: the first error says why it is needed
            raise error from None
    files = _choose_files(names, model, graph, is_cuda=is_cuda)
    return Path(hub.snapshot_download(model, allow_patterns=files, **place))


def _choose_files(
    names: Sequence[str], model: str, graph: str | None, *, is_cuda: bool
) -> list[str]:
    """Return the names of the files of a repository that are needed.

    Raises:
        BundleError: It holds no model that can run.
        InputError: It has no such graph.
    """
    if MANIFEST_NAME in names:
        return [name for name in _BUNDLE_FILES if name in names]
    if CONFIG_NAME not in names:
        raise BundleError(
            f"{model}: expected {CONFIG_NAME} or {MANIFEST_NAME} in the repository, found neither; "
            "give the name of a GLiNER model"
        )
    if graph is not None:
        chosen: str | None = find_graph(names, graph, model)
    else:
        check_graphs(names, model, _download_line(model))
        chosen = choose_graph(names, CUDA_ORDER if is_cuda else CPU_ORDER)
    if chosen is None:
        device, other = ("CUDA", "cpu") if is_cuda else ("a CPU", "cuda")
        raise BundleError(
            f"{model}: expected a graph that {device} runs, found {', '.join(list_graphs(names))}; "
            f"take device={other!r}, or name one with graph=..."
        )
    files = [*_EXPORT_FILES, chosen, *list_data(names, chosen)]
    return [name for name in files if name in names]


def _download_line(model: str) -> str:
    """The command that fetches a whole repository into a folder of its name."""
    return f"hf download {model} --local-dir {model.rpartition('/')[2]}"
