"""Checkpoints on disk: `gliner_config.json`, `model.safetensors` and the tokenizer's files.

The reference's layout and parameter names, so that reference checkpoints load here and ours (with a
reference head) load there. A key too many or too few is an error, never a warning.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from nerlet.errors import BundleError, InputError
from nerlet.label_encoder import LabelTokenizer
from nerlet.manifest import CONFIG_NAME, LABELS_TOKENIZER_NAME, NO_MARKER, read_json
from nerlet.positions import find_positions
from nerlet.prompt import PieceEncoder
from nerlet.tokenizer import cut_tokens
from nerlet_export.bi import BiModel
from nerlet_export.config import ModelConfig, read_model_config, write_model_config
from nerlet_export.kinds import make_model
from nerlet_export.model import Model, SpanModel
from nerlet_export.pretrained import (
    check_encoder_keys,
    load_config,
    load_encoder,
    load_tokenizer,
    plain_config,
)
from nerlet_export.tokenization import (
    describe_tokenizer,
    find_markers,
    find_relation_marker,
    read_labels_tokenizer,
    read_tokenizer,
    save_tokenizer,
)

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
CARD_NAME = "training.json"  # what a training run says of the checkpoint
# Ours -> the reference's.
_PREFIXES = {
    "encoder.model.": "token_rep_layer.bert_layer.model.",
    "encoder.projection.": "token_rep_layer.projection.",
    "encoder.segments.": "token_rep_layer.segments.",
    "labels.model.": "token_rep_layer.labels_encoder.model.",
    "labels.projection.": "token_rep_layer.labels_projection.",
    "fuser.": "cross_fuser.",
    "heads.rnn.": "rnn.lstm.",
    "heads.span.": "span_rep_layer.span_rep_layer.",
    "heads.label.": "prompt_rep_layer.",
    "heads.scorer.": "scorer.",
    "relations.adjacency.": "relations_rep_layer.relation_rep_layer.",
    "relations.triples.layers.": "pair_rep_layer.",
    "relations.triples.": "triples_score_layer.interaction.",
}
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
# Names of the table of word pieces: BERT's and most, ModernBERT's, T5's.
_WORD_TABLES = (
    "embeddings.word_embeddings.weight",
    "embeddings.tok_embeddings.weight",
    "shared.weight",
    "encoder.embed_tokens.weight",
)
# Not parameters: older transformers saved them.
_BUFFERS = ("embeddings.position_ids",)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model and how its texts become pieces.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: With [ENT] and `<<SEP>>` in it.
        tokenizer_config: What `tokenizer_config.json` says of it to other software.
        labels_tokenizer: Of a bi-encoder's labels; None in other models.
        labels_tokenizer_config: The same of it.
    """

    model: Model
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]
    labels_tokenizer: Tokenizer | None = None
    labels_tokenizer_config: dict[str, Any] = field(default_factory=dict)

    @property
    def span_model(self) -> SpanModel:
        """The model, where it is a span model.

        Raises:
            InputError: It is a token-level or a joint one.
        """
        if not isinstance(self.model, SpanModel):
            raise InputError(
                "expected a span model, found one of architecture "
                f"{self.model.config.architecture!r}: nerlet_export reads and converts token-level "
                "and joint models and bi-encoders, and trains span models only"
            )
        return self.model

    @property
    def bi_model(self) -> BiModel:
        """The model, where it is a bi-encoder.

        Raises:
            InputError: It is none.
        """
        if not isinstance(self.model, BiModel):
            raise InputError(
                f"expected a bi-encoder, found a model of architecture "
                f"{self.model.config.architecture!r}, which reads labels beside each text"
            )
        return self.model

    @property
    def pieces(self) -> PieceEncoder:
        """The runtime's own encoder of words and labels, over this tokenizer."""
        config, tokenizer = self.model.config, self.tokenizer
        if config.is_bi:
            return PieceEncoder(tokenizer, NO_MARKER.id, NO_MARKER.id)
        more = [find_relation_marker(config, tokenizer)] if config.has_relations else []
        return PieceEncoder(tokenizer, *find_markers(config, tokenizer), *more)

    @property
    def label_pieces(self) -> LabelTokenizer:
        """The runtime's own encoder of a bi-encoder's labels.

        Raises:
            InputError: It is no bi-encoder.
        """
        encoder = self.bi_model.config.labels_encoder_config
        if self.labels_tokenizer is None:
            raise InputError("expected a bi-encoder with a tokenizer of labels, found none")
        limit = find_positions(encoder, self.labels_tokenizer_config)
        return LabelTokenizer(self.labels_tokenizer, limit)


