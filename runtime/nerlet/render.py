"""Lay out what the `nerlet` command prints for people: tables, with colour where it shows."""

import os
from collections.abc import Mapping, Sequence
from typing import TextIO

from nerlet.calibrate import Calibration
from nerlet.columns import clean, cut, measure, pad, wrap
from nerlet.entities import Entity
from nerlet.evaluate import Counts, Scores, average_f1
from nerlet.relations import Relation

_RESET = "\x1b[0m"
_BOLD = "\x1b[1m"
_DIM = "\x1b[2m"
# Blue, green, magenta, cyan, yellow, red: readable on dark and light ground.
_LABEL_COLOURS = tuple(f"\x1b[{code}m" for code in (34, 32, 35, 36, 33, 31))
_PIPE_WIDTH = 100  # columns of a table of entities where there is no terminal
_CALIBRATION_COLUMNS = ("before", "overall", "after", "chosen_on")
_CALIBRATION_KEYS = ("before", "one_threshold_held_out", "after_held_out", "after_same_texts")
_LEAST_WIDTH = 8  # columns that are left to each cell of a terminal that is too narrow


def can_show_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that takes colour and the user has not refused it.

    Source: https://no-color.org; TERM=dumb is the terminfo name of a terminal without any.
    """
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ


def render_entities(
    text: str,
    entities: Sequence[Entity],
    labels: Sequence[str],
    *,
    colour: bool,
    width: int | None = None,
) -> str:
    """A text and below it a row for each entity: what was found, as what, with which score.

    Args:
        text: The text that was read.
        entities: What was found in it.
        labels: All labels asked for; a label's place decides its colour.
        colour: Whether to use terminal colours.
        width: Columns that there are; what is longer is cut. None: no terminal, so 100.
    """
    width = width or _PIPE_WIDTH
    lines = [_paint(cut(clean(text), width), _BOLD, colour=colour)]
    names = _fit([clean(entity["label"]) for entity in entities], width // 3)
    name_width = measure(names[0]) if names else 0
    room = width - name_width - len("      0.00")  # with the gaps
    mentions = _fit([clean(entity["text"]) for entity in entities], room)
    for entity, mention, name in zip(entities, mentions, names, strict=True):
        shade = _LABEL_COLOURS[labels.index(entity["label"]) % len(_LABEL_COLOURS)]
        label = _paint(name, shade, colour=colour)
        score = _paint(f"{entity['score']:.2f}", _DIM, colour=colour)
        lines.append(f"  {mention}  {label}  {score}")
    if not entities:
        lines.append(_paint("  no entities", _DIM, colour=colour))
    return "\n".join(lines)


def render_relations(
    relations: Sequence[Relation], *, colour: bool, width: int | None = None
) -> str:
    """A row for each relation: from what to what, and with which score.

    Args:
        relations: What was found between the entities of a text.
        colour: Whether to use terminal colours.
        width: As in `render_entities`.
    """
    if not relations:
        return _paint("  no relations", _DIM, colour=colour)
    room = (width or _PIPE_WIDTH) - len("     ->    0.00")  # with the gaps
    heads = _fit([clean(own["head"]["text"]) for own in relations], room // 3)
    names = _fit([clean(own["relation"]) for own in relations], room // 3)
    tails = _fit([clean(own["tail"]["text"]) for own in relations], room // 3)
    return "\n".join(
        f"  {head}  {_paint(f'{name} ->', _DIM, colour=colour)}  {tail}  "
        + _paint(f"{own['score']:.2f}", _DIM, colour=colour)
        for own, head, name, tail in zip(relations, heads, names, tails, strict=True)
    )


def render_sections(
    sections: Sequence[Sequence[tuple[str, str]]], *, width: int | None = None
) -> str:
    """Names and values in two columns, a blank line between sections.

    Args:
        sections: Names and values.
        width: Columns that there are, into which long values are wrapped. None: each in a line.
    """
    name_width = max(measure(name) for section in sections for name, _ in section)
    blocks = []
    for section in sections:
        lines = []
        for name, value in section:
            text = clean(value)
            room = max(width - name_width - 2, _LEAST_WIDTH) if width else measure(text)
            first, *others = wrap(text, max(room, 2))
            lines.append(f"{pad(name, name_width)}  {first}")
            lines += [" " * (name_width + 2) + other for other in others]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def render_scores(scores: Sequence[Scores], *, per_type: bool, width: int | None = None) -> str:
    """One row for each dataset, in percent, and their average; its types below it if asked for.

    Args:
        scores: Of each dataset.
        per_type: Whether to tell of each type.
        width: Columns that there are; longer names are cut. None: no limit.
    """
    rows: list[tuple[str, ...]] = [("set", "sentences", "precision", "recall", "F1")]
    for each in scores:
        rows.append((clean(each.name), str(each.sentences), *_to_percents(each.total)))
        if per_type:
            rows += [
                (f"  {clean(label)}", f"{counts.annotated} spans", *_to_percents(counts))
                for label, counts in each.by_label.items()
            ]
    rows.append(("average", "", "", "", f"{100 * average_f1(scores):.1f}"))
    return _render_table(rows, width)


def render_calibration(calibration: Calibration, *, width: int | None = None) -> str:
    """F1 of each file in percent, as `FileReport` has it, and below it the thresholds.

    Args:
        calibration: What was chosen.
        width: Columns that there are; longer names are cut. None: no limit.
    """
    heads = ("before", "one threshold, held out", "after, held out", "after, same texts")
    rows: list[tuple[str, ...]] = [("set, F1", "sentences", *heads)]
    for file in calibration.files:
        figures = (f"{100 * getattr(file, column).f1:.1f}" for column in _CALIBRATION_COLUMNS)
        rows.append((clean(file.name), str(file.sentences), *figures))
    means = (f"{100 * calibration.average_f1(column):.1f}" for column in _CALIBRATION_COLUMNS)
    rows.append(("average", "", *means))
    thresholds = calibration.thresholds
    own = ", ".join(f"{clean(label)} {each:g}" for label, each in thresholds.by_prompt.items())
    section = [
        ("threshold", f"{thresholds.overall:g}"),
        ("of single labels", own or "none: too few entities, or no gain on held-out texts"),
    ]
    return f"{_render_table(rows, width)}\n\n{render_sections([section], width=width)}"


def calibration_to_json(calibration: Calibration) -> dict[str, object]:
    """The figures of `render_calibration` in percent, with two decimals, as JSON-ready values."""
    names = dict(zip(_CALIBRATION_COLUMNS, _CALIBRATION_KEYS, strict=True))
    return {
        "sets": {
            file.name: {
                "sentences": file.sentences,
                **{key: _to_figures(getattr(file, column)) for column, key in names.items()},
            }
            for file in calibration.files
        },
        "average_f1": {
            key: round(100 * calibration.average_f1(column), 2) for column, key in names.items()
        },
        "threshold": calibration.thresholds.overall,
        "label_thresholds": dict(calibration.thresholds.by_prompt),
    }


def _render_table(rows: Sequence[tuple[str, ...]], width: int | None) -> str:
    """Rows in columns, the first to the left and cut where it is too wide, the others right."""
    first, *others = zip(*rows, strict=True)
    aligned = [[cell.rjust(max(map(len, column))) for cell in column] for column in others]
    used = sum(2 + len(column[0]) for column in aligned)
    names = _fit(first, width - used if width else None)
    return "\n".join("  ".join(row) for row in zip(names, *aligned, strict=True))


def scores_to_json(scores: Sequence[Scores], *, per_type: bool) -> dict[str, object]:
    """The figures of `render_scores` in percent, with two decimals, as JSON-ready values."""
    sets: dict[str, Mapping[str, object]] = {}
    for each in scores:
        figures: dict[str, object] = {**_to_figures(each.total), "sentences": each.sentences}
        if per_type:
            figures["types"] = {
                label: {**_to_figures(counts), "spans": counts.annotated}
                for label, counts in each.by_label.items()
            }
        sets[each.name] = figures
    return {"sets": sets, "average_f1": round(100 * average_f1(scores), 2)}


def _to_percents(counts: Counts) -> tuple[str, str, str]:
    return (
        f"{100 * counts.precision:.1f}",
        f"{100 * counts.recall:.1f}",
        f"{100 * counts.f1:.1f}",
    )


def _to_figures(counts: Counts) -> dict[str, float]:
    return {
        "precision": round(100 * counts.precision, 2),
        "recall": round(100 * counts.recall, 2),
        "f1": round(100 * counts.f1, 2),
    }


def _fit(cells: Sequence[str], room: int | None) -> list[str]:
    """Cells padded to the widest of them, cut where that is wider than there is room for."""
    widest = max(map(measure, cells), default=0)
    width = widest if room is None else min(widest, max(room, _LEAST_WIDTH))
    return [pad(cut(cell, width), width) for cell in cells]


def _paint(text: str, code: str, *, colour: bool) -> str:
    return f"{code}{text}{_RESET}" if colour else text
