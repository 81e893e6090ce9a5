"""Measure found spans against annotated ones: exact match of span and type, torch-free.

Counts add up within a file (micro average); over files the plain mean of their F1 is taken.
The predictor is any function from sentences of words and labels to spans, so the command line,
the exporter's checks and the training loop all measure the same way.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from nerlet.decode import Span
from nerlet.errors import InputError
from nerlet.examples import Dataset, Example, list_datasets, read_dataset

__all__ = [
    "Counts",
    "Dataset",
    "Example",
    "Judgement",
    "Predict",
    "Scores",
    "average_f1",
    "check_prompts",
    "count_matches",
    "evaluate",
    "judge",
    "list_datasets",
    "mean_f1_by_threshold",
    "read_dataset",
]

Predict = Callable[[Sequence[Sequence[str]], Sequence[str]], Sequence[Sequence[Span]]]
"""(sentences of words, labels) -> for each sentence its spans, whose `label` indexes the labels."""

# Sentences in one call of the predictor: enough to sort by length, few enough to show progress.
_CALL_SENTENCES = 64


@dataclass(frozen=True, slots=True)
class Counts:
    """How many spans were right, found and there; 0 stands for a ratio that is not defined."""

    correct: int = 0
    found: int = 0
    annotated: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.correct + other.correct,
            self.found + other.found,
            self.annotated + other.annotated,
        )

    @property
    def precision(self) -> float:
        """Share of the found spans that are right, in [0, 1]."""
        return self.correct / self.found if self.found else 0.0

    @property
    def recall(self) -> float:
        """Share of the annotated spans that were found, in [0, 1]."""
        return self.correct / self.annotated if self.annotated else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in [0, 1]."""
        total = self.found + self.annotated
        return 2 * self.correct / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Scores:
    """What a predictor reached on one dataset.

    Attributes:
        name: The dataset's.
        sentences: How many were read.
        total: Counts over all types.
        by_label: Counts of each type, in the order of the dataset's labels.
    """

    name: str
    sentences: int
    total: Counts
    by_label: dict[str, Counts]


@dataclass(frozen=True, slots=True)
class Judgement:
    """Every span that a predictor found in one dataset, right or wrong, with its score.

    What is found at a higher threshold is what was found at a lower one without the spans below
    it (flat and nested alike), so one pass at a low threshold holds the result at any above it.

    Attributes:
        name: The dataset's.
        sentences: How many were read.
        labels: The dataset's labels, C of them.
        annotated: How many spans of each type were there, (C,).
        label: Index into `labels` of each found span, (N,).
        score: Score of each found span, (N,).
        is_correct: Whether the span is annotated with that type, (N,).
    """

    name: str
    sentences: int
    labels: tuple[str, ...]
    annotated: NDArray[np.int64]
    label: NDArray[np.int64]
    score: NDArray[np.float32]
    is_correct: NDArray[np.bool_]

    def scores(self, threshold: float = 0.0) -> Scores:
        """Counts of the spans that score above a threshold not below that of the pass."""
        passed = self.score > np.float32(threshold)
        size = len(self.labels)
        found = np.bincount(self.label[passed], minlength=size).tolist()
        correct = np.bincount(self.label[passed & self.is_correct], minlength=size).tolist()
        counts = [Counts(*n) for n in zip(correct, found, self.annotated.tolist(), strict=True)]
        by_label = dict(zip(self.labels, counts, strict=True))
        return Scores(self.name, self.sentences, sum(counts, Counts()), by_label)


def count_matches(annotated: Iterable[Hashable], found: Iterable[Hashable]) -> Counts:
    """Compare two collections of spans, each span counting once however often it is listed.

    Args:
        annotated: What is there, such as (start, end, type).
        found: What was found, in the same form.
    """
    there, got = set(annotated), set(found)
    return Counts(len(there & got), len(got), len(there))


def check_prompts(predict: Predict, dataset: Dataset, where: object) -> None:
    """Ask about no words with each set of labels, so that a bad one is told before the rest runs.

    Args:
        predict: Raises InputError for labels that it cannot be asked about.
        dataset: What is to be read.
        where: Its file, for the message.

    Raises:
        InputError: The predictor refuses the labels of a text; names the file.
    """
    for labels in dict.fromkeys(example.labels for example in dataset.examples):
        try:
            if labels:
                predict([()], labels)
        except InputError as error:
            raise InputError(
                f"{where}: a text is asked for {len(labels)} types at once, which the model "
                f"refuses: {error}; spread the file's types over several files"
            ) from error


def judge(
    predict: Predict, dataset: Dataset, *, on_done: Callable[[int], object] | None = None
) -> Judgement:
    """Run a predictor over a dataset and say of each span that it finds whether it is right.

    Args:
        predict: Called with runs of neighbouring sentences that have the same labels. Words
            are given as the file has them.
        dataset: What to read. Sentences without labels are not asked about.
        on_done: Called with the number of sentences after each run.

    Returns:
        The spans with their scores; each (span, type) of a sentence once.
    """
    columns = {name: i for i, name in enumerate(dataset.labels)}
    annotated = np.zeros(len(columns), dtype=np.int64)
    label: list[int] = []
    score: list[float] = []
    is_correct: list[bool] = []
    for examples in split_runs(dataset.examples):
        labels = examples[0].labels
        sentences = [example.words for example in examples]
        spans = predict(sentences, labels) if labels else [()] * len(examples)
        for example, own in zip(examples, spans, strict=True):
            for _, _, name in example.entities:
                annotated[columns[name]] += 1
            for found, best in _best_scores(own, example).items():
                label.append(columns[found[2]])
                score.append(best)
                is_correct.append(found in example.entities)
        if on_done is not None:
            on_done(len(examples))
    return Judgement(
        dataset.name,
        len(dataset.examples),
        dataset.labels,
        annotated,
        np.array(label, dtype=np.int64),
        np.array(score, dtype=np.float32),
        np.array(is_correct, dtype=np.bool_),
    )


def evaluate(
    predict: Predict, dataset: Dataset, *, on_done: Callable[[int], object] | None = None
) -> Scores:
    """Precision, recall and F1 of a predictor on a dataset; arguments as `judge` has them."""
    return judge(predict, dataset, on_done=on_done).scores()


def average_f1(scores: Sequence[Scores]) -> float:
    """Plain mean of the F1 of several datasets, in [0, 1]; 0 of none."""
    return sum(each.total.f1 for each in scores) / len(scores) if scores else 0.0


def mean_f1_by_threshold(
    judgements: Sequence[Judgement], thresholds: Sequence[float]
) -> list[float]:
    """`average_f1` of several datasets at each threshold, from one pass over each.

    Args:
        judgements: Made at a threshold not above the lowest of `thresholds`.
        thresholds: In [0, 1].
    """
    return [
        average_f1([judgement.scores(threshold) for judgement in judgements])
        for threshold in thresholds
    ]


def split_runs(examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Neighbours with the same labels, at most `_CALL_SENTENCES` at a time."""
    for _, group in groupby(examples, key=attrgetter("labels")):
        same = list(group)
        for start in range(0, len(same), _CALL_SENTENCES):
            yield same[start : start + _CALL_SENTENCES]


def _best_scores(spans: Sequence[Span], example: Example) -> dict[tuple[int, int, str], float]:
    """The best score of each (span, type) that can be judged."""
    best: dict[tuple[int, int, str], float] = {}
    for span in spans:
        key = (span.start, span.end, example.labels[span.label])
        if example.judged is None or key[:2] in example.judged:
            best[key] = max(span.score, best.get(key, 0.0))
    return best
