"""Is the bundle as good as PyTorch? F1, agreement and drift of scores on labelled texts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nerlet
from nerlet.decode import Span
from nerlet.errors import GraphError
from nerlet.evaluate import Counts, Predict, average_f1, count_matches, evaluate
from nerlet.examples import list_datasets, read_dataset
from nerlet_export.checkpoint import Checkpoint
from nerlet_export.predict import SentencePredictor, TorchPredictor

logger = logging.getLogger(__name__)

MAX_F1_LOSS = 0.5  # points of average F1 that a bundle may lose against PyTorch
_FLOAT_REMEDY = "its weights are PyTorch's own, so this is a fault of nerlet: please report it"

Place = tuple[int, int, int, int]  # sentence, start, end, label


@dataclass(frozen=True, slots=True)
class DataReport:
    """A bundle against the PyTorch model it was made from, on labelled texts.

    Attributes:
        data: Name of the folder or file.
        sentences: How many were read.
        threshold: Where spans were kept.
        torch_f1: Average F1 of PyTorch, in percent.
        bundle_f1: Average F1 of the bundle, in percent.
        entity_agreement: F1 of the bundle's spans, PyTorch's taken as truth, in [0, 1].
        entities: Spans that PyTorch keeps.
        mean_score_drift: Mean absolute difference of a score, over the spans that both keep.
        max_score_drift: Largest one.
    """

    data: str
    sentences: int
    threshold: float
    torch_f1: float
    bundle_f1: float
    entity_agreement: float
    entities: int
    mean_score_drift: float
    max_score_drift: float


def compare_on_data(
    checkpoint: Checkpoint, bundle: Path, data: Path, *, threshold: float
) -> DataReport:
    """Run a bundle and its PyTorch model over labelled texts.

    Logs a warning where PyTorch finds nothing right, so that nothing can be lost.

    Raises:
        GraphError: The bundle loses more than `MAX_F1_LOSS` points of average F1.
    """
    is_span = checkpoint.model.config.architecture == "span"
    predictor = TorchPredictor if is_span else SentencePredictor
    exact = _Recorder(predictor(checkpoint, threshold=threshold))
    model = nerlet.load(bundle)
    rough = _Recorder(
        lambda words, labels: model.predict_words(words, list(labels), threshold=threshold)
    )
    datasets = [read_dataset(path) for path in list_datasets(data)]
    f1 = [
        100 * average_f1([evaluate(predict, dataset) for dataset in datasets])
        for predict in (exact, rough)
    ]
    both = exact.scores.keys() & rough.scores.keys()
    drift = [abs(exact.scores[place] - rough.scores[place]) for place in both] or [0.0]
    counts = count_matches(exact.scores, rough.scores)
    report = DataReport(
        data=data.name,
        sentences=sum(len(dataset.examples) for dataset in datasets),
        threshold=threshold,
        torch_f1=f1[0],
        bundle_f1=f1[1],
        entity_agreement=agreement(counts),
        entities=counts.annotated,
        mean_score_drift=sum(drift) / len(drift),
        max_score_drift=max(drift),
    )
    if report.torch_f1 == 0:
        logger.warning(
            "on %s: PyTorch's own average F1 is 0 at threshold %g, so this says nothing of the "
            "bundle; give other data or another threshold",
            data,
            threshold,
        )
    if report.torch_f1 - report.bundle_f1 > MAX_F1_LOSS:
        is_int8 = model.bundle.manifest is not None and model.bundle.manifest.precision == "int8"
        raise GraphError(
            f"the bundle's average F1 on {data} is {report.bundle_f1:.2f}, PyTorch's "
            f"{report.torch_f1:.2f}: more than {MAX_F1_LOSS} points lost, nothing is written; "
            + ("convert with --precision fp32" if is_int8 else _FLOAT_REMEDY)
        )
    return report


def agreement(counts: Counts) -> float:
    """F1 of one model's spans against another's: 1 where neither finds any."""
    return counts.f1 if counts.found + counts.annotated else 1.0


class _Recorder:
    """A predictor that remembers the score of every span that it found."""

    def __init__(self, predict: Predict) -> None:
        self.scores: dict[Place, float] = {}
        self._predict = predict
        self._sentences = 0

    def __call__(
        self, sentences: Sequence[Sequence[str]], labels: Sequence[str]
    ) -> list[list[Span]]:
        found = [list(spans) for spans in self._predict(sentences, labels)]
        for spans in found:
            for span in spans:
                self.scores[self._sentences, span.start, span.end, span.label] = span.score
            self._sentences += 1
        return found
