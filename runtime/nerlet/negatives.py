"""Decide which types to prompt with each row of a labelled file that names none for all rows.

A row's `negatives` field says which types are certain to be absent from it, so that a span found
under one of them is an error. Types that a row does not allow are never guessed:

- closed: every other type of the row's source;
- closed-split: types that occur, directly or through others, in rows with the row's own types;
- per-service: types of rows whose `services` are among the row's;
- open: every type of the file; open-partial: those of other sources (of its own, some may be
  there unlabelled);
- closure: every type of the row's source that is not in its `present` list;
- partial, one-mention, or no such field: none.

In every case the types of `explicit_negatives` are absent too, and the row's own types are not.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# How many absent types a row is prompted with: as many as it has types of its own, at least the
# first number, and no more than fills the prompt of a model with the usual 25 types.
_LEAST_NEGATIVES = 5
_PROMPT_TYPES = 25


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled text as its file has it.

    Attributes:
        words: The text, in words.
        entities: (start, end, type), word indices, half-open.
        source: Where the row comes from; None if not told.
        negatives: Which absent types are certain, see the module's text; None if not told.
        services: Of a per-service row, the services whose types were annotated.
        present: Of a closure row, the types that hold in it, annotated or implied.
        explicit_negatives: Types known to be absent.
    """

    words: tuple[str, ...]
    entities: tuple[tuple[int, int, str], ...]
    source: str | None = None
    negatives: str | None = None
    services: frozenset[str] = frozenset()
    present: frozenset[str] = frozenset()
    explicit_negatives: frozenset[str] = frozenset()

    @property
    def types(self) -> frozenset[str]:
        """The types of the row's entities."""
        return frozenset(label for _, _, label in self.entities)


def choose_labels(rows: Sequence[Row], *, seed: int = 0) -> list[tuple[str, ...]]:
    """The types to prompt with each row: its own and absent ones that it allows.

    Args:
        rows: All rows of one file.
        seed: Of the draw among the absent types; the row's place in the file enters it too.

    Returns:
        For each row its labels in alphabetical order, so that their order tells nothing: every
        type of the source for a closed row, else the row's types and some that it allows.
    """
    chosen = []
    allowed = _AllowedNegatives(rows)
    for place, row in enumerate(rows):
        absent = sorted(allowed.of(row))
        if row.negatives != "closed":
            room = max(
                0, min(max(len(row.types), _LEAST_NEGATIVES), _PROMPT_TYPES - len(row.types))
            )
            draw = random.Random(f"{seed}:{place}")
            absent = draw.sample(absent, min(room, len(absent)))
        chosen.append(tuple(sorted(row.types.union(absent))))
    return chosen


class _AllowedNegatives:
    """The types of one file, indexed so that each row's certain absences can be looked up."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._by_source: dict[str | None, set[str]] = {}
        self._by_services: dict[frozenset[str], set[str]] = {}
        for row in rows:
            known = row.types | row.explicit_negatives
            self._by_source.setdefault(row.source, set()).update(known)
            if row.negatives == "per-service":
                self._by_services.setdefault(row.services, set()).update(row.types)
        self._groups = group_types([r.types for r in rows if r.negatives == "closed-split"])

    def of(self, row: Row) -> set[str]:
        """Types of the file that are certain to be absent from the row."""
        rules: dict[str | None, Callable[[Row], set[str]]] = {
            "closed": self._same_source,
            "closed-split": self._same_group,
            "per-service": self._same_services,
            "open": self._anywhere,
            "open-partial": lambda row: self._anywhere(row) - self._same_source(row),
            "closure": lambda row: self._same_source(row) - row.present,
        }
        rule = rules.get(row.negatives)
        allowed = rule(row) if rule else set()
        return (allowed | row.explicit_negatives) - row.types

    def _same_source(self, row: Row) -> set[str]:
        return self._by_source[row.source]

    def _anywhere(self, _: Row) -> set[str]:
        return set().union(*self._by_source.values())

    def _same_group(self, row: Row) -> set[str]:
        return set().union(*(self._groups[label] for label in row.types))

    def _same_services(self, row: Row) -> set[str]:
        among = (types for own, types in self._by_services.items() if own <= row.services)
        return set().union(*among)


def group_types(rows: Sequence[frozenset[str]]) -> dict[str, set[str]]:
    """For each type the types that share a row with it, directly or through others."""
    groups: dict[str, set[str]] = {}
    for types in rows:
        joined = set(types).union(*(groups[label] for label in types if label in groups))
        groups.update(dict.fromkeys(joined, joined))
    return groups
