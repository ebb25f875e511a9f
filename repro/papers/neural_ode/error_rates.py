"""Test errors of Table 1's networks, and the difference of two of them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from repro.cases import at_most_partly
from repro.evaluation.statistics import crossed_interval, welch_half_width
from repro.experiment import Verdict
from repro.per_point import PER_POINT, load_correct
from repro.results import OK, final_values, results_root

TABLE1 = "neural_ode/table1_mnist"
CONVOLUTIONAL = ("resnet", "rknet", "odenet", "one_block", "no_block")
"""Table 1's cells whose test errors spread alike over seeds: all but the perceptron."""
LEAST_PAIRS = 3
"""Common seeds that a paired difference needs: with two, a single degree of freedom would decide."""


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
        pairs: Number of seeds over which it is paired; 0 where it is not.
    """

    value: float
    low: float
    high: float
    spread: float
    pairs: int = 0

    def judged(self, verdict: Verdict) -> Verdict:
        """A verdict by the interval; at most "partly" where the spread over seeds is unknown."""
        return at_most_partly(verdict) if np.isnan(self.spread) else verdict

    def __str__(self) -> str:
        over = "unknown and not in it" if np.isnan(self.spread) else f"{self.spread:.2f}, pooled"
        words = f"paired by {self.pairs} seeds and by image" if self.pairs else f"spread over seeds {over}"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}] points ({words})"


def compare_errors(rows: pd.DataFrame, first: str, second: str) -> Difference | None:
    """Compute the difference of two cells' test errors, first minus second; None if one of them has no run.

    With at least `LEAST_PAIRS` common seeds whose answers are recorded it is paired by seed and by test image, else the
    test sets are taken as independent (`difference`).
    """
    answers = [read_errors(rows, cell) for cell in (first, second)]
    common = sorted(set(answers[0]) & set(answers[1]))
    if len(common) >= LEAST_PAIRS:
        a, b = ({seed: bits[seed] for seed in common} for bits in answers)
        interval = crossed_interval(a, b)
        spread = float(np.std([100 * (a[seed].mean() - b[seed].mean()) for seed in common], ddof=1))
        return Difference(100 * interval.value, 100 * interval.low, 100 * interval.high, spread, len(common))
    a, b = error_rate(rows, first), error_rate(rows, second)
    return None if a is None or b is None else difference(a, b, seed_spread(rows))


def read_errors(rows: pd.DataFrame, cell: str) -> dict[int, np.ndarray]:
    """Read each seed's wrong answers of a cell, bool [test images], from its runs that recorded them.

    Of several machines the first by name counts.
    """
    runs = rows[(rows["experiment"] == TABLE1) & (rows["cell"] == cell) & (rows["status"] == OK)]
    first = runs.sort_values(["seed", "machine"]).drop_duplicates("seed")
    folders = {int(run["seed"]): results_root() / run["source"] / run["run"] for run in first.to_dict("records")}
    return {seed: ~load_correct(folder) for seed, folder in folders.items() if (folder / PER_POINT).exists()}


def difference(a: ErrorRate, b: ErrorRate, spread: tuple[float, int]) -> Difference:
    """Compute the difference a - b, with the two test sets taken as independent.

    They are the same images, which makes the true interval narrower.

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