def load_checkpoint(directory: Path | str) -> Checkpoint:
    """Read a checkpoint, the reference's or ours.

    Args:
        directory: With `gliner_config.json` and `model.safetensors` or `pytorch_model.bin`. Where
            it holds no `tokenizer.json`, the tokenizer comes from the config's `model_name`, with
            the markers added as the reference adds them.

    Returns:
        The checkpoint.

    Raises:
        BundleError: A file is missing or damaged, an architecture is not built here, the tokenizer
            is another model's, or a parameter is unknown, missing, or of another shape.
    """
    directory = Path(directory)
    config = _complete(read_model_config(directory))
    state = _read_state(directory)
    config = replace(config, encoder=_count_rows(config.encoder, state, "encoder.model."))
    tokenizer, tokenizer_config = read_tokenizer(directory, config)
    if config.is_bi:
        return _load_bi(directory, config, state, tokenizer, tokenizer_config)
    if config.class_token_index < 0:
        config = replace(config, class_token_index=tokenizer.token_to_id(config.ent_token))
    find_markers(config, tokenizer)
    if config.has_relations:
        index = find_relation_marker(config, tokenizer)
        config = replace(config, rel_token_index=index)
    model = _make_model(config, directory)
    _load_state(model, state, directory)
    return Checkpoint(model.eval(), tokenizer, tokenizer_config)


def _load_bi(
    directory: Path,
    config: ModelConfig,
    state: dict[str, Tensor],
    tokenizer: Tokenizer,
    tokenizer_config: dict[str, Any],
) -> Checkpoint:
    """Read what only a bi-encoder's checkpoint has; errors as in `load_checkpoint`."""
    labels = _count_rows(config.labels_encoder_config, state, "labels.model.")
    config = replace(config, labels_encoder_config=labels)
    model = _make_model(config, directory)
    _load_state(model, state, directory)
    tokenizer = cut_tokens(tokenizer, model.encoder.words.num_embeddings)
    own = read_labels_tokenizer(directory, config)
    return Checkpoint(model.eval(), tokenizer, tokenizer_config, *own)


