"""What `nerlet info` tells of a model directory: identity, limits, figures, training."""

from collections.abc import Mapping
from numbers import Real

from nerlet.bundle import MANIFEST_NAME, Bundle
from nerlet.columns import to_size
from nerlet.manifest import Manifest
from nerlet.oddities import Section, describe_export

# What the manifest's free-form parts hold today, and what it is called here; the rest follows.
_VERIFIED = {
    "data": "on labelled texts",
    "float": "graph against PyTorch",
    "int8": "int8 against float",
    "fp16": "fp16 against float",
}
_COUNTS = ("steps", "examples", "words", "seconds")


def describe_bundle(bundle: Bundle) -> list[Section]:
    """What a model directory is; sections without content are left out."""
    sections = [_describe_identity(bundle), _describe_limits(bundle)]
    if bundle.manifest is None:
        sections.append(describe_export(bundle))
    else:
        sections += [_describe_figures(bundle.manifest), _describe_training(bundle.manifest)]
    return [section for section in sections if section]


def _describe_identity(bundle: Bundle) -> Section:
    manifest = bundle.manifest
    size = sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
    graph = bundle.graph_path or bundle.cuda_graph_path
    told = f", graph {to_size(graph.stat().st_size)}" if graph else ""
    place = [("directory", str(bundle.path)), ("size on disk", f"{to_size(size)}{told}")]
    if manifest is None:
        return [
            ("name", bundle.path.resolve().name),
            ("origin", f"a GLiNER export without {MANIFEST_NAME}: no licence or hashes recorded"),
            ("architecture", bundle.architecture),
            *place,
            *_describe_files(bundle),
        ]
    return [
        ("name", manifest.name),
        ("origin", manifest.origin),
        ("licence", manifest.license),
        ("architecture", manifest.architecture),
        ("precision", manifest.precision),
        ("word shapes", "yes" if manifest.word_shapes else "no"),
        *place,
        *_describe_files(bundle),
    ]


def _describe_files(bundle: Bundle) -> Section:
    """Which graphs run where."""
    parts = [bundle.label_graph_path, bundle.text_graph_path]
    on_cpu = parts if all(parts) else [bundle.graph_path]
    on_cuda = [bundle.cuda_graph_path]
    cpu, cuda = (
        ", ".join(path.relative_to(bundle.path).as_posix() for path in paths if path)
        for paths in (on_cpu, on_cuda)
    )
    labels = [("labels read by", _describe_label_reader(bundle))] if bundle.labels else []
    return [
        *labels,
        ("on the CPU", cpu or "nothing: half precision runs there by name alone"),
        ("on CUDA", cuda or "nothing: only fp16 and fp32 run there"),
    ]


def _describe_label_reader(bundle: Bundle) -> str:
    """Which file of a bi-encoder reads labels."""
    if bundle.labels is not None and bundle.labels.encoder_path is not None:
        return f"{bundle.labels.encoder_path.name}, each once, on the CPU"
    return "the graph itself, for every text; or not at all where it takes their embeddings"


def _describe_limits(bundle: Bundle) -> Section:
    manifest, positions = bundle.manifest, bundle.max_positions
    labels = (
        [("labels", f"up to {manifest.max_types} in training, {_describe_reading(bundle)}")]
        if manifest
        else []
    )
    return [
        *labels,
        ("longest text", f"{bundle.max_len} words"),
        ("longest prompt", _describe_count(positions)),
        *(
            [("longest label", _describe_count(bundle.labels.max_positions))]
            if bundle.labels
            else []
        ),
        ("widest entity", f"{bundle.max_width} words"),
        ("threshold", "0.5" if bundle.threshold is None else f"{bundle.threshold:g}"),
        *_describe_label_thresholds(bundle.label_thresholds),
    ]


def _describe_count(pieces: int | None) -> str:
    return "no limit" if pieces is None else f"{pieces} pieces"


def _describe_reading(bundle: Bundle) -> str:
    """How labels are read: together, alone, or apart from the text."""
    if bundle.labels is not None:
        return "by an encoder of their own"
    return bundle.manifest.label_attention if bundle.manifest else ""


def _describe_label_thresholds(thresholds: Mapping[str, float]) -> Section:
    told = ", ".join(f"{label} {threshold:g}" for label, threshold in thresholds.items())
    return [("of single labels", told)] if told else []


def _describe_figures(manifest: Manifest) -> Section:
    """What was measured: by the export, then by training on its development sets."""
    verified = manifest.verification
    first = [(told, verified[key]) for key, told in _VERIFIED.items() if key in verified]
    rest = [(_to_name(key), value) for key, value in verified.items() if key not in _VERIFIED]
    section = [(name, _to_text(value, named=True)) for name, value in (*first, *rest)]
    if "dev" in manifest.figures:
        section.append(("F1 in training", _describe_dev(manifest.figures["dev"])))
    return section


def _describe_dev(dev: object) -> str:
    """F1 of each set, and their mean before them."""
    if not isinstance(dev, Mapping) or not dev:
        return _to_text(dev)
    scores = [value for value in dev.values() if isinstance(value, Real)]
    mean = f"mean {float(sum(scores)) / len(scores):.4g}: " if len(scores) == len(dev) else ""
    return mean + _to_text(dev)


def _describe_training(manifest: Manifest) -> Section:
    """How the model was trained, and whatever else its figures hold."""
    figures = dict(manifest.figures)
    figures.pop("dev", None)
    section = []
    threshold = figures.pop("threshold", None)
    if threshold not in (None, manifest.threshold):  # else it is told among the limits
        section.append(("threshold in training", _to_text(threshold)))
    counts = [f"{_to_text(figures.pop(key))} {key}" for key in _COUNTS if key in figures]
    if counts:
        section.append(("training", ", ".join(counts)))
    data = figures.pop("data", None)
    if isinstance(data, Mapping):
        names = {"file": "data", "licenses": "licences of data"}
        section += [(names.get(key, _to_name(key)), _to_text(data[key])) for key in data]
    elif data is not None:
        section.append(("data", _to_text(data)))
    return section + [(_to_name(key), _to_text(value)) for key, value in figures.items()]


def _to_text(value: object, *, named: bool = False) -> str:
    """A JSON value in one line for people.

    Args:
        value: Of any kind; an object becomes its names and values.
        named: The object's names are words of ours, not those of data sets.
    """
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
        case float():
            return f"{value:.4g}"
        case dict():
            items = ((_to_name(key) if named else key, each) for key, each in value.items())
            return ", ".join(f"{key} {_to_part(each, named=named)}" for key, each in items)
        case list() | tuple():
            return ", ".join(_to_part(each, named=named) for each in value)
    return str(value)


def _to_part(value: object, *, named: bool) -> str:
    """A value inside another, in brackets where it has parts itself."""
    text = _to_text(value, named=named)
    return f"({text})" if isinstance(value, dict | list | tuple) else text


def _to_name(key: object) -> str:
    return str(key).replace("_", " ")
