"""Laws through measured points, with intervals: what grows how fast."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy


@dataclass(frozen=True)
class Fit:
    """A slope or an exponent with its 95 % interval by the residuals.

    Attributes:
        value: Least squares.
        low: Lower end.
        high: Upper end.
        intercept: At 0 (of the logarithms, for an exponent).
    """

    value: float
    low: float
    high: float
    intercept: float

    def __str__(self) -> str:
        value, low, high = (round(number, 2) + 0.0 for number in (self.value, self.low, self.high))  # no "-0.00"
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def deviation_interval(deviation: float, draws: int) -> tuple[float, float]:
    """The 95 % interval of a standard deviation by so many normal draws, from the quantiles of chi squared.

    Raises:
        ValueError: There are fewer than two draws.
    """
    if draws < 2:
        raise ValueError(f"a deviation needs at least 2 draws; got {draws}")
    low, high = (float(scipy.stats.chi2.ppf(level, draws - 1)) for level in (0.975, 0.025))
    return deviation * math.sqrt((draws - 1) / low), deviation * math.sqrt((draws - 1) / high)


def slope(x: Sequence[float | int], y: Sequence[float | int]) -> Fit:
    """Fit y = intercept + value · x.

    Raises:
        ValueError: There are fewer than three points, too few for an interval.
    """
    if len(x) < 3:
        raise ValueError(f"an interval needs at least 3 points; got {len(x)}")
    fit = scipy.stats.linregress(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    error = 0.0 if np.isnan(fit.stderr) else float(fit.stderr)  # of numbers that are all the same
    half = float(scipy.stats.t.ppf(0.975, len(x) - 2)) * error
    return Fit(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, float(fit.intercept))


def exponent(x: Sequence[float | int], y: Sequence[float | int]) -> Fit:
    """Fit y = c · x^value through the logarithms, so that every point has the same relative weight.

    Raises:
        ValueError: There are fewer than three points, or a number is not positive.
    """
    if min(*x, *y) <= 0:
        raise ValueError("an exponent needs positive numbers")
    return slope(list(np.log(x)), list(np.log(y)))


def cost_at(points: Sequence[tuple[float, float]], error: float) -> tuple[float | None, str]:
    """Interpolate the logarithm of a cost in the logarithm of the error.

    A point that is both dearer and less exact than another is left out, so that the cost grows as the error falls.

    Args:
        points: Error and cost of each setting.
        error: The error asked for, > 0.

    Returns:
        The cost, and how it was found: "interpolated"; "at most", where the cheapest point is as exact; or None and
        "not reached".
    """
    front: list[tuple[float, float]] = []
    for found, cost in sorted(points, key=lambda point: (point[1], point[0])):
        if math.isfinite(found) and (not front or found < front[-1][0]):
            front.append((max(found, 1e-300), cost))  # an error of 0 has no logarithm
    if not front or front[-1][0] > error:
        return None, "not reached"
    if front[0][0] <= error:
        return front[0][1], "at most"
    (loose, low), (tight, high) = next(pair for pair in pairwise(front) if pair[1][0] <= error)
    return low * (high / low) ** (math.log(loose / error) / math.log(loose / tight)), "interpolated"
