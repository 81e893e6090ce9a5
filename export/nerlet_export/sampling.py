"""Rows to examples: which rows, which crop of them, which types are asked for.

Every choice comes from the generator that is given, so a run repeats and resumes exactly.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nerlet.errors import InputError
from nerlet.prompt import count_fitting
from nerlet.words import word_shape
from nerlet_export.corpus import Corpus, Row
from nerlet_export.data import Example, Layout, count_room

# Rows without a label that may follow each other by chance.
_MOST_MISSES = 10_000
# Rows that are looked at to make one passage.
_MOST_TRIES = 100
# Policies that say nothing about the types of another row of the source.
_ALONE = ("closure", "one-mention", "explicit")
_LOWER, _UPPER = word_shape("word"), word_shape("WORD")
_CASED = {word_shape("word"), word_shape("Word"), word_shape("WORD"), word_shape("wOrD")}


@dataclass(frozen=True, slots=True)
class Sampling:
    """How examples are drawn from rows.

    Attributes:
        crop_words: Longest text of an example of one row; 0 for the model's own limit.
        passages: Chance that an example is a passage: rows of one source, one after the other.
        passage_words: Longest passage; each is of a length drawn up to this.
        max_types: Most labels of an example.
        negative_ratio: Share of an example's labels that are negatives, on average; 0 for none,
            so that texts without a present type are left out.
        drop_type: Chance that a present type is not asked for.
        lower_text: Chance that an example's shapes are those of lower-cased text.
        upper_text: Chance that they are those of upper-cased text.
        no_shapes: Chance that it has none.
        finest: Whether, of several types asked for on one span, the rarest alone is trained, so
            that it wins where types exclude each other; the others' cells carry no loss.
    """

    crop_words: int = 40
    passages: float = 0.0
    passage_words: int = 200
    max_types: int = 25
    negative_ratio: float = 0.5
    drop_type: float = 0.1
    lower_text: float = 0.15
    upper_text: float = 0.03
    no_shapes: float = 0.05
    finest: bool = False


def draw_examples(
    corpus: Corpus,
    mixture: Mapping[str, float],
    sampling: Sampling,
    layout: Layout,
    rng: np.random.Generator,
) -> Iterator[Example]:
    """Draw examples without end: a source by weight, a row of it, a crop, its labels.

    Raises:
        InputError: A source of the mixture has no rows, or the rows give no labels.
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
    misses = 0
    while misses < _MOST_MISSES:
        rows = corpus.rows[sources[rng.choice(len(sources), p=chances)]]
        row, own = rows[int(rng.integers(len(rows)))], sampling
        if sampling.passages > 0 and rng.random() < sampling.passages:
            most = max(len(row.words), int(rng.integers(1, sampling.passage_words + 1)))
            row, own = _join_rows(row, rows, most, rng), replace(sampling, crop_words=most)
        example = make_example(row, corpus, own, layout, rng)
        misses = 0 if example is not None else misses + 1
        if example is not None:
            yield example
    raise InputError(
        f"{misses} rows in a row gave no label to ask for; the rows need entities of at most "
        f"{layout.max_width} words, or a `negatives` policy that names absent types"
    )


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
    unsure = _unsure(row, labels, shown, corpus)
    if sampling.finest:
        coarser = _coarser(positives, labels, corpus.counts[row.source])
        positives = sorted(set(positives) - set(coarser))
        unsure = unsure + coarser
    return Example(
        words=row.words[begin:end],
        shapes=_shapes(row.shapes[begin:end], sampling, rng),
        labels=labels,
        positives=positives,
        known_spans=sorted({(s, w) for s, w, _ in shown}) if row.policy == "one-mention" else None,
        unsure=unsure,
    )


def _join_rows(first: Row, rows: Sequence[Row], least: int, rng: np.random.Generator) -> Row:
    """Join rows to a passage of at least `least` words, where there are enough of them.

    Only rows whose absent types come from the same pool are joined, and none whose policy says
    nothing about other rows' types. A type that one of the rows may have is not absent.
    """
    parts, count = [first], len(first.words)
    for _ in range(_MOST_TRIES):
        if count >= least or first.policy in _ALONE:
            break
        other = rows[int(rng.integers(len(rows)))]
        if (other.policy, other.pool) == (first.policy, first.pool):
            parts.append(other)
            count += len(other.words)
    offsets = np.cumsum([0, *(len(part.words) for part in parts)]).tolist()
    known = frozenset[str]().union(*(part.known for part in parts))
    combine = set.union if first.policy == "open" else set.intersection
    absent = combine(*(set(part.explicit) for part in parts))
    return replace(
        first,
        words=tuple(word for part in parts for word in part.words),
        shapes=tuple(shape for part in parts for shape in part.shapes),
        spans=tuple(
            (start + offset, end + offset, label)
            for part, offset in zip(parts, offsets, strict=False)
            for start, end, label in part.spans
        ),
        known=known,
        explicit=tuple(sorted(absent - known)),
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
    if ratio <= 0:
        return []
    mean = max(positives, 1.0) * ratio / max(1.0 - ratio, 1e-6)
    count = min(1 + int(rng.integers(0, round(2 * mean) + 1)), sampling.max_types - positives)
    banned = set(row.known) if row.policy in ("closure", "one-mention") else set(row.known & seen)
    chosen = [label for label in row.explicit if label not in seen][:count]
    if row.policy == "open":
        companions = frozenset[str]().union(*(corpus.companions.get(label, ()) for label in seen))
        banned |= companions
        # The row's own types outside the crop are absent from it, and hard.
        outside = sorted(row.known - seen - companions)
        chosen += [str(label) for label in rng.permutation(outside)[: (count + 1) // 2]]
    banned |= set(chosen) | seen
    pool = corpus.pools.get(row.pool)
    return chosen + (pool.draw(count - len(chosen), banned, rng) if pool else [])


def _unsure(
    row: Row, labels: Sequence[str], shown: Sequence[tuple[int, int, str]], corpus: Corpus
) -> list[tuple[int, int, int]]:
    """Cells of labelled spans of which the row does not say whether they have a type.

    In partial rows those are the types of the row's own source, in open rows the types that often
    go along with one that the span has.
    """
    types: dict[tuple[int, int], set[str]] = defaultdict(set)
    for s, w, label in shown:
        types[s, w].add(label)
    if "partial" in row.policy:
        own = set(corpus.pools[row.source].types)
        return [(s, w, i) for i, label in enumerate(labels) if label in own for s, w in types]
    if row.policy != "open":
        return []
    unsure = []
    for (s, w), has in types.items():
        may = frozenset[str]().union(*(corpus.companions.get(label, ()) for label in has))
        unsure += [(s, w, i) for i, label in enumerate(labels) if label in may - has]
    return unsure


def _coarser(
    positives: Sequence[tuple[int, int, int]], labels: Sequence[str], counts: Mapping[str, int]
) -> list[tuple[int, int, int]]:
    """The entity cells of spans that a rarer type of the same prompt names, too."""
    finest: dict[tuple[int, int], tuple[int, str]] = {}
    for s, w, i in positives:
        rank = (counts[labels[i]], labels[i])
        finest[s, w] = min(finest.get((s, w), rank), rank)
    return [(s, w, i) for s, w, i in positives if labels[i] != finest[s, w][1]]


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
