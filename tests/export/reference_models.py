"""Seeded random models of the reference, small enough for tests and lively enough to find much."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from nerlet_export.tiny import ENCODERS, PAD_ID, make_tokenizer

with warnings.catch_warnings():  # torch's, of how transformers' DeBERTa is written
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
    import gliner

MAX_WIDTH = 5
MAX_LEN = 160
LOGIT_DEVIATION = 2.0  # random models otherwise saturate: all scores 0 or 1, and tied
# Absolute positions must hold our longest prompts; relative ones are only what they are clipped to.
_POSITIONS = {"bert": 1200, "deberta-v2": 64, "roberta": 1200}
# Uncased as most BERTs are, and as they do it drops control and format characters.
_UNCASED = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_PROBES = ("the cat sat on a mat", "10 % of x-ray", "(a) b c d e f g h i j k l m n o p")


def write_encoder(folder: Path, encoder: str, words: Sequence[str] = ()) -> Path:
    """Write what a plain Hugging Face encoder's folder holds beside its weights."""
    tokenizer = make_tokenizer(words)
    if encoder == "bert":
        tokenizer.normalizer = _UNCASED
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    fast.save_pretrained(folder)
    config = {**ENCODERS[encoder], "vocab_size": len(fast), "pad_token_id": PAD_ID}
    config["max_position_embeddings"] = _POSITIONS[encoder]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def make_reference(
    folder: Path,
    *,
    encoder: str,
    is_projected: bool = False,
    has_rnn: bool = False,
    seed: int = 0,
    words: Sequence[str] = (),
) -> Any:
    """Make a reference model over an encoder folder, which is written too."""
    source = write_encoder(folder, encoder, words)
    width = 12 if is_projected else ENCODERS[encoder]["hidden_size"]
    return make_reference_over(source, width, has_rnn=has_rnn, seed=seed)


def make_reference_over(source: Path, width: int, *, has_rnn: bool = False, seed: int = 0) -> Any:
    """Make a reference model over an encoder folder: its config and tokenizer, other weights."""
    torch.manual_seed(seed)
    config = {
        "model_name": str(source),
        "hidden_size": width,
        "num_rnn_layers": int(has_rnn),
        "max_width": MAX_WIDTH,
        "max_len": MAX_LEN,
        "class_token_index": -1,
        "vocab_size": -1,
    }
    model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False)
    _enliven(model)
    return model


def make_token_reference(
    folder: Path, *, encoder: str, is_projected: bool = False, has_rnn: bool = False
) -> Any:
    """Make a token-level reference model over an encoder folder, which is written too."""
    source = write_encoder(folder, encoder)
    width = 12 if is_projected else ENCODERS[encoder]["hidden_size"]
    torch.manual_seed(len(encoder) + is_projected + has_rnn)
    model = gliner.GLiNER.from_config(
        {
            "model_name": str(source),
            "span_mode": "token_level",
            "hidden_size": width,
            "num_rnn_layers": int(has_rnn),
            "max_width": MAX_WIDTH,
            "max_len": MAX_LEN,
            "class_token_index": -1,
            "vocab_size": -1,
        },
        backbone_from_pretrained=False,
    )
    with torch.no_grad():
        _draw_weights(model)
        last = model.model.scorer.out_mlp[-1]
        logits = _run_probes(model).logits
        scale = LOGIT_DEVIATION / logits.std((0, 1, 2))
        last.bias.copy_((last.bias - logits.mean((0, 1, 2))) * scale)
        last.weight.mul_(scale[:, None])
        last.bias[2] += 2.0  # spans of several words
    return model


def load_reference(folder: Path, **options: object) -> Any:
    """Load a folder with the reference, its weights strictly."""
    return gliner.GLiNER.from_pretrained(
        str(folder), local_files_only=True, strict=True, **options
    ).eval()


def load_reference_on_onnx(folder: Path) -> Any:
    """Load an ONNX export with the reference."""
    return gliner.GLiNER.from_pretrained(
        str(folder), load_onnx_model=True, onnx_model_file="model.onnx", local_files_only=True
    )


def reference_logits(model: Any, texts: Sequence[str], labels: Sequence[str]) -> torch.Tensor:
    """Logits of a padded batch, (B, L, K, C)."""
    prepared = model.prepare_batch(list(texts), list(labels))
    batch = model.collate_batch(prepared["input_x"], prepared["entity_types"])
    logits = model.run_batch(batch).logits
    return torch.as_tensor(logits)


def _enliven(model: Any) -> None:
    """Draw larger weights, so that scores depend on the text, and centre and scale the logits."""
    with torch.no_grad():
        _draw_weights(model)
        label = model.model.prompt_rep_layer[-1]
        span = model.model.span_rep_layer.span_rep_layer.out_project[-1]
        output = _run_probes(model)
        direction = output.prompts_embedding.mean((0, 1))  # (D,)
        span.bias.sub_(output.logits.mean() * direction / direction.dot(direction))
        scale = LOGIT_DEVIATION / _run_probes(model).logits.std()
        label.weight.mul_(scale)
        label.bias.mul_(scale)


def _draw_weights(model: Any) -> None:
    for parameter in model.model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.3)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()


def _run_probes(model: Any) -> Any:
    prepared = model.prepare_batch(list(_PROBES), ["person", "a b", "x"])
    batch = model.collate_batch(prepared["input_x"], prepared["entity_types"])
    return model.run_batch(batch)
