"""Training rows -> examples: source weights, crops, types shown, and the negatives a row allows.

A row's `negatives` says which types are certainly absent; nothing else is ever taken as absent:

* open: any type from elsewhere; open-partial: the same, but types of the row's own source say
  nothing about labelled spans;
* closed: the other types of the row's source; partial: the same, but not on labelled spans;
* closed-split: the types of the row's half of the source (types are in one half when they occur
  together in a row);
* per-service: the types of the row's services;
* closure: the types of the source that are not in the row's `present`;
* one-mention: the other types of the source, on the labelled spans alone;
* explicit: only the row's `explicit_negatives`, which count under every policy.

Every choice follows from (seed, step), so a run resumes exactly from its step number.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nerlet.errors import InputError
from nerlet.examples import read_rows as read_labelled
from nerlet.negatives import Row as Raw
from nerlet.negatives import group_types
from nerlet.prompt import PieceEncoder, count_fitting
from nerlet.words import word_shape
from nerlet_export.data import Example, Layout, count_room

POLICIES = (
    "open", "open-partial", "closed", "partial", "closed-split", "per-service", "closure",
    "one-mention", "explicit",
)  # fmt: skip
_LOWER, _UPPER = word_shape("word"), word_shape("WORD")
_CASED = {word_shape("word"), word_shape("Word"), word_shape("WORD"), word_shape("wOrD")}


@dataclass(frozen=True, slots=True)
class Row:
    """One training row as pieces; `spans` are half-open word ranges with their type."""

    source: str
    words: tuple[tuple[int, ...], ...]
    shapes: tuple[int, ...]
    spans: tuple[tuple[int, int, str], ...]
    policy: str
    pool: str  # the pool of types that its negatives come from
    known: frozenset[str]  # types that are or may be present: never taken as negatives
    explicit: tuple[str, ...]  # types known to be absent


@dataclass(frozen=True, slots=True)
class Sampling:
    """How examples are drawn from rows.

    Attributes:
        crop_words: Longest text of an example; 0 for the model's own limit.
        max_types: Most labels of an example.
        negative_ratio: Share of an example's labels that are negatives, on average.
        drop_type: Chance that a present type is not asked for.
        lower_text: Chance that an example's shapes are those of lower-cased text.
        upper_text: Chance that they are those of upper-cased text.
        no_shapes: Chance that it has none.
    """

    crop_words: int = 40
    max_types: int = 25
    negative_ratio: float = 0.5
    drop_type: float = 0.1
    lower_text: float = 0.15
    upper_text: float = 0.03
    no_shapes: float = 0.05


@dataclass(frozen=True, slots=True)
class Pool:
    """Types that negatives are drawn from, each as often as it occurs (dampened)."""

    types: tuple[str, ...]
    chances: NDArray[np.float64]

    def draw(
        self, count: int, banned: frozenset[str] | set[str], rng: np.random.Generator
    ) -> list[str]:
        """Draw up to `count` distinct types outside `banned`."""
        if count <= 0 or not self.types:
            return []
        size = min(len(self.types), 4 * (count + 8))
        order = rng.choice(len(self.types), size=size, replace=False, p=self.chances)
        drawn = [self.types[i] for i in order if self.types[i] not in banned]
        return drawn[:count]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Rows by source, the pools of types, and the pieces of every type."""

    rows: Mapping[str, Sequence[Row]]
    pools: Mapping[str, Pool]
    label_pieces: Mapping[str, Sequence[int]]
    words: int


def read_rows(
    path: Path,
    *,
    licenses: Iterable[str],
    negatives: str = "explicit",
    leave_out: Iterable[str] = ("near_mit",),
) -> Iterator[Raw]:
    """Read rows of the training format whose licence class is asked for.

    Args:
        path: JSON lines, perhaps gzipped.
        licenses: Licence classes; "" stands for rows that name none.
        negatives: The policy of rows that name none.
        leave_out: Rows with one of these flags are left out.

    Raises:
        InputError: A line is not what the format asks for, or its `negatives` is unknown.
    """
    licenses, leave_out = set(licenses), tuple(leave_out)
    for number, (row, record) in enumerate(read_labelled(path), start=1):
        policy = row.negatives or negatives
        if policy not in POLICIES:
            raise InputError(
                f"{path}, line {number}: negatives is {policy!r}, expected one of "
                f"{', '.join(POLICIES)}"
            )
        is_allowed = record.get("license", "") in licenses
        if is_allowed and not any(record.get(flag) for flag in leave_out):
            yield replace(row, negatives=policy, source=row.source or "own")


