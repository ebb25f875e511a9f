"""One look for every figure: theme, palette, sizes, and a save that gives the same bytes for the same data."""

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours: told apart also by colour-blind readers and in grey."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RC = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}

COLUMN_WIDTH = 3.4
"""Inches; a paper's column. A figure's fonts are meant for this size times its number of panels."""


def new_figure(
    rows: int = 1, columns: int = 1, panel: tuple[float, float] = (COLUMN_WIDTH, 2.6)
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels in the suite's theme.

    Returns:
        The figure and its axes, row by row.
    """
    set_theme()
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [axis for row in axes for axis in row]


def set_theme() -> None:
    """Set the suite's look for the figures that follow."""
    import seaborn as sns  # it brings scipy.stats: a second that a run without pictures need not wait

    sns.set_theme(style="ticks", context="paper", font="DejaVu Sans", palette=PALETTE, rc=RC)


FEW_DECADES = 2000
"""Ratio of an axis's ends up to which ticks between the powers of ten have room."""


def plain_log_ticks(axis: Axes, *which: str, roomy_up_to: float = FEW_DECADES) -> None:
    """Label a logarithmic axis (`x`, `y`) with plain numbers at 1, 2 and 5 times powers of ten.

    To be called when everything is drawn: an axis of many decades has room for the powers alone.

    Args:
        axis: The axis.
        which: Sides of it.
        roomy_up_to: Ratio of a side's ends up to which there is room between the powers.
    """
    for name in which:
        side = axis.xaxis if name == "x" else axis.yaxis
        low, high = sorted(side.get_view_interval())
        side.set_major_locator(LogLocator(subs=(1.0,) if high > roomy_up_to * low > 0 else (1.0, 2.0, 5.0)))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())


def whiskers(
    axis: Axes,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    *,
    across: tuple[Sequence[float], Sequence[float]] | None = None,
    along: tuple[Sequence[float], Sequence[float]] | None = None,
) -> None:
    """Draw how uncertain points are: thin pale bars with caps, behind the points, without a place in the legend.

    Args:
        axis: The axis.
        x: Of the points.
        y: Of the points.
        colour: That of their line.
        across: Lower and upper ends in x.
        along: Lower and upper ends in y.
    """
    bars = [
        None if ends is None else np.abs(np.asarray(ends, dtype=float) - np.asarray(middle, dtype=float))
        for middle, ends in ((x, across), (y, along))
    ]
    style: dict[str, Any] = {"ecolor": colour, "elinewidth": 0.8, "capsize": 1.8, "capthick": 0.6}
    axis.errorbar(x, y, xerr=bars[0], yerr=bars[1], fmt="none", alpha=0.55, zorder=1.5, **style)


def shared_legend(figure: Figure, axes: Sequence[Axes], order: Sequence[str] = (), columns: int = 4) -> None:
    """Name the lines of all panels once, below them; a label's line is that of the first panel that has it.

    Args:
        figure: The figure.
        axes: Its panels.
        order: Labels in their order; those that are not drawn are left out. By default as they were drawn.
        columns: Of the legend.
    """
    drawn = [zip(*axis.get_legend_handles_labels(), strict=True) for axis in reversed(axes)]
    lines = {label: line for pairs in drawn for line, label in pairs}
    labels = [label for label in order or _labels(axes) if label in lines]
    figure.legend([lines[label] for label in labels], labels, loc="outside lower center", ncols=columns)


def _labels(axes: Sequence[Axes]) -> list[str]:
    return list(dict.fromkeys(label for axis in axes for label in axis.get_legend_handles_labels()[1]))


def panel_titles(axes: Iterable[Axes], titles: Iterable[str]) -> None:
    """Title the panels a, b, c, … on the left."""
    for letter, (axis, title) in zip("abcdefgh", zip(axes, titles, strict=False), strict=False):
        axis.set_title(f"{letter}  {title}", loc="left")


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG without date or random ids."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "repro", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG at 200 dots per inch."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()


def picture(figure: Figure) -> dict[str, bytes]:
    """The figure as `svg` and as `png`, laid out once for both: laying out takes longer than drawing.

    The figure keeps this layout.
    """
    svg = svg_bytes(figure)
    figure.set_layout_engine("none")
    return {"svg": svg, "png": png_bytes(figure)}
