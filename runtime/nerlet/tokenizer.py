"""A tokenizer's file, opened; and without the tokens that its encoder has no row for."""

import json
from pathlib import Path

from tokenizers import Tokenizer

from nerlet.errors import BundleError


def open_tokenizer(path: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        BundleError: There is none, or it is no tokenizer.
    """
    if not path.is_file():
        raise BundleError(
            f"{path}: expected this file, found none; save the model's fast tokenizer there "
            "(older GLiNER repositories lack it), or export the model again"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise BundleError(
            f"{path}: expected a tokenizer, but it cannot be read ({error}); "
            "download or export the model again"
        ) from error


def cut_tokens(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """Return a tokenizer without the added tokens from an id on.

    The reference adds its markers to the tokenizer of a bi-encoder's texts, too, and no rows for
    them to its encoder: a text that held one could not be run.

    Args:
        tokenizer: Not changed.
        size: Rows of the encoder's table.
    """
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < size]
    return Tokenizer.from_str(json.dumps(state))
