"""Settings of a short run on one's own rows: a few epochs from a checkpoint, ended by dev."""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

from nerlet.errors import InputError
from nerlet_export.checkpoint import load_checkpoint
from nerlet_export.sampling import Sampling
from nerlet_export.settings import Data, Optimization, Settings
from nerlet_export.train import load_corpus, train

logger = logging.getLogger(__name__)

_MEASUREMENTS = 10  # on dev, over a run that is not ended early


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is chosen for a run; the rest follows from the rows.

    Attributes:
        start: Checkpoint to start from.
        epochs: Passes over the rows, counted in pieces, since rows are drawn at random.
        encoder_lr: Peak learning rate of the encoder.
        head_lr: Peak learning rate of everything else.
        batch_pieces: Pieces of text in a step; small, so that few rows give many steps.
        patience: As in `Settings`, of about ten measurements; 0 for never.
        seed: Of everything drawn.
        threads: PyTorch's; 0 for its default.
    """

    start: str = "models/small-checkpoint"
    epochs: float = 10.0
    encoder_lr: float = 5e-5
    head_lr: float = 5e-4
    batch_pieces: int = 450
    patience: int = 3
    seed: int = 0
    threads: int = 0


def finetune(
    rows: str, dev: str, directory: Path | str, *, tuning: Tuning, resume: bool = False
) -> Path:
    """Train a checkpoint further on rows of any licence; the result is that which is best on dev.

    Args:
        rows: File to train on. Rows that do not say which absent types are certain are taken as
            "closed": every type of the file is labelled wherever it occurs.
        dev: Labelled file, or folder of them, that the model is not trained on.
        directory: Of the run.
        tuning: What is chosen.
        resume: Go on from the run's last state.

    Returns:
        The folder of the best checkpoint.

    Raises:
        InputError: As in `train`, or a choice is out of its bounds.
        BundleError: The checkpoint cannot be read.
    """
    _check(tuning)
    settings = plan(rows, dev, Path(directory), tuning)
    logger.info(
        "%s: up to %d steps, dev every %d",
        settings.directory,
        settings.optimization.steps,
        settings.dev_every,
    )
    train(settings, resume=resume)
    return settings.directory / "best"


def plan(rows: str, dev: str, directory: Path, tuning: Tuning) -> Settings:
    """Settings of a run, its steps counted from the pieces of its rows."""
    settings = Settings(
        directory=directory,
        start=tuning.start,
        data=Data(train=rows, dev=dev, licenses=("*",), negatives="closed", dev_sentences=1000),
        # Whole texts, as they will be read, and every type that is there.
        sampling=Sampling(crop_words=0, drop_type=0.0),
        optimization=Optimization(
            batch_pieces=tuning.batch_pieces,
            encoder_lr=tuning.encoder_lr,
            head_lr=tuning.head_lr,
        ),
        seed=tuning.seed,
        threads=tuning.threads,
        patience=tuning.patience,
    )
    corpus = load_corpus(settings, load_checkpoint(tuning.start))
    pieces = sum(len(word) for own in corpus.rows.values() for row in own for word in row.words)
    steps = max(1, math.ceil(tuning.epochs * pieces / tuning.batch_pieces))
    every = math.ceil(steps / _MEASUREMENTS)
    optimization = replace(settings.optimization, steps=steps)
    return replace(settings, optimization=optimization, dev_every=every, save_every=every)


def _check(tuning: Tuning) -> None:
    for name in ("epochs", "encoder_lr", "head_lr"):
        value = getattr(tuning, name)
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}, expected a number above 0")
    for name, least in (("batch_pieces", 1), ("patience", 0), ("seed", 0), ("threads", 0)):
        value = getattr(tuning, name)
        if value < least:
            raise InputError(f"{name} is {value}, expected at least {least}")
