"""Texts and labels to logits, for one text or many; each step is a file of its own.

text -words-> Word[] -prompt-> Prompt -batch-> tensors -graph or cached-> logits

Axis letters: L words, K max width, C labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nerlet.arguments import LabelSet, Task, read_count
from nerlet.batch import make_batch
from nerlet.bundle import Bundle
from nerlet.cached import CachedGraph, LabelPieces
from nerlet.graph import Graph
from nerlet.prompt import PieceEncoder, Prompt, build_prompt, warn_of_lost_words
from nerlet.schedule import run_in_groups, run_in_order
from nerlet.words import Word, word_shape

Source = TypeVar("Source", str, list[str])
Split = Callable[[Source], Sequence[Word]]
Logits = NDArray[np.float32]
_LABEL_SETS = 64  # whose pieces are kept between calls
_BATCH_SIZE = 8


@dataclass(frozen=True, slots=True)
class Scored:
    """One text after the graph.

    Attributes:
        words: Of the text.
        kept_words: Indices of the L words that the graph saw.
        lost_words: How many were cut from the end.
        logits: (L, K, C).
    """

    words: Sequence[Word]
    kept_words: NDArray[np.int64]
    lost_words: int
    logits: Logits


@dataclass(frozen=True, slots=True)
class _Worded(Generic[Source]):
    """One text before the graph."""

    source: Source
    task: Task
    words: Sequence[Word]


class Scorer:
    """A bundle and its open graph; its methods may be called from several threads at once.

    Attributes:
        graph: Whole or in two parts.
    """

    def __init__(self, bundle: Bundle, graph: Graph | CachedGraph) -> None:
        """Join the two.

        Args:
            bundle: The model directory.
            graph: Its graph.
        """
        self._bundle = bundle
        self.graph = graph
        self._encoder = PieceEncoder(bundle.tokenizer, bundle.ent.id, bundle.sep.id)
        self.encode_labels = lru_cache(_LABEL_SETS)(self._encode_labels)

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu", "cuda", or the name of another provider."""
        return self.graph.sessions.device

    def _encode_labels(self, labels: LabelSet) -> LabelPieces:
        """Return the pieces of each label.

        Raises:
            InputError: As in `PieceEncoder.encode_labels`.
        """
        bundle = self._bundle
        pieces = self._encoder.encode_labels(
            labels.prompts, bundle.max_positions, is_isolated=bundle.is_isolated
        )
        return tuple(map(tuple, pieces))

    def score_all(
        self,
        sources: Sequence[Source],
        split: Split[Source],
        tasks: Sequence[Task],
        batch_size: int | None,
    ) -> Iterator[tuple[Source, Task, Scored | None]]:
        """Score texts that are all there; labels are checked first, and of cuts it warns last.

        Args:
            sources: Texts, or sentences of given words.
            split: Finds the words, on the caller's thread.
            tasks: What to find in each.
            batch_size: Texts in one run on another device than the CPU; None: 8.

        Returns:
            Each source with its task and logits in order, None for an empty one.

        Raises:
            InputError: A label or the size cannot be used.
        """
        size = read_count("batch_size", batch_size, default=_BATCH_SIZE)
        label_sets = dict.fromkeys(task.labels for task in tasks)
        pieces = {own: self.encode_labels(own) for own in label_sets}
        # Few texts run one after the other, each on all threads.
        all_threads = self.graph.sessions.threads
        threads = all_threads if 2 * len(sources) >= all_threads else 1
        threads = min(threads, max(len(sources), 1))
        lost_words = []
        pairs = zip(sources, tasks, strict=True)
        for source, task, scored in self._score(pairs, split, pieces, threads, size):
            lost_words.append(scored.lost_words if scored else 0)
            yield source, task, scored
        self._warn_of_lost_words(lost_words)

    def stream(
        self,
        sources: Iterable[Source],
        split: Split[Source],
        task: Task,
        batch_size: int | None,
    ) -> Iterator[tuple[Source, Scored | None]]:
        """Score texts one after the other, from an iterable that may be endless.

        Args:
            sources: As in `score_all`, and so are the others.
            split: Finds the words.
            task: What to find in all of them.
            batch_size: Texts in one run.

        Returns:
            Each source with its logits; it warns of each text that is cut.

        Raises:
            InputError: As in `score_all`; at the call, before any text is read.
        """
        size = read_count("batch_size", batch_size, default=_BATCH_SIZE)
        pieces = {task.labels: self.encode_labels(task.labels)}
        pairs = ((source, task) for source in sources)
        done = self._score(pairs, split, pieces, self.graph.sessions.threads, size)

        def score() -> Iterator[tuple[Source, Scored | None]]:
            for source, _, scored in done:
                if scored is not None:
                    self._warn_of_lost_words([scored.lost_words])
                yield source, scored

        return score()

    def _score(
        self,
        pairs: Iterable[tuple[Source, Task]],
        split: Split[Source],
        pieces: Mapping[LabelSet, LabelPieces],
        threads: int,
        size: int,
    ) -> Iterator[tuple[Source, Task, Scored | None]]:
        """Score each source in order; on a CPU `threads` at once, of more than one each on one."""

        def score(group: Sequence[_Worded[Source]]) -> list[Scored | None]:
            texts = [(item.words, pieces[item.task.labels]) for item in group]
            return self._score_group(texts, one_thread=threads > 1)

        items = (_Worded(source, task, split(source)) for source, task in pairs)
        done: Iterator[tuple[_Worded[Source], Scored | None]]
        if self.device == "cpu":
            done = run_in_order(lambda item: (item, score([item])[0]), items, threads)
        else:
            done = run_in_groups(
                lambda group: list(zip(group, score(group), strict=True)),
                items,
                size,
                lambda item: len(item.words),
            )
        for item, scored in done:
            yield item.source, item.task, scored

    def _score_group(
        self, texts: Sequence[tuple[Sequence[Word], LabelPieces]], *, one_thread: bool
    ) -> list[Scored | None]:
        """Score texts with their labels in one run, None for those without a word."""
        scored: list[Scored | None] = [None] * len(texts)
        filled = [place for place, (words, _) in enumerate(texts) if words]
        if isinstance(self.graph, CachedGraph):
            prompts = [self._build_prompt(texts[place][0], ()) for place in filled]
            labels = [texts[place][1] for place in filled]
            all_logits = [
                self.graph.run(prompt, own, one_thread=one_thread)
                if len(prompt.kept_words)
                else _no_logits(len(own))
                for prompt, own in zip(prompts, labels, strict=True)
            ]
        else:
            prompts = [self._build_prompt(*texts[place]) for place in filled]
            all_logits = self._run_whole(self.graph, prompts, one_thread=one_thread)
        for place, prompt, logits in zip(filled, prompts, all_logits, strict=True):
            words = texts[place][0]
            scored[place] = Scored(words, prompt.kept_words, prompt.lost_words, logits)
        return scored

    def _run_whole(
        self, graph: Graph, prompts: Sequence[Prompt], *, one_thread: bool
    ) -> list[Logits]:
        """Return the logits of each prompt, (L, K, C), without padding."""
        worded = [prompt for prompt in prompts if len(prompt.kept_words)]
        logits: Iterator[Logits] = iter(())
        if worded:
            max_width, shapes = self._bundle.max_width, graph.has_word_shapes
            feeds = make_batch(worded, max_width, word_shapes=shapes)
            count = max(prompt.label_count for prompt in worded)
            logits = iter(graph.run(feeds, count, one_thread=one_thread))
        return [
            next(logits)[: len(prompt.kept_words), :, : prompt.label_count]
            if len(prompt.kept_words)
            else _no_logits(prompt.label_count)
            for prompt in prompts
        ]

    def _build_prompt(self, words: Sequence[Word], label_pieces: LabelPieces) -> Prompt:
        max_len, max_positions = self._bundle.max_len, self._bundle.max_positions
        texts = [word.text for word in words]
        pieces = self._encoder.encode_first_words(texts, max_len, max_positions)
        read = texts[: len(pieces)]
        return build_prompt(
            self._encoder,
            label_pieces,
            pieces,
            max_len=max_len,
            max_positions=max_positions,
            word_shapes=list(map(word_shape, read)) if self.graph.has_word_shapes else None,
            word_count=len(texts),
            is_isolated=self._bundle.is_isolated,
        )

    def _warn_of_lost_words(self, counts: Sequence[int]) -> None:
        limits = (self._bundle.max_len, self._bundle.max_positions)
        warn_of_lost_words(counts, *limits, is_isolated=self._bundle.is_isolated)


def _no_logits(labels: int) -> Logits:
    """Of a text that has no word which the model reads."""
    return np.zeros((0, 1, labels), dtype=np.float32)
