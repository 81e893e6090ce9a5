"""Find, on labelled texts, the thresholds above which a model's spans are best kept.

Place in the flow: it takes the candidates that scores makes, and tries decode on them. Every text
is scored once, at the lowest threshold that is needed; from there on only decode runs.

First comes the overall threshold with the best mean F1 over files, then label by label one of its
own. Spans compete: where a wrong person is left out, a place that it covered may be kept. So each
trial decodes all texts that it touches, and labels take turns until none gains: coordinate ascent.

Few entities say little. A label with fewer than a minimum keeps the overall threshold; with n of
them, its own goes n / (n + minimum) of the way from there to where F1 is best, and only if that
gains. What this is worth on other texts is measured by folds: each is decoded with the thresholds
that the other folds choose. Where those of single labels do not gain there, none is chosen.

Axis letters: T texts, N candidates, E annotated entities, C labels, F files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum

import numpy as np
from numpy.typing import NDArray

from nerlet.arguments import OwnThresholds
from nerlet.errors import InputError
from nerlet.evaluate import Counts
from nerlet.scored import ScoredTexts

GRID = tuple(round(0.05 * n, 2) for n in range(2, 20))
MIN_ENTITIES = 20
FOLDS = 5
_MOST_TURNS = 10
_LEAST_GAIN = 1e-9  # of the mean F1; less is rounding


@dataclass(frozen=True, slots=True)
class FileReport:
    """What calibration does to one file.

    Attributes:
        name: The file's.
        sentences: How many there are.
        before: With the model's thresholds as they were.
        overall: With one threshold for all, each fold with that of the other folds.
        after: With those of single labels too, where any is chosen; each fold as above.
        chosen_on: With the chosen thresholds on the texts that chose them, which is too good.
    """

    name: str
    sentences: int
    before: Counts
    overall: Counts
    after: Counts
    chosen_on: Counts


@dataclass(frozen=True, slots=True)
class Calibration:
    """The chosen thresholds, and what they do to each file."""

    thresholds: OwnThresholds
    files: tuple[FileReport, ...]

    def average_f1(self, column: str) -> float:
        """Plain mean over files of the F1 in "before", "overall", "after" or "chosen_on"."""
        return fsum(getattr(file, column).f1 for file in self.files) / len(self.files)


def calibrate(
    scored: ScoredTexts,
    present: OwnThresholds,
    *,
    min_entities: int = MIN_ENTITIES,
    folds: int = FOLDS,
) -> Calibration:
    """Choose thresholds, and measure what they are worth on texts that did not choose them.

    Args:
        scored: Scored at `lowest_threshold(present)`.
        present: The model's own thresholds.
        min_entities: Fewest entities of a label that has a threshold of its own, at least 1.
        folds: Parts into which the texts are divided; the same words are always in the same part.

    Raises:
        InputError: There are no entities, or fewer different texts than folds.
    """
    if not len(scored.entity_text):
        raise InputError(
            "expected texts with entities to choose thresholds by, found none in "
            f"{len(scored.file)} texts; give labelled ones"
        )
    part = _divide(scored.key, folds)
    overall, after = np.zeros((2, 3, len(scored.file)), dtype=np.int64)
    for fold in range(folds):
        own = choose_thresholds(
            scored.only(part != fold), near=present.overall, min_entities=min_entities
        )
        held_out = scored.only(part == fold)
        overall += _count_kept(held_out, replace(own, by_prompt={}))
        after += _count_kept(held_out, own)
    chosen = choose_thresholds(scored, near=present.overall, min_entities=min_entities)
    if _mean_f1(after, scored) <= _mean_f1(overall, scored):
        chosen, after = replace(chosen, by_prompt={}), overall
    counts = (_count_kept(scored, present), overall, after, _count_kept(scored, chosen))
    sentences = np.bincount(scored.file, minlength=len(scored.files)).tolist()
    columns = [_by_file(each, scored) for each in counts]
    reports = zip(scored.files, sentences, *columns, strict=True)
    return Calibration(chosen, tuple(FileReport(*report) for report in reports))


def lowest_threshold(present: OwnThresholds) -> float:
    """The threshold at which texts have to be scored."""
    return min(GRID[0], present.overall, *present.by_prompt.values())


def choose_thresholds(
    scored: ScoredTexts, *, near: float, min_entities: int = MIN_ENTITIES
) -> OwnThresholds:
    """Choose thresholds by what they reach on these very texts; arguments as in `calibrate`.

    Args:
        scored: Scored at the grid's first threshold or below.
        near: Where equally good overall thresholds are tried, the nearest to this is taken.
        min_entities: Fewest entities of a label that has a threshold of its own, at least 1.

    Returns:
        Thresholds whose mean F1 on these texts is not below that of the overall one alone.
    """
    overall = _choose_overall(scored, near)
    entities = np.bincount(scored.entity_label, minlength=len(scored.labels))
    limits = scored.limits(OwnThresholds(overall, {}))
    # Of a rarer label, what scores below the overall threshold is never kept.
    lowest = np.where(entities >= min_entities, np.float32(GRID[0]), limits)
    ascent = _Ascent(scored.above(np.minimum(lowest, limits)), limits)
    often = np.flatnonzero(entities >= min_entities)
    turn = often[np.argsort(-entities[often], kind="stable")].tolist()
    weight = (entities / (entities + min_entities)).tolist()
    for _ in range(_MOST_TURNS):
        moved = [ascent.move(label, overall, weight[label]) for label in turn]
        if not any(moved):
            break
    own = {
        label: ascent.chosen[place]
        for place, label in enumerate(scored.labels)
        if ascent.chosen.get(place, overall) != overall
    }
    return OwnThresholds(overall, own)


def _choose_overall(scored: ScoredTexts, near: float) -> float:
    # To raise one threshold for all only filters what is kept, so one decoding serves the grid.
    kept = scored.take(scored.candidates.score > np.float32(GRID[0])).decode()
    f1 = [
        _mean_f1(_count(kept.take(kept.candidates.score > np.float32(threshold))), scored)
        for threshold in GRID
    ]
    return _find_best(GRID, f1, near)


class _Ascent:
    """Thresholds that are changed label by label, while the mean F1 grows.

    Attributes:
        chosen: Index of each label that has moved, and its threshold.
    """

    def __init__(self, scored: ScoredTexts, limits: NDArray[np.float32]) -> None:
        self.chosen: dict[int, float] = {}
        self._scored = scored
        self._limits = limits
        self._counts = _count(scored.above(limits).decode())

    def move(self, label: int, overall: float, weight: float) -> bool:
        """Change the threshold of one label if that gains, and return whether it did.

        Args:
            label: Its index.
            overall: The overall threshold.
            weight: How far to go from there towards the best threshold, in [0, 1].
        """
        now = self.chosen.get(label, overall)
        best = _find_best(GRID, self._try(label, GRID), overall)
        target = round(overall + weight * (best - overall), 2)
        low, high = sorted((now, target))
        f1 = dict(zip((low, high), self._try(label, (low, high)), strict=True))
        if f1[target] - f1[now] < _LEAST_GAIN:
            return False
        self.chosen[label] = target
        self._limits[label] = target
        self._counts = _count(self._scored.above(self._limits).decode())
        return True

    def _try(self, label: int, thresholds: Sequence[float]) -> list[float]:
        """The mean F1 at each threshold of one label, rising ones.

        From one threshold to the next, only texts where the label loses a candidate change.
        """
        scored, counts = self._scored, self._counts.copy()
        is_own = scored.label == label
        changed = _mark(scored.text[is_own], len(scored.file))
        passed = is_own | (scored.candidates.score > self._limits[scored.label])
        near = scored.take(changed[scored.text] & passed)
        is_own = near.label == label
        f1 = []
        for threshold in thresholds:
            falls = is_own & (near.candidates.score <= np.float32(threshold))
            changed |= _mark(near.text[falls], len(changed))
            near, is_own = near.take(~falls), is_own[~falls]
            part = near.take(changed[near.text])
            counts[:, changed] = _count(part.decode())[:, changed]
            f1.append(_mean_f1(counts, scored))
            changed = np.zeros_like(changed)
        return f1


def _mark(places: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """A mask that is true at the places."""
    mask = np.zeros(size, dtype=np.bool_)
    mask[places] = True
    return mask


def _find_best(thresholds: Sequence[float], f1: Sequence[float], near: float) -> float:
    """The threshold with the best F1; of equal ones the nearest to a given one, the lower first."""
    best = max(f1) - _LEAST_GAIN
    good = [each for each, value in zip(thresholds, f1, strict=True) if value >= best]
    return min(good, key=lambda threshold: (abs(threshold - near), threshold))


def _count(kept: ScoredTexts) -> NDArray[np.int64]:
    """Spans that are right, found and there in each text, (3, T)."""
    size = len(kept.file)
    columns = (kept.text[kept.is_correct], kept.text, kept.entity_text)
    return np.stack([np.bincount(column, minlength=size) for column in columns])


def _count_kept(scored: ScoredTexts, thresholds: OwnThresholds) -> NDArray[np.int64]:
    """The same of what decode keeps at given thresholds."""
    return _count(scored.above(scored.limits(thresholds)).decode())


def _by_file(counts: NDArray[np.int64], scored: ScoredTexts) -> list[Counts]:
    """The sums over the texts of each file; counts are (3, T)."""
    # Sums of floats, but of whole numbers.
    sums = [np.bincount(scored.file, each, len(scored.files)).astype(np.int64) for each in counts]
    return [Counts(*row) for row in np.stack(sums, axis=1).tolist()]


def _mean_f1(counts: NDArray[np.int64], scored: ScoredTexts) -> float:
    """`average_f1`, whatever the order of the files."""
    return fsum(each.f1 for each in _by_file(counts, scored)) / len(scored.files)


def _divide(key: NDArray[np.str_], folds: int) -> NDArray[np.int64]:
    """The part that each text is in, (T,), by its words alone; parts differ by one text at most."""
    different, place = np.unique(key, return_inverse=True)
    if len(different) < folds:
        raise InputError(
            f"expected at least {folds} different texts, one for each fold, found "
            f"{len(different)}; give more texts or fewer folds"
        )
    return np.asarray(place, dtype=np.int64) % folds