def build_corpus(raw_rows: Iterable[Raw], encoder: PieceEncoder, *, max_words: int) -> Corpus:
    """Turn rows into pieces once, before training; rows over `max_words` words are split."""
    raw = [part for row in raw_rows for part in split_row(row, max_words)]
    halves = _name_halves(raw)
    words = sorted({word for row in raw for word in row.words})
    pieces = {w: tuple(p) for w, p in zip(words, encoder.encode_units(words), strict=True)}
    shapes = {word: word_shape(word) for word in words}
    rows: dict[str, list[Row]] = defaultdict(list)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    total = 0
    for item in raw:
        row = _make_row(item, pieces, shapes, halves)
        if not row.words:
            continue
        rows[row.source].append(row)
        total += len(row.words)
        types = [label for _, _, label in row.spans]
        for pool in _pools_of(row):
            counts[pool].update(types)
    for pool in {row.pool for source in rows.values() for row in source if "+" in row.pool}:
        source_name, _, services = pool.partition("/")
        for service in services.split("+"):
            counts[pool].update(counts[_service_pool(source_name, [service])])
    labels = sorted(set().union(*counts.values()) | _explicit(rows))
    label_pieces = dict(zip(labels, encoder.encode_units(labels), strict=True))
    pools = {name: _make_pool(count) for name, count in counts.items()}
    return Corpus(dict(rows), pools, label_pieces, total)


def split_row(row: Raw, max_words: int) -> Iterator[Raw]:
    """Split a row of more than `max_words` words; an entity across a border is left out."""
    for begin in range(0, len(row.words), max_words):
        end = min(begin + max_words, len(row.words))
        entities = tuple(
            (start - begin, stop - begin, label)
            for start, stop, label in row.entities
            if begin <= start and stop <= end
        )
        yield replace(row, words=row.words[begin:end], entities=entities)


def _make_row(
    item: Raw,
    pieces: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, int],
    halves: Mapping[str, str],
) -> Row:
    """Pieces of one row; words without pieces go, as they do at inference."""
    kept = [i for i, word in enumerate(item.words) if pieces[word]]
    place = {word: i for i, word in enumerate(kept)}
    spans = tuple(
        (place[start], place[stop - 1] + 1, label)
        for start, stop, label in item.entities
        if start in place and stop - 1 in place
    )
    source, policy = str(item.source), str(item.negatives)
    return Row(
        source=source,
        words=tuple(pieces[item.words[i]] for i in kept),
        shapes=tuple(shapes[item.words[i]] for i in kept),
        spans=spans,
        policy=policy,
        pool=_pool_of(item, source, policy, halves),
        known=item.types | item.present,
        explicit=tuple(sorted(item.explicit_negatives)),
    )


def _pool_of(item: Raw, source: str, policy: str, halves: Mapping[str, str]) -> str:
    """The name of the pool that a row's negatives come from."""
    if policy in ("open", "open-partial"):
        return "*"
    if policy == "explicit":
        return f"{source}/none"
    if policy == "closed-split":
        return f"{source}/{halves[min(item.types)] if item.types else 'none'}"
    if policy == "per-service":
        return _service_pool(source, item.services)
    return source


def _service_pool(source: str, services: Iterable[str]) -> str:
    return f"{source}/{'+'.join(sorted(services))}"


def _pools_of(row: Row) -> set[str]:
    """The pools a row's types belong to; of which of several services each is, is not said."""
    if "+" in row.pool or row.policy == "explicit":
        return {"*", row.source}
    return {"*", row.source, row.pool}


def _name_halves(raw: Sequence[Raw]) -> dict[str, str]:
    """Name the half that each type of the closed-split rows is in, by its first type."""
    types = [row.types for row in raw if row.negatives == "closed-split"]
    return {label: min(group) for label, group in group_types(types).items()}


def _explicit(rows: Mapping[str, Sequence[Row]]) -> set[str]:
    return {label for source in rows.values() for row in source for label in row.explicit}


def _make_pool(counts: Counter[str]) -> Pool:
    types = tuple(sorted(counts))
    chances = np.sqrt([counts[label] for label in types])
    return Pool(types, chances / max(chances.sum(), 1e-9))


def draw_examples(
    corpus: Corpus,
    mixture: Mapping[str, float],
    sampling: Sampling,
    layout: Layout,
    rng: np.random.Generator,
) -> Iterator[Example]:
    """Draw examples without end: a source by weight, a row of it, a crop, its labels.

    Raises:
        InputError: A source of the mixture has no rows.
    """
    for source in mixture:
        if not corpus.rows.get(source):
            raise InputError(
                f"mixture: source {source!r} has no rows under the licences asked for; "
                f"there are {', '.join(sorted(corpus.rows))}"
            )
    sources = sorted(mixture)
    chances = np.array([mixture[source] for source in sources], dtype=np.float64)
    chances /= chances.sum()
    while True:
        rows = corpus.rows[sources[rng.choice(len(sources), p=chances)]]
        example = make_example(rows[int(rng.integers(len(rows)))], corpus, sampling, layout, rng)
        if example is not None:
            yield example


