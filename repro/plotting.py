"""One look for every figure: theme, palette, sizes, and a save that gives the same bytes for the same data.

Densities and samples become small images before matplotlib sees them: a figure of many panels stays a small SVG, and
an animation needs no figure per frame.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from repro.animation import Animation
from repro.pixels import Grid, Levels, Points, colours, count_levels, density_levels, point_counts

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
    _set_theme()
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, [axis for row in axes for axis in row]


def _set_theme() -> None:
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


# --- densities and samples -------------------------------------------------------------------------------------------

SAMPLE_PIXELS = 128
"""Pixels on a side of a panel that shows a sample."""

GAP = 8
"""White pixels between the two pictures of a frame."""

FRAME_MILLISECONDS = 80
"""How long an animation shows a frame."""

RESTING_FRAMES = 8
"""Frames that a film rests on its last picture before the next film."""

CAPTION_SIZE = 6
"""Points; of the numbers below an image."""

EDGE = 216
"""Grey of the line around a picture."""


def quantised(densities: Float[np.ndarray, "*frames h w"]) -> UInt8[np.ndarray, "*frames h w"]:
    """Densities for pictures only, in a byte a cell: the square root, relative to each image's own maximum.

    Every picture has a scale of its own, so nothing that is seen gets lost; a number never comes from here.
    """
    peaks = densities.max(axis=(-2, -1), keepdims=True)
    return np.rint(255 * np.sqrt(densities / np.where(peaks > 0, peaks, 1))).astype(np.uint8)


def restored(images: UInt8[np.ndarray, "*frames h w"]) -> Float[np.ndarray, "*frames h w"]:
    """What `quantised` keeps: densities relative to their maximum."""
    return np.square(images / 255.0)


def density_panel(axis: Axes, density: Grid, window: float) -> None:
    """Show a density on [-window, window]^2, the first row at the bottom.

    White is none; a tenth of the mass lies where the colour is the darkest (`repro.pixels.full_scale`). Every panel has
    its own scale: a normal density and one of thin rings, whose peaks differ by orders of magnitude, are both seen.
    """
    _show(axis, density_levels(density), window)


def points_panel(axis: Axes, points: Points, window: float) -> None:
    """Show a sample on [-window, window]^2: the square root of the counts in small pixels.

    Few points look like dots, many like a density. It is an image: as vectors, thousands of dots would make the SVG a
    hundred times larger.
    """
    _show(axis, count_levels(point_counts(points, window, SAMPLE_PIXELS)), window)


def _show(axis: Axes, levels: Levels, window: float) -> None:
    extent = (-window, window, -window, window)
    # "none" leaves the pixels as they are: resampled ones would be blurred, and several times as many bytes
    axis.imshow(colours()[levels], origin="lower", extent=extent, interpolation="none", aspect="equal")
    _bare(axis)


def caption(axis: Axes, *lines: str) -> None:
    """Write numbers below an image in small print."""
    axis.set_xlabel("\n".join(lines), fontsize=CAPTION_SIZE, labelpad=2)


def _bare(axis: Axes) -> None:
    """Leave of an axis nothing but a thin square."""
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    axis.set_box_aspect(1)
    axis.spines[:].set(visible=True, color=f"{EDGE / 255:.3f}", linewidth=0.6)


def grid_figure(
    n_rows: int,
    n_columns: int,
    row_titles: Sequence[str],
    column_titles: Sequence[str],
    panel_size: float = 1.1,
    caption_lines: int = 0,
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure of equal square panels for images, rows named at the left and columns on top.

    Args:
        n_rows: number of rows.
        n_columns: number of columns.
        row_titles: one per row; a title may have several lines.
        column_titles: one per column.
        panel_size: inches on a side of a panel.
        caption_lines: lines of the longest `caption` below a panel, for which the rows make room.

    Returns:
        The figure and its empty axes, `axes[row][column]`.

    Raises:
        ValueError: if the titles are not as many as rows or columns.
    """
    _set_theme()
    letters = max((len(line) for title in row_titles for line in title.split("\n")), default=0)
    lines = max((title.count("\n") + 1 for title in column_titles if title), default=0)
    row_height = panel_size + caption_lines * 1.3 * CAPTION_SIZE / 72
    size = (panel_size * n_columns + 0.075 * letters + 0.15, row_height * n_rows + 0.16 * lines + 0.1)
    layout = ConstrainedLayoutEngine(compress=True, w_pad=0.025, h_pad=0.025, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=size, layout=layout)
    axes = [list(row) for row in figure.subplots(n_rows, n_columns, squeeze=False)]
    for axis in (axis for row in axes for axis in row):
        _bare(axis)
    for row, title in zip(axes, row_titles, strict=True):
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=5)
    for axis, title in zip(axes[0], column_titles, strict=True):
        axis.set_title(title, pad=4, fontweight="normal")
    return figure, axes


def density_frames(
    densities: Sequence[Grid] | Float[np.ndarray, "time height width"],
    points: Sequence[Points] | Float[np.ndarray, "time n 2"] | None,
    window: float,
    scale: int,
) -> UInt8[np.ndarray, "time tall wide 3"]:
    """Draw frames of an animation: the density at the left and, if there is one, the sample at the right.

    Args:
        densities: one square grid per frame on [-window, window]^2, the first row at the bottom; each frame has a scale
            of its own, as in `density_panel`.
        points: one sample per frame, or None; what lies outside the window is not seen.
        window: half of a picture's side.
        scale: pixels on a side of a grid point; between grid points the density is interpolated.

    Returns:
        RGB frames, `scale` times the grid's height; of so few colours that a GIF keeps them exactly.

    Raises:
        ValueError: if there is no density, or the samples are not as many.
    """
    if not len(densities):
        raise ValueError("an animation needs at least one density")
    left = np.stack([density_levels(density, scale) for density in densities])
    pictures = [_framed(left)]
    if points is not None:
        size = left.shape[1]
        counts = [point_counts(sample, window, size) for _, sample in zip(densities, points, strict=True)]
        right = count_levels(np.stack(counts))  # one scale for all: else dots would flicker
        pictures += [np.full((*left.shape[:2], GAP, 3), 255, np.uint8), _framed(right)]
    return np.concatenate(pictures, axis=2)


def animated(films: Sequence[tuple[Mapping[str, np.ndarray], float]], scale: int) -> Animation | None:
    """Show films one after another, each resting on its last frame; None if none of the runs published one.

    Args:
        films: the arrays of a run, of which `film_density` (quantised) and `film_points` are read, and its window.
        scale: as in `density_frames`.
    """
    parts = []
    for arrays, window in films:
        if "film_density" in arrays:
            images, points = restored(arrays["film_density"]), arrays["film_points"].astype(float)
            frames = density_frames(images, points, window, scale)
            parts += [frames, frames[-1:].repeat(RESTING_FRAMES, axis=0)]
    return Animation(np.concatenate(parts), FRAME_MILLISECONDS) if parts else None


def _framed(levels: Levels) -> UInt8[np.ndarray, "*shape 3"]:
    """Colours of pictures [time, row, column], upright, in a thin grey frame."""
    pictures = colours()[levels[:, ::-1]]
    pictures[:, [0, -1]] = EDGE
    pictures[:, :, [0, -1]] = EDGE
    return pictures
