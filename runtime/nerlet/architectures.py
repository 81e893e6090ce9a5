"""Which architecture a `gliner_config.json` means, by its content: the one table of all there are.

Exports leave `model_type` empty, so that the keys decide; their order is the reference's.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nerlet.errors import BundleError

Config = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A kind of model.

    Attributes:
        name: As `nerlet.json` calls it.
        told: What messages call it.
        is_meant: Whether a config, with its defaults, means it.
        instead: What to do where this version does not read it; empty: it does.
    """

    name: str
    told: str
    is_meant: Callable[[Config], bool]
    instead: str = ""


def _has(key: str) -> Callable[[Config], bool]:
    return lambda config: bool(config.get(key))


def _is_token_level(config: Config) -> bool:
    return config["span_mode"] == "token_level"


_IN_GLINER = "run it in GLiNER itself (PyTorch)"
# Whatever else these say, the keys decide.
_MODEL_TYPES = re.compile(r"gliner(_base|_(uni|bi)_encoder.*|_encoder_token_decoder)?")
# The first that is meant holds. An architecture is read once its row has no `instead`.
ARCHITECTURES = (
    Architecture(
        "streaming",
        "a streaming model",
        lambda config: "streaming" in str(config.get("model_type")),
        f"{_IN_GLINER}; of whole texts a span model finds the entities",
    ),
    Architecture(
        "relex",
        "a joint entity and relation model (relations_layer)",
        _has("relations_layer"),  # of spans, or of tokens where span_mode says so
    ),
    Architecture(
        "decoder",
        "a model that generates labels (labels_decoder)",
        _has("labels_decoder"),
        f"{_IN_GLINER}, or take a span model and name the labels yourself",
    ),
    Architecture(
        "bi_token",
        "a token-level bi-encoder (labels_encoder)",
        lambda config: bool(config.get("labels_encoder")) and _is_token_level(config),
    ),
    Architecture("bi", "a bi-encoder of spans (labels_encoder)", _has("labels_encoder")),
    Architecture(
        "precomputed",
        "a model with its labels built in (precomputed_prompts_mode)",
        _has("precomputed_prompts_mode"),
        "export the checkpoint that it was made of",
    ),
    Architecture(
        "unknown",
        "an unknown model_type",
        lambda config: not _MODEL_TYPES.fullmatch(str(config.get("model_type", "gliner"))),
        f"{_IN_GLINER}, or install a newer nerlet: pip install -U nerlet",
    ),
    Architecture(
        "token",
        "a token-level model (span_mode token_level)",
        _is_token_level,
    ),
    Architecture("span", "a span model", lambda _: True),
)
READ = tuple(own.name for own in ARCHITECTURES if not own.instead)
BI = ("bi", "bi_token")  # those whose labels have an encoder of their own


def read_architecture(config: Config, path: Path) -> str:
    """Return the name of the architecture that a config means.

    Args:
        config: Of `gliner_config.json`, without nulls and with the reference's defaults.
        path: Of the file.

    Raises:
        BundleError: One that this version does not read; says what does.
    """
    found = next(own for own in ARCHITECTURES if own.is_meant(config))
    if found.instead:
        read = " or ".join(own.told for own in ARCHITECTURES if not own.instead)
        type_ = f" {config['model_type']!r}" if found.name == "unknown" else ""
        raise BundleError(
            f"{path}: expected {read}, which is all that this version of nerlet reads, found "
            f"{found.told}{type_}; {found.instead}"
        )
    return found.name
