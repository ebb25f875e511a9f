"""Confidence intervals of means, differences and error rates."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Bool
from scipy.special import stdtrit
from scipy.stats import binomtest

Source = tuple[float, float]
"""A source of noise: standard error and its degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its confidence interval, all in one unit."""

    value: float
    low: float
    high: float

    @property
    def finite(self) -> bool:
        """Check that neither value nor ends are infinite or nan."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))

    def lies_within(self, margin: float) -> bool:
        """Check that the interval is a part of [-margin, margin], up to the rounding of decimal fractions."""
        slack = 1e-9 * margin + 1e-12
        return -margin - slack <= self.low and self.high <= margin + slack

    def __neg__(self) -> "Interval":
        return Interval(-self.value, -self.high, -self.low)


def welch_half_width(*sources: Source, confidence: float = 0.95) -> float:
    """Compute half the width of the interval of a value with several independent sources of noise.

    Degrees of freedom by Welch and Satterthwaite, from shares of the variance, so that tiny errors do not underflow.

    Args:
        sources: Standard error and degrees of freedom (inf: exact) of each.
        confidence: Two-sided level.
    """
    total = math.hypot(*(error for error, _ in sources))
    if total == 0:
        return 0.0
    inverse_df = sum((error / total) ** 4 / df for error, df in sources)
    return float(stdtrit(1 / inverse_df if inverse_df else math.inf, (1 + confidence) / 2)) * total


def welch_interval(value: float, *sources: Source) -> Interval:
    """Compute the 95 % interval of a value; see `welch_half_width`."""
    half = welch_half_width(*sources)
    return Interval(value, value - half, value + half)


def mean_source(values: Sequence[float]) -> Source:
    """Compute the standard error of a mean of at least two values, with its degrees of freedom."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)), len(values) - 1.0


def student_interval(values: Sequence[float]) -> Interval | None:
    """Compute Student's 95 % interval of a mean; None for fewer than two values."""
    return welch_interval(fmean(values), mean_source(values)) if len(values) > 1 else None


def upper_bound(values: Sequence[float]) -> float:
    """Compute the one-sided 95 % upper confidence bound of a mean by Student's t.

    Args:
        values: At least two.
    """
    error, df = mean_source(values)
    return fmean(values) + float(stdtrit(df, 0.95)) * error


def crossed_interval(
    first: Mapping[int, Bool[np.ndarray, " _n"]], second: Mapping[int, Bool[np.ndarray, " _n"]]
) -> Interval:
    """Compute the 95 % interval of the difference of two error rates, paired by seed and by test point.

    The difference d[s, i] of seed s at test point i has a mean over both; its variance is that of the seeds' means over
    the number of seeds plus that of the points' means over the number of points. The residual of both is in either
    term and so counted twice: the interval is, if anything, too wide.

    Args:
        first: For each seed one bit per test point, true for a wrong answer.
        second: The same of the other model, for the same seeds (at least two) and points.

    Returns:
        First minus second, as a fraction.

    Raises:
        ValueError: Seeds or numbers of points differ, or there are fewer than two of either.
    """
    if sorted(first) != sorted(second):
        raise ValueError(f"seeds differ: {sorted(first)} and {sorted(second)}")
    sizes = {len(bits) for bits in (*first.values(), *second.values())}
    if len(sizes) != 1:
        raise ValueError(f"numbers of test points differ: {sorted(sizes)}")
    if len(first) < 2 or sizes.pop() < 2:
        raise ValueError("at least two seeds and two test points are needed")
    difference = np.stack([first[seed].astype(float) - second[seed].astype(float) for seed in sorted(first)])
    sources = [mean_source(difference.mean(axis).tolist()) for axis in (0, 1)]
    return welch_interval(float(difference.mean()), *sources)


def binomial_interval(errors: int, n: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of an error rate, as fractions.

    Near 0 % (0.4 % of 10,000 test images) the usual p ± 1.96 s.e. is lopsided and can be negative, while the interval
    of Clopper and Pearson covers more than 95 %.

    Args:
        errors: Wrong answers, 0 … n.
        n: Test points, at least 1.

    Raises:
        ValueError: The counts are no rate.
    """
    if not 0 <= errors <= n or n < 1:
        raise ValueError(f"{errors} errors of {n} is not a rate")
    interval = binomtest(errors, n).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def z_statistic(errors_a: int, errors_b: int, n: int) -> float:
    """Compute the pooled two-proportion z statistic of two error counts on n test points each.

    |z| < 1.96 cannot be told apart: the paper's MNIST errors of 0.41, 0.42 and 0.47 % on 10,000 images differ by less
    than one standard error. On the same test points errors coincide, so that |z| may be larger in truth; see
    `crossed_interval`, which needs both models' answers.

    Args:
        errors_a: Wrong answers of the first model.
        errors_b: Wrong answers of the second.
        n: Test points, at least 1.

    Returns:
        Positive where the first model errs more often.

    Raises:
        ValueError: The counts are no rates.
    """
    for errors in (errors_a, errors_b):
        binomial_interval(errors, n)
    pooled = (errors_a + errors_b) / (2 * n)
    variance = 2 * pooled * (1 - pooled) / n
    return (errors_a - errors_b) / n / math.sqrt(variance) if variance else 0.0