def make_example(
    row: Row, corpus: Corpus, sampling: Sampling, layout: Layout, rng: np.random.Generator
) -> Example | None:
    """Crop a row and choose its labels; None where no label can be asked for."""
    begin, end = _crop(row, sampling.crop_words, rng)
    seen = [span for span in row.spans if span[0] < end and span[1] > begin]
    shown = [
        (start - begin, stop - start - 1, label)
        for start, stop, label in seen
        if begin <= start and stop <= end and stop - start <= layout.max_width
    ]
    present = sorted({label for _, _, label in shown})
    asked = [label for label in present if rng.random() >= sampling.drop_type]
    asked = list(rng.permutation(asked)[: sampling.max_types]) if asked else []
    negatives = _negatives(row, {label for _, _, label in seen}, len(asked), corpus, sampling, rng)
    labels = [str(label) for label in rng.permutation(asked + negatives)]
    if not labels:
        return None
    room = count_room(layout, (corpus.label_pieces[label] for label in labels))
    end = begin + count_fitting([len(word) for word in row.words[begin:end]], room)
    if end == begin:
        return None
    shown = [span for span in shown if span[0] + span[1] < end - begin]
    index = {label: i for i, label in enumerate(labels)}
    positives = sorted({(s, w, index[label]) for s, w, label in shown if label in index})
    spans = sorted({(s, w) for s, w, _ in shown})
    return Example(
        words=row.words[begin:end],
        shapes=_shapes(row.shapes[begin:end], sampling, rng),
        labels=labels,
        positives=positives,
        known_spans=spans if row.policy == "one-mention" else None,
        unsure=_unsure(row, labels, spans, corpus) if "partial" in row.policy else (),
    )


def _crop(row: Row, most: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a window of at most `most` words around an entity, where there is one."""
    L = len(row.words)
    if most <= 0 or most >= L:
        return 0, L
    if row.spans:
        start, end, _ = row.spans[rng.integers(len(row.spans))]
        low, high = max(0, end - most), min(start, L - most)
        begin = int(rng.integers(min(low, high), max(low, high) + 1))
    else:
        begin = int(rng.integers(L - most + 1))
    begin = min(max(begin, 0), L - most)
    return begin, begin + most


def _negatives(
    row: Row,
    seen: set[str],
    positives: int,
    corpus: Corpus,
    sampling: Sampling,
    rng: np.random.Generator,
) -> list[str]:
    """Choose absent types that the row allows; `seen` are the crop's, cut ones included."""
    ratio = sampling.negative_ratio
    if ratio <= 0 and positives:
        return []
    mean = max(positives, 1.0) * ratio / max(1.0 - ratio, 1e-6)
    count = min(1 + int(rng.integers(0, round(2 * mean) + 1)), sampling.max_types - positives)
    banned = set(row.known) if row.policy in ("closure", "one-mention") else set(row.known & seen)
    chosen = [label for label in row.explicit if label not in seen][:count]
    if row.policy == "open":
        # The row's own types outside the crop are absent from it, and hard.
        outside = sorted(row.known - seen)
        chosen += [str(label) for label in rng.permutation(outside)[: (count + 1) // 2]]
    banned |= set(chosen) | seen
    pool = corpus.pools.get(row.pool)
    return chosen + (pool.draw(count - len(chosen), banned, rng) if pool else [])


def _unsure(
    row: Row, labels: Sequence[str], spans: Sequence[tuple[int, int]], corpus: Corpus
) -> list[tuple[int, int, int]]:
    """Cells of labelled spans that types of the row's own source say nothing about."""
    own = set(corpus.pools[row.source].types)
    return [(s, w, i) for i, label in enumerate(labels) if label in own for s, w in spans]


def _shapes(shapes: Sequence[int], sampling: Sampling, rng: np.random.Generator) -> Sequence[int]:
    """Now and then, show the text as if it were lower-cased, upper-cased, or without shapes."""
    draw = rng.random()
    if draw < sampling.no_shapes:
        return (0,) * len(shapes)
    draw -= sampling.no_shapes
    if draw < sampling.lower_text:
        return tuple(_LOWER if shape in _CASED else shape for shape in shapes)
    draw -= sampling.lower_text
    if draw < sampling.upper_text:
        return tuple(_UPPER if shape in _CASED else shape for shape in shapes)
    return shapes
