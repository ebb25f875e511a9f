"""Ours against the paper's: one rule that says how a number of ours compares with a published one.

The rule was fixed before any run (see `verdict`), so that nobody can choose a tolerance after seeing a result.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from scipy.special import ndtri, stdtrit

from repro.metrics import standard_error
from repro.published import Published, PublishedError, load_published

__all__ = [
    "Published",
    "PublishedError",
    "Status",
    "Verdict",
    "binomial_interval",
    "error_verdict",
    "load_published",
    "verdict",
    "welch_half_width",
    "z_statistic",
]

Status = Literal["match", "better", "worse", "differs", "inconclusive", "not comparable", "not run"]

_SINGLE_SEED_SPREADS = 3.0  # how many spreads away one seed must lie to say anything


@dataclass(frozen=True)
class Verdict:
    """How ours compares with the paper's.

    Attributes:
        status: The answer.
        difference: Mean of ours minus the paper's; None if one of them is missing.
        tolerance: Up to which difference they count as equal; None where that was not asked.
        note: The reason, one line.
    """

    status: Status
    difference: float | None
    tolerance: float | None
    note: str


def verdict(
    published: Published,
    ours: Sequence[float],
    *,
    tier: str,
    comparable: bool = True,
    common_error: float = 0.0,
    n_published: int | None = None,
    deterministic: bool = False,
) -> Verdict:
    """Compare our runs with a published number.

    The rule, fixed before the runs; d = mean of ours − published, the first that applies:

    1. No value of ours: `not run`. No printed number: `not comparable`.
    2. A tier other than `paper`, or `comparable` false, unless `deterministic`: `not comparable`.
    3. A value of ours is not finite: `inconclusive`.
    4. `deterministic`: `match` if |d| is at most half a unit of the last printed digit, else `better` or `worse`.
    5. One run: `better` or `worse` if |d| is above half a printed unit and above 3 spreads, the spread being the
       paper's with `common_error`; otherwise, and always if neither is known, `inconclusive`. One run never matches.
    6. Several runs: the tolerance is the larger of half a printed unit and the half-width of Welch's 95 % t-interval
       for the difference of the means, to whose variance `common_error` adds with infinitely many degrees of freedom.
       `match` if |d| is at most the tolerance, else `better` or `worse`.

    The paper's spread is the standard deviation over `n_published` runs, by default over 3 for what FFJORD's authors
    ran. One over test points, or over who knows what, counts as 2 standard errors of the mean. A number without spread
    adds nothing to the interval. Where `better` is empty, `differs` replaces better and worse.

    Args:
        published: The paper's number.
        ours: One value per seed, in the published unit.
        tier: The tier of our runs.
        comparable: Whether data and protocol are the paper's.
        common_error: A known standard error that all runs share, such as a test set's: more of them don't shrink it.
        n_published: The number of runs behind the paper's spread, at least 2.
        deterministic: Whether the quantity has no noise, such as a parameter count; it then compares at any tier.

    Raises:
        ValueError: If `common_error` is negative or not finite, or `n_published` is below 2.
    """
    if not 0 <= common_error < math.inf:
        raise ValueError(f"common_error is {common_error}, expected a finite number, not negative")
    if len(ours) == 0:
        return Verdict("not run", None, None, "no run of ours")
    if published.value is None:
        return Verdict("not comparable", None, None, "the paper prints no number")
    difference, half_unit = fmean(ours) - published.value, published.printed_half_unit
    if not deterministic and (tier != "paper" or not comparable):
        reason = f"tier {tier}" if tier != "paper" else "data or protocol differ from the paper's"
        return Verdict("not comparable", difference, None, reason)
    if not math.isfinite(difference):
        return Verdict("inconclusive", None, None, "a value of ours is not finite")
    if deterministic:
        return _judge(published, difference, half_unit, "no noise, so rounding alone may differ")
    return _judge_noisy(published, ours, difference, common_error, n_published)


def _judge_noisy(
    published: Published, ours: Sequence[float], difference: float, common_error: float, n_published: int | None
) -> Verdict:
    """Apply the rule's points 5 and 6."""
    if len(ours) == 1:
        known = published.spread is not None or common_error > 0
        return _judge_one(published, difference, math.hypot(published.spread or 0.0, common_error) if known else None)
    ours_and_theirs = (standard_error(ours), len(ours) - 1.0), _published_error(published, n_published)
    half_width = welch_half_width(*ours_and_theirs, (common_error, math.inf))
    return _judge(published, difference, max(published.printed_half_unit, half_width), f"{len(ours)} runs of ours")


def _judge_one(published: Published, difference: float, spread: float | None) -> Verdict:
    """Judge a single run: beyond a plausible spread, or inconclusive."""
    tolerance = max(published.printed_half_unit, _SINGLE_SEED_SPREADS * (spread or 0.0))
    if spread is None or _within(difference, tolerance):
        reason = "one run, no spread known" if spread is None else "one run within 3 spreads"
        return Verdict("inconclusive", difference, tolerance, reason)
    return _judge(published, difference, tolerance, "one run beyond 3 spreads")


