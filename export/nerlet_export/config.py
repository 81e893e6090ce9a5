"""What a model is: its architecture and its limits, as `gliner_config.json` stores them.

The keys of the reference keep its names, so that the reference reads our files; what only nerlet
knows sits under one key, `nerlet`. Defaults are the reference's (gliner 0.2.29) where it has them.
"""

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nerlet.errors import BundleError, InputError
from nerlet.manifest import CONFIG_NAME, LABEL_ATTENTIONS, read_json
from nerlet_export.typed import check_values

TOKEN_LEVEL = "token_level"
SPAN_MODES = (
    "paper",
    *("markerV0", "markerV1", "markerV2", "marker"),
    *("query", "mlp", "cat"),
    TOKEN_LEVEL,
    *("conv_conv", "conv_max", "conv_mean", "conv_sum", "conv_share"),
)
LABEL_POOLINGS = ("first", "mean")
BI_KEYS = {
    *("labels_encoder", "labels_encoder_config"),
    *("post_fusion_schema", "num_post_fusion_layers"),
}
FUSION_STEPS = ("l2l", "t2t", "l2t", "t2l")
# Which pairs of entities are scored at all; "none": every pair.
RELATIONS_LAYERS = ("none", "dot", "mlp", "attention", "attn", "bilinear", "gcn", "gat")
# How a pair is scored for a relation; "": by a projection of the pair.
TRIPLES_LAYERS = (
    *("", "UM", "SE", "TransE", "TransH", "TransF", "PairRE", "TripleRE"),
    *("DistMult", "SimplE", "ComplEx", "QuatE", "DistMA", "HolE", "ERMLP", "ConvKB"),
)
_REFUSED_TRIPLES = {
    "TuckER": "the reference's mixes the triples of a batch (a product that is read in another "
    "order of axes), so that no score of a pair is its own",
    "ConvE": "the reference cannot make it: it lacks `emb_dim1`, which no key of a config sets",
}
_COUNT, _NOT_NEGATIVE, _ID = (1, math.inf), (0, math.inf), (-1, math.inf)  # -1: not known yet
_BOUNDS = {
    **dict.fromkeys(("hidden_size", "max_width", "max_len", "max_types"), _COUNT),
    "num_post_fusion_layers": _COUNT,
    **dict.fromkeys(("num_rnn_layers", "span_head_width"), _NOT_NEGATIVE),
    **dict.fromkeys(("class_token_index", "vocab_size", "rel_token_index"), _ID),
    "dropout": (0, 1),
}
# Settings of the reference that change what a checkpoint computes, with the one value we build.
_FIXED = {
    "subtoken_pooling": "first",
    "fuse_layers": False,
    "embed_ent_token": True,
    "embed_rel_token": True,
    "span_encoder_config": None,
    "represent_spans": False,
    "words_splitter_type": "whitespace",
}
_OTHER_ARCHITECTURES = (
    "labels_decoder",
    "precomputed_prompts_mode",
)
_DEFAULT_ENCODER = "microsoft/deberta-v3-small"


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Architecture of one model.

    Attributes:
        model_name: Name or path of the encoder that training started from; informational.
        encoder: The Hugging Face config of the encoder, as a dict with `model_type`.
        hidden_size: Width D of words and labels; another width than the encoder's own means a
            linear projection between them.
        span_mode: "paper" (equation 1: FFN([h_i; h_j])), "markerV0" (the reference's default),
            "token_level" (each word is scored as start, end and inside), or another of the
            reference's (`heads.HEADS`).
        num_rnn_layers: Bidirectional LSTM layers over the words; 0 for none, as in the paper.
        max_width: K, the longest span in words.
        max_len: Longest text in words.
        max_types: Most labels in a training prompt.
        dropout: Of the heads, in training only.
        class_token_index: Piece id of `ent_token`.
        relations_layer: Of a joint entity and relation model, one of `RELATIONS_LAYERS` in any
            case; "" for any other model.
        triples_layer: Of such a model, one of `TRIPLES_LAYERS`.
        rel_token: Marker before each relation of its prompts.
        rel_token_index: Piece id of `rel_token`.
        span_head_width: Hidden width of the paper's span head; 0 for 2 D.
        label_attention: "joint" (the paper: everything attends to everything) or "isolated" (a
            label attends to itself only, the text to itself and to all labels).
        label_pooling: What of a label's pieces makes its vector: the [ENT] position ("first", the
            paper) or the mean over [ENT] and the label's pieces.
        word_shapes: Whether pieces also carry the shape of their word (for uncased encoders).
        labels_encoder: Name or path of the encoder that reads labels apart from texts, which makes
            the model a bi-encoder; "" for none.
        labels_encoder_config: Its Hugging Face config, as `encoder`.
        post_fusion_schema: Attention between labels ("l2l"), words ("t2t") and across ("l2t",
            "t2l"), in turn, above a bi-encoder's encoders, such as "l2l-l2t"; "" for none.
        num_post_fusion_layers: How often that is done.

    Raises:
        InputError: A value has another type, is out of bounds, or is a choice not built here.
    """

    model_name: str
    encoder: dict[str, Any] = field(hash=False)
    hidden_size: int = 512
    span_mode: str = "markerV0"
    num_rnn_layers: int = 1
    max_width: int = 12
    max_len: int = 384
    max_types: int = 25
    dropout: float = 0.4
    ent_token: str = "<<ENT>>"
    sep_token: str = "<<SEP>>"
    class_token_index: int = -1
    vocab_size: int = -1
    relations_layer: str = ""
    triples_layer: str = ""
    rel_token: str = "<<REL>>"
    rel_token_index: int = -1
    span_head_width: int = 0
    label_attention: str = "joint"
    label_pooling: str = "first"
    word_shapes: bool = False
    labels_encoder: str = ""
    labels_encoder_config: dict[str, Any] = field(hash=False, default_factory=dict)
    post_fusion_schema: str = ""
    num_post_fusion_layers: int = 1

    def __post_init__(self) -> None:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        check_values(ModelConfig, values, _BOUNDS)
        _check_choice("span_mode", self.span_mode, SPAN_MODES)
        _check_choice("label_attention", self.label_attention, LABEL_ATTENTIONS)
        _check_choice("label_pooling", self.label_pooling, LABEL_POOLINGS)
        if self.is_bi and self.has_segments:
            raise InputError("word_shapes and isolated labels are not built for a bi-encoder")
        for step in self.fusion_steps:
            _check_choice("a step of post_fusion_schema", step, FUSION_STEPS)
        if self.has_relations:
            _check_relations(self)

    @property
    def architecture(self) -> str:
        """As the runtime has them: "span", "token", "relex", or "bi" or "bi_token"."""
        if self.has_relations:
            return "relex"
        if self.is_bi:
            return "bi_token" if self.is_token_level else "bi"
        return "token" if self.is_token_level else "span"

    @property
    def is_bi(self) -> bool:
        """Whether labels have an encoder of their own."""
        return bool(self.labels_encoder)

    @property
    def is_token_level(self) -> bool:
        """Whether words are scored, as start, end and inside, and not spans."""
        return self.span_mode == TOKEN_LEVEL

    @property
    def fusion_steps(self) -> list[str]:
        """The steps of one layer of `post_fusion_schema`."""
        return self.post_fusion_schema.split("-") if self.post_fusion_schema else []

    @property
    def has_relations(self) -> bool:
        """Whether relations between entities are scored, too."""
        return bool(self.relations_layer)

    @property
    def span_width(self) -> int | None:
        """K of the graph's inputs; None for a token-level model, which has none of spans."""
        return None if self.is_token_level else self.max_width

    @property
    def head_width(self) -> int:
        """Hidden width H of the span head's output network."""
        return self.span_head_width or 2 * self.hidden_size

    @property
    def has_segments(self) -> bool:
        """Whether pieces get an extra embedding: their word's shape, or "part of a label"."""
        return self.word_shapes or self.label_attention == "isolated"


