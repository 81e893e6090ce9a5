"""Training rows as pieces, and for each row the pool of types that are certainly absent from it.

A row's `negatives` says which types those are; nothing else is ever taken as absent:

* open: any type from elsewhere, but for those that often go along with one of the row's own (a
  chemist is a scientist, whether the row says so or not); open-partial: any type from elsewhere,
  but types of the row's own source say nothing about labelled spans;
* closed: the other types of the row's source; partial: the same, but not on labelled spans;
* closed-split: the types of the row's half of the source (types are in one half when they occur
  together in a row);
* per-service: the types of the row's services;
* closure: the types of the source that are not in the row's `present`;
* one-mention: the other types of the source, on the labelled spans alone;
* explicit: only the row's `explicit_negatives`, which count under every policy.
"""

from bisect import bisect_left
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
from nerlet.prompt import PieceEncoder
from nerlet.words import word_shape

POLICIES = (
    "open", "open-partial", "closed", "partial", "closed-split", "per-service", "closure",
    "one-mention", "explicit",
)  # fmt: skip

# Share of a type's entities from which another type that they have, too, goes along with it.
_COMPANION = 0.3


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
    """Rows by source, the pools of types, and every type's pieces, companions and counts."""

    rows: Mapping[str, Sequence[Row]]
    pools: Mapping[str, Pool]
    label_pieces: Mapping[str, Sequence[int]]
    companions: Mapping[str, frozenset[str]]
    counts: Mapping[str, Mapping[str, int]]  # of the types of each pool
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
        licenses: Licence classes; "" stands for rows that name none, "*" for all rows.
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
        license_class = record.get("license") or ""
        if not isinstance(license_class, str):
            raise InputError(
                f"{path}, line {number}: license is {license_class!r}, expected a licence class, "
                "a string"
            )
        is_allowed = "*" in licenses or license_class in licenses
        if is_allowed and not any(record.get(flag) for flag in leave_out):
            yield replace(row, negatives=policy, source=row.source or "own")


def limit_rows(rows: Sequence[Raw], most: int, seed: int) -> list[Raw]:
    """Draw at most `most` rows of each source; fewer of one seed are among its more.

    Args:
        rows: All rows; the order stays.
        most: 0 keeps all.
        seed: Of the draw.
    """
    if most == 0:
        return list(rows)
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[str(row.source)].append(place)
    rng = np.random.default_rng(seed)
    kept = {i for name in sorted(places) for i in rng.permutation(places[name])[:most].tolist()}
    return [row for place, row in enumerate(rows) if place in kept]


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
    return Corpus(dict(rows), pools, label_pieces, find_companions(raw), counts, total)


def split_row(row: Raw, max_words: int) -> Iterator[Raw]:
    """Split a row of more than `max_words` words, each part where no entity is cut.

    An entity that is longer than `max_words` itself is left out.
    """
    begin = 0
    while begin < len(row.words):
        end = _find_border(row, begin, max_words)
        entities = tuple(
            (start - begin, stop - begin, label)
            for start, stop, label in row.entities
            if begin <= start and stop <= end
        )
        yield replace(row, words=row.words[begin:end], entities=entities)
        begin = end


def _find_border(row: Raw, begin: int, max_words: int) -> int:
    """The last border up to `max_words` after `begin` that no entity crosses; else just there."""
    if begin + max_words >= len(row.words):
        return len(row.words)
    crossed = {
        place
        for start, stop, _ in row.entities
        if stop - start <= max_words
        for place in range(start + 1, stop)
    }
    last = begin + max_words
    return next((end for end in range(last, begin, -1) if end not in crossed), last)


def find_companions(raw: Iterable[Raw]) -> dict[str, frozenset[str]]:
    """For each type of the open rows, the types on at least `_COMPANION` of its entities."""
    counts: Counter[str] = Counter()
    pairs: dict[str, Counter[str]] = defaultdict(Counter)
    for row in raw:
        if row.negatives != "open":
            continue
        types: dict[tuple[int, int], set[str]] = defaultdict(set)
        for start, end, label in row.entities:
            types[start, end].add(label)
        for labels in types.values():
            counts.update(labels)
            for label in labels:
                pairs[label].update(labels - {label})
    return {
        label: frozenset(o for o, n in others.items() if n >= _COMPANION * counts[label])
        for label, others in pairs.items()
    }


def _make_row(
    item: Raw,
    pieces: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, int],
    halves: Mapping[str, str],
) -> Row:
    """Pieces of one row; words without pieces go, as at inference, and spans close up on them."""
    kept = [i for i, word in enumerate(item.words) if pieces[word]]
    places = [
        (bisect_left(kept, start), bisect_left(kept, stop), label)
        for start, stop, label in item.entities
    ]
    source, policy = str(item.source), str(item.negatives)
    return Row(
        source=source,
        words=tuple(pieces[item.words[i]] for i in kept),
        shapes=tuple(shapes[item.words[i]] for i in kept),
        spans=tuple(span for span in places if span[0] < span[1]),
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