def _judge(published: Published, difference: float, tolerance: float, note: str) -> Verdict:
    """Turn difference and tolerance into match, better or worse."""
    if _within(difference, tolerance):
        return Verdict("match", difference, tolerance, note)
    if not published.better:
        return Verdict("differs", difference, tolerance, f"{note}; neither direction is better")
    improved = (difference < 0) == (published.better == "lower")
    return Verdict("better" if improved else "worse", difference, tolerance, note)


def _within(difference: float, tolerance: float) -> bool:
    """Compare with the slack that decimal fractions need in binary: 0.425 − 0.42 is not above 0.005."""
    return abs(difference) <= tolerance or math.isclose(abs(difference), tolerance, rel_tol=1e-9, abs_tol=1e-12)


def _published_error(published: Published, n: int | None) -> tuple[float, float]:
    """Give the standard error of the paper's mean and its degrees of freedom."""
    if published.spread is None:
        return 0.0, math.inf
    n = published.n_runs if n is None else n
    if n is None:
        return published.spread / 2, math.inf
    if n < 2:
        raise ValueError(f"n_published is {n}, but a spread needs at least 2 runs")
    return published.spread / math.sqrt(n), float(n - 1)


def welch_half_width(*sources: tuple[float, float]) -> float:
    """Half-width of the 95 % interval of a value that several independent sources of noise move.

    Args:
        sources: Of each its standard error and the degrees of freedom with which that is known.
    """
    total = math.hypot(*(error for error, _ in sources))
    if total == 0:
        return 0.0
    # Welch–Satterthwaite, with shares of the variance so that tiny errors do not underflow
    inverse_df = sum((error / total) ** 4 / df for error, df in sources)
    return float(stdtrit(1 / inverse_df if inverse_df else math.inf, 0.975)) * total


def error_verdict(
    published: Published, ours: Sequence[float], n_test: int, *, tier: str, comparable: bool = True
) -> Verdict:
    """Compare error rates in percent on `n_test` test points: `verdict`, with the test set's size as a source of noise.

    A rate p has the standard error sqrt(p (1 - p) / n), on both sides, which more seeds don't make smaller: they are
    all measured on the same points. The paper's number gets it too unless it prints a spread of its own.

    Args:
        published: The paper's error in percent.
        ours: One value per seed, in percent.
        n_test: The number of test points, of both.
        tier: The tier of our runs.
        comparable: Whether data and protocol are the paper's.
    """
    if len(ours) == 0 or published.value is None:
        return verdict(published, ours, tier=tier, comparable=comparable)
    of_test = _binomial_error(fmean(ours), n_test)
    theirs = _binomial_error(published.value, n_test) if published.spread is None else 0.0
    return verdict(published, ours, tier=tier, comparable=comparable, common_error=math.hypot(of_test, theirs))


def _binomial_error(percent: float, n: int) -> float:
    rate = min(max(percent / 100, 0.0), 1.0)
    return 100 * math.sqrt(rate * (1 - rate) / n)


def binomial_interval(errors: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for an error rate, as fractions.

    Wilson's, because near 0 % (0.4 % of 10,000 test images) the usual p ± 1.96 s.e. is lopsided and can be negative,
    while Clopper and Pearson's covers more than the 95 % asked for.

    Args:
        errors: Wrong answers, 0 … n.
        n: Test points, at least 1.
    """
    if not 0 <= errors <= n or n < 1:
        raise ValueError(f"{errors} errors of {n} is not a rate")
    rate, z2 = errors / n, float(ndtri(0.975)) ** 2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half_width = math.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return (0.0 if errors == 0 else centre - half_width), (1.0 if errors == n else centre + half_width)


def z_statistic(errors_a: int, errors_b: int, n: int) -> float:
    """Two-proportion z statistic (pooled) of two error counts, each on n test points; |z| < 1.96 cannot be told apart.

    The paper's MNIST errors of 0.41, 0.42 and 0.47 % on 10,000 images differ by less than one standard error of the
    difference. On the *same* test points errors coincide, so the true statistic may be larger in size; that would need
    the predictions (McNemar's test), which the paper does not give.

    Args:
        errors_a: Wrong answers of the first model.
        errors_b: Wrong answers of the second.
        n: Test points, at least 1.

    Returns:
        Positive where the first model errs more often.
    """
    for errors in (errors_a, errors_b):
        binomial_interval(errors, n)  # raises for impossible counts
    pooled = (errors_a + errors_b) / (2 * n)
    variance = 2 * pooled * (1 - pooled) / n
    return (errors_a - errors_b) / n / math.sqrt(variance) if variance else 0.0
