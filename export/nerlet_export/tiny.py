"""Seeded toy models: every encoder family in a few thousand weights, for tests and trials."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from nerlet_export.checkpoint import Checkpoint
from nerlet_export.config import ModelConfig
from nerlet_export.model import SpanModel

_SMALL = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 600,
}
# What makes each family what it is, at toy size; all but `vocab_size`.
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": {**_SMALL, "model_type": "bert"},
    "roberta": {**_SMALL, "model_type": "roberta"},
    "xlm-roberta": {**_SMALL, "model_type": "xlm-roberta"},
    "albert": {**_SMALL, "model_type": "albert", "embedding_size": 8},
    "electra": {**_SMALL, "model_type": "electra", "embedding_size": 8},
    "mpnet": {**_SMALL, "model_type": "mpnet", "relative_attention_num_buckets": 32},
    "deberta-v2": {
        **_SMALL,
        "model_type": "deberta-v2",
        "relative_attention": True,
        "position_buckets": 16,
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "layer_norm_eps": 1e-7,
    },
    # Layers that see all pieces and such that see four on each side, in turn
    "modernbert": {
        **_SMALL,
        "model_type": "modernbert",
        "global_attn_every_n_layers": 2,
        "local_attention": 8,
    },
    "t5": {
        "model_type": "t5",
        "hidden_size": 16,
        "d_kv": 6,
        "d_ff": 24,
        "num_layers": 2,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 20,
    },
}
PAD_ID = 1  # RoBERTa's and MPNet's, which MPNet's positions do not read from its config
_SPECIALS = ("[CLS]", "[PAD]", "[SEP]", "[UNK]")


def make_tokenizer(words: Sequence[str] = ()) -> Tokenizer:
    """Make a WordPiece tokenizer over the given words and all ASCII letters and digits."""
    characters = [chr(code) for code in range(33, 127)]
    pieces = [*_SPECIALS, *characters, *("##" + c for c in characters), *words]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(_SPECIALS))
    return tokenizer


def make_checkpoint(
    encoder: str = "bert", *, seed: int = 0, words: Sequence[str] = (), **settings: object
) -> Checkpoint:
    """Make a toy model with random weights.

    Args:
        encoder: A key of `ENCODERS`.
        seed: Of the weights.
        words: Whole words that the tokenizer knows.
        settings: Fields of `ModelConfig` that differ from a paper model of width 16.

    Returns:
        The model in evaluation mode, with its tokenizer.
    """
    tokenizer = make_tokenizer(words)
    tokenizer.add_tokens(["<<ENT>>", "<<SEP>>"])
    size = tokenizer.get_vocab_size()
    values: dict[str, Any] = {
        "hidden_size": 16,
        "span_mode": "paper",
        "num_rnn_layers": 0,
        "max_width": 4,
        "max_len": 100,
        **settings,
    }
    config = ModelConfig(
        model_name=f"tiny-{encoder}",
        encoder={**ENCODERS[encoder], "vocab_size": size, "pad_token_id": PAD_ID},
        class_token_index=tokenizer.token_to_id("<<ENT>>"),
        vocab_size=size,
        **values,
    )
    torch.manual_seed(seed)
    model = SpanModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # livelier than a pretraining initialisation
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.3)
    description = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }
    return Checkpoint(model, tokenizer, description)
