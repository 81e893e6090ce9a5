"""The model directory: ours, with `nerlet.json`, or any ONNX export of the reference's layout.

Everything about a model that does not depend on a text is read and checked here, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from nerlet.errors import BundleError
from nerlet.manifest import (
    CONFIG_NAME,
    FP16_GRAPH_NAME,
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    TEXT_GRAPH_NAME,
    TOKENIZER_CONFIG_NAME,
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    SpecialToken,
    is_count,
    read_json,
    read_manifest,
    record_file,
    write_manifest,
)

__all__ = [
    "CONFIG_NAME",
    "GRAPH_NAME",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "TOKENIZER_CONFIG_NAME",
    "TOKENIZER_NAME",
    "Bundle",
    "FileRecord",
    "Manifest",
    "SpecialToken",
    "count_positions",
    "default_bundle_path",
    "open_bundle",
    "read_manifest",
    "record_file",
    "write_manifest",
]

# What the reference means where a key of gliner_config.json is absent.
_DEFAULTS: dict[str, object] = {
    "max_width": 12,
    "max_len": 384,
    "ent_token": "<<ENT>>",
    "sep_token": "<<SEP>>",
    "span_mode": "markerV0",
    "subtoken_pooling": "first",
    "words_splitter_type": "whitespace",
}
# Keys that are set only where the checkpoint has another architecture, and its name.
_OTHER_ARCHITECTURES = {
    "relations_layer": "a joint entity and relation model",
    "labels_decoder": "a model that generates labels",
    "labels_encoder": "a bi-encoder",
    "precomputed_prompts_mode": "a model with its labels built in",
}
# Encoders whose position table starts behind the padding id.
_OFFSET_POSITIONS = frozenset(
    {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm"}
)
_GRAPH_PLACES = (GRAPH_NAME, f"onnx/{GRAPH_NAME}")
_TOKEN_LEVEL = "token_level"  # a span_mode
_NO_LIMIT = 1_000_000  # tokenizers write 1e30 for "no limit"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model directory, read and checked.

    Attributes:
        path: The directory.
        graph_path: The ONNX file.
        tokenizer: The tokenizer, as its file describes it.
        ent: Marker before each label.
        sep: Marker between labels and words.
        max_width: Widest span, in words.
        max_len: Longest text, in words.
        max_positions: Most pieces of an input, special ones included; None: no limit.
        threshold: The bundle's own threshold, None where it has none.
        manifest: What `nerlet.json` says; None for an export of the reference's layout.
        label_thresholds: The bundle's own thresholds of single labels.
        architecture: "span" or "token", as in the manifest.
        is_isolated: Labels do not see each other, and have positions of their own.
        label_graph_path: The ONNX file that reads one label; None where there is only the whole.
        text_graph_path: The ONNX file that scores a text beside labels; None as above.
        fp16_graph_path: The ONNX file in half precision, for CUDA; None where there is none.
    """

    path: Path
    graph_path: Path
    tokenizer: Tokenizer
    ent: SpecialToken
    sep: SpecialToken
    max_width: int
    max_len: int
    max_positions: int | None
    threshold: float | None
    manifest: Manifest | None
    label_thresholds: Mapping[str, float] = field(default_factory=dict)
    architecture: str = "span"
    is_isolated: bool = False
    label_graph_path: Path | None = None
    text_graph_path: Path | None = None
    fp16_graph_path: Path | None = None


