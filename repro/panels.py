"""Panels and films of densities and samples.

They become small images before matplotlib sees them: a figure of many panels stays a small SVG, and an animation needs
no figure per frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from repro.animation import Animation
from repro.pixels import Grid, Levels, Points, colours, count_levels, density_levels, point_counts, restored
from repro.plotting import set_theme

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
    set_theme()
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
