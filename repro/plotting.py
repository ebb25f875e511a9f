"""One look for every figure: theme, palette, sizes, and a save that gives the same bytes for the same data."""

import io
from collections.abc import Iterable

import matplotlib as mpl
import seaborn as sns
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
    sns.set_theme(style="ticks", context="paper", font="DejaVu Sans", palette=PALETTE, rc=RC)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [axis for row in axes for axis in row]


def plain_log_ticks(axis: Axes, *which: str) -> None:
    """Label a logarithmic axis (`x`, `y`) with plain numbers at 1, 2 and 5 times powers of ten."""
    for name in which:
        side = axis.xaxis if name == "x" else axis.yaxis
        side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        side.set_minor_formatter(NullFormatter())


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
