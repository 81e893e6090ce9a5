"""The model directory: ours, with `nerlet.json`, or any ONNX export of the reference's layout.

Everything about a model that does not depend on a text is read and checked here, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from nerlet.architectures import BI, read_architecture
from nerlet.errors import BundleError
from nerlet.exports import (
    CPU_ORDER,
    CUDA_ORDER,
    check_graphs,
    choose_graph,
    find_graph,
    list_names,
)
from nerlet.label_files import LabelFiles, open_label_files
from nerlet.manifest import (
    CONFIG_NAME,
    FP16_GRAPH_NAME,
    GRAPH_NAME,
    LABEL_GRAPH_NAME,
    MANIFEST_NAME,
    NO_MARKER,
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
from nerlet.positions import find_positions
from nerlet.tokenizer import cut_tokens, open_tokenizer

__all__ = [
    "GRAPH_NAME",
    "MANIFEST_NAME",
    "Bundle",
    "FileRecord",
    "Manifest",
    "SpecialToken",
    "default_bundle_path",
    "find_positions",
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
    "rel_token": "<<REL>>",
    "span_mode": "markerV0",
    "subtoken_pooling": "first",
    "words_splitter_type": "whitespace",
}

_MARKERS = ("ent", "sep")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model directory, read and checked.

    Attributes:
        path: The directory.
        graph_path: The ONNX file that a CPU runs; None: there is only one for CUDA.
        tokenizer: The tokenizer, as its file describes it.
        ent: Marker before each label; `NO_MARKER` in a bi-encoder, and so is the other.
        sep: Marker between labels and words.
        max_width: Widest span, in words.
        max_len: Longest text, in words.
        max_positions: Most pieces of an input, special ones included; None: no limit.
        threshold: The bundle's own threshold, None where it has none.
        manifest: What `nerlet.json` says; None for an export of the reference's layout.
        label_thresholds: The bundle's own thresholds of single labels.
        architecture: One of `architectures.READ`.
        is_isolated: Labels do not see each other, and have positions of their own.
        label_graph_path: The ONNX file that reads one label; None where there is only the whole.
        text_graph_path: The ONNX file that scores a text beside labels; None as above.
        cuda_graph_path: The ONNX file that CUDA runs; None: there is only int8, or the like.
        labels: What a bi-encoder reads labels with; None in all other models.
        rel: Marker before each relation; None for a model without relations.
    """

    path: Path
    graph_path: Path | None
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
    cuda_graph_path: Path | None = None
    labels: LabelFiles | None = None
    rel: SpecialToken | None = None

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the markers, which no word or label may hold."""
        return self.ent.id, self.sep.id, *([self.rel.id] if self.rel else [])


def default_bundle_path() -> Path:
    """Return the directory of the bundle that nerlet ships: in the wheel, else in the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "models" / "small"
    return installed if installed.is_dir() else package.parents[1] / "models" / "small"


def open_bundle(path: str | Path, graph: str | None = None) -> Bundle:
    """Read a model directory and check it.

    Args:
        path: Our bundle (with `nerlet.json`), or an ONNX export of the reference's layout
            (`gliner_config.json`, `tokenizer.json` and graphs, at the root or in `onnx/`).
        graph: Name of the ONNX file that every device runs; None: each its own.

    Raises:
        BundleError: Not a model directory; a file missing, damaged or with another hash; another
            schema; an architecture that this version does not run; markers that are not in the
            tokenizer.
        InputError: The directory has no such graph.
    """
    directory = Path(path)
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise BundleError(
            f"{directory}: expected a model directory, found {found}; "
            f"give the directory that holds {GRAPH_NAME}, or fetch a model from the Hugging Face "
            "hub with GLiNER.from_pretrained"
        )
    if (directory / MANIFEST_NAME).exists():
        return _open_ours(directory, graph)
    if (directory / CONFIG_NAME).exists():
        return _open_reference_export(directory, graph)
    raise BundleError(
        f"{directory}: expected {MANIFEST_NAME} or {CONFIG_NAME}, found neither; "
        "give the directory of a nerlet bundle or of a GLiNER model exported to ONNX"
    )


def _open_ours(directory: Path, graph: str | None) -> Bundle:
    manifest = read_manifest(directory)
    for name, record in manifest.files.items():
        _check_file(directory / name, record)
    tokenizer = open_tokenizer(directory / TOKENIZER_NAME)
    tokens = manifest.special_tokens
    for token in tokens.values():
        found = tokenizer.token_to_id(token.text)
        if found != token.id:
            raise BundleError(
                f"{directory / TOKENIZER_NAME}: expected the id {token.id} for {token.text!r}, as "
                f"{MANIFEST_NAME} says, found {found}; export the model again"
            )
    cpu, cuda = _place_own_graphs(directory, manifest, graph)
    labels = None
    if manifest.architecture in BI:
        labels = open_label_files(directory, _drop_nulls(read_json(directory / CONFIG_NAME)))
    has_parts = graph is None and {LABEL_GRAPH_NAME, TEXT_GRAPH_NAME} <= manifest.files.keys()
    return Bundle(
        path=directory,
        graph_path=cpu,
        tokenizer=tokenizer,
        ent=tokens.get("ent", NO_MARKER),
        sep=tokens.get("sep", NO_MARKER),
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
        cuda_graph_path=cuda,
        labels=labels,
        rel=tokens.get("rel"),
    )