_OURS = ("span_head_width", "label_attention", "label_pooling", "word_shapes")
_OF_RELATIONS = ("relations_layer", "triples_layer", "rel_token", "rel_token_index")


def _check_choice(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(
            f"{key} is {value!r}, but this version of nerlet_export builds "
            f"{' or '.join(map(repr, choices))}"
        )


def _check_relations(config: ModelConfig) -> None:
    """Refuse what no joint model is built with."""
    _check_choice("relations_layer", config.relations_layer.lower(), RELATIONS_LAYERS)
    if config.triples_layer in _REFUSED_TRIPLES:
        reason = _REFUSED_TRIPLES[config.triples_layer]
        raise InputError(f"triples_layer is {config.triples_layer!r}: {reason}")
    _check_choice("triples_layer", config.triples_layer, TRIPLES_LAYERS)
    if config.has_segments or config.label_pooling != "first":
        raise InputError(
            "relations_layer is set, and so is word_shapes, isolated label_attention or another "
            "label_pooling than 'first', which no joint model is built with; leave one out"
        )


def read_model_config(directory: Path) -> ModelConfig:
    """Read `gliner_config.json` of a checkpoint, the reference's or ours.

    Raises:
        BundleError: No such file, no JSON object, a value of another type or out of bounds, or a
            setting that nerlet_export does not build.
    """
    if not (directory / CONFIG_NAME).is_file():
        raise BundleError(
            f"{directory}: no {CONFIG_NAME}; a GLiNER checkpoint directory was expected"
        )
    stored = read_json(directory / CONFIG_NAME)
    raw: dict[str, Any] = {key: value for key, value in stored.items() if value is not None}
    _refuse_other_architectures(raw)
    ours = raw.get("nerlet", {})
    if not isinstance(ours, dict):
        raise BundleError(f"{CONFIG_NAME}: nerlet is {ours!r}, expected an object")
    known = {item.name for item in fields(ModelConfig)} - {"encoder", *_OURS}
    if not raw.get("labels_encoder"):
        known -= BI_KEYS
    values = {key: raw[key] for key in known if key in raw} | {
        key: ours[key] for key in _OURS if key in ours
    }
    values.setdefault("model_name", _DEFAULT_ENCODER)
    try:
        return ModelConfig(encoder=raw.get("encoder_config", {}), **values)
    except InputError as error:
        raise BundleError(f"{directory / CONFIG_NAME}: {error}") from error


def _refuse_other_architectures(raw: dict[str, Any]) -> None:
    for key in _OTHER_ARCHITECTURES:
        if raw.get(key):
            raise BundleError(
                f"{CONFIG_NAME}: {key} is {raw[key]!r}: none of the architectures "
                "that this version of nerlet_export builds"
            )
    if "streaming" in str(raw.get("model_type")):
        raise BundleError(
            f"{CONFIG_NAME}: model_type is {raw['model_type']!r}: none of the "
            "architectures that this version of nerlet_export builds"
        )
    fixed = _FIXED if raw.get("labels_encoder") else {**_FIXED, "post_fusion_schema": ""}
    for key, built in fixed.items():
        if raw.get(key, built) != built:
            raise BundleError(
                f"{CONFIG_NAME}: {key} is {raw[key]!r}, but this version of nerlet_export builds "
                f"only {built!r}"
            )


def write_model_config(directory: Path, config: ModelConfig) -> None:
    """Write `gliner_config.json` so that both nerlet_export and the reference read it."""
    values = asdict(config)
    encoder = values.pop("encoder")
    ours = {key: values.pop(key) for key in _OURS}
    if not config.is_bi:
        values = {key: own for key, own in values.items() if key not in BI_KEYS}
        values["post_fusion_schema"] = ""
    if not config.has_relations:
        values = {key: value for key, value in values.items() if key not in _OF_RELATIONS}
    elif not config.triples_layer:
        values["triples_layer"] = None  # the reference would take "" for a layer's name
    text = json.dumps(
        {**values, "encoder_config": encoder, **_FIXED, "nerlet": ours}, indent=2, sort_keys=True
    )
    (directory / CONFIG_NAME).write_text(text + "\n", encoding="utf-8")