def _count_rows(encoder: dict[str, Any], state: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """Fill in an encoder's config how many word pieces its table has rows for."""
    names = [_PREFIXES[prefix] + name for name in _WORD_TABLES]
    table = next((state[name] for name in names if name in state), None)
    return encoder if table is None else {**encoder, "vocab_size": table.shape[0]}


def save_checkpoint(directory: Path, checkpoint: Checkpoint, *, half: bool = False) -> None:
    """Write a checkpoint in the reference's layout.

    Args:
        directory: Made where it is missing; files of a checkpoint that it holds are replaced.
        checkpoint: What to write.
        half: Whether to store float16, half of the bytes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_model_config(directory, checkpoint.model.config)
    owners = _find_owners(checkpoint.model)
    state = {
        _theirs(key): (value.half() if half and value.is_floating_point() else value).contiguous()
        for key, value in checkpoint.model.state_dict().items()
        if key == owners[key]
    }
    # As the reference and safetensors write it: the name that is left out, and the one that stays
    shared = {_theirs(key): _theirs(owner) for key, owner in owners.items() if key != owner}
    save_file(state, directory / SAFETENSORS_NAME, metadata=shared or None)
    save_tokenizers(directory, checkpoint)


def save_tokenizers(directory: Path, checkpoint: Checkpoint) -> None:
    """Write the tokenizer of texts, and that of a bi-encoder's labels in a folder of its own."""
    save_tokenizer(directory, checkpoint.tokenizer, checkpoint.tokenizer_config)
    if checkpoint.labels_tokenizer is not None:
        folder = (directory / LABELS_TOKENIZER_NAME).parent
        save_tokenizer(folder, checkpoint.labels_tokenizer, checkpoint.labels_tokenizer_config)


def shrink_checkpoint(source: Path | str, target: Path | str) -> None:
    """Write a copy of a checkpoint in half precision, training card included.

    Args:
        source: Directory of the checkpoint, the reference's or ours.
        target: Another directory.

    Raises:
        BundleError: As in `load_checkpoint`, or the card is damaged.
        InputError: `target` is `source`, whose weights would be lost.
    """
    source, target = Path(source), Path(target)
    if source.resolve() == target.resolve():
        raise InputError(f"{target}: expected another directory than the checkpoint's own")
    checkpoint = load_checkpoint(source)
    card = read_json(source / CARD_NAME) if (source / CARD_NAME).exists() else None
    save_checkpoint(target, checkpoint, half=True)
    if card is not None:
        write_card(target, card)


def write_card(directory: Path, card: Mapping[str, object]) -> None:
    """Write what a checkpoint says of its training."""
    (directory / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def start_model(encoder: str, settings: dict[str, Any]) -> Checkpoint:
    """Make a model from a pretrained encoder: new heads, [ENT] and `<<SEP>>` added.

    Args:
        encoder: A directory, a hub name, or `package:NAME/FOLDER` for weights that an installed
            package carries.
        settings: Fields of `ModelConfig`; `hidden_size` is the encoder's own unless given, and
            `encoder_dropout` replaces the encoder's own dropout.

    Raises:
        InputError: The encoder or its package cannot be found, or its weights are not whole.
    """
    pretrained, fast = load_encoder(encoder), load_tokenizer(encoder)
    fast.add_tokens([settings.get("ent_token", "<<ENT>>"), settings.get("sep_token", "<<SEP>>")])
    pretrained.resize_token_embeddings(len(fast), mean_resizing=False)
    _start_markers(pretrained.get_input_embeddings())
    values = {"hidden_size": pretrained.config.hidden_size, **settings}
    dropout = values.pop("encoder_dropout", None)
    dropouts = {} if dropout is None else dict.fromkeys(_DROPOUTS, dropout)
    config = ModelConfig(
        model_name=encoder,
        encoder={**plain_config(pretrained.config.to_dict()), **dropouts},
        class_token_index=len(fast) - 2,
        vocab_size=len(fast),
        **values,
    )
    model = make_model(config)
    keys = model.encoder.model.load_state_dict(pretrained.state_dict(), strict=False)
    check_encoder_keys(encoder, keys.missing_keys, keys.unexpected_keys)
    find_markers(config, fast.backend_tokenizer)
    return Checkpoint(model.eval(), fast.backend_tokenizer, describe_tokenizer(fast))


def _complete(config: ModelConfig) -> ModelConfig:
    """Fetch the config of each encoder by name, as older checkpoints ask for."""
    encoder = _complete_encoder(config.encoder, config.model_name, "encoder", "model_name")
    if not config.is_bi:
        return replace(config, encoder=encoder)
    keys = ("labels_encoder", "labels_encoder")
    labels = _complete_encoder(config.labels_encoder_config, config.labels_encoder, *keys)
    return replace(config, encoder=encoder, labels_encoder_config=labels)


def _complete_encoder(encoder: dict[str, Any], name: str, kind: str, key: str) -> dict[str, Any]:
    if encoder:
        # The reference reads a config without model_type as DeBERTa-v2's.
        return plain_config({"model_type": "deberta-v2", **encoder})
    try:
        return load_config(name)
    except InputError as error:
        raise BundleError(
            f"{CONFIG_NAME}: no {kind}_config, and the config of its encoder "
            f"{name!r} cannot be had ({error}); fetch it once while online, or set "
            f"{key} to a local folder"
        ) from error


def _make_model(config: ModelConfig, directory: Path) -> Model:
    """Make a model of a stored config, whose encoder part only its encoder's class can check."""
    try:
        return make_model(config)
    except BundleError:
        raise
    except Exception as error:  # transformers' own checks have no base but this
        raise BundleError(
            f"{directory / CONFIG_NAME}: encoder_config describes no encoder that transformers "
            f"builds ({error}); the file is damaged, or needs another version of transformers"
        ) from error


def _read_state(directory: Path) -> dict[str, Tensor]:
    """Read the parameters, under the reference's names."""
    path = directory / SAFETENSORS_NAME
    if not path.exists():
        path = directory / PICKLE_NAME
    if not path.exists():
        raise BundleError(
            f"{directory}: neither {SAFETENSORS_NAME} nor {PICKLE_NAME}; a GLiNER checkpoint with "
            "its weights was expected"
        )
    try:
        if path.name == SAFETENSORS_NAME:
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BundleError(
            f"{path}: the weights cannot be read ({reason}); the file is damaged, or holds more "
            "than weights: download it again"
        ) from error
    return state


def _load_state(model: nn.Module, state: dict[str, Tensor], directory: Path) -> None:
    """Load parameters strictly."""
    state = {key: value for key, value in state.items() if not key.endswith(_BUFFERS)}
    owners = _find_owners(model)
    ours = {_theirs(key): key for key in owners}
    given = {owners[key] for name, key in ours.items() if name in state}
    missing = sorted(
        name for name, key in ours.items() if owners[key] not in given and ".pooler." not in name
    )
    unknown = sorted(state.keys() - ours.keys())
    if missing or unknown:
        raise BundleError(
            f"{directory}: the weights do not fit the config: missing {_some(missing)}, unknown "
            f"{_some(unknown)}; the checkpoint is of another architecture or damaged"
        )
    try:
        model.load_state_dict({ours[key]: value for key, value in state.items()}, strict=False)
    except RuntimeError as error:
        raise BundleError(f"{directory}: a weight has another shape: {error}") from error


def _find_owners(model: nn.Module) -> dict[str, str]:
    """For each parameter the first name of it: T5's table of word pieces goes by two."""
    first: dict[int, str] = {}
    named = model.state_dict(keep_vars=True)
    return {key: first.setdefault(id(value), key) for key, value in named.items()}


def _some(keys: list[str]) -> str:
    if not keys:
        return "none"
    return f"{len(keys)} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"


def _theirs(key: str) -> str:
    """The reference's name of one of our parameters."""
    for ours, theirs in _PREFIXES.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    raise KeyError(key)


def _start_markers(table: nn.Embedding) -> None:
    """Start the two new rows at the mean of the table, apart by a little seeded noise."""
    weight = table.weight
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean = weight[:-2].mean(0)
        weight[-2:] = mean + 0.02 * torch.randn((2, len(mean)), generator=noise)
