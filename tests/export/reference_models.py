"""Seeded random models of the reference, small enough for tests and lively enough to find much."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import normalizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from nerlet_export.graph import INPUTS
from nerlet_export.tiny import ENCODERS, PAD_ID, make_tokenizer

with warnings.catch_warnings():  # torch's, of how transformers' DeBERTa is written
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
    import gliner

MAX_WIDTH = 5
MAX_LEN = 160
LOGIT_DEVIATION = 2.0  # random models otherwise saturate: all scores 0 or 1, and tied
# Encoders of the reference; some differ from another only by what their published configs say.
BACKBONES: dict[str, dict[str, Any]] = {
    **ENCODERS,
    "camembert": {**ENCODERS["roberta"], "model_type": "camembert"},
    "mdeberta": {**ENCODERS["deberta-v2"], "pos_att_type": "p2c|c2p"},
    "mt5": {
        **ENCODERS["t5"],
        "model_type": "mt5",
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "xlnet": {"model_type": "xlnet", "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24},
}
# Absolute positions must hold our longest prompts; relative ones are only what they are clipped to.
_POSITIONS = dict.fromkeys(BACKBONES, 1200) | {"deberta-v2": 64, "mdeberta": 64}
# Uncased as most BERTs are, and as they do it drops control and format characters.
_UNCASED = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
_PROBES = ("the cat sat on a mat", "10 % of x-ray", "(a) b c d e f g h i j k l m n o p")


def write_encoder(folder: Path, encoder: str, words: Sequence[str] = (), **changes: object) -> Path:
    """Write what a plain Hugging Face encoder's folder holds beside its weights.

    Args:
        folder: Made here.
        encoder: A key of `BACKBONES`.
        words: Of the vocabulary.
        changes: To its config.
    """
    tokenizer = make_tokenizer(words)
    if encoder == "bert":
        tokenizer.normalizer = _UNCASED
    if encoder in ("t5", "mt5"):  # which put nothing before a text
        end = ("[SEP]", tokenizer.token_to_id("[SEP]"))
        tokenizer.post_processor = processors.TemplateProcessing("$A [SEP]", special_tokens=[end])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
    )
    fast.save_pretrained(folder)
    config = {**BACKBONES[encoder], "vocab_size": len(fast), "pad_token_id": PAD_ID}
    if "max_position_embeddings" in config:
        config["max_position_embeddings"] = _POSITIONS[encoder]
    config |= changes
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
    span_mode: str = "markerV0",
) -> Any:
    """Make a reference model over an encoder folder, which is written too."""
    source = write_encoder(folder, encoder, words)
    width = 12 if is_projected else 16  # the encoder's own
    return make_reference_over(source, width, has_rnn=has_rnn, seed=seed, span_mode=span_mode)


def make_reference_over(
    source: Path,
    width: int,
    *,
    has_rnn: bool = False,
    seed: int = 0,
    span_mode: str = "markerV0",
) -> Any:
    """Make a reference model over an encoder folder: its config and tokenizer, other weights."""
    torch.manual_seed(seed)
    config = {
        "model_name": str(source),
        "hidden_size": width,
        "span_mode": span_mode,
        "num_rnn_layers": int(has_rnn),
        "max_width": MAX_WIDTH,
        "max_len": MAX_LEN,
        "class_token_index": -1,
        "vocab_size": -1,
    }
    model = gliner.GLiNER.from_config(config, backbone_from_pretrained=False)
    enliven(model)
    return model


def make_token_reference(
    folder: Path,
    *,
    encoder: str,
    is_projected: bool = False,
    has_rnn: bool = False,
    words: Sequence[str] = (),
) -> Any:
    """Make a token-level reference model over an encoder folder, which is written too."""
    source = write_encoder(folder, encoder, words)
    width = 12 if is_projected else 16  # the encoder's own
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
        draw_weights(model)
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
    _, output = _run(model, texts, labels)
    return torch.as_tensor(output.logits)


def run_reference(
    model: Any, texts: Sequence[str], labels: Sequence[Sequence[str]]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The reference's own tensors of a batch, by graph input, and its logits, (B, L, K, C)."""
    batch, output = _run(model, texts, list(map(list, labels)))
    feeds = {name: np.asarray(batch[name]) for name in INPUTS}
    return feeds, np.asarray(output.logits)


def _run(model: Any, texts: Sequence[str], labels: Sequence[Any], **options: bool) -> Any:
    prepared = model.prepare_batch(list(texts), list(labels))
    batch = model.collate_batch(prepared["input_x"], prepared["entity_types"])
    return batch, model.run_batch(batch, **options)


def enliven(model: Any) -> None:
    """Draw larger weights, so that scores depend on the text, and centre and scale the logits."""
    draw_weights(model)
    scale_logits(model)


def scale_logits(model: Any) -> None:
    """Centre and scale the logits of a span model as it is."""
    with torch.no_grad():
        label = model.model.prompt_rep_layer[-1]
        _centre(model)
        scale = LOGIT_DEVIATION / _run_probes(model).logits.std()
        label.weight.mul_(scale)
        label.bias.mul_(scale)


@torch.no_grad()
def draw_weights(model: Any) -> None:
    for parameter in model.model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.3)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()


def _centre(model: Any) -> None:
    """Move the mean of the logits to 0 by the span head's last bias, or else the labels'."""
    output = _run_probes(model)
    *_, last = model.model.span_rep_layer.span_rep_layer.modules()
    if isinstance(last, nn.Linear) and model.config.span_mode != "mlp":  # a ReLU ends that one
        bias, direction = last.bias, output.prompts_embedding.mean((0, 1))  # (D,)
    else:
        bias = model.model.prompt_rep_layer[-1].bias
        direction = output.span_embeddings.mean((0, 1, 2))
    bias.sub_(output.logits.mean() * direction / direction.dot(direction))


def _run_probes(model: Any) -> Any:
    _, output = _run(model, _PROBES, ["person", "a b", "x"], return_vectors=True)
    return output
