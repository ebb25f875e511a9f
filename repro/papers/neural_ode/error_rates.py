"""Test errors of Table 1's networks, and how far two of them are apart."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from repro.cases import at_most_partly
from repro.evaluation.statistics import welch_half_width
from repro.experiment import Verdict
from repro.results import final_values

TABLE1 = "neural_ode/table1_mnist"
CONVOLUTIONAL = ("resnet", "rknet", "odenet", "one_block", "no_block")
"""Table 1's cells whose test errors spread alike over seeds: all but the perceptron."""


@dataclass(frozen=True)
class ErrorRate:
    """Test error of a Table 1 cell: percent, mean over seeds, and the standard error of one test set."""

    percent: float
    of_test: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.percent:.2f} % ({self.seeds} seed{'s' if self.seeds > 1 else ''})"


def error_rate(rows: pd.DataFrame, cell: str) -> ErrorRate | None:
    """Error rate of a cell in one tier, or None if it has no run."""
    percent, images = (final_values(rows, TABLE1, cell, metric) for metric in ("test_error", "test_images"))
    if not percent:
        return None
    rate = float(np.mean(percent)) / 100
    return ErrorRate(100 * rate, 100 * float(np.sqrt(rate * (1 - rate) / round(images[0]))), len(percent))


def seed_spread(rows: pd.DataFrame) -> tuple[float, int]:
    """Standard deviation of a test error over seeds, in points, and its degrees of freedom; nan and 0 if unknown.

    Pooled over the convolutional networks of one tier: a network of one seed has no spread of its own.
    """
    errors = [final_values(rows, TABLE1, cell, "test_error") for cell in CONVOLUTIONAL]
    df = sum(len(values) - 1 for values in errors if values)
    squares = sum(float(np.var(values)) * len(values) for values in errors if values)
    return (float(np.sqrt(squares / df)), df) if df else (float("nan"), 0)


@dataclass(frozen=True)
class Difference:
    """A difference of two error rates in percentage points, with its 95 % interval.

    Attributes:
        value: of the means.
        low: End of the interval.
        high: Its other end.
        spread: Standard deviation over seeds that is in it; nan if none was known.
    """

    value: float
    low: float
    high: float
    spread: float

    def judged(self, verdict: Verdict) -> Verdict:
        """A verdict by the interval; at most "partly" where the spread over seeds is unknown."""
        return at_most_partly(verdict) if np.isnan(self.spread) else verdict

    def __str__(self) -> str:
        over = "unknown and not in it" if np.isnan(self.spread) else f"{self.spread:.2f}, pooled"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] points (spread over seeds {over})"


def difference(a: ErrorRate, b: ErrorRate, spread: tuple[float, int]) -> Difference:
    """The difference a - b.

    The two test sets are taken as independent; they are the same images, which makes the true interval narrower.

    Args:
        a: One network's.
        b: The other's.
        spread: As `seed_spread` gives it.
    """
    sources = [(a.of_test, np.inf), (b.of_test, np.inf)]
    if spread[1]:
        sources.append((spread[0] * float(np.sqrt(1 / a.seeds + 1 / b.seeds)), float(spread[1])))
    value, half = a.percent - b.percent, welch_half_width(*sources)
    return Difference(value, value - half, value + half, spread[0])