def _place_own_graphs(
    directory: Path, manifest: Manifest, graph: str | None
) -> tuple[Path, Path | None]:
    """Return the whole graphs that the CPU and CUDA run."""
    names = [name for name in (GRAPH_NAME, FP16_GRAPH_NAME) if name in manifest.files]
    if graph is not None:
        named = directory / find_graph(names, graph, directory)
        return named, named
    if FP16_GRAPH_NAME in names:
        return directory / GRAPH_NAME, directory / FP16_GRAPH_NAME
    return directory / GRAPH_NAME, None if manifest.precision == "int8" else directory / GRAPH_NAME


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


def _open_reference_export(directory: Path, graph: str | None) -> Bundle:
    config_path = directory / CONFIG_NAME
    config = {**_DEFAULTS, **_drop_nulls(read_json(config_path))}
    architecture = read_architecture(config, config_path)
    _check_settings(config, config_path)
    cpu, cuda = _place_graphs(directory, graph)
    tokenizer = open_tokenizer(directory / TOKENIZER_NAME)
    has_relations = architecture == "relex"
    markers = [NO_MARKER, NO_MARKER]
    if architecture in BI:
        tokenizer = _cut_markers(tokenizer, config)
    else:
        markers = [_find_marker(tokenizer, config[f"{own}_token"], directory) for own in _MARKERS]
    return Bundle(
        path=directory,
        graph_path=cpu,
        tokenizer=tokenizer,
        ent=markers[0],
        sep=markers[1],
        max_width=_read_count(config, "max_width", config_path),
        max_len=_read_count(config, "max_len", config_path),
        max_positions=_find_positions(config, directory),
        threshold=None,
        manifest=None,
        architecture=architecture,
        cuda_graph_path=cuda,
        labels=open_label_files(directory, config) if architecture in BI else None,
        rel=_find_marker(tokenizer, config["rel_token"], directory) if has_relations else None,
    )


def _drop_nulls(config: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in config.items() if value is not None}


def _check_settings(config: Mapping[str, object], path: Path) -> None:
    """Refuse what this version would run wrongly."""
    for key in ("subtoken_pooling", "words_splitter_type"):
        if config[key] != _DEFAULTS[key]:
            raise BundleError(
                f"{path}: expected {key} {_DEFAULTS[key]!r}, found {config[key]!r}; "
                "this version of nerlet reads no other"
            )


def _place_graphs(directory: Path, graph: str | None) -> tuple[Path | None, Path | None]:
    """Return the graphs of an export that the CPU and CUDA run."""
    names = list_names(directory)
    if graph is not None:
        named = directory / find_graph(names, graph, directory)
        return named, named
    check_graphs(names, directory)
    cpu, cuda = choose_graph(names, CPU_ORDER), choose_graph(names, CUDA_ORDER)
    return directory / cpu if cpu else None, directory / cuda if cuda else None


def _read_count(config: Mapping[str, object], key: str, path: Path) -> int:
    value = config[key]
    if not is_count(value):
        raise BundleError(
            f"{path}: {key}: expected a whole number of at least 1, found {value!r}; "
            "export the model again"
        )
    return value


def _find_marker(tokenizer: Tokenizer, text: object, directory: Path) -> SpecialToken:
    marker_id = tokenizer.token_to_id(str(text))
    if marker_id is None:
        raise BundleError(
            f"{directory / TOKENIZER_NAME}: expected the marker {text!r} of {CONFIG_NAME} in the "
            "vocabulary, found none; save the tokenizer that the model was trained with"
        )
    return SpecialToken(str(text), marker_id)


def _cut_markers(tokenizer: Tokenizer, config: Mapping[str, object]) -> Tokenizer:
    """Return the tokenizer of a bi-encoder's texts without what its encoder has no row for."""
    encoder = config.get("encoder_config")
    size = encoder.get("vocab_size") if isinstance(encoder, dict) else None
    return cut_tokens(tokenizer, size) if is_count(size) else tokenizer


def _find_positions(config: Mapping[str, object], directory: Path) -> int | None:
    """Return the limit of a reference export, from its files."""
    encoder = config.get("encoder_config")
    path = directory / TOKENIZER_CONFIG_NAME
    return find_positions(
        encoder if isinstance(encoder, dict) else {}, read_json(path) if path.exists() else {}
    )
