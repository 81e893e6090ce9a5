"""How many pieces an encoder takes, from what its files say."""

from collections.abc import Mapping

# Encoders whose position table starts behind the padding id.
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm"}
)
_NO_LIMIT = 1_000_000  # tokenizers write 1e30 for "no limit"


def find_positions(encoder: Mapping[str, object], tokenizer: Mapping[str, object]) -> int | None:
    """Return how many pieces a model takes: the encoder's limit or the tokenizer's, if smaller.

    Args:
        encoder: The encoder's `config.json`; empty where there is none.
        tokenizer: The `tokenizer_config.json`; empty where there is none.

    Returns:
        The limit, special pieces included, or None.

    Source: GLiNER's processor, which truncates to the tokenizer's limit.
    """
    limit = tokenizer.get("model_max_length")
    limits = [count_positions(encoder)]
    if isinstance(limit, int | float) and limit < _NO_LIMIT:
        limits.append(int(limit))
    return min((limit for limit in limits if limit is not None), default=None)


def count_positions(encoder_config: Mapping[str, object]) -> int | None:
    """Return how many pieces a Hugging Face encoder takes, special ones included.

    Args:
        encoder_config: The encoder's `config.json`.

    Returns:
        The limit, or None where positions are only relative (DeBERTa-v2 and v3, T5).
    """
    size = encoder_config.get("max_position_embeddings")
    kind = encoder_config.get("model_type")
    if not isinstance(size, int) or size < 1:
        return None
    if kind in ("deberta", "deberta-v2"):
        return size if encoder_config.get("position_biased_input", True) else None
    padding = encoder_config.get("pad_token_id")
    if kind in _OFFSET_POSITIONS:
        return size - (padding if isinstance(padding, int) else 1) - 1
    return size
