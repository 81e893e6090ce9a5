"""Lay out what the `nerlet` command prints for people: tables, with colour where it shows."""

import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TextIO

from nerlet.bundle import MANIFEST_NAME, Bundle
from nerlet.entities import Entity
from nerlet.evaluate import Counts, Scores, average_f1

_RESET = "\x1b[0m"
_BOLD = "\x1b[1m"
_DIM = "\x1b[2m"
# Blue, green, magenta, cyan, yellow, red: readable on dark and light ground.
_LABEL_COLOURS = tuple(f"\x1b[{code}m" for code in (34, 32, 35, 36, 33, 31))
_HEADING_WIDTH = 100  # columns of a text that are shown above its entities


def can_show_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that takes colour and the user has not refused it.

    Source: https://no-color.org; TERM=dumb is the terminfo name of a terminal without any.
    """
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return os.name != "nt" or "WT_SESSION" in os.environ


def render_entities(
    text: str, entities: Sequence[Entity], labels: Sequence[str], *, colour: bool
) -> str:
    """A text and below it a row for each entity: what was found, as what, with which score.

    Args:
        text: The text that was read.
        entities: What was found in it.
        labels: All labels asked for; a label's place decides its colour.
        colour: Whether to use terminal colours.
    """
    lines = [_paint(_cut(_clean(text), _HEADING_WIDTH), _BOLD, colour=colour)]
    mentions = [_clean(entity["text"]) for entity in entities]
    names = [_clean(entity["label"]) for entity in entities]
    mention_width = max(map(_measure, mentions), default=0)
    name_width = max(map(_measure, names), default=0)
    for entity, mention, name in zip(entities, mentions, names, strict=True):
        shade = _LABEL_COLOURS[labels.index(entity["label"]) % len(_LABEL_COLOURS)]
        label = _paint(_pad(name, name_width), shade, colour=colour)
        score = _paint(f"{entity['score']:.2f}", _DIM, colour=colour)
        lines.append(f"  {_pad(mention, mention_width)}  {label}  {score}")
    if not entities:
        lines.append(_paint("  no entities", _DIM, colour=colour))
    return "\n".join(lines)


def describe_bundle(bundle: Bundle) -> list[tuple[str, str]]:
    """What a model directory is, as names and values."""
    manifest = bundle.manifest
    if manifest is None:
        told = [
            ("name", bundle.path.resolve().name),
            ("origin", f"a GLiNER export without {MANIFEST_NAME}: not recorded, nor the licence"),
            ("architecture", "span"),
        ]
    else:
        told = [
            ("name", manifest.name),
            ("origin", manifest.origin),
            ("licence", manifest.license),
            ("architecture", manifest.architecture),
            ("precision", manifest.precision),
            ("word shapes", "yes" if manifest.word_shapes else "no"),
            ("labels", f"up to {manifest.max_types} in training, {manifest.label_attention}"),
        ]
    size = sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file())
    positions = bundle.max_positions
    return [
        *told,
        ("directory", str(bundle.path)),
        ("size on disk", f"{_to_size(size)}, graph {_to_size(bundle.graph_path.stat().st_size)}"),
        ("longest text", f"{bundle.max_len} words"),
        ("longest prompt", "no limit" if positions is None else f"{positions} pieces"),
        ("widest entity", f"{bundle.max_width} words"),
        ("threshold", "0.5" if bundle.threshold is None else f"{bundle.threshold:g}"),
        *(_flatten(manifest.figures) if manifest else []),
    ]


def render_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    width = max((_measure(name) for name, _ in pairs), default=0)
    return "\n".join(f"{_pad(name, width)}  {value}" for name, value in pairs)


def render_scores(scores: Sequence[Scores], *, per_type: bool) -> str:
    """One row for each dataset, in percent, and their average; its types below it if asked for."""
    rows: list[tuple[str, ...]] = [("set", "sentences", "precision", "recall", "F1")]
    for each in scores:
        rows.append((each.name, str(each.sentences), *_to_percents(each.total)))
        if per_type:
            rows += [
                (f"  {_clean(label)}", f"{counts.annotated} spans", *_to_percents(counts))
                for label, counts in each.by_label.items()
            ]
    rows.append(("average", "", "", "", f"{100 * average_f1(scores):.1f}"))
    widths = [max(map(_measure, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                _pad(row[0], widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    )


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


def _flatten(figures: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested figures as names joined by spaces, with their values."""
    pairs: list[tuple[str, str]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping):
            pairs += _flatten(value, f"{prefix}{name} ")
        else:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            pairs.append((f"{prefix}{name}", text))
    return pairs


def _to_size(count: int) -> str:
    """A number of bytes in MB, or kB where that is more telling."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


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


def _paint(text: str, code: str, *, colour: bool) -> str:
    return f"{code}{text}{_RESET}" if colour else text


def _clean(text: str) -> str:
    """A text on one line, without characters that would steer the terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _measure(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters two, combining ones none."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.category(character) in ("Mn", "Me") for character in text)
    return len(text) + wide - marks


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _measure(text))


def _cut(text: str, width: int) -> str:
    """A text that fits into so many columns, its lost end shown as an ellipsis."""
    if _measure(text) <= width:
        return text
    kept = text[: width - 1]
    while _measure(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"
