"""The tokenizer of a checkpoint: `tokenizer.json`, what others must know of it, and the markers."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from nerlet.errors import BundleError, InputError
from nerlet.manifest import (
    CONFIG_NAME,
    LABELS_TOKENIZER_CONFIG_NAME,
    LABELS_TOKENIZER_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
    read_json,
)
from nerlet_export.config import ModelConfig
from nerlet_export.pretrained import load_tokenizer

# The reference adds this before its markers and never uses it: the word table has a row for it.
_UNUSED_TOKEN = "[FLERT]"
# Names that the tokens of each role go by; the first one in the vocabulary is it.
_USUAL_TOKENS = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def read_tokenizer(directory: Path, config: ModelConfig) -> tuple[Tokenizer, dict[str, Any]]:
    """Read a checkpoint's tokenizer, or make it from the encoder's as the reference does.

    Args:
        directory: Of the checkpoint.
        config: Its config.

    Returns:
        The tokenizer with all markers in it, of which a bi-encoder has none, and its
        `tokenizer_config.json`.

    Raises:
        BundleError: Its files are damaged, or it has none and its encoder's cannot be had.
    """
    path, described = directory / TOKENIZER_NAME, directory / TOKENIZER_CONFIG_NAME
    if path.exists():
        tokenizer = _open_tokenizer(path)
        if described.exists():
            description = read_json(described)
        else:
            description = _describe(_find_usual_tokens(tokenizer), limit=None)
    else:
        try:
            fast = load_tokenizer(str(directory) if described.exists() else config.model_name)
        except InputError as error:
            raise BundleError(
                f"{directory}: no {TOKENIZER_NAME}, and the tokenizer of its encoder "
                f"{config.model_name!r} cannot be had ({error}); put {TOKENIZER_NAME} there"
            ) from error
        tokenizer, description = fast.backend_tokenizer, describe_tokenizer(fast)
    if config.is_bi:  # whose texts have no markers
        return tokenizer, description
    markers = [config.ent_token, config.sep_token]
    if config.has_relations:
        markers.append(config.rel_token)
    if None in map(tokenizer.token_to_id, markers):
        tokenizer.add_special_tokens([_UNUSED_TOKEN, *markers])
    return tokenizer, description


def read_labels_tokenizer(directory: Path, config: ModelConfig) -> tuple[Tokenizer, dict[str, Any]]:
    """Read the tokenizer of a bi-encoder's labels, or take that of their encoder.

    Args:
        directory: Of the checkpoint.
        config: Its config.

    Returns:
        The tokenizer, and its `tokenizer_config.json`.

    Raises:
        BundleError: Its files are damaged, or there are none and its encoder's cannot be had.
    """
    path, described = directory / LABELS_TOKENIZER_NAME, directory / LABELS_TOKENIZER_CONFIG_NAME
    if path.exists() and described.exists():
        return _open_tokenizer(path), read_json(described)
    try:
        fast = load_tokenizer(config.labels_encoder, is_split=False)
    except InputError as error:
        raise BundleError(
            f"{directory}: no {LABELS_TOKENIZER_NAME}, and the tokenizer of its encoder of labels, "
            f"{config.labels_encoder!r}, cannot be had ({error}); put it there, with its "
            "tokenizer_config.json"
        ) from error
    return fast.backend_tokenizer, describe_tokenizer(fast)


def _open_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise BundleError(
            f"{path}: expected a tokenizer file, but it cannot be read ({error}); download it again"
        ) from error


def save_tokenizer(directory: Path, tokenizer: Tokenizer, description: dict[str, Any]) -> None:
    """Write a tokenizer and its config, as small as they get, into a folder that may be new."""
    directory.mkdir(exist_ok=True)
    tokenizer.save(str(directory / TOKENIZER_NAME), pretty=False)
    text = json.dumps(description, indent=2, sort_keys=True)
    (directory / TOKENIZER_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def find_markers(config: ModelConfig, tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids of [ENT] and `<<SEP>>`.

    Raises:
        BundleError: The tokenizer lacks one, the model has another [ENT], or the two are no
            neighbours where the model finds its labels by that (`encoder.label_blocks`).
    """
    ent, sep = map(tokenizer.token_to_id, (config.ent_token, config.sep_token))
    if ent is None or sep is None or ent != config.class_token_index:
        raise BundleError(
            f"{TOKENIZER_NAME}: {config.ent_token} and {config.sep_token} have ids {ent} and "
            f"{sep}, but {CONFIG_NAME} has class_token_index {config.class_token_index}; the two "
            "files are of different models"
        )
    has_blocks = config.label_attention == "isolated" or config.label_pooling == "mean"
    if has_blocks and sep != ent + 1:
        raise BundleError(
            f"{TOKENIZER_NAME}: {config.ent_token} and {config.sep_token} have ids {ent} and "
            f"{sep}, but a model with isolated or averaged labels needs {config.sep_token} right "
            f"after {config.ent_token}; add the two to the tokenizer together"
        )
    return ent, sep


def find_relation_marker(config: ModelConfig, tokenizer: Tokenizer) -> int:
    """The id of the marker before a relation, of a joint model.

    Raises:
        BundleError: The tokenizer lacks it, or the model has another.
    """
    found = tokenizer.token_to_id(config.rel_token)
    if found is None or config.rel_token_index not in (-1, found):
        raise BundleError(
            f"{TOKENIZER_NAME}: {config.rel_token} has the id {found}, but {CONFIG_NAME} has "
            f"rel_token_index {config.rel_token_index}; the two files are of different models"
        )
    return int(found)


def describe_tokenizer(fast: Any) -> dict[str, Any]:  # noqa: ANN401  (transformers' own)
    """What `tokenizer_config.json` has to say so that other software reads `tokenizer.json`."""
    roles = [*_USUAL_TOKENS, "bos_token", "eos_token"]
    tokens = {role: str(getattr(fast, role)) for role in roles if getattr(fast, role, None)}
    return _describe(tokens, limit=fast.model_max_length)


def _describe(tokens: dict[str, str], *, limit: int | None) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **({} if limit is None else {"model_max_length": min(limit, 10**9)}),
        **tokens,
    }


def _find_usual_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Guess the tokens' roles by their usual names."""
    found = {}
    for role, names in _USUAL_TOKENS.items():
        present = [name for name in names if tokenizer.token_to_id(name) is not None]
        if present:
            found[role] = present[0]
    return found
