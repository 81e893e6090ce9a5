"""F1 on dev during a run: which checkpoint is best, and at which threshold."""

from dataclasses import dataclass

import numpy as np

from nerlet.evaluate import average_f1, judge, list_datasets, mean_f1_by_threshold, read_dataset
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


def measure(checkpoint: Checkpoint, settings: Settings) -> Dev:
    """Measure F1 on the run's dev files at every threshold of a grid."""
    device = next(checkpoint.model.eval().parameters()).device
    predict = TorchPredictor(checkpoint, threshold=_THRESHOLDS[0])
    judgements = []
    for path in list_datasets(settings.data.dev):
        dataset = read_dataset(path).first(settings.data.dev_sentences)
        with autocast(settings.precision, device):
            judgements.append(judge(predict, dataset))
    curve = mean_f1_by_threshold(judgements, _THRESHOLDS)
    best = int(np.argmax(curve))
    at_best = [judgement.scores(_THRESHOLDS[best]) for judgement in judgements]
    return Dev(
        threshold=_THRESHOLDS[best],
        f1=average_f1(at_best),
        f1_at_half=mean_f1_by_threshold(judgements, [0.5])[0],
        by_file={scores.name: scores.total.f1 for scores in at_best},
    )