def default_bundle_path() -> Path:
    """Return the directory of the bundle that nerlet ships: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "models" / "small"
    return installed if installed.is_dir() else package.parents[1] / "models" / "small"


def open_bundle(path: str | Path) -> Bundle:
    """Read a model directory and check it.

    Args:
        path: Our bundle (with `nerlet.json`), or an ONNX export of the reference's layout
            (`gliner_config.json`, `tokenizer.json` and `model.onnx`, at the root or in `onnx/`).

    Raises:
        BundleError: Not a model directory; a file missing, damaged or with another hash; another
            schema; an architecture that this version does not run; markers that are not in the
            tokenizer.
    """
    directory = Path(path)
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise BundleError(
            f"{directory}: expected a model directory, found {found}; "
            f"give the directory that holds {GRAPH_NAME}"
        )
    if (directory / MANIFEST_NAME).exists():
        return _open_ours(directory)
    if (directory / CONFIG_NAME).exists():
        return _open_reference_export(directory)
    raise BundleError(
        f"{directory}: expected {MANIFEST_NAME} or {CONFIG_NAME}, found neither; "
        "give the directory of a nerlet bundle or of a GLiNER model exported to ONNX"
    )


def _open_ours(directory: Path) -> Bundle:
    manifest = read_manifest(directory)
    for name, record in manifest.files.items():
        _check_file(directory / name, record)
    tokenizer = _open_tokenizer(directory / TOKENIZER_NAME)
    ent, sep = manifest.special_tokens["ent"], manifest.special_tokens["sep"]
    for token in (ent, sep):
        found = tokenizer.token_to_id(token.text)
        if found != token.id:
            raise BundleError(
                f"{directory / TOKENIZER_NAME}: expected the id {token.id} for {token.text!r}, as "
                f"{MANIFEST_NAME} says, found {found}; export the model again"
            )
    has_parts = {LABEL_GRAPH_NAME, TEXT_GRAPH_NAME} <= manifest.files.keys()
    return Bundle(
        path=directory,
        graph_path=directory / GRAPH_NAME,
        tokenizer=tokenizer,
        ent=ent,
        sep=sep,
        max_width=manifest.max_width,
        max_len=manifest.max_len,
        max_positions=manifest.max_positions,
        threshold=manifest.threshold,
        manifest=manifest,
        label_thresholds=manifest.label_thresholds,
        architecture=manifest.architecture,
        is_isolated=manifest.label_attention == "isolated",
        label_graph_path=directory / LABEL_GRAPH_NAME if has_parts else None,
        text_graph_path=directory / TEXT_GRAPH_NAME if has_parts else None,
        fp16_graph_path=directory / FP16_GRAPH_NAME if FP16_GRAPH_NAME in manifest.files else None,
    )


def _check_file(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise BundleError(
            f"{path}: expected this file, as {MANIFEST_NAME} lists it, found none; "
            "download or export the model again"
        )
    found = record_file(path)
    if found != record:
        raise BundleError(
            f"{path}: expected {record.bytes} bytes with sha256 {record.sha256}, as "
            f"{MANIFEST_NAME} says, found {found.bytes} bytes with sha256 {found.sha256}; "
            "the file is damaged or was changed, download or export the model again"
        )


def _open_reference_export(directory: Path) -> Bundle:
    config_path = directory / CONFIG_NAME
    config = {**_DEFAULTS, **_drop_nulls(read_json(config_path))}
    architecture = _read_architecture(config, config_path)
    tokenizer = _open_tokenizer(directory / TOKENIZER_NAME)
    return Bundle(
        path=directory,
        graph_path=_find_graph(directory),
        tokenizer=tokenizer,
        ent=_find_marker(tokenizer, config["ent_token"], directory),
        sep=_find_marker(tokenizer, config["sep_token"], directory),
        max_width=_read_count(config, "max_width", config_path),
        max_len=_read_count(config, "max_len", config_path),
        max_positions=_find_positions(config, directory),
        threshold=None,
        manifest=None,
        architecture=architecture,
    )


def _drop_nulls(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if value is not None}


def _read_architecture(config: Mapping[str, object], path: Path) -> str:
    """Return the architecture by the config's content; refuse what would be run wrongly."""
    found = next((name for key, name in _OTHER_ARCHITECTURES.items() if config.get(key)), None)
    if "streaming" in str(config.get("model_type", "")):
        found = found or "a streaming model"
    if found:
        raise BundleError(
            f"{path}: expected a span or token-level model with one encoder, found {found}; "
            "this version of nerlet reads no other"
        )
    for key in ("subtoken_pooling", "words_splitter_type"):
        if config[key] != _DEFAULTS[key]:
            raise BundleError(
                f"{path}: expected {key} {_DEFAULTS[key]!r}, found {config[key]!r}; "
                "this version of nerlet reads no other"
            )
    return "token" if config["span_mode"] == _TOKEN_LEVEL else "span"


