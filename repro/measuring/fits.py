"""Laws through measured points, with intervals: what grows how fast."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


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
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def slope(x: Sequence[float | int], y: Sequence[float | int]) -> Fit:
    """Fit y = intercept + value · x.

    Raises:
        ValueError: There are fewer than three points, too few for an interval.
    """
    if len(x) < 3:
        raise ValueError(f"an interval needs at least 3 points; got {len(x)}")
    fit = stats.linregress(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    error = 0.0 if np.isnan(fit.stderr) else float(fit.stderr)  # of numbers that are all the same
    half = float(stats.t.ppf(0.975, len(x) - 2)) * error
    return Fit(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half, float(fit.intercept))


def exponent(x: Sequence[float | int], y: Sequence[float | int]) -> Fit:
    """Fit y = c · x^value through the logarithms, so that every point has the same relative weight.

    Raises:
        ValueError: There are fewer than three points, or a number is not positive.
    """
    if min(*x, *y) <= 0:
        raise ValueError("an exponent needs positive numbers")
    return slope(list(np.log(x)), list(np.log(y)))
