"""Texts and labels to candidates, for one text or many; each step is a file of its own.

text -words-> Word[] -prompt-> Prompt -batch-> tensors -graph, cached or bi_graph-> Candidates

A graph's logits become candidates by `scores` or `token_scores`, as it has them, or on a GPU by
`selection`, in its memory.

Axis letters: L words, K max width, C labels.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nerlet.arguments import LabelSet, Task, read_count
from nerlet.batch import Tensor, bucket_length, make_batch
from nerlet.bi_graph import BiGraph
from nerlet.bundle import Bundle
from nerlet.cached import CachedGraph, LabelPieces
from nerlet.decode import Candidates
from nerlet.graph import THRESHOLDS, Graph, TokenGraph
from nerlet.prompt import PieceEncoder, Prompt, build_prompt, warn_of_lost_words
from nerlet.schedule import run_in_groups, run_in_order
from nerlet.selection import Selector
from nerlet.words import Word, word_shape

Source = TypeVar("Source", str, list[str])
Split = Callable[[Source], Sequence[Word]]
Logits = NDArray[np.float32]
AnyGraph = Graph | TokenGraph | CachedGraph | BiGraph
_LABEL_SETS = 64  # whose pieces are kept between calls
_BATCH_SIZE = 8
_MOST = np.array(1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """One text after the graph.

    Attributes:
        words: Of the text.
        kept_words: Indices of the L words that the graph saw.
        lost_words: How many were cut from the end.
        found: The spans above the thresholds, over the kept words.
        logits: (L, K, C); None where they stayed on a device, are a token-level model's, or a
            bi-encoder was not asked for them.
    """

    words: Sequence[Word]
    kept_words: NDArray[np.int64]
    lost_words: int
    found: Candidates
    logits: Logits | None


@dataclass(frozen=True, slots=True)
class _Worded(Generic[Source]):
    """One text before the graph."""

    source: Source
    task: Task
    words: Sequence[Word]


@dataclass(frozen=True, slots=True)
class _Run:
    """How texts are scored.

    Attributes:
        pieces: Of each set of labels.
        threads: Texts at once on a CPU; of more than one, each has a thread.
        size: Texts in one run on another device.
        with_logits: Logits come from the device, too.
        embeddings: Of a bi-encoder's labels where the caller gives them, (C, D); then `pieces` has
            none.
    """

    pieces: Mapping[LabelSet, LabelPieces]
    threads: int
    size: int
    with_logits: bool
    embeddings: NDArray[np.float32] | None = None


class Scorer:
    """A bundle and its open graph; its methods may be called from several threads at once.

    Attributes:
        graph: Whole or in two parts.
        encoder: Of words and labels.
    """

    def __init__(self, bundle: Bundle, graph: AnyGraph) -> None:
        """Join the two.

        Args:
            bundle: The model directory.
            graph: Its graph.
        """
        self._bundle = bundle
        self.graph = graph
        self.encoder = PieceEncoder(bundle.tokenizer, *bundle.special_ids)
        self.encode_labels = lru_cache(_LABEL_SETS)(self._encode_labels)

    @property
    def device(self) -> str:
        """Where the graph runs: "cpu", "cuda", or the name of another provider."""
        return self.graph.sessions.device

    def _encode_labels(self, labels: LabelSet) -> LabelPieces:
        """Return the pieces of each label.

        Raises:
            InputError: As in `PieceEncoder.encode_labels` or `BiGraph.read_labels`.
        """
        bundle = self._bundle
        if isinstance(self.graph, BiGraph):
            return self.graph.read_labels(labels.prompts)
        pieces = self.encoder.encode_labels(
            labels.prompts, bundle.max_positions, is_isolated=bundle.is_isolated
        )
        return tuple(pieces)

    def score_all(
        self,
        sources: Sequence[Source],
        split: Split[Source],
        tasks: Sequence[Task],
        batch_size: int | None,
        *,
        with_logits: bool = False,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Iterator[tuple[Source, Task, Scored | None]]:
        """Score texts that are all there; labels are checked first, and of cuts it warns last.

        Args:
            sources: Texts, or sentences of given words.
            split: Finds the words, on the caller's thread.
            tasks: What to find in each.
            batch_size: Texts in one run on another device than the CPU; None: 8.
            with_logits: Let the logits come from the device, too.
            embeddings: Of the labels, which are the same for all texts, of a bi-encoder, (C, D);
                None: labels are read.

        Returns:
            Each source with its task and what was found in order, None for an empty one.

        Raises:
            InputError: A label or the size cannot be used.
        """
        size = read_count("batch_size", batch_size, default=_BATCH_SIZE)
        label_sets = dict.fromkeys(task.labels for task in tasks)
        is_given = embeddings is not None
        pieces = {own: () if is_given else self.encode_labels(own) for own in label_sets}
        threads = self.count_threads(len(sources))
        lost_words = []
        pairs = zip(sources, tasks, strict=True)
        run = _Run(pieces, threads, size, with_logits, embeddings)
        for source, task, scored in self._score(pairs, split, run):
            lost_words.append(scored.lost_words if scored else 0)
            yield source, task, scored
        self.warn_of_lost_words(lost_words)

    def count_threads(self, texts: int) -> int:
        """How many texts run at once: few run one after the other, each on all threads."""
        all_threads = self.graph.sessions.threads
        threads = all_threads if 2 * texts >= all_threads else 1
        return min(threads, max(texts, 1))

    def stream(
        self,
        sources: Iterable[Source],
        split: Split[Source],
        task: Task,
        batch_size: int | None,
        *,
        with_logits: bool = False,
    ) -> Iterator[tuple[Source, Scored | None]]:
        """Score texts one after the other, from an iterable that may be endless.

        Args:
            sources: As in `score_all`, and so are the others.
            split: Finds the words.
            task: What to find in all of them.
            batch_size: Texts in one run.
            with_logits: As in `score_all`.

        Returns:
            Each source with what was found; it warns of each text that is cut.

        Raises:
            InputError: As in `score_all`; at the call, before any text is read.
        """
        size = read_count("batch_size", batch_size, default=_BATCH_SIZE)
        pieces = {task.labels: self.encode_labels(task.labels)}
        pairs = ((source, task) for source in sources)
        run = _Run(pieces, self.graph.sessions.threads, size, with_logits=with_logits)
        done = self._score(pairs, split, run)

        def score() -> Iterator[tuple[Source, Scored | None]]:
            for source, _, scored in done:
                if scored is not None:
                    self.warn_of_lost_words([scored.lost_words])
                yield source, scored

        return score()

    def _score(
        self, pairs: Iterable[tuple[Source, Task]], split: Split[Source], run: _Run
    ) -> Iterator[tuple[Source, Task, Scored | None]]:
        """Score each source in order: on a CPU several at once, elsewhere in groups."""
        items = (_Worded(source, task, split(source)) for source, task in pairs)
        done: Iterator[tuple[_Worded[Source], Scored | None]]
        if self.device == "cpu":
            done = run_in_order(
                lambda item: (item, self._score_group([item], run)[0]), items, run.threads
            )
        else:
            done = run_in_groups(
                lambda group: list(zip(group, self._score_group(group, run), strict=True)),
                items,
                run.size,
                lambda item: len(item.words),
            )
        for item, scored in done:
            yield item.source, item.task, scored

    def _score_group(self, items: Sequence[_Worded[Source]], run: _Run) -> list[Scored | None]:
        """Score texts with their labels in one run, None for those without a word."""
        scored: list[Scored | None] = [None] * len(items)
        filled = [place for place, item in enumerate(items) if item.words]
        labels = [run.pieces[items[place].task.labels] for place in filled]
        limits = [np.array(items[place].task.thresholds) for place in filled]
        is_whole = not isinstance(self.graph, CachedGraph | BiGraph)
        prompts = [
            self.build_prompt(items[place].words, own if is_whole else ())
            for place, own in zip(filled, labels, strict=True)
        ]
        found = self._find(prompts, labels, limits, run)
        for place, prompt, own in zip(filled, prompts, found, strict=True):
            words = items[place].words
            scored[place] = Scored(words, prompt.kept_words, prompt.lost_words, *own)
        return scored

    def _find(
        self,
        prompts: Sequence[Prompt],
        labels: Sequence[LabelPieces],
        limits: Sequence[NDArray[np.float64]],
        run: _Run,
    ) -> list[tuple[Candidates, Logits | None]]:
        """Find the spans of each prompt above its limits, with the logits that come to the host."""
        graph, one_thread = self.graph, run.threads > 1
        if isinstance(graph, BiGraph):
            make = partial(self.make_batch, graph.text)
            return graph.find(
                prompts,
                labels if run.embeddings is None else [run.embeddings] * len(labels),
                limits,
                make,
                one_thread=one_thread,
                with_logits=run.with_logits,
            )
        if isinstance(graph, CachedGraph):
            all_logits = [
                graph.run(prompt, own, one_thread=one_thread)
                if len(prompt.kept_words)
                else graph.no_logits(len(own))
                for prompt, own in zip(prompts, labels, strict=True)
            ]
        elif isinstance(graph, Graph) and graph.selector is not None and not run.with_logits:
            found = self._run_on_device(graph, graph.selector, prompts, limits)
            return [(own, None) for own in found]
        else:
            all_logits = self._run_whole(graph, prompts, one_thread=one_thread)
        return [
            graph.find_spans(logits, own) for logits, own in zip(all_logits, limits, strict=True)
        ]

    def _run_whole(
        self, graph: Graph | TokenGraph, prompts: Sequence[Prompt], *, one_thread: bool
    ) -> list[Logits]:
        """Return the logits of each prompt, (L, K, C) or (L, C, 3), without padding."""
        worded = [prompt for prompt in prompts if len(prompt.kept_words)]
        logits: Iterator[Logits] = iter(())
        if worded:
            count = max(prompt.label_count for prompt in worded)
            feeds = self.make_batch(graph, worded) | _choose_no_entities(graph)
            logits = iter(graph.run(feeds, count, one_thread=one_thread))
        return [
            graph.cut_padding(next(logits), len(prompt.kept_words), prompt.label_count)
            if len(prompt.kept_words)
            else graph.no_logits(prompt.label_count)
            for prompt in prompts
        ]

    def _run_on_device(
        self,
        graph: Graph,
        selector: Selector,
        prompts: Sequence[Prompt],
        limits: Sequence[NDArray[np.float64]],
    ) -> list[Candidates]:
        """Return the spans of each prompt above its limits; the logits stay where they are."""
        places = [place for place, prompt in enumerate(prompts) if len(prompt.kept_words)]
        found = [Candidates.none()] * len(prompts)
        if places:
            feeds = self.make_batch(graph, [prompts[place] for place in places])
            feeds |= _choose_no_entities(graph)
            thresholds = [limits[place].astype(np.float32) for place in places]
            own = graph.run_to_candidates(selector, feeds, thresholds)
            for place, candidates in zip(places, own, strict=True):
                found[place] = candidates
        return found

    def make_batch(self, graph: Graph | TokenGraph, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Return the tensors of prompts, padded further where the device prefers few lengths."""
        bundle, is_cpu = self._bundle, self.device == "cpu"
        length = 0 if is_cpu else bucket_length(prompts, bundle.max_positions)
        shapes = graph.has_word_shapes
        width = bundle.max_width if isinstance(graph, Graph) else None
        return make_batch(prompts, width, word_shapes=shapes, length=length)

    def build_prompt(
        self, words: Sequence[Word], label_pieces: LabelPieces, tail: Sequence[int] | None = None
    ) -> Prompt:
        """Lay out one text.

        Args:
            words: Of the text.
            label_pieces: What `encode_labels` gives.
            tail: What `relation_prompt.make_tail` gives; None: no relations are asked for.
        """
        if tail is None:
            tail = (self.encoder.sep_id,) if self._bundle.rel else ()
        max_len, max_positions = self._bundle.max_len, self._bundle.max_positions
        texts = [word.text for word in words]
        pieces = self.encoder.encode_first_words(texts, max_len, max_positions)
        read = texts[: len(pieces)]
        return build_prompt(
            self.encoder,
            label_pieces,
            pieces,
            max_len=max_len,
            max_positions=max_positions,
            word_shapes=list(map(word_shape, read)) if self.graph.has_word_shapes else None,
            word_count=len(texts),
            is_isolated=self._bundle.is_isolated,
            tail=tail,
        )

    def warn_of_lost_words(self, counts: Sequence[int]) -> None:
        """Warn once of all words that were cut."""
        limits = (self._bundle.max_len, self._bundle.max_positions)
        is_apart = self._bundle.is_isolated or self._bundle.labels is not None
        warn_of_lost_words(counts, *limits, is_isolated=is_apart)


def _choose_no_entities(graph: Graph | TokenGraph) -> dict[str, Tensor]:
    """Thresholds of a joint model that no score exceeds: relations then cost nothing."""
    return dict.fromkeys(THRESHOLDS, _MOST) if graph.has_thresholds else {}
