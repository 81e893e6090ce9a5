"""`nerlet.json`, the file that makes a model directory a bundle: its schema and its checks."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import TypeGuard, TypeVar

from nerlet.architectures import BI, READ
from nerlet.errors import BundleError
from nerlet.words import WORD_PATTERN

MANIFEST_NAME = "nerlet.json"
CONFIG_NAME = "gliner_config.json"
TOKENIZER_NAME = "tokenizer.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
GRAPH_NAME = "model.onnx"
# The whole model once more, in half precision for CUDA.
FP16_GRAPH_NAME = "model_fp16.onnx"
# The same model in two parts, for isolated labels; all three then share their weights.
LABEL_GRAPH_NAME = "label.onnx"
TEXT_GRAPH_NAME = "text.onnx"
WEIGHTS_NAME = "weights.bin"
# What a bi-encoder reads labels with.
LABELS_ENCODER_NAME = "labels_encoder.onnx"
LABELS_TOKENIZER_NAME = f"labels_tokenizer/{TOKENIZER_NAME}"
LABELS_TOKENIZER_CONFIG_NAME = f"labels_tokenizer/{TOKENIZER_CONFIG_NAME}"
REQUIRED_FILES = (CONFIG_NAME, TOKENIZER_NAME, GRAPH_NAME)
SCHEMA_VERSION = 1

PRECISIONS = ("fp32", "int8")
LABEL_ATTENTIONS = ("joint", "isolated")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A marker of the prompt: its text and its id in the tokenizer."""

    text: str
    id: int


