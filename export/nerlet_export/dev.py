"""F1 on dev during a run: which checkpoint is best, and at which threshold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nerlet.evaluate import average_f1, judge, mean_f1_by_threshold
from nerlet.examples import Dataset, list_datasets, read_dataset
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.precision import autocast
from nerlet_export.predict import TorchPredictor
from nerlet_export.settings import Settings

_THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(2, 19))


@dataclass(frozen=True, slots=True)
class Dev:
    """F1 on dev: the best threshold, the mean over files there and at 0.5, and each file's."""

    threshold: float
    f1: float
    f1_at_half: float
    by_file: dict[str, float]

    def percentages(self) -> dict[str, float]:
        """F1 of each file in percent, two digits, as cards have it."""
        return {name: round(100 * f1, 2) for name, f1 in self.by_file.items()}


def read_dev(settings: Settings) -> list[Dataset]:
    """Read the run's dev files; none where it has none.

    Rows that do not say which absent types are certain are prompted as those to train on.

    Raises:
        InputError: As in `nerlet.examples`.
    """
    if not settings.data.dev:
        return []
    paths = list_datasets(settings.data.dev)
    sets = (read_dataset(path, negatives=settings.data.negatives) for path in paths)
    return [dataset.first(settings.data.dev_sentences) for dataset in sets]


def measure(checkpoint: Checkpoint, datasets: Iterable[Dataset], *, precision: str) -> Dev:
    """Measure F1 on dev files at every threshold of a grid.

    Args:
        checkpoint: The model, on any device.
        datasets: As `read_dev` reads them.
        precision: As in `Settings`.
    """
    device = next(checkpoint.model.eval().parameters()).device
    predict = TorchPredictor(checkpoint, threshold=_THRESHOLDS[0])
    with autocast(precision, device):
        judgements = [judge(predict, dataset) for dataset in datasets]
    curve = mean_f1_by_threshold(judgements, _THRESHOLDS)
    best = int(np.argmax(curve))
    at_best = [judgement.scores(_THRESHOLDS[best]) for judgement in judgements]
    return Dev(
        threshold=_THRESHOLDS[best],
        f1=average_f1(at_best),
        f1_at_half=mean_f1_by_threshold(judgements, [0.5])[0],
        by_file={scores.name: scores.total.f1 for scores in at_best},
    )
