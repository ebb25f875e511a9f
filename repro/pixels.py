"""Densities and samples as small images of few colours: arrays in, colour levels out, without a figure."""

import functools

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int, UInt8

Grid = Float[np.ndarray, "height width"]
"""A density on a regular grid, of any unit; the first row is the lowest."""

Points = Float[np.ndarray, "n 2"]
Levels = Int[np.ndarray, "*shape"]
"""Rows of `colours()`."""

LEVELS = 64
"""Colours of a density: the steps are hardly seen, and files stay small."""

STEPS = 6
"""Colours of a sample: noise is most of its file."""


@functools.cache
def colours() -> UInt8[np.ndarray, "level 3"]:
    """RGB of every level: perceptually uniform, from the paper's white at no density to dark blue.

    After a little white it is seaborn's mako from light to dark, at one slope of lightness.
    """
    import seaborn  # noqa: F401 (registers mako; it brings scipy.stats, a second that only pictures should cost)

    white = round(0.06 * LEVELS)  # mako begins at a lightness of 94 out of 100
    mako = mpl.colormaps["mako_r"](np.linspace(0.0, 0.9, LEVELS - white))[:, :3]  # the rest is hardly told from black
    share = np.arange(white)[:, None] / white
    return np.round(255 * np.concatenate([1 - share * (1 - mako[0]), mako])).astype(np.uint8)


def full_scale(density: Float[np.ndarray, "*shape"]) -> float:
    """The density that gets the darkest colour: a tenth of the mass lies where it is at least as dense.

    So a single extreme pixel can't make the rest pale, and a flat density is dark everywhere.
    """
    falling = np.sort(density[density > 0])[::-1]
    mass = falling.cumsum()
    return float(falling[np.searchsorted(mass, 0.1 * mass[-1])]) if len(falling) else 0.0


def quantised(densities: Float[np.ndarray, "*frames h w"]) -> UInt8[np.ndarray, "*frames h w"]:
    """Densities for pictures only, in a byte a cell: the square root, relative to each image's own maximum.

    Every picture has a scale of its own, so nothing that is seen gets lost; a number never comes from here.
    """
    peaks = densities.max(axis=(-2, -1), keepdims=True)
    return np.rint(255 * np.sqrt(densities / np.where(peaks > 0, peaks, 1))).astype(np.uint8)


def restored(images: UInt8[np.ndarray, "*frames h w"]) -> Float[np.ndarray, "*frames h w"]:
    """What `quantised` keeps: densities relative to their maximum."""
    return np.square(images / 255.0)


def density_levels(density: Grid, scale: int = 1) -> Levels:
    """Levels of a density, `full_scale` the darkest, with `scale` pixels on each side of a grid point.

    A value that is not finite counts as no density.
    """
    density = np.where(np.isfinite(density), density, 0.0).astype(np.float64)
    if scale > 1:
        density = _finer(_finer(density, scale).T, scale).T
    return _levels(density / (full_scale(density) or 1.0))


def _finer(density: Grid, scale: int) -> Float[np.ndarray, "finer width"]:
    """Interpolate linearly between the rows' centres, `scale` rows for each; beyond the outer centres all is flat."""
    n = len(density)
    place = np.clip((np.arange(n * scale) + 0.5) / scale - 0.5, 0, n - 1)
    below = np.minimum(place.astype(np.int64), max(n - 2, 0))
    share = (place - below)[:, None]
    return (1 - share) * density[below] + share * density[np.minimum(below + 1, n - 1)]


def _levels(share: Float[np.ndarray, "*shape"]) -> Levels:
    return np.round((LEVELS - 1) * np.clip(share, 0.0, 1.0)).astype(np.int64)


def point_counts(points: Points, window: float, size: int) -> Float[np.ndarray, "size size"]:
    """Count the points in each of size x size pixels of [-window, window]^2, the lowest row first."""
    pixel = (points + window) * (size / (2 * window))
    inside = ((pixel >= 0) & (pixel < size)).all(axis=1)  # never so for NaN
    column, row = pixel[inside].astype(np.int64).T
    return np.bincount(row * size + column, minlength=size * size).reshape(size, size).astype(np.float64)


def count_levels(counts: Float[np.ndarray, "*shape"]) -> Levels:
    """Levels of the counts' square roots, whose noise is the same everywhere.

    The darkest stands for `full_scale`, and for four points at least: one alone is seen and looks like others alone.
    """
    share = np.sqrt(counts / max(full_scale(counts), 4.0))
    return _levels(np.round(STEPS * share) / STEPS)
