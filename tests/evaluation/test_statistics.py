"""Confidence intervals against SciPy's and against simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from repro.evaluation.statistics import (
    Interval,
    binomial_interval,
    crossed_interval,
    mean_source,
    student_interval,
    upper_bound,
    welch_half_width,
    welch_interval,
    z_statistic,
)

A, B = [10.3, 9.8, 10.1, 10.6], [9.7, 9.9, 9.2]


def test_welch_of_two_means_is_scipys():
    expected = stats.ttest_ind(A, B, equal_var=False).confidence_interval(0.95)
    interval = welch_interval(np.mean(A) - np.mean(B), mean_source(A), mean_source(B))
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_student_of_one_mean_is_scipys():
    expected = stats.ttest_1samp(A, 0.0).confidence_interval(0.95)
    interval = student_interval(A)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert student_interval([1.0]) is None


def test_the_upper_bound_is_the_one_sided_t_test_s():
    expected = stats.ttest_1samp(A, 0.0, alternative="less").confidence_interval(0.95)
    assert upper_bound(A) == pytest.approx(expected.high)


def test_a_source_of_exact_error_is_normal_and_none_is_zero():
    assert welch_half_width((0.5, math.inf)) == pytest.approx(stats.norm.ppf(0.975) * 0.5)
    assert welch_half_width((0.0, 3.0)) == welch_half_width() == 0


@pytest.mark.parametrize(
    ("interval", "margin", "inside"),
    [
        (Interval(0.0, -0.1, 0.1), 0.1, True),
        (Interval(0.0, -0.1, 0.1001), 0.1, False),
        (Interval(0.2, 0.1, 0.3), 0.25, False),
        (Interval(0.0, -math.inf, math.inf), 10.0, False),
    ],
)
def test_equivalence_asks_for_the_whole_interval(interval, margin, inside):
    assert interval.lies_within(margin) == (-interval).lies_within(margin) == inside


def errors_of(stream, n_seeds, n_points, rate, seed_spread, hard):
    """Simulate wrong answers: points of different difficulty, shared by all models, and a rate that varies by seed."""
    rates = rate + seed_spread * stream.standard_normal(n_seeds)
    logit = np.log(rates.clip(1e-4, 0.5) / (1 - rates.clip(1e-4, 0.5)))[:, None] + hard
    return {seed: stream.random(n_points) < 1 / (1 + np.exp(-row)) for seed, row in enumerate(logit)}


def test_paired_intervals_cover_a_difference_of_zero_and_are_narrower_than_unpaired_ones():
    stream = np.random.default_rng(0)
    covered, narrower = 0, 0
    for _ in range(200):
        hard = 3 * stream.standard_normal(2_000)
        first, second = (errors_of(stream, 5, 2_000, 0.02, 0.002, hard) for _ in range(2))
        interval = crossed_interval(first, second)
        covered += interval.low <= 0 <= interval.high
        rates = [np.mean(list(bits.values())) for bits in (first, second)]
        unpaired = welch_half_width(*((math.sqrt(rate * (1 - rate) / 2_000), math.inf) for rate in rates))
        narrower += interval.high - interval.value < unpaired
    assert covered >= 188  # 95 % of 200 less two standard deviations; the rule is conservative
    assert narrower > 150


def test_a_model_is_equal_to_itself_and_a_worse_one_is_apart():
    bits = {seed: np.arange(1_000) % 100 == seed for seed in range(3)}
    same = crossed_interval(bits, bits)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = {seed: errors | (np.arange(1_000) % 20 == 3) for seed, errors in bits.items()}
    assert crossed_interval(worse, bits).low > 0.02


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({0: np.zeros(3, bool)}, {1: np.zeros(3, bool)}, "seeds differ"),
        ({0: np.zeros(3, bool), 1: np.zeros(3, bool)}, {0: np.zeros(4, bool), 1: np.zeros(3, bool)}, "points differ"),
        ({0: np.zeros(3, bool)}, {0: np.zeros(3, bool)}, "at least two seeds"),
    ],
)
def test_what_cannot_be_paired_is_refused(first, second, words):
    with pytest.raises(ValueError, match=words):
        crossed_interval(first, second)


@pytest.mark.parametrize(("errors", "n"), [(42, 10_000), (0, 100), (100, 100), (1, 1), (160, 10_000)])
def test_the_binomial_interval_is_wilsons(errors, n):
    z, rate = stats.norm.ppf(0.975), errors / n
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n * n)) / (1 + z**2 / n)
    assert binomial_interval(errors, n) == pytest.approx((centre - half, centre + half), abs=1e-12)


@pytest.mark.parametrize(("errors", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_rejected(errors, n):
    with pytest.raises(ValueError, match="not a rate"):
        binomial_interval(errors, n)
    with pytest.raises(ValueError, match="not a rate"):
        z_statistic(0, errors, n)


def test_the_papers_three_mnist_errors_cannot_be_told_apart():
    for a, b in ((41, 42), (42, 47), (41, 47)):
        assert abs(z_statistic(a, b, 10_000)) < 1
        assert z_statistic(a, b, 10_000) == -z_statistic(b, a, 10_000) < 0
    assert z_statistic(160, 42, 10_000) > 8


def test_two_proportion_z_is_the_root_of_chi_squared():
    table = [[60, 940], [40, 960]]
    assert z_statistic(60, 40, 1000) ** 2 == pytest.approx(stats.chi2_contingency(table, correction=False)[0])
    assert z_statistic(0, 0, 10) == z_statistic(10, 10, 10) == 0
