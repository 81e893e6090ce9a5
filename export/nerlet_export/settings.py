"""One TOML file describes a training run; unknown keys are errors."""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from nerlet.errors import InputError
from nerlet.manifest import is_threshold
from nerlet_export.config import BI_KEYS, ModelConfig
from nerlet_export.corpus import POLICIES
from nerlet_export.derive import DERIVATIONS
from nerlet_export.sampling import Sampling
from nerlet_export.typed import build

_PRECISIONS = ("auto", "fp32", "bf16")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
# Fields of ModelConfig that follow from the encoder or are a bi-encoder's, which is not trained;
# and a key of [model] that is none of them.
_FROM_ENCODER = {"model_name", "encoder", "class_token_index", "vocab_size"} | BI_KEYS
_ENCODER_DROPOUT = "encoder_dropout"
_POSITIVE, _NOT_NEGATIVE, _SHARE = (1, math.inf), (0, math.inf), (0, 1)
BOUNDS = {
    **dict.fromkeys(("steps", "batch_pieces", "dev_sentences", "max_types"), _POSITIVE),
    **dict.fromkeys(("save_every", "dev_every", "passage_words"), _POSITIVE),
    **dict.fromkeys(("seed", "threads", "patience", "rows", "crop_words"), _NOT_NEGATIVE),
    **dict.fromkeys(("encoder_lr", "head_lr", "weight_decay", "positive_weight"), _NOT_NEGATIVE),
    **dict.fromkeys(("focal", "clip_norm"), _NOT_NEGATIVE),
    **dict.fromkeys(("warm_up", "negative_ratio", "drop_type", "smoothing"), _SHARE),
    **dict.fromkeys(("layer_decay", "average", "passages", "share"), _SHARE),
    **dict.fromkeys(("lower_text", "upper_text", "no_shapes"), _SHARE),
}


@dataclass(frozen=True, slots=True)
class Data:
    """Where rows come from; `train` and `dev` are found by `nerlet.examples.find_data`.

    Attributes:
        train: JSON lines in the training format, perhaps gzipped.
        extra: Further files of the same format.
        rows: Most rows of each source, drawn by the run's seed; 0 for all.
        mixture: Weight of each source; empty for every row alike.
        derive: Rows to make out of the others by rule (`derive`): "dates" makes the sources "dates"
            and "dates-none", "coarse" the sources "NAME-coarse".
        licenses: Licence classes of rows that may be used; "" for rows that name none, "*" for all.
        negatives: Which absent types are certain in rows that do not say (`corpus`): "closed" for
            your own rows, where every type of the file is always labelled.
        dev: Labelled file or folder of them, F1 on which chooses checkpoint and threshold; "" for
            none.
        dev_sentences: Sentences read of each dev file, in the order of the file.
    """

    train: str
    extra: tuple[str, ...] = ()
    rows: int = 0
    mixture: Mapping[str, float] = field(default_factory=dict)
    derive: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ("permissive",)
    negatives: str = "explicit"
    dev: str = ""
    dev_sentences: int = 100

    def __post_init__(self) -> None:
        if self.mixture and not (min(self.mixture.values()) >= 0 < sum(self.mixture.values())):
            raise InputError(
                f"mixture is {dict(self.mixture)!r}, expected weights of at least 0, one above 0"
            )
        if unknown := sorted(set(self.derive) - DERIVATIONS.keys()):
            raise InputError(
                f"derive names {', '.join(unknown)}, expected some of {', '.join(DERIVATIONS)}"
            )
        if self.negatives not in POLICIES:
            raise InputError(
                f"negatives is {self.negatives!r}, expected one of {', '.join(POLICIES)}"
            )


@dataclass(frozen=True, slots=True)
class Optimization:
    """How the weights move; defaults are the paper's.

    Attributes:
        steps: Of the optimiser.
        batch_pieces: Pieces of text in a step.
        encoder_lr: Peak learning rate of the encoder.
        head_lr: Peak learning rate of everything else.
        warm_up: Share of the steps with a rising rate.
        weight_decay: Of matrices; vectors (norms, biases) have none.
        layer_decay: Factor on the encoder's rate for each layer further from its output; the
            embeddings count as one more layer.
        positive_weight: Factor on the loss of entity cells.
        focal: Exponent that fades cells the model is sure of (focal loss, Lin et al., 2017);
            0 for plain cross-entropy.
        smoothing: How far targets are drawn towards one half, as a share.
        clip_norm: Largest norm of a step's gradient; 0 for no limit.
        average: Decay a step of the running mean of the weights, which is what dev measures and
            checkpoints hold; 0 for the weights themselves.
    """

    steps: int = 30_000
    batch_pieces: int = 900
    encoder_lr: float = 1e-5
    head_lr: float = 5e-5
    warm_up: float = 0.1
    weight_decay: float = 0.01
    layer_decay: float = 1.0
    positive_weight: float = 1.0
    focal: float = 0.0
    smoothing: float = 0.0
    clip_norm: float = 1.0
    average: float = 0.0


