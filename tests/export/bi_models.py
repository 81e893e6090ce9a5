"""Seeded random bi-encoders of the reference, small enough for tests, and lively."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gliner
import torch

from tests.export.reference_models import (
    LOGIT_DEVIATION,
    MAX_LEN,
    MAX_WIDTH,
    load_reference,
    write_encoder,
)

PROBES = ("the cat sat on a mat", "10 % of x-ray", "(a) b c d e f g h i j k l m n o p")
MAX_LABEL_PIECES = 120
_LABEL_WORDS = ("person", "##n", "or", "##ga", "date", "compound", "##ey", "тип", "人")


def make_bi_reference(
    folder: Path,
    *,
    encoder: str,
    labels_encoder: str,
    span_mode: str = "markerV0",
    width: int = 16,
    labels_width: int = 16,
    has_rnn: bool = False,
    schema: str = "",
    represents_spans: bool = False,
    seed: int = 0,
    words: Sequence[str] = (),
) -> Any:
    """Make a bi-encoder of the reference over two encoder folders, which are written too.

    The encoders differ in vocabulary and, unless `labels_width` is 16, in width; a projection
    stands wherever a width is not `width`.
    """
    torch.manual_seed(seed)
    text = write_encoder(folder / "text", encoder, words)
    changes = {"hidden_size": labels_width, "num_hidden_layers": 1}
    labels = write_encoder(folder / "labels", labels_encoder, _LABEL_WORDS, **changes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Resizing embeddings is not supported")
        model = gliner.GLiNER.from_config(
            {
                "model_name": str(text),
                "labels_encoder": str(labels),
                "hidden_size": width,
                "span_mode": span_mode,
                "num_rnn_layers": int(has_rnn),
                "post_fusion_schema": schema,
                "represent_spans": represents_spans,
                "num_post_fusion_layers": 1 + bool(schema),
                "max_width": MAX_WIDTH,
                "max_len": MAX_LEN,
                "class_token_index": -1,
                "vocab_size": -1,
            },
            backbone_from_pretrained=False,
        )
    # What the reference pads labels to where it encodes them beforehand
    model.data_processor.labels_tokenizer.model_max_length = MAX_LABEL_PIECES
    with torch.no_grad():
        _enliven(model)
    return model


def _enliven(model: Any) -> None:
    """Draw larger weights, so that scores depend on the text, and centre and scale the logits."""
    for parameter in model.model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.3)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()
    output = run_bi_reference(model, PROBES, ["person", "a b", "x", "date"])
    if model.config.span_mode == "token_level":
        last = model.model.scorer.out_mlp[-1]
        scale = LOGIT_DEVIATION / output.logits.std((0, 1, 2))
        last.bias.copy_((last.bias - output.logits.mean((0, 1, 2))) * scale)
        last.weight.mul_(scale[:, None])
        last.bias[2] += 2.0  # spans of several words
        return
    layer = model.model.prompt_rep_layer[-1]
    direction = output.span_embeddings.mean((0, 1, 2))
    layer.bias.sub_(output.logits.mean() * direction / direction.dot(direction))
    again = run_bi_reference(model, PROBES, ["person", "a b", "x", "date"])
    scale = LOGIT_DEVIATION / again.logits.std()
    layer.weight.mul_(scale)
    layer.bias.mul_(scale)


def load_bi_reference(folder: Path, **options: object) -> Any:
    """Load a folder with the reference, which warns that it adds no rows for its markers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Resizing embeddings is not supported")
        return load_reference(folder, **options)


def run_bi_reference(model: Any, texts: Sequence[str], labels: Sequence[Any]) -> Any:
    """The reference's output for a batch; labels for all texts, or a list for each."""
    batch = collate(model, texts, labels)
    more = {} if model.config.span_mode == "token_level" else {"return_vectors": True}
    return model.run_batch(batch, **more)


def collate(model: Any, texts: Sequence[str], labels: Sequence[Any]) -> Any:
    """The reference's own tensors of a batch."""
    prepared = model.prepare_batch(list(texts), list(labels))
    return model.collate_batch(prepared["input_x"], prepared["entity_types"])
