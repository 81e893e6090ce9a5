"""One TOML file describes a training run; unknown keys are errors."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from nerlet.errors import InputError
from nerlet_export.sampling import Sampling

_Kind = TypeVar("_Kind")

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Data:
    """Where rows come from; `train` and `dev` are found by `nerlet.examples.find_data`.

    Attributes:
        train: JSON lines in the training format, perhaps gzipped.
        mixture: Weight of each source; empty for every row alike.
        derive_dates: Whether to make the sources "dates" and "dates-none" out of the others.
        licenses: Licence classes of rows that may be used; "" for rows that name none.
        negatives: Which absent types are certain in rows that do not say (`corpus`): "closed" for
            your own rows, where every type of the file is always labelled.
        dev: Folder of labelled files, F1 on which chooses checkpoint and threshold; "" for none.
        dev_sentences: Sentences read of each dev file, in the order of the file.
    """

    train: str
    mixture: Mapping[str, float] = field(default_factory=dict)
    derive_dates: bool = False
    licenses: tuple[str, ...] = ("permissive",)
    negatives: str = "explicit"
    dev: str = ""
    dev_sentences: int = 100


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
        positive_weight: Factor on the loss of entity cells.
        clip_norm: Largest norm of a step's gradient; 0 for no limit.
    """

    steps: int = 30_000
    batch_pieces: int = 900
    encoder_lr: float = 1e-5
    head_lr: float = 5e-5
    warm_up: float = 0.1
    weight_decay: float = 0.01
    positive_weight: float = 1.0
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole run.

    Attributes:
        directory: Where checkpoints and logs go.
        encoder: Pretrained encoder to start from; "" with `start`.
        start: Checkpoint to start from instead.
        model: Fields of `ModelConfig`.
        data: Rows.
        sampling: Rows to examples.
        optimization: The optimiser.
        seed: Of everything drawn.
        device: "cpu", "cuda", or "auto".
        precision: "auto" is fp32 on the CPU and bf16 on CUDA.
        threads: PyTorch's threads; 0 for its default.
        save_every: Steps between checkpoints to resume from.
        dev_every: Steps between measurements on dev.
    """

    directory: Path
    data: Data
    encoder: str = ""
    start: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    optimization: Optimization = field(default_factory=Optimization)
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    threads: int = 0
    save_every: int = 500
    dev_every: int = 2000

    def __post_init__(self) -> None:
        if bool(self.encoder) == bool(self.start):
            raise InputError("run: give either `encoder` (a new model) or `start` (a checkpoint)")
        if self.precision not in PRECISIONS:
            raise InputError(f"run: precision is {self.precision!r}, expected one of {PRECISIONS}")


def read_settings(path: Path | str) -> Settings:
    """Read a run's TOML file; its relative paths start at the current directory.

    Raises:
        InputError: No such file, no TOML, an unknown key, or a missing one.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such run file") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML ({error})") from error
    run = dict(raw.pop("run", {}))
    data = dict(raw.pop("data", {}))
    if "licenses" in data:
        data["licenses"] = tuple(data["licenses"])
    parts = {
        "data": _build(Data, data, f"{path}: [data]"),
        "sampling": _build(Sampling, raw.pop("sampling", {}), f"{path}: [sampling]"),
        "optimization": _build(
            Optimization, raw.pop("optimization", {}), f"{path}: [optimization]"
        ),
        "model": raw.pop("model", {}),
    }
    if raw:
        raise InputError(f"{path}: unknown table {', '.join(sorted(raw))}")
    run["directory"] = Path(run.get("directory", Path("runs") / path.stem))
    return _build(Settings, {**run, **parts}, f"{path}: [run]")


def _build(kind: type[_Kind], values: Mapping[str, Any], where: str) -> _Kind:
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]  # dataclasses only
    unknown = sorted(values.keys() - known)
    if unknown:
        raise InputError(
            f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error