@dataclass(frozen=True, slots=True)
class Teaching:
    """A larger model whose scores a run learns from, beside the rows (`teacher`).

    Attributes:
        checkpoint: Its folder; "" for none.
        share: Of its score in each target.
    """

    checkpoint: str = ""
    share: float = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole run.

    Attributes:
        directory: Where checkpoints and logs go.
        encoder: Pretrained encoder to start from; "" with `start`.
        start: Checkpoint to start from instead.
        model: Fields of `ModelConfig`; none with `start`.
        data: Rows.
        sampling: Rows to examples.
        optimization: The optimiser.
        teacher: A larger model to learn from.
        seed: Of everything drawn.
        device: "cpu", "cuda", or "auto".
        precision: "auto" is fp32 on the CPU and bf16 on CUDA.
        threads: PyTorch's threads; 0 for its default.
        save_every: Steps between checkpoints to resume from.
        dev_every: Steps between measurements on dev.
        patience: Measurements in a row without a better F1 after which the run ends; 0 for never.
    """

    directory: Path
    data: Data
    encoder: str = ""
    start: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    optimization: Optimization = field(default_factory=Optimization)
    teacher: Teaching = field(default_factory=Teaching)
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    save_every: int = 500
    dev_every: int = 2000
    patience: int = 0

    def __post_init__(self) -> None:
        if bool(self.encoder) == bool(self.start):
            raise InputError("give either `encoder` (a new model) or `start` (a checkpoint)")
        if self.start and self.model:
            raise InputError("`start` has a model already, so [model] must be left out")
        if self.precision not in _PRECISIONS:
            raise InputError(
                f"precision is {self.precision!r}, expected {', '.join(_PRECISIONS[:-1])} or "
                f"{_PRECISIONS[-1]}"
            )
        if self.patience and not self.data.dev:
            raise InputError("patience waits for F1 on dev: give `dev` in [data], or leave it out")
        if self.teacher.checkpoint and self.optimization.focal > 0:
            raise InputError("a teacher's targets lie between 0 and 1, so focal must be 0 with it")
        if not _DEVICE.fullmatch(self.device):
            raise InputError(f"device is {self.device!r}, expected auto, cpu, cuda or cuda:NUMBER")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is chosen for a run; the rest follows from the rows.

    Attributes:
        start: Checkpoint to start from; "" for the default model's, in a checkout.
        epochs: Passes over the rows, at least 0.01, counted in pieces, since rows are drawn at
            random.
        encoder_lr: Peak learning rate of the encoder.
        head_lr: Peak learning rate of everything else.
        batch_pieces: Pieces of text in a step; small, so that few rows give many steps.
        patience: As in `Settings`, of about ten measurements; 0 for never.
        seed: Of everything drawn.
        threads: PyTorch's; 0 for its default.
    """

    start: str = ""
    epochs: float = 10.0
    encoder_lr: float = 5e-5
    head_lr: float = 5e-4
    batch_pieces: int = 450
    patience: int = 3
    seed: int = 0
    threads: int = 0


_TABLES = {"data": Data, "sampling": Sampling, "optimization": Optimization, "teacher": Teaching}


def read_settings(path: Path | str) -> Settings:
    """Read a run's TOML file; its relative paths start at the current directory.

    Raises:
        InputError: No such file, no TOML, a key unknown or missing, or a value of another type or
            out of bounds.
    """
    return make_settings(read_toml(path), Path(path))


def make_settings(raw: Mapping[str, Any], path: Path) -> Settings:
    """Make the settings of a run's table, which is that of its file at `path`.

    Raises:
        InputError: As in `read_settings`.
    """
    raw = dict(raw)
    run, model = _pop_table(raw, "run", path), _pop_table(raw, "model", path)
    with _located(f"{path}: [model]"):
        _check_model(model)
    tables: dict[str, Any] = {"model": model}
    for name, kind in _TABLES.items():
        table = _pop_table(raw, name, path)
        with _located(f"{path}: [{name}]"):
            tables[name] = build(kind, table, BOUNDS)
    if raw:
        raise InputError(f"{path}: unknown table {', '.join(sorted(raw))}")
    run.setdefault("directory", Path("runs") / path.stem)
    with _located(f"{path}: [run]"):
        return build(Settings, {**run, **tables}, BOUNDS)


def read_toml(path: Path | str) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        InputError: No such file, or no TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such run file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a readable TOML file ({error})") from error


def _pop_table(raw: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    table = raw.pop(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: {name} is {table!r}, expected a table [{name}]")
    return dict(table)


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Say in errors where they come from."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_model(values: Mapping[str, Any]) -> None:
    """Check the table that `checkpoint.start_model` makes a model of."""
    known = {item.name for item in fields(ModelConfig)} - _FROM_ENCODER | {_ENCODER_DROPOUT}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise InputError(f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    heads = {key: value for key, value in values.items() if key != _ENCODER_DROPOUT}
    ModelConfig(model_name="", encoder={}, **heads)
    dropout = values.get(_ENCODER_DROPOUT, 0.0)
    if not is_threshold(dropout):
        raise InputError(f"{_ENCODER_DROPOUT} is {dropout!r}, expected a number from 0 to 1")
