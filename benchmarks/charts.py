"""Draw the benchmarks' pictures; needs the `benchmarks` extra, and only when one is drawn."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from textwrap import fill

HINT = "no picture is drawn without matplotlib; run: pip install 'nerlet[benchmarks]'"
_MARKERS = "os^"  # of points; each in ten colours


def can_draw() -> bool:
    """Whether matplotlib can be imported."""
    return find_spec("matplotlib") is not None


def draw_bars(
    path: Path,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    errors: Mapping[str, Sequence[float]] | None = None,
    upward: str = "F1, %",
) -> None:
    """Draw groups of bars, the same file for the same figures.

    Args:
        path: Of the picture; its suffix says the format.
        title: Above the picture.
        groups: Names under the groups of bars.
        series: Name -> a bar for each group; None for none.
        errors: Name -> half the length of each bar's error line.
        upward: What the vertical axis shows.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    width = 0.8 / len(series)
    with mpl.rc_context({"svg.hashsalt": "nerlet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(max(6.0, 1.1 * len(groups) + 2), 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (name, values) in enumerate(series.items()):
            places = [
                group + (number - (len(series) - 1) / 2) * width for group in range(len(groups))
            ]
            heights = [0.0 if value is None else value for value in values]
            error = errors[name] if errors else None
            axes.bar(places, heights, width, label=name, yerr=error, capsize=2)
        axes.set_xticks(range(len(groups)), [fill(name, 14) for name in groups], fontsize=8)
        axes.set_ylabel(upward)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_lines(
    path: Path, title: str, across: str, curves: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Draw F1 as curves, the same file for the same figures.

    Args:
        path: Of the picture; its suffix says the format.
        title: Above the picture.
        across: What the horizontal axis shows.
        curves: Name -> its points.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nerlet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.0, 3.8), layout="constrained")
        axes = figure.subplots()
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel(across)
        axes.set_ylabel("F1, %")
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def draw_points(
    path: Path,
    title: str,
    across: str,
    upward: str,
    panels: Mapping[str, Mapping[str, tuple[float, float]]],
) -> None:
    """Draw points in panels of the same axes, the same file for the same figures.

    Args:
        path: Of the picture; its suffix says the format.
        title: Above the picture.
        across: What the horizontal axes show.
        upward: What the vertical axis shows.
        panels: Name above each -> name of a point -> where it is; the same points in all.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nerlet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(2.6 * len(panels) + 2.4, 3.8), layout="constrained")
        row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
        for axes, (panel, points) in zip(row, panels.items(), strict=True):
            for number, (name, point) in enumerate(points.items()):
                style = {"color": f"C{number % 10}", "marker": _MARKERS[number // 10]}
                axes.plot(*point, linestyle="", label=name, **style)
            axes.set_title(panel, fontsize=9)
            axes.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(upward)
        figure.supxlabel(across, fontsize=10)
        figure.suptitle(title, fontsize=10)
        handles, names = row[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=7, frameon=False, loc="outside right center")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
