"""Labelled texts with all of their candidates, scored once so that decode can be tried often.

Place in the flow: scores -> Candidates -> *ScoredTexts* -> decode, for many texts at once.
Axis letters: T texts, N candidates, E annotated entities, C labels, F files.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nerlet.arguments import OwnThresholds
from nerlet.decode import Candidates, select_places
from nerlet.evaluate import split_runs
from nerlet.examples import Dataset, Example

ScoreWords = Callable[[Sequence[Sequence[str]], Sequence[str]], Sequence[Candidates]]
"""(sentences of words, labels) -> for each sentence its candidates."""


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """Labelled texts and their candidates, in columns.

    The texts stand one behind another, words counted through, so that spans of different texts
    never meet and one decoding serves all.

    Attributes:
        files: Names, F of them.
        labels: Every label once, C of them.
        file: Index of each text's file, (T,).
        key: Hash of each text's words, (T,).
        candidates: `label` is the place among the labels that the own text was asked for, (N,).
        text: Index of each candidate's text, (N,).
        label: Index in `labels` of each candidate, (N,).
        is_correct: Whether the candidate is annotated, (N,).
        is_judged: Whether the annotator looked at the candidate's words, (N,).
        entity_text: Index of each entity's text, (E,).
        entity_label: Index in `labels` of each entity, (E,).
    """

    files: tuple[str, ...]
    labels: tuple[str, ...]
    file: NDArray[np.int64]
    key: NDArray[np.str_]
    candidates: Candidates
    text: NDArray[np.int64]
    label: NDArray[np.int64]
    is_correct: NDArray[np.bool_]
    is_judged: NDArray[np.bool_]
    entity_text: NDArray[np.int64]
    entity_label: NDArray[np.int64]

    def take(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "ScoredTexts":
        """The same with only the candidates at the given places, or where a mask is true."""
        return replace(
            self,
            candidates=self.candidates.take(chosen),
            text=self.text[chosen],
            label=self.label[chosen],
            is_correct=self.is_correct[chosen],
            is_judged=self.is_judged[chosen],
        )

    def only(self, texts: NDArray[np.bool_]) -> "ScoredTexts":
        """The same with only the candidates and entities of the texts where a mask is true."""
        entities = texts[self.entity_text]
        return replace(
            self.take(texts[self.text]),
            entity_text=self.entity_text[entities],
            entity_label=self.entity_label[entities],
        )

    def above(self, limits: NDArray[np.float32]) -> "ScoredTexts":
        """The same with only the candidates that score above their label's threshold, (C,)."""
        return self.take(self.candidates.score > limits[self.label])

    def decode(self) -> "ScoredTexts":
        """The same with only the candidates that are kept, and of these the judged ones."""
        places = select_places(self.candidates, nested=False, multi_label=False)
        return self.take(places[self.is_judged[places]])

    def limits(self, thresholds: OwnThresholds) -> NDArray[np.float32]:
        """The threshold of each label, (C,)."""
        return np.array([thresholds.of(label) for label in self.labels], dtype=np.float32)


def score_texts(
    score: ScoreWords,
    datasets: Sequence[Dataset],
    *,
    on_done: Callable[[int], object] | None = None,
) -> ScoredTexts:
    """Score every text once.

    Args:
        score: Called as `evaluate.judge` calls its predictor.
        datasets: What to read.
        on_done: Called with the number of sentences after each run.
    """
    labels = tuple(sorted({label for dataset in datasets for label in dataset.labels}))
    columns = {label: column for column, label in enumerate(labels)}
    rows = list(_score_each(score, datasets, on_done))
    examples = [example for _, example, _ in rows]
    own = [candidates for _, _, candidates in rows]
    text = np.repeat(np.arange(len(rows)), [len(each) for each in own])
    first_word = np.cumsum([0, *(len(example.words) for example in examples)])[text]
    label, is_correct, is_judged = _judge(examples, own, columns)
    entity_text, entity_label = _place_entities(examples, columns)
    return ScoredTexts(
        files=tuple(dataset.name for dataset in datasets),
        labels=labels,
        file=np.array([file for file, _, _ in rows], dtype=np.int64),
        key=np.array([_hash_words(example.words) for example in examples]),
        candidates=Candidates(
            np.concatenate([each.start for each in own]) + first_word,
            np.concatenate([each.end for each in own]) + first_word,
            np.concatenate([each.label for each in own]),
            np.concatenate([each.score for each in own]),
        ),
        text=text,
        label=label,
        is_correct=is_correct,
        is_judged=is_judged,
        entity_text=entity_text,
        entity_label=entity_label,
    )


def _score_each(
    score: ScoreWords,
    datasets: Sequence[Dataset],
    on_done: Callable[[int], object] | None,
) -> Iterator[tuple[int, Example, Candidates]]:
    """Each text with the index of its file and its candidates."""
    for file, dataset in enumerate(datasets):
        for examples in split_runs(dataset.examples):
            asked = examples[0].labels
            sentences = [example.words for example in examples]
            none = [Candidates.none()] * len(examples)
            for example, own in zip(
                examples, score(sentences, asked) if asked else none, strict=True
            ):
                yield file, example, own
            if on_done is not None:
                on_done(len(examples))


def _judge(
    examples: Sequence[Example], own: Sequence[Candidates], columns: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """The label of each candidate, whether it is correct, and whether it is judged; (N,) each."""
    label, is_correct, is_judged = [], [], []
    for example, candidates in zip(examples, own, strict=True):
        rows = (candidates.start.tolist(), candidates.end.tolist(), candidates.label.tolist())
        for start, end, place in zip(*rows, strict=True):
            name = example.labels[place]
            label.append(columns[name])
            is_correct.append((start, end, name) in example.entities)
            is_judged.append(example.judged is None or (start, end) in example.judged)
    return (
        np.array(label, dtype=np.int64),
        np.array(is_correct, dtype=np.bool_),
        np.array(is_judged, dtype=np.bool_),
    )


def _place_entities(
    examples: Sequence[Example], columns: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The text and the label of each annotated entity, (E,) each."""
    text = [place for place, example in enumerate(examples) for _ in example.entities]
    label = [columns[label] for example in examples for _, _, label in example.entities]
    return np.array(text, dtype=np.int64), np.array(label, dtype=np.int64)


def _hash_words(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()
