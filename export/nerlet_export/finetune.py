"""Settings of a short run on one's own rows: a few epochs from a checkpoint, ended by dev."""

import json
import logging
import math
from dataclasses import asdict, replace
from pathlib import Path

from nerlet.errors import InputError
from nerlet_export.checkpoint import load_checkpoint
from nerlet_export.sampling import Sampling
from nerlet_export.settings import BOUNDS, Data, Optimization, Settings, Tuning
from nerlet_export.train import DEV_LOG_NAME, load_corpus, train
from nerlet_export.typed import check_values

logger = logging.getLogger(__name__)

_MEASUREMENTS = 10  # on dev, over a run that is not ended early; one more comes before it
# The default model's checkpoint, which a checkout has and an installed package has not: looked up
# where the command runs, then in the checkout that this file is in.
_DEFAULT_START = Path("models") / "small-checkpoint"
_CHECKOUT = Path(__file__).resolve().parents[2]
_BOUNDS = {
    **BOUNDS,
    "epochs": (0.01, math.inf),
    **dict.fromkeys(("encoder_lr", "head_lr"), (1e-9, math.inf)),
}


def finetune(
    rows: str, dev: str, directory: Path | str, *, tuning: Tuning, resume: bool = False
) -> Path:
    """Train a checkpoint further on rows of any licence; the result is that which is best on dev.

    That may be the start itself; F1 before and after is logged.

    Args:
        rows: File to train on. Rows that do not say which absent types are certain are taken as
            "closed": every type of the file is labelled wherever it occurs.
        dev: Labelled file, or folder of them, that the model is not trained on; of each file, the
            first 1000 rows.
        directory: Of the run.
        tuning: What is chosen.
        resume: Go on from the run's last state.

    Returns:
        The folder of the best checkpoint.

    Raises:
        InputError: As in `train`, a choice is out of its bounds, or there is no default to start
            from.
        BundleError: The checkpoint cannot be read.
    """
    check_values(Tuning, asdict(tuning), _BOUNDS)
    settings = plan(rows, dev, Path(directory), tuning)
    logger.info(
        "%s: up to %d steps, dev every %d",
        settings.directory,
        settings.optimization.steps,
        settings.dev_every,
    )
    train(settings, resume=resume)
    logger.info("F1 on dev: %s", _sum_up(settings.directory / DEV_LOG_NAME))
    return settings.directory / "best"


def plan(rows: str, dev: str, directory: Path, tuning: Tuning) -> Settings:
    """Settings of a run, its steps counted from the pieces of its rows."""
    start = tuning.start or find_default_start()
    settings = Settings(
        directory=directory,
        start=start,
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
    corpus = load_corpus(settings, load_checkpoint(start))
    pieces = sum(len(word) for own in corpus.rows.values() for row in own for word in row.words)
    steps = max(1, math.ceil(tuning.epochs * pieces / tuning.batch_pieces))
    every = math.ceil(steps / _MEASUREMENTS)
    optimization = replace(settings.optimization, steps=steps)
    return replace(settings, optimization=optimization, dev_every=every, save_every=every)


def find_default_start() -> str:
    """The folder of the default model's checkpoint.

    Raises:
        InputError: It is in neither place.
    """
    for place in (_DEFAULT_START, _CHECKOUT / _DEFAULT_START):
        if place.is_dir():
            return str(place)
    raise InputError(
        f"{_DEFAULT_START}: expected the default model's checkpoint here or in {_CHECKOUT}, found "
        "nothing; run in a checkout of nerlet, or give a folder with a checkpoint by --start"
    )


def _sum_up(log: Path) -> str:
    """F1 before a run and of its best checkpoint, from its lines since the last start."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    begin = max((i for i, line in enumerate(lines) if line["step"] == 0), default=0)
    first, *later = lines[begin:]
    best = max([first, *later], key=lambda line: float(line["f1"]))
    before = f"{first['f1']} before (step {first['step']})"
    if best is first:
        return f"{before}, not better in {len(later)} measurements since"
    return f"{before}, {best['f1']} after (step {best['step']})"