def _read_count(config: Mapping[str, object], key: str, path: Path) -> int:
    value = config[key]
    if not is_count(value):
        raise BundleError(
            f"{path}: {key}: expected a whole number of at least 1, found {value!r}; "
            "export the model again"
        )
    return value


def _find_graph(directory: Path) -> Path:
    for place in _GRAPH_PLACES:
        if (directory / place).is_file():
            return directory / place
    others = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*.onnx"))
    found = f"only {', '.join(others)}: copy or rename one" if others else "no ONNX file"
    raise BundleError(
        f"{directory}: expected {' or '.join(_GRAPH_PLACES)}, found {found}; a PyTorch checkpoint "
        "becomes a bundle with: nerlet-export convert CHECKPOINT_DIR OUT_DIR"
    )


def _open_tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise BundleError(
            f"{path}: expected this file, found none; save the model's fast tokenizer there "
            "(older GLiNER repositories lack it), or export the model again"
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception
        raise BundleError(
            f"{path}: expected a tokenizer, but it cannot be read ({error}); "
            "download or export the model again"
        ) from error


def _find_marker(tokenizer: Tokenizer, text: object, directory: Path) -> SpecialToken:
    marker_id = tokenizer.token_to_id(str(text))
    if marker_id is None:
        raise BundleError(
            f"{directory / TOKENIZER_NAME}: expected the marker {text!r} of {CONFIG_NAME} in the "
            "vocabulary, found none; save the tokenizer that the model was trained with"
        )
    return SpecialToken(str(text), marker_id)


def find_positions(encoder: Mapping[str, object], tokenizer: Mapping[str, object]) -> int | None:
    """Return how many pieces a model takes: the encoder's limit or the tokenizer's, if smaller.

    Args:
        encoder: The encoder's `config.json`; empty where there is none.
        tokenizer: The `tokenizer_config.json`; empty where there is none.

    Returns:
        The limit, special pieces included, or None.

    Source: GLiNER's processor, which truncates to the tokenizer's limit.
    """
    limit = tokenizer.get("model_max_length")
    limits = [count_positions(encoder)]
    if isinstance(limit, int | float) and limit < _NO_LIMIT:
        limits.append(int(limit))
    return min((limit for limit in limits if limit is not None), default=None)


def _find_positions(config: Mapping[str, object], directory: Path) -> int | None:
    """Return the limit of a reference export, from its files."""
    encoder = config.get("encoder_config")
    path = directory / TOKENIZER_CONFIG_NAME
    return find_positions(
        encoder if isinstance(encoder, dict) else {}, read_json(path) if path.exists() else {}
    )


def count_positions(encoder_config: Mapping[str, object]) -> int | None:
    """Return how many pieces a Hugging Face encoder takes, special ones included.

    Args:
        encoder_config: The encoder's `config.json`.

    Returns:
        The limit, or None where positions are only relative (DeBERTa-v2 and v3, T5).
    """
    size = encoder_config.get("max_position_embeddings")
    kind = encoder_config.get("model_type")
    if not isinstance(size, int) or size < 1:
        return None
    if kind in ("deberta", "deberta-v2"):
        return size if encoder_config.get("position_biased_input", True) else None
    padding = encoder_config.get("pad_token_id")
    if kind in _OFFSET_POSITIONS:
        return size - (padding if isinstance(padding, int) else 1) - 1
    return size