NO_MARKER = SpecialToken("", -1)  # a bi-encoder's, whose texts stand alone


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size and SHA-256 (hex) of one file of the bundle."""

    bytes: int
    sha256: str


_Record = TypeVar("_Record", SpecialToken, FileRecord)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What `nerlet.json` holds.

    Attributes:
        name: Name of the model.
        origin: Where its weights come from, in a sentence.
        license: SPDX name of the licence of the weights.
        precision: Of the weights in `GRAPH_NAME`, "fp32" or "int8".
        max_width: Widest span, in words.
        max_len: Longest text, in words.
        special_tokens: The markers, under "ent" and "sep", and a joint model's under "rel"; none in
            a bi-encoder.
        files: Size and hash of every file, by its name relative to the directory.
        max_types: Most labels seen at once in training.
        max_positions: Most pieces that the encoder takes, special ones included; None: no limit.
        threshold: The score above which this model's spans are best kept; None: 0.5.
        label_thresholds: The same for single labels, by what the model reads as the label; every
            other label has `threshold`.
        architecture: "span" (every span of up to `max_width` words is scored) or "token" (every
            word, as start, end and inside of spans); "bi" and "bi_token" where an encoder of its
            own reads labels; "relex": one of the first two, and relations.
        word_pattern: Regular expression that finds the words.
        word_shapes: The graph has the optional input `word_shapes`.
        label_attention: Whether labels see each other in the encoder ("joint") or not.
        figures: Measured quality, free form.
        verification: What the export checked, free form.
        schema_version: Of this file's layout.
    """

    name: str
    origin: str
    license: str
    precision: str
    max_width: int
    max_len: int
    special_tokens: dict[str, SpecialToken]
    files: dict[str, FileRecord]
    max_types: int = 25
    max_positions: int | None = None
    threshold: float | None = None
    label_thresholds: dict[str, float] = field(default_factory=dict)
    architecture: str = "span"
    word_pattern: str = WORD_PATTERN
    word_shapes: bool = False
    label_attention: str = "joint"
    figures: dict[str, object] = field(default_factory=dict)
    verification: dict[str, object] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for name, (is_valid, wanted) in _CHECKS.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise _bad_key(name, wanted, value)
        if (self.architecture == "relex") != ("rel" in self.special_tokens):
            wanted = "rel for the architecture relex, and for no other"
            raise _bad_key("special_tokens", wanted, sorted(self.special_tokens))
        missing = [name for name in REQUIRED_FILES if name not in self.files]
        if missing:
            raise _bad_key("files", f"an entry for {', '.join(missing)}", sorted(self.files))
        if (self.special_tokens == {}) != (self.architecture in BI):
            raise _bad_key("special_tokens", _MARKERS, self.special_tokens)

    @property
    def weights_sha256(self) -> str:
        """The hash of the file that holds the weights: which model this is."""
        return self.files[WEIGHTS_NAME if WEIGHTS_NAME in self.files else GRAPH_NAME].sha256

    def to_dict(self) -> dict[str, object]:
        """Return the manifest as JSON-ready values, `schema_version` first."""
        values = asdict(self)
        return {"schema_version": values.pop("schema_version"), **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Manifest":
        """Return the manifest that `to_dict` wrote.

        Args:
            values: The parsed JSON object; keys that have a default may be absent.

        Raises:
            BundleError: Another schema version, a missing or unknown key, or a value out of
                bounds.
        """
        _check_schema(values.get("schema_version"))
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise BundleError(
                f"{MANIFEST_NAME}: unknown key {unknown[0]!r} in schema {SCHEMA_VERSION}; "
                "expected the keys that nerlet-export writes, export the model again"
            )
        parsed = dict(values)
        parsed["special_tokens"] = _parse_records(values, "special_tokens", SpecialToken)
        parsed["files"] = _parse_records(values, "files", FileRecord)
        try:
            return cls(**parsed)  # type: ignore[arg-type]  # __post_init__ checks each value
        except TypeError as error:
            raise BundleError(
                f"{MANIFEST_NAME}: a key is missing ({error}); export the model again"
            ) from error


def record_file(path: Path) -> FileRecord:
    """Return the size and hash of a file, as `Manifest.files` lists it."""
    with path.open("rb") as file:
        return FileRecord(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `nerlet.json` into a model directory: the whole file, or none of it.

    Raises:
        OSError: It cannot be written; the file that was there is as it was.
    """
    text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False) + "\n"
    target = directory / MANIFEST_NAME
    with tempfile.TemporaryDirectory(prefix=f".{MANIFEST_NAME}.", dir=directory) as scratch:
        fresh = Path(scratch) / MANIFEST_NAME
        # Half a character as JSON escapes it.
        fresh.write_text(text, encoding="utf-8", errors="backslashreplace")
        if target.exists():
            shutil.copymode(target, fresh)
        fresh.replace(target)


def read_manifest(directory: Path) -> Manifest:
    """Read and check `nerlet.json` of a model directory.

    Raises:
        BundleError: The file is missing, not JSON, of another schema, or has a bad value; names
            the directory.
    """
    values = read_json(directory / MANIFEST_NAME)
    try:
        return Manifest.from_dict(values)
    except BundleError as error:
        raise BundleError(f"{directory}: {error}") from error


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object.

    Raises:
        BundleError: The file is missing or not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path}: expected a JSON file, but it cannot be read ({error}); "
            "download or export the model again"
        ) from error
    if not isinstance(values, dict):
        raise BundleError(
            f"{path}: expected a JSON object, found {type(values).__name__}; "
            "download or export the model again"
        )
    return values


def _check_schema(version: object) -> None:
    if version == SCHEMA_VERSION and not isinstance(version, bool):
        return
    remedy = "export the model again with this nerlet"
    if is_count(version) and version > SCHEMA_VERSION:
        remedy = "install a newer nerlet: pip install -U nerlet"
    raise BundleError(
        f"{MANIFEST_NAME}: expected schema_version {SCHEMA_VERSION}, found {version!r}; {remedy}"
    )


def _parse_records(
    values: Mapping[str, object], key: str, kind: type[_Record]
) -> dict[str, _Record]:
    """Return the value of `key`, an object of objects, as records."""
    found = values.get(key)
    names = {item.name for item in fields(kind)}
    wanted = f"an object of objects with the keys {', '.join(sorted(names))}"
    if not isinstance(found, dict):
        raise _bad_key(key, wanted, found)
    for record in found.values():
        if not isinstance(record, dict) or set(record) != names:
            raise _bad_key(key, wanted, record)
    return {name: kind(**record) for name, record in found.items()}


def _bad_key(key: str, wanted: str, found: object) -> BundleError:
    return BundleError(
        f"{MANIFEST_NAME}: {key}: expected {wanted}, found {found!r}; export the model again"
    )


def is_count(value: object, least: int = 1) -> TypeGuard[int]:
    """Return whether a value is a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_threshold(value: object) -> TypeGuard[float]:
    """Return whether a value is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return 0 <= float(value) <= 1  # NaN is in no range
    except OverflowError:  # a whole number of more than 308 digits
        return False


def _are_label_thresholds(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_filled(label) and is_threshold(threshold) for label, threshold in value.items()
    )


def _is_filled(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_markers(value: object) -> bool:
    return (
        isinstance(value, dict)
        and {"ent", "sep"} <= set(value) <= {"ent", "sep", "rel"}
        and all(_is_filled(token.text) and is_count(token.id, 0) for token in value.values())
        and len({token.id for token in value.values()}) == len(value)
    )


def _are_files(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_inside(name)
        and is_count(entry.bytes, 0)
        and isinstance(entry.sha256, str)
        and _SHA256.fullmatch(entry.sha256)
        for name, entry in value.items()
    )


def _is_inside(name: object) -> bool:
    """Return whether a file name stays inside the model directory."""
    if not _is_filled(name):
        return False
    path = PurePosixPath(str(name))
    return not path.is_absolute() and ".." not in path.parts and "\\" not in str(name)


_Check = tuple[Callable[[object], bool], str]
_COUNT: _Check = (is_count, "a whole number of at least 1")
_TEXT: _Check = (_is_filled, "a text")
_MARKERS = "ent and sep, perhaps rel, each a text with its id, or none in a bi-encoder"
_OBJECT: _Check = (lambda value: isinstance(value, dict), "an object")
_CHECKS: dict[str, _Check] = {
    "name": _TEXT,
    "origin": _TEXT,
    "license": _TEXT,
    "precision": (lambda value: value in PRECISIONS, " or ".join(PRECISIONS)),
    "architecture": (lambda value: value in READ, " or ".join(READ)),
    "max_width": _COUNT,
    "max_len": _COUNT,
    "max_types": _COUNT,
    "max_positions": (lambda value: value is None or is_count(value), f"{_COUNT[1]}, or null"),
    "threshold": (lambda value: value is None or is_threshold(value), "0 to 1, or null"),
    "label_thresholds": (_are_label_thresholds, "an object of labels, each with 0 to 1"),
    "word_pattern": (lambda value: value == WORD_PATTERN, f"{WORD_PATTERN!r}, all that is read"),
    "word_shapes": (lambda value: isinstance(value, bool), "true or false"),
    "label_attention": (lambda value: value in LABEL_ATTENTIONS, " or ".join(LABEL_ATTENTIONS)),
    "special_tokens": (lambda value: value == {} or _are_markers(value), _MARKERS),
    "files": (_are_files, "names inside the directory, each with bytes and a hex sha256"),
    "figures": _OBJECT,
    "verification": _OBJECT,
}
