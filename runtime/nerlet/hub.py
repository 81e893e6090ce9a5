"""A model's name to its directory: a local one as it is, else fetched from the Hugging Face hub."""

from pathlib import Path

from nerlet.arguments import refuse_unknown
from nerlet.errors import BundleError
from nerlet.manifest import (
    CONFIG_NAME,
    FP16_GRAPH_NAME,
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    MANIFEST_NAME,
    TEXT_GRAPH_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
    WEIGHTS_NAME,
)

_FILES = [
    MANIFEST_NAME,
    CONFIG_NAME,
    TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    TEXT_GRAPH_NAME,
    WEIGHTS_NAME,
    FP16_GRAPH_NAME,
    f"{GRAPH_NAME}.data",
    f"onnx/{GRAPH_NAME}",
    f"onnx/{GRAPH_NAME}.data",
]


def find_model(
    model: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
    **unknown: object,
) -> Path:
    """Return the directory of a model.

    Args:
        model: A local directory, which never asks the hub, or a repository ("owner/name").
        revision: Branch, tag or commit of the repository.
        cache_dir: Where fetched files are kept.
        local_files_only: Take the repository from the cache, without the network.
        token: Access token for a private repository.
        **unknown: Refused.

    Raises:
        BundleError: Neither a directory nor a repository that can be fetched.
        InputError: An unknown argument.
    """
    refuse_unknown(unknown)
    if Path(model).is_dir():
        return Path(model)
    expected = f"{model}: expected a local directory or a model on the Hugging Face hub"
    try:
        from huggingface_hub import snapshot_download  # not at the top: local models never need it
    except ImportError as error:
        raise BundleError(
            f"{expected}, found no such directory and no huggingface_hub; "
            "run `pip install huggingface_hub`, or give a directory"
        ) from error
    try:
        return Path(
            snapshot_download(
                str(model),
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=_FILES,
            )
        )
    except Exception as error:  # network, name and cache errors share no base but this
        raise BundleError(
            f"{expected}, found no such directory, and the hub gave "
            f"{type(error).__name__}: {error}; check the name and the network, or give a directory"
        ) from error
